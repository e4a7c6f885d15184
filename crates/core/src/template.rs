//! The URL of a target with the record key in it: the key is one path segment, whatever it says.
//!
//! URL parsers of browsers, of the `url` crate and so of the HTTP client (<https://url.spec.whatwg.org/>) remove dot
//! segments, also percent-encoded ones, turn `\` into `/` and drop line breaks. So a template is taken apart once, in
//! the form that a parser leaves alone, and an expanded URL that a parser would change is not sent.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::update::RecordKey;

/// What stays as it is: the unreserved characters of RFC 3986, section 2.3. `;`, `+`, `:` and their like would be safe
/// in a path by the letter, but servers split and decode at them.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const PLACEHOLDER: &str = "{record_key}";
/// What a parser makes of [`PLACEHOLDER`] in a path.
const PLACEHOLDER_ENCODED: &str = "%7Brecord_key%7D";

/// The key as it stands in the URL and in the header `lanekeeper-record-key`: percent-encoded, ASCII, and
/// percent-decoding gives back the key.
pub fn encode_record_key(record_key: &RecordKey) -> String {
    utf8_percent_encode(record_key.as_str(), ENCODED).to_string()
}

/// A target's URL. Each `{record_key}` in its path becomes the percent-encoded record key.
///
/// Its `Debug` and `Display` hide the query, which may carry a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    /// What stands before, between and behind the placeholders; at least one piece. The first holds all of scheme and
    /// host, since a placeholder is only allowed in the path.
    pieces: Vec<Box<str>>,
}

/// Why a string is not a URL template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// Another scheme, or none.
    #[error("begin the URL with http:// or https://, as in \"https://api.example/customers/{PLACEHOLDER}\"")]
    Scheme,
    /// Nothing between `//` and the path.
    #[error("the URL has no host; write it after the ://")]
    NoHost,
    /// User name or password.
    #[error(
        "the URL has a user name or password; send them in the target's `headers` (authorization) instead"
    )]
    Credentials,
    /// `#` and what follows is never sent.
    #[error("the URL has a fragment (#…), which is never sent; remove it, or write %23 for a # in the path")]
    Fragment,
    /// The record key may only choose a path segment.
    #[error("{PLACEHOLDER} stands in the {place}; it may only stand in the path")]
    Misplaced {
        /// Host or query.
        place: &'static str,
    },
    /// A placeholder that we do not know, or a brace alone.
    #[error("unknown placeholder {found}; the only one is {PLACEHOLDER}; write %7B and %7D for braces")]
    UnknownPlaceholder {
        /// The placeholder, as written.
        found: String,
    },
    /// Parsers drop or change it.
    #[error(
        "the URL has a space, a control character, \\ or an encoded placeholder; write a plain URL with %20 for a space"
    )]
    Character,
    /// Parsers remove it.
    #[error("the path has a segment . or ..; write the resulting path instead")]
    DotSegment,
    /// The parser's own words.
    #[error("not a URL: {0}")]
    Parse(#[from] url::ParseError),
}

/// A record key that cannot be sent to this target, since parsers would take the segment for a step in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "with this record key the URL's path has a segment . or .., which HTTP clients and servers remove; nothing was sent"
)]
pub struct KeyUnfit;

impl UrlTemplate {
    /// Takes a template apart. Without a placeholder, every record goes to the same URL.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let (scheme, rest) = text.split_once("://").ok_or(TemplateFault::Scheme)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(TemplateFault::Scheme);
        }
        let unsteady = |c: char| c == '\\' || c.is_whitespace() || c.is_control();
        if text.contains(unsteady) || text.to_ascii_lowercase().contains("%7brecord_key%7d") {
            return Err(TemplateFault::Character);
        }
        if rest.contains('#') {
            return Err(TemplateFault::Fragment);
        }
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = location.split_at(location.find('/').unwrap_or(location.len()));
        check_braces(rest)?;
        for (place, part) in [("host", authority), ("query", query)] {
            if part.contains(PLACEHOLDER) {
                return Err(TemplateFault::Misplaced { place });
            }
        }
        if authority.contains('@') {
            return Err(TemplateFault::Credentials);
        }
        if authority.is_empty() {
            return Err(TemplateFault::NoHost);
        }

        if path.split('/').any(is_dot_segment) {
            return Err(TemplateFault::DotSegment);
        }
        let url = Url::parse(text)?;
        Ok(Self { pieces: url.as_str().split(PLACEHOLDER_ENCODED).map(Box::from).collect() })
    }

    /// Host, without the brackets of an IPv6 address, and port.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let url = self.expand_encoded("x").ok()?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some((host, url.port_or_known_default()?))
    }

    /// The URL for a record. `record_key`: as [`encode_record_key`] makes it.
    ///
    /// # Errors
    /// The key would not arrive as it is: `.` and `..` as a whole segment.
    pub fn expand_encoded(&self, record_key: &str) -> Result<Url, KeyUnfit> {
        let text = self.pieces.join(record_key);
        // All pieces are in the form that parsing leaves alone, and so is the key: only a dot segment can change.
        let url = Url::parse(&text).map_err(|_| KeyUnfit)?;
        if url.as_str() == text { Ok(url) } else { Err(KeyUnfit) }
    }
}

