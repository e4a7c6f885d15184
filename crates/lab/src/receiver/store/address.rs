//! The address of a store, as it is written on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where records are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreAddress {
    /// `memory`: the records end with the receiver.
    Memory,
    /// `sqlite://FILE`. The file is created if it does not exist.
    Sqlite(PathBuf),
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. The database has to exist; the tables are created in it.
    Postgres(String),
}

/// A text is no address of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write memory, sqlite://FILE or postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
pub struct StoreAddressError;

impl FromStr for StoreAddress {
    type Err = StoreAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", file)) if !file.is_empty() => Ok(Self::Sqlite(PathBuf::from(file))),
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
                Ok(Self::Postgres(text.to_owned()))
            }
            _ => Err(StoreAddressError),
        }
    }
}

/// Without user and password.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => write!(f, "memory"),
            Self::Sqlite(file) => write!(f, "sqlite://{}", file.display()),
            Self::Postgres(url) => {
                let place = url
                    .rsplit_once('@')
                    .map_or_else(|| url.split_once("://").map_or("", |(_, place)| place), |(_, place)| place);
                write!(f, "postgres://{}", place.split('?').next().unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_and_never_show_a_password() {
        let check = |text: &str, shown: &str| {
            let address: StoreAddress = text.parse().unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        };
        check("memory", "memory");
        check("sqlite://records.db", "sqlite://records.db");
        check("sqlite:///var/lib/records.db", "sqlite:///var/lib/records.db");
        check("postgres://me:secret@db:5432/crm?sslmode=require", "postgres://db:5432/crm");
        check("postgresql://me:p%40ss@db/crm", "postgres://db/crm");
        check("postgres:///crm?user=me&password=secret", "postgres:///crm");
        for text in ["", "Memory", "sqlite://", "postgres://", "mysql://db/crm", "records.db"] {
            assert_eq!(text.parse::<StoreAddress>(), Err(StoreAddressError), "{text:?}");
        }
    }
}
