//! The broker's sentences, and what is made of them.

use lapin::protocol::AMQPError;

use super::*;

/// The sentences of RabbitMQ 3.10 and 4.0.
#[test]
fn what_a_cluster_answers_while_it_starts_or_is_split_is_waited_for_by_its_name() {
    let check = |kind: AMQPErrorKind, text: &str, expected: &str| {
        let source =
            || lapin::Error::from(ErrorKind::ProtocolError(AMQPError::new(kind.clone(), text.into())));
        for fault in [
            SourceError::from_amqp("looking", "queue q", "updates", source()),
            SourceError::from_consuming("looking", "queue q", "updates", source()),
        ] {
            let spelled = format!("{fault:?}");
            if spelled.starts_with(expected) {
                assert!(fault.can_heal(), "{text}: {fault:?}");
                assert!(!fault.is_deleted_queue(), "{text}: {fault:?}");
                return;
            }
        }
        panic!("{text}: not {expected}");
    };
    let (internal, resource) = (AMQPHardError::INTERNALERROR, AMQPHardError::RESOURCEERROR);
    let (internal, resource) = (AMQPErrorKind::Hard(internal), AMQPErrorKind::Hard(resource));
    let not_found = AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND);
    let failed = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
    check(
        internal.clone(),
        "INTERNAL_ERROR - Cannot declare quorum queue 'q' in vhost '/' on node 'rabbit@c' with leader on node \
         'rabbit@c': cluster_not_formed",
        "NoQuorum",
    );
    check(
        internal.clone(),
        "INTERNAL_ERROR - Cannot declare a queue 'queue 'q' in vhost '/'' on node 'rabbit@c': \
         {error,coordinator_unavailable}",
        "NoQuorum",
    );
    check(resource, "RESOURCE_ERROR - Stream coordinator unavailable for queue 'q' in vhost '/'", "NoQuorum");
    check(internal, "INTERNAL_ERROR", "NoQuorum");
    check(
        failed.clone(),
        "PRECONDITION_FAILED - stream queue 'q' in vhost '/' does not have a running replica on the local node",
        "NoReplica",
    );
    check(
        failed,
        "PRECONDITION_FAILED - queue 'q' in vhost '/' does not have a replica on the local node",
        "NoReplica",
    );
    check(
        not_found.clone(),
        "NOT_FOUND - home node 'rabbit@c' of durable queue 'q' in vhost '/' is down or inaccessible",
        "NodeDown",
    );
    let missing =
        ErrorKind::ProtocolError(AMQPError::new(not_found, "NOT_FOUND - no queue 'q' in vhost '/'".into()));
    let fault = SourceError::from_amqp("looking", "queue q", "updates", missing.into());
    assert!(fault.is_deleted_queue() && !fault.can_heal(), "{fault:?}");
}

#[test]
fn a_node_without_a_replica_gets_the_command_that_makes_one() {
    let stream = "stream updates.members".to_owned();
    let text = SourceError::NoReplica { stream }.to_string();
    let command = "`rabbitmq-streams add_replica --vhost VHOST updates.members NODE`";
    assert!(text.contains(command), "{text}");
}

#[test]
fn the_difference_is_spelled_out() {
    let check = |text: &str, argument: &str, expected: &str, found: &str| {
        let found_values = inequivalence(text).expect(text);
        assert_eq!(found_values, (argument.to_owned(), expected.to_owned(), found.to_owned()), "{text}");
    };
    check(
        "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'updates.l1.p000' in vhost '/': \
         received the value '1000000' of type 'signedint' but current is none",
        "x-delivery-limit",
        "1000000",
        "none",
    );
    check(
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'updates' in vhost '/': received 'fanout' but \
         current is 'topic'",
        "type",
        "fanout",
        "topic",
    );
    check(
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'updates.dead' in vhost '/': received the \
         value 'quorum' of type 'longstr' but current is the value 'classic' of type 'longstr'",
        "x-queue-type",
        "quorum",
        "classic",
    );
    assert_eq!(inequivalence("PRECONDITION_FAILED - something else"), None);
}
