//! Worlds drawn by chance: channels are lost, other processes claim, the target lies, the ledger is slow or away, and in the
//! end everything must have been applied or written down, settled and acked. What must hold on the way is judged by the
//! facts.
//!
//! `LANEKEEPER_DRIVER_SEED=7 cargo test -p lanekeeper --lib one_seed` repeats one of them.

use std::time::Duration;

use tokio::time::sleep;

use super::broker::Content;
use super::rng::Rng;
use super::world::{Setup, World};
use crate::runtime::driver::DriverExit;
use lanekeeper_broker::SourceEvent;

const SEEDS: u64 = 300;
const STEPS: u32 = 60;
const RECORDS: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn whatever_happens_order_holds_and_everything_is_settled() {
    (0..SEEDS).for_each(run);
}

#[test]
fn one_seed() {
    if let Ok(seed) = std::env::var("LANEKEEPER_DRIVER_SEED") {
        run(seed.parse().expect("a seed is a number"));
    }
}

fn run(seed: u64) {
    struct Named(u64);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let Self(seed) = self;
                eprintln!(
                    "repeat it with LANEKEEPER_DRIVER_SEED={seed} cargo test -p lanekeeper --lib one_seed"
                );
            }
        }
    }
    let _named = Named(seed);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime can be made");
    runtime.block_on(live(Rng::new(seed)));
}

/// What a world does besides publishing; most of it only now and then.
async fn live(mut rng: Rng) {
    let ledger = rng.below(2) == 0;
    let setup = if ledger { Setup::with_ledger() } else { Setup::without_ledger() };
    let setup = Setup { in_flight_max: [1, 2, 4][usize::try_from(rng.below(3)).unwrap()], ..setup };
    // What another owner applied is unknown here, so that repetitions are allowed where there is one.
    let rivals = rng.below(3) == 0;
    let mut world = World::of(&setup);
    world.target.draw(Some(rng.fork()));
    let (mut places, mut published) = ([0_u32; RECORDS.len()], 0);
    for _ in 0..STEPS {
        sleep(Duration::from_millis(rng.below(300))).await;
        match rng.below(40) {
            0..3 => world.broker.lose_channel(),
            3 => world.broker.send(SourceEvent::Preempted),
            4 if rivals => {
                let number = world.broker.rival_claims();
                if ledger && rng.below(2) == 0 {
                    world.ledger.rival_claims(number);
                }
                if rng.below(2) == 0 {
                    world.broker.send(SourceEvent::ClaimSuperseded);
                } else {
                    world.broker.lose_channel();
                }
            }
            5 => world.broker.publish(Content::Malformed),
            6 => world.broker.publish(Content::Witness),
            7 => world.broker.set_unreachable(rng.below(2) == 0),
            8 => world.broker.set_silent(rng.below(3) == 0),
            9 => world.broker.set_dead_letter_delay(Duration::from_millis(rng.below(1000))),
            10 => world.ledger.set_delay(Duration::from_millis(rng.below(1500))),
            11 => world.ledger.set_fails(rng.below(2) == 0),
            12 => world.ledger.release_all(),
            _ => {
                for _ in 0..=rng.below(3) {
                    let record = usize::try_from(rng.below(RECORDS.len() as u64)).unwrap();
                    places[record] += 1;
                    published += 1;
                    world.publish(&format!("{}-{}", RECORDS[record], places[record]));
                }
            }
        }
    }
    recover(&world);
    world.until("the end of the queue", |world| world.broker.is_empty()).await;
    assert_eq!(world.broker.acked(), published, "each update is acked once");
    if ledger {
        world.ledger.release_all();
        world.until("an empty ledger", |world| world.ledger.parked() == 0).await;
    }
    if rng.below(2) == 0 {
        world.broker.set_drains();
        world.broker.publish(Content::Marker);
        assert_eq!(world.exit().await, DriverExit::Drained);
    } else {
        assert_eq!(world.stop().await, DriverExit::Stopped);
    }
    assert_eq!(world.facts.in_flight(), 0);
    world.facts.assert_complete(RECORDS.into_iter().zip(places));
}

/// Nothing fails any more.
fn recover(world: &World) {
    world.target.draw(None);
    world.broker.set_unreachable(false);
    world.broker.set_silent(false);
    world.broker.set_dead_letter_delay(Duration::ZERO);
    world.ledger.set_delay(Duration::ZERO);
    world.ledger.set_fails(false);
}
