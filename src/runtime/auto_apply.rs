//! What `updates.auto_apply` looks at before it changes the layout: the dangers that `lanekeeper topology plan` shows.

use crate::config::Config;
use crate::doctor::Finding;
use crate::doctor::change::{Weight, dangers_of_change};
use lanekeeper_broker::{AutoApply, Obstacle, Obstacles, SourceError};
use lanekeeper_core::layout::Shape;

/// Changes the layout to `shape` as soon as nothing stands against it.
pub fn auto_apply(config: &Config, shape: Shape) -> AutoApply {
    let config = config.clone();
    let look = Box::new(move || {
        let config = config.clone();
        Box::pin(async move { look(&config, shape).await }) as _
    });
    AutoApply { shape, look }
}

/// A person may take a risk; a program does not.
async fn look(config: &Config, shape: Shape) -> Result<Obstacles, SourceError> {
    let mut found = Obstacles::default();
    for danger in dangers_of_change(config, shape).await? {
        let described = obstacle(&danger.finding);
        match danger.weight {
            Weight::Forbids | Weight::Risks => found.blockers.push(described),
            Weight::Warns => found.warnings.push(described),
        }
    }
    Ok(found)
}

fn obstacle(finding: &Finding) -> Obstacle {
    let fixes: Vec<String> = finding.fix.iter().map(ToString::to_string).collect();
    Obstacle { what: format!("{}: {}; {}", finding.code, finding.what, finding.cost), fix: fixes.join(" | ") }
}
