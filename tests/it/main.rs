//! Tests against a real broker, judged by what the receiver saw. One private node for all of them; those that hurt the
//! broker start one of their own. `scripts/broker` finds or installs RabbitMQ; without one these tests fail.

mod bench;
mod breaker;
mod change;
mod crash;
mod demo;
mod dispatch;
mod doctor;
mod examples;
mod failures;
mod first_start;
mod hand_over;
mod harness;
mod ledger;
mod lifecycle;
mod malformed;
mod misplaced;
mod moved;
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
