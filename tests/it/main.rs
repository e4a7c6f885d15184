//! Tests against a real broker, judged by what the receiver saw. One private node for all of them; those that hurt the
//! broker start one of their own. `scripts/broker` finds or installs RabbitMQ; without one these tests fail.

mod bench;
mod breaker;
mod change;
mod crash;
mod deleted_exchange;
mod demo;
mod dispatch;
mod doctor;
mod document;
mod examples;
mod fail_over;
mod failures;
mod first_start;
mod hand_over;
mod harness;
mod hosts;
mod ledger;
mod lifecycle;
mod log;
mod malformed;
mod many_partitions;
mod misplaced;
mod moved;
mod pacing;
mod parking;
mod publish;
mod queues;
mod readme;
mod rebuilt;
mod refusals;
mod routing;
mod tls;
mod too_large;
mod topology;
mod witnesses;
