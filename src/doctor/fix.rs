//! Steps that remove a danger: a command to run, a line of the config, or something else to do.

use std::fmt;

use serde::Serialize;

use super::facts::{Binding, Consumer, DestinationKind, Management, PolicyKind, PolicyName};
use crate::printable::printable;

/// A step that removes a danger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fix {
    /// A shell command.
    Run(String),
    /// A line of the config.
    Config(String),
    /// Something else to do, in words.
    Do(String),
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(command) => write!(f, "$ {command}"),
            Self::Config(line) => write!(f, "config: {line}"),
            Self::Do(what) => f.write_str(what),
        }
    }
}

/// Removes a policy.
pub(super) fn clear_policy(vhost: &str, policy: &PolicyName) -> Fix {
    let verb = match policy.kind {
        PolicyKind::Policy => "clear_policy",
        PolicyKind::OperatorPolicy => "clear_operator_policy",
    };
    Fix::Run(format!("rabbitmqctl {verb} --vhost {} {}", quoted(vhost), quoted(&policy.name)))
}

/// Removes a binding. `rabbitmqctl` cannot do it; curl asks for the password.
pub(super) fn unbind(management: &Management, vhost: &str, binding: &Binding) -> Fix {
    let to = match binding.to {
        DestinationKind::Queue => 'q',
        DestinationKind::Exchange => 'e',
    };
    delete(
        (&management.url, &management.user),
        &format!(
            "bindings/{}/e/{}/{to}/{}/{}",
            segment(vhost),
            segment(&binding.source),
            segment(&binding.destination),
            segment(&binding.properties_key)
        ),
    )
}

/// Closes a consumer's connection; `None`: its name is not known.
pub(super) fn disconnect(management: &Management, consumer: &Consumer) -> Option<Fix> {
    let connection = consumer.connection.as_deref()?;
    Some(delete((&management.url, &management.user), &format!("connections/{}", segment(connection))))
}

fn delete((url, user): (&str, &str), path: &str) -> Fix {
    let url = format!("{url}/api/{path}");
    Fix::Run(format!("curl --user {} --request DELETE {}", quoted(user), quoted(&url)))
}

/// Deletes an exchange. `url` of the management API, and the user there.
pub(super) fn delete_exchange((url, user): (&str, &str), vhost: &str, exchange: &str) -> Fix {
    delete((url, user), &format!("exchanges/{}/{}", segment(vhost), segment(exchange)))
}

/// Deletes a queue with its messages.
pub(super) fn delete_queue(vhost: &str, queue: &str) -> Fix {
    Fix::Run(format!("rabbitmqctl delete_queue --vhost {} {}", quoted(vhost), quoted(queue)))
}

/// Percent-encodes a text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');
    utf8_percent_encode(text, &ENCODED).to_string()
}

/// Quotes a text for a shell, if necessary (POSIX; `$'…'` for control characters is in its edition of 2024 and in common
/// shells).
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%=+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else if printable(text) != text {
        // What a terminal would obey is written as a shell reads it back, byte for byte.
        let byte = |byte: u8| match byte {
            b'\\' | b'\'' => format!("\\{}", char::from(byte)),
            b' '..=b'~' => char::from(byte).to_string(),
            _ => format!("\\{byte:03o}"),
        };
        format!("$'{}'", text.bytes().map(byte).collect::<String>())
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        let check = |text: &str, expected: &str| assert_eq!(quoted(text), expected);
        check("updates.l1.p000", "updates.l1.p000");
        check("/", "/");
        check("", "''");
        check("it's $HOME", r"'it'\''s $HOME'");
        check("a\u{1b}[2J'\\\né", r"$'a\033[2J\'\\\012\303\251'");
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(segment("/"), "%2F");
        assert_eq!(segment("127.0.0.1:1 -> 127.0.0.1:2"), "127.0.0.1%3A1%20-%3E%20127.0.0.1%3A2");
    }
}
