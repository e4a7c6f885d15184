//! `lanekeeper check --against-running`: asks the running process what its config file would change.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::exit::Exit;
use super::process::{print, say_error, tokio_runtime};
use crate::admin::{Compared, ComparedChange, ConfigAnswer, command_of};
use crate::config::{AdminConfig, Purpose, TakesEffect};
use crate::doctor::running::{ask, of_this_host};

/// `purpose`: what the file is for; `admin`: where it says that the process listens, and whether it speaks TLS there.
pub(super) fn main(purpose: Purpose, admin: &AdminConfig, json: bool) -> Exit {
    let Some(listen) = admin.listen else {
        say_error(
            "error: admin.listen is \"\", so the running process cannot be asked; set it, and restart the process",
        );
        return Exit::Config;
    };
    let address = of_this_host(listen);
    match tokio_runtime().block_on(ask(admin, address)) {
        Err(why) => {
            say_error(format_args!(
                "error: the process at {address} (admin.listen) cannot be asked: {why}; is it running, on this host, with this \
                 admin.listen?"
            ));
            Exit::Other
        }
        Ok(ConfigAnswer { purpose: other, .. }) if other != command_of(purpose) => {
            let wanted = command_of(purpose);
            say_error(format_args!(
                "error: the process at {address} (admin.listen) is a `lanekeeper {other}`, and this file is for `lanekeeper {wanted}`: \
                 give each process on a host an admin.listen of its own"
            ));
            Exit::Other
        }
        Ok(ConfigAnswer { compared: Compared::Faults(faults), .. }) => {
            say_error(format_args!("{faults}"));
            Exit::Config
        }
        Ok(ConfigAnswer { compared: Compared::Changes(changes), .. }) => {
            let exit = if changes.is_empty() { Exit::Done } else { Exit::Pending };
            if json {
                let changes = serde_json::json!({ "changes": changes });
                return print(&format!("{changes:#}\n"), exit);
            }
            print(&as_text(address, &changes), exit)
        }
    }
}

fn as_text(address: SocketAddr, changes: &[ComparedChange]) -> String {
    if changes.is_empty() {
        return format!("The process at {address} runs with what its config file has.\n");
    }
    let width = changes.iter().map(|change| change.key.len()).max().unwrap_or_default();
    let mut text =
        format!("The config file of the process at {address} has other values than those in force:\n");
    for ComparedChange { key, takes_effect } in changes {
        let _ = writeln!(text, "  {key:width$}  {}", takes_effect.text());
    }
    let needs_restart = changes.iter().any(|change| change.takes_effect == TakesEffect::AtTheNextStart);
    text + if needs_restart {
        "SIGHUP applies none of them, since some take effect only after a restart.\n"
    } else {
        "SIGHUP applies them.\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_listed_with_their_time() {
        let change = |key: &str, takes_effect| ComparedChange { key: key.to_owned(), takes_effect };
        let address = of_this_host("0.0.0.0:9419".parse().unwrap());
        let mut changes = vec![
            change("target[0].url", TakesEffect::AtOnce),
            change("retry.jitter", TakesEffect::WhenAttachedAgain),
        ];
        insta::assert_snapshot!(as_text(address, &changes), @r"
        The config file of the process at 127.0.0.1:9419 has other values than those in force:
          target[0].url  with the next attempt
          retry.jitter   after all partitions were attached again
        SIGHUP applies them.
        ");
        changes.push(change("updates.exchange", TakesEffect::AtTheNextStart));
        assert!(as_text(address, &changes).ends_with("only after a restart.\n"));
        assert_eq!(
            as_text(of_this_host("[::]:1".parse().unwrap()), &[]),
            "The process at [::1]:1 runs with what its config file has.\n"
        );
    }
}
