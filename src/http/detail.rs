//! The reason of a failure in the target's own words: short, one line, safe to print.

use std::error::Error;
use std::io;

use hyper_util::client::legacy;
use rustls::{AlertDescription, CertificateError as Refused};
use serde_json::{Map, Value};

use super::error::ConnectFault;
use lanekeeper_core::certificate::CertificateFault;
use lanekeeper_core::error::error_chain;

/// Longest detail, in characters.
const DETAIL_CHARS_MAX: usize = 500;
/// Longest part of an answer that is quoted, in characters.
const PART_CHARS_MAX: usize = 100;

/// The reason that an answer's body gives: the members of a problem document (RFC 9457), or the start of the text.
/// `body` may be truncated.
pub(super) fn of_body(content_type: &str, content_encoding: &str, body: &[u8]) -> String {
    if body.is_empty() {
        return String::new();
    }
    if !matches!(content_encoding, "" | "identity") {
        return one_line(&format!("(a body with content-encoding {content_encoding})"));
    }
    if is_problem(content_type)
        && let Some(problem) = of_problem(body)
    {
        return problem;
    }
    one_line(&String::from_utf8_lossy(body))
}

/// Returns true for a problem document (RFC 9457).
pub(super) fn is_problem(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/problem+json")
}

/// `title: detail (type)`, without missing members. Members that do not have the type that the RFC says are ignored.
fn of_problem(body: &[u8]) -> Option<String> {
    let problem: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let member = |name: &str| problem.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut text = match (member("title"), member("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => String::new(),
    };
    if let Some(problem_type) = member("type").filter(|name| *name != "about:blank") {
        text = if text.is_empty() { problem_type.to_owned() } else { format!("{text} ({problem_type})") };
    }
    (!text.is_empty()).then(|| one_line(&text))
}

/// A short part of an answer, quoted.
pub(super) fn part(text: &str) -> String {
    let line = one_line(text);
    let short: String = line.chars().take(PART_CHARS_MAX).collect();
    let cut = if short.len() < line.len() { "…" } else { "" };
    format!("\"{short}{cut}\"")
}

/// Why a connection failed, in words, or the error with its causes. None of them holds the URL, which has the record key.
pub(super) fn of_error(error: &(dyn Error + 'static)) -> String {
    one_line(&causes(error).find_map(in_words).unwrap_or_else(|| {
        // Which step of the client failed says nothing to a person.
        let begin = error.downcast_ref::<legacy::Error>().and_then(Error::source);
        error_chain(begin.unwrap_or(error))
    }))
}

/// An error and its causes.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

/// IO errors hold errors that they do not name as their causes.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(held) => Some(held),
        None => error.source(),
    }
}

fn in_words(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(fault) = error.downcast_ref::<ConnectFault>() {
        return Some(error_chain(fault));
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        if let Some(fault) = certificate_fault(error) {
            return Some(fault.to_string());
        }
        if let rustls::Error::AlertReceived(alert) = error {
            return words_of_alert(*alert).map(ToOwned::to_owned);
        }
        if matches!(error, rustls::Error::InvalidMessage(_)) {
            return Some(format!("the target does not speak TLS at this port: {error}"));
        }
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let ended = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
        if error.is_incomplete_message() {
            return Some("the target closed the connection before it had answered".to_owned());
        }
        if causes(error).filter_map(|error| error.downcast_ref()).any(ended) {
            return Some("the target closed the connection before its answer was complete".to_owned());
        }
    }
    let words = match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the connection was reset before the answer was complete"
        }
        io::ErrorKind::UnexpectedEof => "the target closed the connection during the TLS handshake",
        _ => return None,
    };
    Some(words.to_owned())
}

