//! Templates: what they make, what they refuse, and that no number changes.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Format, Template, context_of};
use lanekeeper_core::routes::TargetId;
use lanekeeper_core::update::{RecordKey, Update, UpdateId};

const BYTES_MAX: usize = 4096;

fn update(body: impl Into<Bytes>) -> Arc<Update> {
    Arc::new(Update {
        record_key: RecordKey::new("cust/7").unwrap(),
        id: UpdateId::published("u-1"),
        target: TargetId(0),
        update_type: Some("customer.created".into()),
        version: Some(9_007_199_254_740_993),
        content_type: None,
        content_encoding: None,
        if_match: None,
        published_at: Some(1_700_000_000),
        headers: vec![("ce-source".into(), "shop".into())],
        body: body.into(),
    })
}

const BODY: &str = r#"{ "id": 18446744073709551615, "name": "Zoë \"Z\"", "amount": 10.10, "zero": 0.00, "tiny": 1e-400,
  "big": 123456789012345678901234567890123456789012345, "nick": null, "vip": true, "first": 1.0,
  "lines": [ {"sku": "a", "price": 0.10}, {"sku": "b", "price": 2.50} ], "a&b": "x=1&y", "empty": [] }"#;

fn render(format: Format, source: &str, body: &str) -> Result<String, String> {
    let template =
        Template::compile(source, format, BYTES_MAX).map_err(|fault| format!("compile: {fault}"))?;
    template.render(&context_of(&update(body.to_owned()), 2)).map_err(|fault| fault.to_string())
}

fn check(format: Format, source: &str, expected: &str) {
    assert_eq!(render(format, source, BODY).as_deref(), Ok(expected), "{source}");
}

fn check_fault(format: Format, source: &str, expected: &str) {
    let fault = render(format, source, BODY).expect_err(source);
    assert!(fault.contains(expected), "{source}: {expected} in {fault}");
    assert!(!fault.contains("Zo"), "nothing of the update: {fault}");
}

#[test]
fn a_template_sees_the_update() {
    let check = |source, expected| check(Format::Plain, source, expected);
    check("{{ record_key }} {{ update_id }} {{ update_type }}", "cust/7 u-1 customer.created");
    check(
        "{{ version }} {{ attempt }} {{ published_at }} {{ time }}",
        "9007199254740993 2 1700000000 2023-11-14T22:13:20Z",
    );
    check("{{ headers['ce-source'] }}", "shop");
    check("{{ content_type | default('none') }}", "none");
    check("{{ body.name }} {{ body.vip }} {{ body.lines[1].sku }}", "Zoë \"Z\" true b");
    check("{% for line in body.lines %}{{ line.sku }};{% endfor %}{{ body.lines | length }}", "a;b;2");
    check("{{ record_key | urlencode }} {{ body.name | upper }}", "cust%2F7 ZOË \"Z\"");
    check("{{ '42' | int + 1 }}", "43");
}

