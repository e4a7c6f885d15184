//! The config as a whole: layers and faults.

mod auth;
mod reference;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::{Environment, Faults, Loaded, Origin, Purpose, Shown, TARGET_EXAMPLE, load};
use lanekeeper_core::outcome::OutcomeKind;
use lanekeeper_core::routes::TargetId;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Faults> {
    let environment = variables.iter().copied().collect();
    super::read(Some((Path::new("lk.toml"), text)), &environment, Purpose::Dispatch)
}

/// Each fault as its key, a part of its origin, and a part of its text; in the order reported, and no others.
/// A whole target is added to the text.
fn check(text: &str, variables: &[(&str, &str)], expected: &[(&str, &str, &str)]) {
    check_whole(&format!("{text}\n{TARGET_EXAMPLE}"), variables, expected);
}

fn check_whole(text: &str, variables: &[(&str, &str)], expected: &[(&str, &str, &str)]) {
    let report = match read(text, variables) {
        Ok(_) => Faults(Vec::new()),
        Err(faults) => faults,
    };
    let keys: Vec<&str> = report.0.iter().map(|fault| fault.key.as_str()).collect();
    let keys_expected: Vec<&str> = expected.iter().map(|(key, ..)| *key).collect();
    assert_eq!(keys, keys_expected, "{text}\n{report}");
    for (fault, (_, origin, part)) in report.0.iter().zip(expected) {
        assert!(fault.origin.to_string().contains(origin), "origin {origin:?} of {fault}");
        assert!(fault.to_string().contains(part), "{part:?} in {fault}");
    }
}

/// A target with these lines beside the required ones.
fn target(lines: &str) -> String {
    format!("{TARGET_EXAMPLE}\n{lines}")
}

#[test]
fn each_value_is_checked() {
    for (text, part) in [
        ("[broker]\nurl = \"http://h\"", "amqp://"),
        ("[broker]\nheartbeat = \"0s\"", "1s to 18h 12m 15s"),
        ("[broker]\nheartbeat = \"1500ms\"", "whole seconds"),
        ("[broker]\nheartbeat = \"10\"", "with its unit"),
        ("[broker]\nheartbeat = 10", "with its unit"),
        ("[updates]\nexchange = \"\"", "1 to 200 bytes"),
        ("[updates]\nexchange = \"amq.topic\"", "reserves"),
        ("[updates]\nexchange = \"a\\u0007\"", "control characters"),
        ("[updates]\nexchange = 7", "not a string"),
        ("[updates]\npartitions = 0", "from 1 to 1024"),
        ("[updates]\npartitions = 1025", "from 1 to 1024"),
        ("[updates]\npartitions = 8.5", "from 1 to 1024"),
        ("[updates]\npartitions = -1", "from 1 to 1024"),
        ("[updates]\npartitions = [8]", "a list is not a whole number"),
        ("[updates]\nrequire_id = 1", "true or false"),
        ("[updates]\nbody_bytes_max = 134_217_729", "134217728"),
        ("[dispatch]\nin_flight_max = 0", "from 1"),
        ("[dispatch]\nprefetch = 65_536", "to 65535"),
        ("[dispatch]\nprefetch = 31", "below in_flight_max = 32"),
        ("[dispatch]\ndrain_timeout = \"15m\"", "1ms to 14m 59s 999ms"),
        ("[dispatch]\ndrain_timeout = \"0s\"", "1ms to"),
        ("[dispatch]\ntakeover_wait = \"15m\"", "or write \"auto\""),
        ("[dispatch]\ntakeover_wait = 5", "or write \"auto\""),
        ("[retry]\ndelay_initial = \"31s\"", "longer than delay_max = \"30s\""),
        ("[breaker]\nrecords_min = 1", "from 2 to 1000"),
        ("[breaker]\nattempts_min = 1001", "from 1 to 1000"),
        ("[breaker]\nfailure_share = 0.0", "from 0.01 to 1.0"),
        ("[breaker]\nwindow = \"0s\"", "1ms to 1h"),
        ("[breaker]\nwait_initial = \"1m\"", "longer than wait_max = \"30s\""),
        ("[retry]\ndelay_initial = \"0s\"", "1ms to 1h"),
        ("[retry]\ndelay_multiplier = 0.5", "from 1.0 to 100.0"),
        ("[retry]\ndelay_multiplier = nan", "from 1.0 to 100.0"),
        ("[retry]\njitter = 1.1", "from 0.0 to 1.0"),
        ("[retry]\nattempts_max = 4_294_967_296", "4294967295"),
        ("[retry]\nretry_after_max = \"2h\"", "0s to 1h"),
        ("[failure]\nrejected = \"superseded\"", "choose \"park\", \"dead_letter\" or \"block\""),
        ("[failure]\nexhausted = \"refetch\"", "choose \"park\", \"dead_letter\" or \"block\""),
        ("[failure]\nconflict = \"drop\"", "\"superseded\" or \"refetch\""),
        ("[admin]\nlisten = \"localhost:9419\"", "not an IP address"),
        ("[telemetry]\nendpoint = \"collector:4318\"", "http://HOST:PORT"),
        ("[telemetry]\nendpoint = \"http://h?a=b\"", "\"?\""),
        ("[telemetry]\nendpoint = \"http://u:p@h\"", "telemetry.headers"),
        ("[telemetry]\nendpoint = \"http://h/v1/traces/\"", "leave /v1/traces out"),
        ("[telemetry]\nservice_name = \"\"", "1 to 100 bytes"),
        ("[telemetry]\nsample_ratio = 1.5", "from 0.0 to 1.0"),
        ("[telemetry]\ntimeout = \"0s\"", "1ms to"),
        ("[telemetry]\nca = \"x\"", "PEM"),
        ("[log]\nformat = \"xml\"", "\"pretty\" or \"json\""),
        ("[log]\nfilter = \"lanekeeper=loud\"", "not a filter"),
        ("[instance]\nname = \"a\\nb\"", "control characters"),
    ] {
        let (section, key) = text.split_once("]\n").unwrap();
        let key = format!("{}.{}", &section[1..], key.split(' ').next().unwrap());
        check(text, &[], &[(&key, "lk.toml", part)]);
    }
}

