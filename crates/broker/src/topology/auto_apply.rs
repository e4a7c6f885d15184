//! `updates.auto_apply`: a dispatcher changes the layout by itself, unless an obstacle forbids it.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::error::SourceError;
use crate::log_on_change::LogOnChange;
use lanekeeper_core::error::error_chain;
use lanekeeper_core::layout::Shape;

/// The wait between two checks while there is an obstacle: at first, and at most.
const LOOK_DELAY_MIN: Duration = Duration::from_secs(5);
const LOOK_DELAY_MAX: Duration = Duration::from_secs(60);

/// What a dispatcher changes the layout to, once.
pub struct AutoApply {
    /// Partitions and prefetch, as its config says.
    pub shape: Shape,
    /// Checks what a change could meet. The lock is not held while it runs.
    pub look: Look,
}

impl fmt::Debug for AutoApply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutoApply").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Starts one check.
pub type Look = Box<dyn Fn() -> Looking + Send + Sync>;
/// One check that runs.
pub type Looking = Pin<Box<dyn Future<Output = Result<Obstacles, SourceError>> + Send>>;

/// What a check has found, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// What keeps the layout from being changed.
    pub blockers: Vec<Obstacle>,
    /// What does not keep it, and a person should know.
    pub warnings: Vec<Obstacle>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is, and what it can cost.
    pub what: String,
    /// What removes it.
    pub fix: String,
}

/// Decides if the layout may be changed now: what was logged last, and how long to wait before the next check.
#[derive(Debug)]
pub(super) struct AutoApplyGate {
    auto: AutoApply,
    log: LogOnChange<Result<Obstacles, String>>,
    backoff: Backoff,
}

impl AutoApplyGate {
    pub(super) fn new(auto: AutoApply) -> Self {
        let backoff = Backoff::new(LOOK_DELAY_MIN, LOOK_DELAY_MAX);
        Self { auto, log: LogOnChange::default(), backoff }
    }

    /// What the layout is to be changed to.
    pub(super) fn shape(&self) -> Shape {
        self.auto.shape
    }

    /// Checks. `None`: the layout may be changed now. Otherwise the wait before the next check.
    pub(super) async fn look(&mut self) -> Option<Duration> {
        let looked = (self.auto.look)().await.map_err(|fault| error_chain(&fault));
        self.judge(&looked)
    }

    fn judge(&mut self, looked: &Result<Obstacles, String>) -> Option<Duration> {
        let is_free = looked.as_ref().is_ok_and(|obstacles| obstacles.blockers.is_empty());
        let was_blocked = self.log.last().is_some_and(|known| match known {
            Ok(obstacles) => !obstacles.blockers.is_empty(),
            Err(_) => true,
        });
        if self.log.is_new(looked.clone()) {
            self.log_looked(looked, was_blocked);
            self.backoff.reset();
        }
        (!is_free).then(|| self.backoff.next_delay())
    }

    fn log_looked(&self, looked: &Result<Obstacles, String>, was_blocked: bool) {
        let Shape { partitions, prefetch } = self.auto.shape;
        let Obstacles { blockers, warnings } = match looked {
            Ok(obstacles) => obstacles,
            Err(error) => {
                warn!(
                    error,
                    "updates.auto_apply: the check for obstacles failed, so the layout is not changed; trying again"
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
                "updates.auto_apply: the layout is not changed because of this obstacle; checking again, and changing it once no obstacle is left. `lanekeeper topology plan` shows all of them"
            );
        }
        for Obstacle { what, fix } in warnings {
            warn!(what, remedy = fix, "updates.auto_apply: changing the layout, though this could go wrong");
        }
        if blockers.is_empty() && was_blocked {
            info!(partitions, prefetch, "updates.auto_apply: no obstacle is left, changing the layout");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks, one letter each: `a`, `b` an obstacle, `!` a fault, `.` nothing; and the wait after each.
    fn check(looks: &str, expected: &[Option<u64>]) {
        let shape = Shape { partitions: 3, prefetch: 10 };
        let mut gate =
            AutoApplyGate::new(AutoApply { shape, look: Box::new(|| unreachable!("judge is called")) });
        let looked = looks.chars().map(|letter| {
            let found = |letter: char| Obstacle { what: letter.to_string(), fix: String::new() };
            gate.judge(&match letter {
                '!' => Err("gone".to_owned()),
                '.' => Ok(Obstacles::default()),
                letter => Ok(Obstacles { blockers: vec![found(letter)], warnings: Vec::new() }),
            })
        });
        let waited: Vec<_> = looked.map(|delay| delay.map(|delay| delay.as_secs())).collect();
        assert_eq!(waited, expected, "{looks}");
    }

    #[test]
    fn an_obstacle_that_stays_is_checked_less_and_less_often() {
        check(".", &[None]);
        check("aaaaaa.", &[Some(5), Some(10), Some(20), Some(40), Some(60), Some(60), None]);
        check("aab!!.", &[Some(5), Some(10), Some(5), Some(5), Some(10), None]);
    }
}