#[test]
fn a_value_in_json_is_json() {
    let check = |source, expected| check(Format::Json, source, expected);
    check(r#"{"n": {{ body.name }}, "k": {{ record_key }}}"#, r#"{"n": "Zoë \"Z\"", "k": "cust/7"}"#);
    check("{{ body.nick }}{{ body.vip }}{{ body.empty }}", "nulltrue[]");
    check(
        "{{ {'a': [body.amount, body.id], 'b': body.nick} }}",
        r#"{"a":[10.10,18446744073709551615],"b":null}"#,
    );
    check("{{ body.lines[0] }}", r#"{"sku": "a", "price": 0.10}"#);
    check("{{ body.lines | tojson }}", r#"[ {"sku": "a", "price": 0.10}, {"sku": "b", "price": 2.50} ]"#);
    check("{{ body }}", BODY.trim());
    check(r#"{{ "id-" ~ record_key }}"#, r#""id-cust/7""#);
    check("{% set n = body.name %}{{ n }}", r#""Zoë \"Z\"""#);
    check("{{ body.lines | map(attribute='price') | list }}", "[0.10,2.50]");
}

#[test]
fn a_value_in_xml_or_a_form_is_escaped() {
    check(
        Format::Xml,
        "<n a=\"{{ body['a&b'] }}\">{{ body.name }}</n>",
        "<n a=\"x=1&amp;y\">Zoë &quot;Z&quot;</n>",
    );
    check(Format::Form, "n={{ body['a&b'] }}&amount={{ body.amount }}", "n=x%3D1%26y&amount=10.10");
}

#[test]
fn a_number_keeps_its_digits() {
    let big = "123456789012345678901234567890123456789012345";
    for format in [Format::Plain, Format::Json] {
        check(format, "{{ body.id }} {{ body.amount }} {{ body.zero }}", "18446744073709551615 10.10 0.00");
        check(format, "{{ body.tiny }} {{ body.big }} {{ body.first }}", &format!("1e-400 {big} 1.0"));
        check(format, "{{ body.id - 1 }} {{ 7 // 2 }} {{ 2 * 3 }}", "18446744073709551614 3 6");
    }
    check(
        Format::Plain,
        "{{ 'EUR ' ~ body.amount }}, {{ [body.amount, body.big] | join('/') }}",
        &format!("EUR 10.10, 10.10/{big}"),
    );
    check(Format::Json, "{{ 'EUR ' ~ body.amount }}", "\"EUR 10.10\"");
}

#[test]
fn numbers_are_compared_exactly() {
    let holds = |condition: &str, expected: bool| {
        check(
            Format::Plain,
            &format!("{{% if {condition} %}}yes{{% else %}}no{{% endif %}}"),
            if expected { "yes" } else { "no" },
        );
    };
    holds("body.amount is gt(10)", true);
    holds("body.amount is lt(11)", true);
    holds("body.amount is eq('10.1')", false);
    holds("body.zero is eq(0)", true);
    holds("body.first is ge(1) and body.first is le(1)", true);
    holds("body.big is gt(body.id)", true);
    holds("body.tiny is gt(0) and body.tiny is lt(body.amount)", true);
    holds("attempt is gt(1)", true);
    holds("body.zero", false);
    holds("body.vip == true and update_type == 'customer.created'", true);
    holds("body.name is ne('x') and body.vip is ne(2)", true);
    check_fault(Format::Plain, "{% if body.name is gt(1) %}{% endif %}", "neither two numbers nor two texts");
    check(
        Format::Plain,
        "{{ body.lines | selectattr('price', 'gt', 1) | map(attribute='sku') | join }}",
        "b",
    );
}

#[test]
fn what_could_change_a_number_or_a_document_is_refused_at_load() {
    let check = |source: &str, expected: &str| check_fault(Format::Json, source, expected);
    check("{{ body.amount / 2 }}", "compile: line 1, column 16: / makes");
    check("{{ body.id ** 2 }}", "** makes");
    check("{{ 1.5 }}", "write it as text");
    check("{{ 1e3 }}", "write it as text");
    check("{% if body.amount > 1 %}{% endif %}", "is gt(…)");
    check("{% if body.amount == 1 %}{% endif %}", "is eq(…)");
    check("{% if -1 != body.amount %}{% endif %}", "is eq(…)");
    check("{% if body.amount == -1 %}{% endif %}", "is eq(…)");
    check(
        "{\n \"a\": \"{{ body.name }}\"}",
        "compile: line 2, column 8: a value in a JSON body brings its own quotes",
    );
    check("{% autoescape false %}{{ body.name }}{% endautoescape %}", "autoescape and raw");
    check("{{ body.name | safe }}", "compile: line 1, column 16: there is no filter \"safe\"");
    check("a\n{{ body.name | upper | uper }}", "compile: line 2, column 24: there is no filter \"uper\"");
    check("{% if body.a is not evn %}x{% endif %}", "compile: line 1, column 21: there is no test \"evn\"");
    check("{% include 'x' %}", "compile: line 1");
    check("{{ body.name", "compile: line 1");
    check("{{ body. }}", "compile: line 1, column 10");
    check(&"x".repeat(70_000), "longer than 65536 bytes");
}

#[test]
fn a_template_that_fails_says_where_and_nothing_of_the_update() {
    let check = |source: &str, expected: &str| check_fault(Format::Plain, source, expected);
    check("a\n  {{ body.missing }}", "line 2, column 6: a value that it needs is not there");
    check("{{ missing.name }}", "is not there");
    check("{{ body.nick }}", "line 1, column 4: a value is null");
    check("{{ body.lines }}", "a list or an object");
    check("{{ body.name + 1 }}", "does not fit");
    check("{{ body.amount + 1 }}", "does not fit");
    check("{{ body.name | int }}", "no whole number");
    check("{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}", "more work");
    check("{{ 'x' * 100000000 }}", "more work");
    check("{% for i in range(5000) %}x{% endfor %}", "longer than 4096 bytes");
    for (body, expected) in
        [("nonsense", "not JSON"), ("{\"a\":", "not JSON"), ("", "not JSON"), ("{} x", "not JSON")]
    {
        let fault = render(Format::Plain, "{{ body.a }}", body).unwrap_err();
        assert!(fault.contains(expected) && fault.contains("line 1"), "{body}: {fault}");
    }
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert!(render(Format::Json, "{{ body }}", &deep).unwrap_err().contains("within each other"));
    let long = format!("\"{}\"", "x".repeat(2_000_000));
    assert!(render(Format::Json, "{{ body }}", &long).unwrap_err().contains("1 MiB"));
    assert_eq!(
        render(Format::Plain, "{{ record_key }}", "nonsense").as_deref(),
        Ok("cust/7"),
        "it is parsed if needed"
    );
}

fn json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,45})",
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?"
    ];
    let text = "\\PC{0,12}".prop_map(|text| serde_json::Value::from(text).to_string());
    let leaf = prop_oneof![Just("null".to_owned()), Just("true".to_owned()), number, text.clone()];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((text.clone(), inner), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_put_out_as_json_is_what_came_in(value in json()) {
        let body = format!("{{\"a\": [{value}]}}");
        prop_assert_eq!(render(Format::Json, "{{ body.a[0] }}", &body), Ok(value.clone()));
        let listed = render(Format::Json, "{% for v in body.a %}{{ v }}{% endfor %}", &body);
        prop_assert_eq!(listed, Ok(value));
    }

    #[test]
    fn no_value_changes_the_structure_of_a_json_body(text in "\\PC{0,40}|[\"\\\\{}\\[\\],:a]{0,20}") {
        let body = serde_json::json!({ "a": text }).to_string();
        let made = render(Format::Json, r#"{"x": {{ body.a }}, "y": [{{ body.a ~ "!" }}]}"#, &body).unwrap();
        let made: serde_json::Value = serde_json::from_str(&made).unwrap();
        prop_assert_eq!(made, serde_json::json!({ "x": text, "y": [format!("{text}!")] }));
    }

    #[test]
    fn no_template_and_no_body_panics(
        source in prop_oneof![
            "\\PC{0,60}",
            "([{]{2}|[}]{2}|[{]%|%[}]| |body|\\.|a|\\[0\\]|if|for|in|set|endif|endfor|\\|| tojson|is|lt|\\(|\\)|-|\\+|1|'|\"|~|,|\\{#|#\\}){0,20}",
        ],
        body in prop_oneof![json(), "\\PC{0,30}"],
        format in prop::sample::select(vec![Format::Plain, Format::Json, Format::Xml, Format::Form]),
    ) {
        let _ = render(format, &source, &body);
    }
}