#[test]
fn each_value_of_a_target_is_checked() {
    let row = |lines: &str| format!("[[target.answers]]\nstatus = 200\noutcome = \"rejected\"\n{lines}");
    for (lines, key, part) in [
        ("method = \"put\"", "method", "upper case"),
        ("method = \"P T\"", "method", "upper case"),
        ("method = \"CONNECT\"", "method", "cannot carry"),
        ("timeout = \"15m\"", "timeout", "14m 59s 999ms"),
        ("connect_timeout = \"0s\"", "connect_timeout", "1ms to"),
        ("takeover_wait = \"never\"", "takeover_wait", "or write \"auto\""),
        ("idempotency_key = \"none\"", "idempotency_key", "\"quoted\", \"bare\" or \"off\""),
        ("idempotency_header = \"a b\"", "idempotency_header", "not a header name"),
        ("idempotency_header = \"Host\"", "idempotency_header", "HTTP client"),
        ("headers = { \"a b\" = \"c\" }", "headers.a b", "not a header name"),
        ("headers = { Host = \"c\" }", "headers.Host", "HTTP client"),
        ("headers = { lanekeeper-attempt = \"c\" }", "headers.lanekeeper-attempt", "by Lanekeeper"),
        ("headers = { idempotency-key = \"c\" }", "headers.idempotency-key", "idempotency_header"),
        ("headers = { X-Key = \"c\", x-key = \"d\" }", "headers.x-key", "set twice"),
        ("headers = { x-key = \"s3cret\\n\" }", "headers.x-key", "line end"),
        ("headers = { x-key = 5 }", "headers.x-key", "not a string"),
        ("headers = \"x-key: 5\"", "headers", "not a table"),
        ("outcomes = { 99 = \"applied\" }", "outcomes.99", "100 to 599"),
        ("outcomes = { 4xx = \"applied\" }", "outcomes.4xx", "100 to 599"),
        ("outcomes = { 404 = \"parked\" }", "outcomes.404", "\"rejected\" or \"conflict\""),
        ("rate_max = 50", "rate_max", "50 is not a rate"),
        ("rate_max = \"50\"", "rate_max", "\"50\" has no time"),
        ("rate_max = \"x/s\"", "rate_max", "requests of \"x/s\": \"x\" is not a whole number"),
        ("rate_max = \"0/s\"", "rate_max", "requests of \"0/s\": 0 is outside 1 to 1000000"),
        ("rate_max = \"1_000_001/s\"", "rate_max", "outside 1 to 1000000"),
        ("rate_max = \"5/\"", "rate_max", "\"5/\" has no time"),
        ("rate_max = \"5/x\"", "rate_max", "the time of \"5/x\": \"1x\" is not a duration"),
        ("rate_max = \"5/999us\"", "rate_max", "is outside 1ms to 1day"),
        ("rate_max = \"5/25h\"", "rate_max", "is outside 1ms to 1day"),
        ("in_flight_max = 0", "in_flight_max", "from 1 to 1000000"),
        ("limits = \"Crm\"", "limits", "\"Crm\" is not a name"),
        ("failure = \"park\"", "failure", "write [target.failure]"),
        ("[target.failure]\nrejected = \"refetch\"", "failure.rejected", "\"dead_letter\" or \"block\""),
        ("[target.failure]\nexhausted = \"superseded\"", "failure.exhausted", "\"dead_letter\" or \"block\""),
        ("[target.failure]\nconflict = \"drop\"", "failure.conflict", "\"superseded\" or \"refetch\""),
        ("[target.failure]\nreject = \"park\"", "failure.reject", "did you mean `rejected`?"),
        ("[target.on]\ntypes = [\"a\"]", "on", "write it in the file as [[target.on]]"),
        ("[[target.on]]\nmethod = \"POST\"\ntypes = []", "on[0].types", "for no update"),
        ("[[target.on]]\nmethod = \"POST\"\ntypes = [\"a*\"]", "on[0].types[0]", "customer.*"),
        ("[[target.on]]\ntypes = [\"a\"]\nmethod = \"post\"", "on[0].method", "upper case"),
        ("[[target.on]]\ntypes = [\"a\"]\nurl = \"h/x\"", "on[0].url", "http://"),
        ("[[target.on]]\ntypes = [\"a\"]\nheaders = { host = \"x\" }", "on[0].headers.host", "HTTP client"),
        (
            "[[target.on]]\ntypes = [\"a\"]\nheaders = { idempotency-key = \"x\" }",
            "on[0].headers.idempotency-key",
            "idempotency_header",
        ),
        ("record_keys = \"a)(b\"", "record_keys", "not a regular expression"),
        ("headers = { x-a = \"{{ a. }}\" }", "headers.x-a", "not a template of a header: line 1, column 7"),
        ("query = { a = \"{{ 1 / 2 }}\" }", "query.a", "may be rounded"),
        ("query = { a = 5 }", "query.a", "not a string"),
        ("body = \"{\\n{{ body. }}\"", "body", "not a template of a body: line 2, column"),
        ("body = '{\"a\": \"{{ body.a }}\"}'", "body", "brings its own quotes"),
        ("body = \"{{ a }}\"\nheaders = { content-type = \"{{ a }}\" }", "body", "content-type"),
        ("[[target.on]]\ntypes = [\"a\"]\nbody = \"{{ a\"", "on[0].body", "not a template"),
        ("[[target.answers]]\noutcome = \"rejected\"", "answers[0].status", "is missing"),
        ("[[target.answers]]\nstatus = 99\noutcome = \"rejected\"", "answers[0].status", "100 to 599"),
        ("[[target.answers]]\nstatus = \"6xx\"\noutcome = \"rejected\"", "answers[0].status", "\"2xx\""),
        ("[[target.answers]]\nstatus = 200\noutcome = \"known\"", "answers[0].outcome", "\"refused\""),
        (&row("pointer = \"a\""), "answers[0].pointer", "RFC 6901"),
        (&row("pointer = \"/a~2\""), "answers[0].pointer", "~0 for a ~"),
        (&row("pointer = \"/a\"\nvalue = []"), "answers[0].value", "neither text"),
        (&row("value = 1"), "answers[0].value", "without `pointer`"),
        (&row("pointer = \"/a\"\nvalue = 1\npattern = \"a\""), "answers[0].value", "beside `pattern`"),
        (&row("pattern = \"(\""), "answers[0].pattern", "not a regular expression"),
        ("[[target.on]]\ntypes = [\"a\"]\nmethode = \"PUT\"", "on[0].methode", "did you mean `method`?"),
    ] {
        check_whole(&target(lines), &[], &[(&format!("target[0].{key}"), "lk.toml", part)]);
    }
    check_whole(
        "[[target]]\ntypes = [\"a*\", \"b\", \"\"]\nname = \"A\"",
        &[],
        &[
            ("target[0].name", "lk.toml", "a to z"),
            ("target[0].types[0]", "lk.toml", "customer.*"),
            ("target[0].types[2]", "lk.toml", "is empty"),
            ("target[0].url", "lk.toml", "is missing"),
        ],
    );
    let secret = target("body = \"a ${CRM_TOKEN}\"");
    let fault = ("target[0].body", "lk.toml", "send a secret in a header");
    check_whole(&secret, &[("CRM_TOKEN", "hunter22")], &[fault]);
    let url = TARGET_EXAMPLE.replace("{record_key}", "{{ a. }}");
    check_whole(&url, &[], &[("target[0].url", "lk.toml", "a value in a URL: line 1, column")]);
    let url = TARGET_EXAMPLE.replace("127.0.0.1", "app:s3cret@h");
    check_whole(&url, &[], &[("target[0].url", "lk.toml", "`headers` (authorization)")]);
    assert!(!read(&url, &[]).unwrap_err().to_string().contains("s3cret"));
    check_whole(
        &format!("{TARGET_EXAMPLE}\n{}", TARGET_EXAMPLE.replace("[\"*\"]", "[]")),
        &[],
        &[("target[1].name", "lk.toml", "earlier target"), ("target[1].types", "lk.toml", "is empty")],
    );
    check_whole(
        "[[target]]\ntypes = \"*\"\nname = \"a\"\nurl = \"http://h/{record_key}\"",
        &[],
        &[("target[0].types", "lk.toml", "not a list")],
    );
}

