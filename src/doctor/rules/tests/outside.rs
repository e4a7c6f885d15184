//! The broker's limit of a message, and names that others chose.

use super::*;

#[test]
fn a_lower_limit_of_the_broker_than_ours_is_a_danger_and_one_that_is_not_known_is_said() {
    let with = |size: MessageSize| move |observed: &mut Observed| observed.message_size = size;
    let bytes = config().updates.body_bytes_max;
    check(with(MessageSize::Refuses { tried: bytes, max: Some(7) }), &["LK130"]);
    check(with(MessageSize::Refuses { tried: bytes, max: None }), &["LK130"]);
    for (size, expected) in [
        (MessageSize::Unknown("why".to_owned()), "(why)"),
        (MessageSize::Takes(bytes - 1), "more was not tried"),
        (MessageSize::Takes(bytes), ""),
    ] {
        let mut observed = sound();
        with(size.clone())(&mut observed);
        assert_eq!(judge(&observed, &config()), []);
        let means: String = unseen(&observed, &config()).iter().map(|unseen| unseen.means.as_str()).collect();
        assert_eq!(
            means.contains("message") || means.contains("tried") || means.contains("why"),
            !expected.is_empty()
        );
        assert!(means.contains(expected), "{size:?}: {means}");
    }
}

#[test]
fn names_from_outside_cannot_steer_a_terminal_or_forge_lines() {
    let mut observed = sound();
    let name = "\u{1b}]0;x\u{7}\nerror LK999  forged\u{9b}2J\u{202e}";
    let of_partition = management(&mut observed).queues.get_mut("updates.l1.p000").unwrap();
    of_partition.consumers.push(Consumer {
        tag: name.to_owned(),
        connection: Some(name.to_owned()),
        user: Some(name.to_owned()),
        ..Consumer::default()
    });
    of_partition.policy = Some(name.to_owned());
    of_partition.effective_policy = Some([("message-ttl".to_owned(), json!(1))].into_iter().collect());
    let named = PolicyName { kind: PolicyKind::Policy, name: name.to_owned() };
    let policy = [("message-ttl".to_owned(), json!(1))].into_iter().collect();
    management(&mut observed).policies.insert(named, policy);
    management(&mut observed).bindings.push(binding(name, "updates.l1.p000", DestinationKind::Queue));
    management(&mut observed).bindings.push(binding("updates.ingress", name, DestinationKind::Queue));
    management(&mut observed).alarms = Ok(vec![Alarm { node: name.to_owned(), resource: name.to_owned() }]);
    management(&mut observed).nodes = Err(name.to_owned());
    let findings = judge(&observed, &config());
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code.code()).collect();
    for code in ["LK105", "LK206", "LK209", "LK302", "LK401"] {
        assert!(codes.contains(&code), "{code} in {codes:?}");
    }
    let unseen = unseen(&observed, &config());
    let examination = Examination { subject: Subject::Run(Box::new(observed)), findings, unseen };
    let text = examination.text("updates");
    assert!(!text.lines().any(|line| line.starts_with("error LK999")), "{text}");
    assert!(!text.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{text:?}");
}