/// What the server says about our side of the handshake (RFC 8446, section 6.2).
pub(super) fn words_of_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRequired => {
            "the target demands a client certificate, and we have none: set certificate and key in [target.tls]"
        }
        AlertDescription::HandshakeFailure => {
            "the target has refused the TLS handshake: it may demand a client certificate (certificate and key in \
             [target.tls]), or speak other versions of TLS"
        }
        AlertDescription::CertificateExpired => {
            "the target says that our client certificate has expired: renew the certificate in [target.tls]"
        }
        AlertDescription::CertificateRevoked => {
            "the target says that our client certificate is revoked: get another one for [target.tls]"
        }
        AlertDescription::UnknownCA => {
            "the target does not trust the authority that has issued our client certificate: use a certificate of an \
             authority that it trusts in [target.tls], with the certificates between them"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => {
            "the target refuses our client certificate: compare the certificate in [target.tls] with what the target expects"
        }
        AlertDescription::NoApplicationProtocol => {
            "the target speaks no version of HTTP that http_version allows"
        }
        AlertDescription::UnrecognisedName => {
            "the target does not know the host name: correct the host in the URL, or tls.server_name"
        }
        _ => return None,
    })
}

pub(super) fn certificate_fault(error: &rustls::Error) -> Option<CertificateFault> {
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    Some(match error {
        // Of the second, another authority has the same name.
        Refused::UnknownIssuer | Refused::BadSignature => CertificateFault::UntrustedIssuer { issuer: None },
        Refused::NotValidForName => CertificateFault::OtherHost { names: Vec::new() },
        Refused::NotValidForNameContext { presented, .. } => {
            CertificateFault::OtherHost { names: presented.clone() }
        }
        Refused::Expired | Refused::ExpiredContext { .. } => CertificateFault::Expired,
        Refused::NotValidYet | Refused::NotValidYetContext { .. } => CertificateFault::NotYetValid,
        Refused::Other(other) => other.0.downcast_ref::<CertificateFault>()?.clone(),
        _ => return None,
    })
}

/// One line: runs of white space and control characters become one space, and text beyond [`DETAIL_CHARS_MAX`] is cut.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut chars = 0;
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() || is_directional(c) {
            gap = true;
            continue;
        }
        if chars >= DETAIL_CHARS_MAX {
            line.push('…');
            break;
        }
        if gap && chars > 0 {
            line.push(' ');
            chars += 1;
        }
        gap = false;
        line.push(c);
        chars += 1;
    }
    line
}

/// Directional controls of Unicode (UAX 9, section 2) and the byte order mark: they can make a line look like another.
fn is_directional(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROBLEM: &str = "application/problem+json; charset=utf-8";

    fn check(content_type: &str, body: &str, expected: &str) {
        assert_eq!(of_body(content_type, "", body.as_bytes()), expected, "{body:?}");
    }

    #[test]
    fn a_problem_document_gives_title_detail_and_type() {
        check(
            PROBLEM,
            r#"{"title":"Out of stock","detail":"No B-4 left","status":422}"#,
            "Out of stock: No B-4 left",
        );
        check(PROBLEM, r#"{"title":"Taken","type":"https://h/taken"}"#, "Taken (https://h/taken)");
        check(PROBLEM, r#"{"detail":"d","type":"about:blank"}"#, "d");
        check(PROBLEM, r#"{"type":"https://h/taken"}"#, "https://h/taken");
        check("Application/Problem+JSON", r#"{"title":"t"}"#, "t");
        check(PROBLEM, r#"{"title":["t"],"detail":7,"x":"y"}"#, r#"{"title":["t"],"detail":7,"x":"y"}"#);
        check(PROBLEM, r#"{"title":"cut"#, r#"{"title":"cut"#);
        check(PROBLEM, "[]", "[]");
        check("application/json", r#"{"title":"t"}"#, r#"{"title":"t"}"#);
    }

    #[test]
    fn text_becomes_one_harmless_line() {
        check("", "", "");
        check("text/plain", "  a\r\n\tb\u{1b}[31mc  ", "a b [31mc");
        check("text/plain", "a\u{202e}b\u{7f}", "a b");
        assert_eq!(of_body("", "", b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(of_body("", "gzip", b"\x1f\x8b\x08"), "(a body with content-encoding gzip)");
        check("", &"é".repeat(600), &format!("{}…", "é".repeat(500)));
        check("", &"é".repeat(500), &"é".repeat(500));
    }

    proptest! {
        #[test]
        fn no_body_panics_or_makes_a_long_or_broken_line(
            content_type in prop::sample::select(vec!["", PROBLEM, "text/html"]),
            body in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let line = of_body(content_type, "", &body);
            prop_assert!(line.chars().count() <= DETAIL_CHARS_MAX + 2);
            prop_assert!(!line.contains(char::is_control));
        }
    }
}
