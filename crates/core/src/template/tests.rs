//! URL templates: tables of what is accepted and refused, and properties of what comes out.

use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;

fn key(text: &str) -> RecordKey {
    RecordKey::new(text).unwrap()
}

fn expand(template: &UrlTemplate, record_key: &RecordKey) -> Result<Url, Unfit> {
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
    check("http://{{ a }}/", "host");
    check("http://h:{{ a }}/", "host");
    check("http://h/?{{ a }}=1", "name of a parameter");
    check("http://h/?a=1&b{{ a }}", "name of a parameter");
    check("{{ a }}://h/", "http://");
    check("http://h/#{{ a }}", "fragment");
    check("http://h/{{ a", "{{");
    check("http://h/{%if%}", "unknown placeholder");
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

fn check_values(template: &str, values: &[&str], expected: &str) {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    let url = UrlTemplate::parse(template).unwrap().expand("7", &values, &[("q", "a&b=c")]);
    assert_eq!(url.map_or_else(|unfit| unfit.to_string(), String::from), expected, "{template} {values:?}");
}

#[test]
fn a_value_stays_in_its_place() {
    let t = "https://h/{{ a }}/x-{{ b }}.json?c={{ c }}&d=1";
    check_values(t, &["1", "2", "3"], "https://h/1/x-2.json?c=3&d=1&q=a%26b%3Dc");
    check_values(t, &["a/b", "?", ""], "https://h/a%2Fb/x-%3F.json?c=&d=1&q=a%26b%3Dc");
    check_values(t, &["é", "#", "&d=2#"], "https://h/%C3%A9/x-%23.json?c=%26d%3D2%23&d=1&q=a%26b%3Dc");
    check_values("http://h/{record_key}/{{ a }}", &["x"], "http://h/7/x?q=a%26b%3Dc");
    let unfit = Unfit::Segment { number: 1 }.to_string();
    for value in ["", ".", "..", "a/../b", "..%2Fa", "%2e%2E", "a\\..", "a%5C.", "./a"] {
        check_values(t, &[value, "2", "3"], &unfit);
    }
    check_values("http://h/a/.{{ a }}", &["."], &Unfit::Segment { number: 2 }.to_string());
    check_values("http://h/a/...{{ a }}", &["."], "http://h/a/....?q=a%26b%3Dc");
    let template = UrlTemplate::parse(t).unwrap();
    assert_eq!(template.expressions().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(template.to_string(), "https://h/{{ a }}/x-{{ b }}.json?***");
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
    fn no_value_changes_scheme_host_port_path_or_other_parameters(
        values in prop::collection::vec(
            prop_oneof!["[./%2eE\\\\]{0,8}", "\\PC{0,40}", "[\\x00-\\x7f]{0,40}", "[?&=#/@:]{0,8}"],
            5,
        ),
    ) {
        let template = UrlTemplate::parse("https://h:8443/a/{{ a }}/b{{ b }}c/{record_key}?x={{ c }}&y=1").unwrap();
        let Ok(url) = template.expand("7", &values, &[("z", &values[3]), (&values[4], "2")]) else {
            let unfit = values[0].is_empty() || climbs(&values[0]) || climbs(&format!("b{}c", values[1]));
            prop_assert!(unfit, "{:?}", values);
            return Ok(());
        };
        let url = Url::parse(url.as_str()).unwrap();
        prop_assert_eq!((url.scheme(), url.host_str(), url.port()), ("https", Some("h"), Some(8443)));
        prop_assert_eq!((url.fragment(), url.username()), (None, ""));
        let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let segments: Vec<String> = url.path_segments().unwrap().map(decode).collect();
        prop_assert_eq!(segments, ["a", values[0].as_str(), &format!("b{}c", values[1]), "7"]);
        let parameters: Vec<(String, String)> = url
            .query()
            .unwrap()
            .split('&')
            .map(|parameter| parameter.split_once('=').unwrap())
            .map(|(name, value)| (decode(name), decode(value)))
            .collect();
        let expected = [("x", &*values[2]), ("y", "1"), ("z", &*values[3]), (&*values[4], "2")];
        prop_assert_eq!(parameters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
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