impl fmt::Display for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.pieces.join(PLACEHOLDER);
        match text.split_once('?') {
            Some((location, _)) => write!(f, "{location}?***"),
            None => f.write_str(&text),
        }
    }
}

impl fmt::Debug for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlTemplate({self})")
    }
}

/// Every brace belongs to a [`PLACEHOLDER`].
fn check_braces(text: &str) -> Result<(), TemplateFault> {
    let rest = text.replace(PLACEHOLDER, "");
    let Some(start) = rest.find(['{', '}']) else { return Ok(()) };
    let found = match rest[start..].find('}') {
        Some(end) => &rest[start..=start + end],
        None => &rest[start..],
    };
    Err(TemplateFault::UnknownPlaceholder { found: found.to_owned() })
}

fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> RecordKey {
        RecordKey::new(text).unwrap()
    }

    fn expand(template: &UrlTemplate, record_key: &RecordKey) -> Result<Url, KeyUnfit> {
        template.expand_encoded(&encode_record_key(record_key))
    }

    /// `expected`: the URL, or `unfit` if the key is refused.
    fn check(template: &str, record_key: &str, expected: &str) {
        let template = UrlTemplate::parse(template).unwrap();
        let url = expand(&template, &key(record_key)).map_or("unfit".to_owned(), String::from);
        assert_eq!(url, expected, "{template} {record_key:?}");
    }

    #[test]
    fn a_key_is_one_segment() {
        let t = "http://crm.example/customers/{record_key}";
        check(t, "42", "http://crm.example/customers/42");
        check(t, "../../admin", "http://crm.example/customers/..%2F..%2Fadmin");
        check(t, "a/b", "http://crm.example/customers/a%2Fb");
        check(t, "a?x=1", "http://crm.example/customers/a%3Fx%3D1");
        check(t, "http://evil/", "http://crm.example/customers/http%3A%2F%2Fevil%2F");
        check(t, "é", "http://crm.example/customers/%C3%A9");
        check(t, " ", "http://crm.example/customers/%20");
        check(t, "%2F", "http://crm.example/customers/%252F");
        check(t, "%2e%2E", "http://crm.example/customers/%252e%252E");
        check(t, "%", "http://crm.example/customers/%25");
        check(t, "a;b", "http://crm.example/customers/a%3Bb");
        check(t, "#", "http://crm.example/customers/%23");
        check(t, "\\..\\", "http://crm.example/customers/%5C..%5C");
        check(t, "\r\n\0\t", "http://crm.example/customers/%0D%0A%00%09");
        check(t, "{record_key}", "http://crm.example/customers/%7Brecord_key%7D");
        check(t, "@evil:80", "http://crm.example/customers/%40evil%3A80");
        check(t, "...", "http://crm.example/customers/...");
        check(t, &"ü".repeat(127), &format!("http://crm.example/customers/{}", "%C3%BC".repeat(127)));
    }

    #[test]
    fn a_dot_segment_is_never_sent() {
        let t = "http://crm.example/customers/{record_key}";
        check(t, ".", "unfit");
        check(t, "..", "unfit");
        check("http://h/a/{record_key}/b", "..", "unfit");
        check("http://h/a/{record_key}?x=1", "..", "unfit");
        check("http://h/{record_key}{record_key}", ".", "unfit");
        check("http://h/.{record_key}", ".", "unfit");
        check("http://h/%2e{record_key}", ".", "unfit");
        check("http://h/{record_key}%2E", ".", "unfit");
        check("http://h/v.{record_key}", "..", "http://h/v...");
        check("http://h/{record_key}.json", "..", "http://h/...json");
    }

    #[test]
    fn a_template_may_have_text_around_the_key_several_keys_or_none() {
        check("https://h:8443/v1/customer-{record_key}.json", "7", "https://h:8443/v1/customer-7.json");
        check("http://h/{record_key}/copy/{record_key}?dry=1", "a b", "http://h/a%20b/copy/a%20b?dry=1");
        check("http://h", "7", "http://h/");
        check("http://h/inbox", "7", "http://h/inbox");
        check("http://h/inbox", "..", "http://h/inbox");
        check("HTTP://H:80/A//b/{record_key}", "7", "http://h/A//b/7");
        check("http://[::1]:8099/{record_key}", "7", "http://[::1]:8099/7");
        check("http://bücher.example/käse/{record_key}", "7", "http://xn--bcher-kva.example/k%C3%A4se/7");
        check("http://h?to=a/b", "7", "http://h/?to=a/b");
    }

    #[test]
    fn a_template_that_is_not_safe_is_refused() {
        let check = |text: &str, expected: &str| {
            let fault = UrlTemplate::parse(text).expect_err(text).to_string();
            assert!(fault.contains(expected), "{text}: {fault}");
        };
        check("", "http://");
        check("customers/{record_key}", "http://");
        check("ftp://h/{record_key}", "http://");
        check("http:/h/{record_key}", "http://");
        check("{record_key}://h/", "http://");
        check("file:///etc/{record_key}", "http://");
        check("http:///h/{record_key}", "no host");
        check("http://?x", "no host");
        check("http://{record_key}/", "host");
        check("http://h:{record_key}/", "host");
        check("http://{record_key}@h/", "host");
        check("http://h/a?key={record_key}", "query");
        check("http://h?{record_key}", "query");
        check("http://h/a#{record_key}", "fragment");
        check("http://h/#", "fragment");
        check("http://me:secret@h/{record_key}", "headers");
        check("http://me@h/{record_key}", "headers");
        check("http://@h/{record_key}", "headers");
        check("http://h/{key}", "{key}");
        check("http://h/{record_key}/{}", "{}");
        check("http://h/{record_key", "{record_key");
        check("http://h/a}b", "}");
        check("http://h/{ record_key }", "%20");
        check("http://h/{Record_Key}", "{Record_Key}");
        check("http://h/%7Brecord_key%7D", "encoded placeholder");
        check("http://h/a\\{record_key}", "\\");
        check("http://h/a\n{record_key}", "control");
        check(" http://h/{record_key}", "http://");
        check("http://h/{record_key} ", "%20");
        check("http://h/a/../{record_key}", "..");
        check("http://h/a/%2E./{record_key}", "..");
        check("http://h/./{record_key}", "..");
        check("http://h/a/.", "..");
        check("http://h:99999/{record_key}", "port");
        check("http://a b/", "%20");
        check("http://a%00b/", "not a URL");
    }

    #[test]
    fn a_query_is_not_printed() {
        let template = UrlTemplate::parse("http://h/{record_key}?token=secret").unwrap();
        assert_eq!(template.to_string(), "http://h/{record_key}?***");
        assert_eq!(format!("{template:?}"), "UrlTemplate(http://h/{record_key}?***)");
    }

    fn templates() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "http://crm.example/customers/{record_key}",
            "https://crm.example:8443/{record_key}/address",
            "http://127.0.0.1:8099/a/b/c/{record_key}?x=1&y=a/b",
            "http://[::1]/{record_key}",
        ])
    }

    proptest! {
        #[test]
        fn no_key_changes_scheme_host_port_or_path(
            template in templates(),
            text in prop_oneof![
                "[./%2eE\\\\]{1,8}",
                "\\PC{1,60}",
                "[\\x00-\\x7f]{1,60}",
                "(\\.|%2e|%2E|/|\\\\|\\.\\.){1,6}",
            ],
        ) {
            let Ok(url) = expand(&UrlTemplate::parse(template).unwrap(), &key(&text)) else {
                prop_assert!(text == "." || text == "..", "{text:?} was refused");
                return Ok(());
            };
            let url = Url::parse(url.as_str()).unwrap();
            let plain = Url::parse(&template.replace("{record_key}", "plain")).unwrap();
            prop_assert_eq!(url.scheme(), plain.scheme());
            prop_assert_eq!(url.host(), plain.host());
            prop_assert_eq!(url.port_or_known_default(), plain.port_or_known_default());
            prop_assert_eq!(url.query(), plain.query());
            prop_assert_eq!(url.fragment(), None);
            prop_assert_eq!(url.username(), "");
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            let plain_segments: Vec<_> = plain.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), plain_segments.len());
            for (segment, plain) in segments.iter().zip(plain_segments) {
                let decoded = percent_decode_str(segment).decode_utf8().unwrap();
                prop_assert_eq!(&*decoded, if plain == "plain" { text.as_str() } else { plain });
            }
        }

        #[test]
        fn no_template_panics(text in "\\PC{0,40}", path in "[a-z{}_./%\\\\?#@:]{0,30}", id in "[.%2eE]{1,6}") {
            for template in [text, format!("http://h/{path}"), format!("http://{path}/{{record_key}}")] {
                if let Ok(template) = UrlTemplate::parse(&template) {
                    let _ = expand(&template, &key(&id));
                    prop_assert!(expand(&template, &key("plain")).is_ok(), "{template} is of no use");
                }
            }
        }
    }
}