#[test]
fn a_config_without_a_target_shows_the_least_there_can_be() {
    check_whole("", &[], &[("target", "lk.toml", TARGET_EXAMPLE.lines().last().unwrap())]);
    check_whole("target = 5", &[], &[("target", "lk.toml", "[[target]]")]);
    check_whole("[target]\nname = \"crm\"", &[], &[("target", "lk.toml", "[[target]]")]);
    let published = super::read(None, &Environment::default(), Purpose::Publish).unwrap();
    assert!(published.config.targets.is_empty(), "publishers need none");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    check(
        "url = \"x\"\n[brokr]\nurl = \"x\"\n[broker]\nheart_beat = \"5s\"\n[leger]\nurl = \"none\"",
        &[],
        &[
            ("broker.heart_beat", "lk.toml", "did you mean `heartbeat`?"),
            ("brokr", "lk.toml", "did you mean `broker`?"),
            ("leger", "lk.toml", "did you mean `ledger`?"),
            ("url", "lk.toml", "known here: instance, source, sqs, broker"),
        ],
    );
    check_whole(
        &target("if_mach = \"auto\"\nzoo.log = true"),
        &[],
        &[
            ("target[0].if_mach", "lk.toml", "did you mean `if_match`?"),
            ("target[0].zoo", "lk.toml", "known here: name, types"),
        ],
    );
    check("broker = 5", &[], &[("broker", "lk.toml", "not a table")]);
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_place_and_without_the_line() {
    check("\n[broker]\n  url = s3cret", &[], &[("", "lk.toml", "line 3, column")]);
    let report = read("password = s3cret", &[]).unwrap_err().to_string();
    assert!(!report.contains("s3cret"), "{report}");
    let gone = load(Some(Path::new("gone/lk.toml")), &Environment::default(), Purpose::Dispatch).unwrap_err();
    assert!(gone.to_string().contains("gone/lk.toml") && gone.to_string().contains("cannot read"), "{gone}");
}

#[test]
fn the_environment_lies_over_the_file_and_only_names_with_two_underscores_are_keys() {
    let variables = [
        ("LANEKEEPER_CONFIG", "x"),
        ("LANEKEEPER_MANAGEMENT_URL", "x"),
        ("LANEKEEPER_BIN", "x"),
        ("LANEKEEPER_UPDATES__PARTITIONS", "1_6"),
        ("LANEKEEPER_UPDATES__REQUIRE_ID", "true"),
        ("LANEKEEPER_UPDATES__EXCHANGE", "007"),
        ("LANEKEEPER_RETRY__JITTER", "0"),
        ("LANEKEEPER_ADMIN__LISTEN", ""),
    ];
    let text = target("").replace("[[target]]", "[updates]\npartitions = 4\nbody_bytes_max = 10\n[[target]]");
    let loaded = read(&text, &variables).unwrap();
    let (updates, shown) = (&loaded.config.updates, &loaded.shown);
    assert_eq!((updates.partitions.get(), updates.require_id, updates.body_bytes_max), (16, true, 10));
    assert_eq!((updates.exchange.as_str(), loaded.config.admin.listen), ("007", None));
    let origin =
        |key| shown.iter().find(|shown| shown.key == key).map(|shown| shown.origin.to_string()).unwrap();
    assert_eq!(origin("partitions"), "environment variable LANEKEEPER_UPDATES__PARTITIONS");
    assert_eq!(origin("body_bytes_max"), "lk.toml");
    assert_eq!(origin("heartbeat"), "built-in default");
    assert_eq!(origin("method"), "built-in default");
    assert_eq!(origin("name"), Origin::HostName.to_string());

    check(
        "",
        &[
            ("LANEKEEPER_BROKER__URI", "x"),
            ("LANEKEEPER_BROKER_URL", "x"),
            ("LANEKEEPER_BROKER__HEARTBEAT", "often"),
            ("LANEKEEPER_TARGET__0__URL", "x"),
            ("LANEKEEPER_X__", "x"),
        ],
        &[
            ("broker.heartbeat", "LANEKEEPER_BROKER__HEARTBEAT", "not a duration"),
            ("broker.uri", "LANEKEEPER_BROKER__URI", "did you mean `url`?"),
            ("target", "LANEKEEPER_TARGET__0__URL", "in the file"),
            ("broker.url", "LANEKEEPER_BROKER_URL", "LANEKEEPER_BROKER__URL"),
            ("x", "LANEKEEPER_X__", "known here"),
        ],
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_a_fault() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let environment = [("LANEKEEPER_BROKER__URL", value)].into_iter().collect();
    let faults = super::read(None, &environment, Purpose::Publish).unwrap_err();
    assert!(
        faults
            .to_string()
            .contains("broker.url (environment variable LANEKEEPER_BROKER__URL)\n  the value is not UTF-8")
    );
}

#[test]
fn secrets_come_from_the_environment_and_are_never_shown() {
    let text = format!(
        "[broker]\nurl = \"amqp://app:${{PASSWORD}}@mq/%2f\"\n{}",
        target("headers = { Authorization = \"Bearer ${TOKEN}\" }\noutcomes = { 404 = \"applied\" }")
    );
    let loaded = read(&text, &[("PASSWORD", "s3cret"), ("TOKEN", "s3cret")]).unwrap();
    let target = &loaded.config.targets[0];
    assert_eq!(loaded.config.broker.connection.urls[0].reveal(), "amqp://app:s3cret@mq/%2f");
    assert_eq!(target.headers[0].0, "authorization");
    assert_eq!(target.headers[0].1.reveal(), "Bearer s3cret");
    assert_eq!(target.outcomes, BTreeMap::from([(404, OutcomeKind::Applied)]));
    assert_eq!(loaded.config.routes().find(None), Some(TargetId(0)));
    assert!(!format!("{loaded:?}").contains("s3cret"));
    check_whole(
        &text,
        &[],
        &[
            ("broker.url", "lk.toml", "PASSWORD is not set"),
            ("target[0].headers.Authorization", "lk.toml", "TOKEN is not set"),
        ],
    );
}

#[test]
fn a_report_of_faults_says_where_and_what_to_do() {
    let text = "[broker]\nurl = \"amqp://app:s3cret@mq/\"\nhearbeat = \"5s\"\n[failure]\nexhausted = \"drop\"\n\
                [[target]]\nname = \"crm\"\nurl = \"http://crm/{record_key}\"\ntypes = [\"*.x\"]\n\
                headers = { authorization = \"Bearer ${CRM_TOKEN}\" }";
    let faults = read(text, &[("LANEKEEPER_UPDATES__PARTITIONS", "0")]).unwrap_err();
    insta::assert_snapshot!(faults, @r#"
    the config has 6 faults

    broker.url (lk.toml)
      ends with "/", which means the virtual host with the empty name
      write /%2f for the default virtual host, or leave the "/" out

    broker.hearbeat (lk.toml)
      there is no such key
      did you mean `heartbeat`?

    updates.partitions (environment variable LANEKEEPER_UPDATES__PARTITIONS)
      0 is outside 1 to 1024
      write a whole number from 1 to 1024

    failure.exhausted (lk.toml)
      "drop" is not a value of this key
      choose "park", "dead_letter" or "block"

    target[0].types[0] (lk.toml)
      "*.x" is not a type pattern
      "*" stands alone or ends a pattern after a dot, as in "customer.*"

    target[0].headers.authorization (lk.toml)
      the environment variable CRM_TOKEN is not set
      set CRM_TOKEN, or write $${ for ${ itself
    "#);
}

proptest! {
    #[test]
    fn no_fault_quotes_the_broker_url(before in "[a-z:@/?#%\\[\\] ]{0,12}", after in "[a-z0-9:@/?#%&=\\[\\]]{0,12}") {
        let url = format!("amqp://{before}s3cret{after}");
        let faults = super::read(None, &[("LANEKEEPER_BROKER__URL", url)].into_iter().collect(), Purpose::Publish);
        prop_assert!(faults.is_ok() || !faults.unwrap_err().to_string().contains("s3cret"));
    }

    #[test]
    fn any_text_is_read_or_refused_with_words(key in 0..20_usize, value in ".*") {
        let variables = super::read(None, &Environment::default(), Purpose::Publish).unwrap().shown;
        let Shown { section, key, .. } = &variables[key % variables.len()];
        let name = format!("LANEKEEPER_{section}__{key}").to_ascii_uppercase();
        if let Err(faults) = super::read(None, &[(name.clone(), value)].into_iter().collect(), Purpose::Publish) {
            prop_assert!(faults.0.iter().all(|fault| fault.origin == Origin::Variable(name.clone())), "{}", faults);
        }
    }
}

#[test]
fn what_the_next_owner_waits_for_fits_the_time_that_an_update_may_be_held() {
    let limits = "[broker]\nheartbeat = \"10s\"\n[dispatch]\nheld_max = \"40s\"\n";
    let check = |lines: &str, expected: &[(&str, &str, &str)]| {
        check_whole(&format!("{limits}{}", target(lines)), &[], expected);
    };
    check("timeout = \"30s\"\ntakeover_wait = \"30s\"\nconnect_timeout = \"40s\"", &[]);
    check("timeout = \"30001ms\"", &[("target[0].timeout", "lk.toml", "dispatch.held_max = \"40s\"")]);
    check(
        "timeout = \"31s\"\ntakeover_wait = \"0s\"",
        &[("target[0].timeout", "lk.toml", "heartbeat of \"10s\"")],
    );
    check("takeover_wait = \"31s\"", &[("target[0].takeover_wait", "lk.toml", "raise dispatch.held_max")]);
    check(
        "connect_timeout = \"41s\"",
        &[("target[0].connect_timeout", "lk.toml", "longer than dispatch.held_max")],
    );
    let short = format!(
        "[broker]\nheartbeat = \"1s\"\n[dispatch]\nheld_max = \"2s\"\n{}",
        target("timeout = \"1s\"")
    );
    let shortened = read(&short, &[]).unwrap().config.targets[0].connect_timeout;
    assert_eq!(shortened, Duration::from_secs(2), "the default is no fault");
}

#[test]
fn the_longest_time_of_all_targets_is_what_the_next_owner_waits_for() {
    let check = |everywhere: &str, of_two: [&str; 2], seconds: u64| {
        let [one, two] = of_two.map(target);
        let two = two.replace("\"crm\"", "\"erp\"");
        let config = read(&format!("[dispatch]\n{everywhere}\n{one}\n{two}"), &[]).unwrap().config;
        assert_eq!(config.at_work_max(), Duration::from_secs(seconds), "{everywhere} {of_two:?}");
    };
    let zero = "takeover_wait = \"0s\"";
    check("", ["", ""], 10);
    check("", ["timeout = \"1s\"", "timeout = \"30s\"\nconnect_timeout = \"50s\""], 30);
    check("", ["timeout = \"1s\"", "timeout = \"30s\"\ntakeover_wait = \"0s\""], 1);
    check("", ["takeover_wait = \"25s\"", "timeout = \"20s\""], 25);
    check(zero, ["", "timeout = \"30s\""], 0);
    check(zero, ["", "timeout = \"30s\"\ntakeover_wait = \"auto\""], 30);
    let without = super::read(None, &Environment::default(), Purpose::Publish).unwrap();
    assert_eq!(without.config.at_work_max(), Duration::ZERO);
}
