//! What is looked at before a program makes or changes a layout: the dangers that `lanekeeper topology plan` shows.

use tokio::sync::watch;

use crate::config::Config;
use crate::doctor::change::{Weight, dangers_of_change};
use crate::doctor::{Finding, room_for};
use lanekeeper_broker::{AutoApply, FirstLayout, Obstacle, Obstacles, SourceError};
use lanekeeper_core::layout::Shape;

/// Changes the layout to `shape` as soon as nothing stands against it. `config` is the one in force: its passwords can change.
pub fn auto_apply(config: watch::Receiver<Config>, shape: Shape) -> AutoApply {
    let look = Box::new(move || {
        let config = config.borrow().clone();
        Box::pin(async move { look(&config, shape).await }) as _
    });
    AutoApply { shape, look }
}

/// The layout that the first start makes, if the broker has room for it.
pub fn first_layout(config: &Config, shape: Shape) -> FirstLayout {
    let config = config.clone();
    let look = Box::new(move |version, cluster| {
        let config = config.clone();
        Box::pin(async move {
            let found = room_for(&config, shape.partitions, (version, cluster)).await;
            Ok(Obstacles { blockers: found.iter().map(obstacle).collect(), warnings: Vec::new() })
        }) as _
    });
    FirstLayout { shape, look: Some(look) }
}

/// A person may take a risk; a program does not.
async fn look(config: &Config, shape: Shape) -> Result<Obstacles, SourceError> {
    let mut found = Obstacles::default();
    for danger in dangers_of_change(config, shape).await? {
        let mut described = obstacle(&danger.finding);
        if danger.weight == Weight::Unseen {
            described.fix +=
                " | or look at the bindings, and call `lanekeeper topology apply --without-management`";
        }
        match danger.weight {
            Weight::Forbids | Weight::Unseen | Weight::Risks => found.blockers.push(described),
            Weight::Warns => found.warnings.push(described),
        }
    }
    Ok(found)
}

fn obstacle(finding: &Finding) -> Obstacle {
    let fixes: Vec<String> = finding.fix.iter().map(ToString::to_string).collect();
    Obstacle { what: format!("{}: {}; {}", finding.code, finding.what, finding.cost), fix: fixes.join(" | ") }
}
