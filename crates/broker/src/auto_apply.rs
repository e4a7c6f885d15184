//! `updates.auto_apply`: a dispatcher changes the layout by itself, unless something is in the way.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tracing::{error, info, warn};

use super::error::SourceError;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::Shape;

/// Between two looks, while something is in the way: at first, and then longer and longer.
const LOOK_DELAY_MIN: Duration = Duration::from_secs(5);
const LOOK_DELAY_MAX: Duration = Duration::from_secs(60);

/// What a dispatcher changes the layout to, once.
pub struct AutoApply {
    /// Partitions and prefetch, as its config says.
    pub shape: Shape,
    /// Looks for what a change could meet. Nobody holds the lock meanwhile.
    pub look: Look,
}

impl fmt::Debug for AutoApply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoApply").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// A look, as often as it is asked for.
pub type Look = Box<dyn Fn() -> Looking + Send + Sync>;
/// One look under way.
pub type Looking = Pin<Box<dyn Future<Output = Result<Obstacles, SourceError>> + Send>>;

/// What a look has found, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// What keeps the layout from being changed.
    pub blockers: Vec<Obstacle>,
    /// What does not, and somebody should know of.
    pub warnings: Vec<Obstacle>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is and what it can cost.
    pub what: String,
    /// What removes it.
    pub fix: String,
}

/// What was told of it, and how long to wait before the next look.
#[derive(Debug)]
pub(super) struct AutoApplyGate {
    pub(super) auto: AutoApply,
    /// As it was told.
    known: Option<Result<Obstacles, String>>,
    delay: Duration,
}

impl AutoApplyGate {
    pub(super) fn new(auto: AutoApply) -> Self {
        Self { auto, known: None, delay: LOOK_DELAY_MIN }
    }

    /// Looks. `None`: the layout may be changed now. Otherwise not before so long.
    pub(super) async fn look(&mut self) -> Option<Duration> {
        let looked = (self.auto.look)().await.map_err(|fault| error_chain(&fault));
        self.observe(looked)
    }

    fn observe(&mut self, looked: Result<Obstacles, String>) -> Option<Duration> {
        let is_free = looked.as_ref().is_ok_and(|obstacles| obstacles.blockers.is_empty());
        if self.known.as_ref() == Some(&looked) {
            self.delay = (self.delay * 2).min(LOOK_DELAY_MAX);
        } else {
            self.log(&looked);
            self.delay = LOOK_DELAY_MIN;
        }
        self.known = Some(looked);
        (!is_free).then_some(self.delay)
    }

    /// Once, until it is otherwise.
    fn log(&self, looked: &Result<Obstacles, String>) {
        let Shape { partitions, prefetch } = self.auto.shape;
        let Obstacles { blockers, warnings } = match looked {
            Ok(obstacles) => obstacles,
            Err(error) => {
                warn!(
                    error,
                    "updates.auto_apply: the layout is not changed before it was seen that nothing is in the way, trying again"
                );
                return;
            }
        };
        for Obstacle { what, fix } in blockers {
            error!(
                partitions,
                prefetch,
                what,
                remedy = fix,
                "updates.auto_apply: the layout is not changed while this is in the way; it is looked for again, and changed when it is gone. `lanekeeper topology plan` shows all"
            );
        }
        for Obstacle { what, fix } in warnings {
            warn!(
                what,
                remedy = fix,
                "updates.auto_apply: this could go wrong with the change of the layout"
            );
        }
        let was_blocked = self.known.as_ref().is_some_and(|known| match known {
            Ok(obstacles) => !obstacles.blockers.is_empty(),
            Err(_) => true,
        });
        if blockers.is_empty() && was_blocked {
            info!(partitions, prefetch, "updates.auto_apply: nothing is in the way any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks, one letter each: `a`, `b` something in the way, `!` a fault, `.` nothing. How long is waited after each.
    fn check(looks: &str, expected: &[Option<u64>]) {
        let shape = Shape { partitions: 3, prefetch: 10 };
        let mut gate =
            AutoApplyGate::new(AutoApply { shape, look: Box::new(|| unreachable!("heed is called")) });
        let looked = looks.chars().map(|letter| {
            let found = |letter: char| Obstacle { what: letter.to_string(), fix: String::new() };
            gate.observe(match letter {
                '!' => Err("gone".to_owned()),
                '.' => Ok(Obstacles::default()),
                letter => Ok(Obstacles { blockers: vec![found(letter)], warnings: Vec::new() }),
            })
        });
        let waited: Vec<_> = looked.map(|delay| delay.map(|delay| delay.as_secs())).collect();
        assert_eq!(waited, expected, "{looks}");
    }

    #[test]
    fn what_stays_in_the_way_is_looked_for_less_and_less_often() {
        check(".", &[None]);
        check("aaaaaa.", &[Some(5), Some(10), Some(20), Some(40), Some(60), Some(60), None]);
        check("aab!!.", &[Some(5), Some(10), Some(5), Some(5), Some(10), None]);
    }
}
