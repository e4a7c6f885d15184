//! Compares the config with the current layout, and counts what waits for a person.

use super::super::codes::Code;
use super::super::finding::Finding;
use super::super::fix::{Fix, quoted};
use super::case::Case;
use lanekeeper_broker::Role;

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    [dead_letters(case), partitions(case), prefetch(case)].into_iter().flatten().collect()
}

fn dead_letters(case: &Case<'_>) -> Option<Finding> {
    let observed = case.observed;
    let queue = observed.broker.objects.iter().find(|object| object.role == Role::DeadQueue)?;
    let letters = observed.messages(queue);
    if letters == 0 {
        return None;
    }
    let (vhost, name) = (quoted(&observed.vhost), quoted(&queue.name));
    let what = match letters {
        1 => format!("1 update is in the dead-letter queue {}", queue.name),
        many => format!("{many} updates are in the dead-letter queue {}", queue.name),
    };
    let look = "examine them and publish them again (docs/operating.md, \"The dead-letter queue\"); or, to delete them all:";
    let fix =
        vec![Fix::Do(look.to_owned()), Fix::Run(format!("rabbitmqctl purge_queue --vhost {vhost} {name}"))];
    Some(Finding::new(Code::DeadLetters, what, fix))
}

fn partitions(case: &Case<'_>) -> Option<Finding> {
    let (layout, wanted) = (case.observed.layout()?, case.config.updates.partitions.get());
    let (number, partitions) = (layout.number.0, layout.partitions);
    (partitions != wanted).then(|| {
        let what = format!("updates.partitions = {wanted}, but the current layout {number} has {partitions}");
        let set = Fix::Config(format!("updates.partitions = {partitions}"));
        Finding::new(Code::PartitionsDiffer, what, vec![set, or_change()])
    })
}

fn prefetch(case: &Case<'_>) -> Option<Finding> {
    let (layout, wanted) = (case.observed.layout()?, case.config.dispatch.prefetch.get());
    let (number, prefetch) = (layout.number.0, layout.prefetch);
    (prefetch != wanted).then(|| {
        let holding = case.observed.partitions().filter(|object| case.observed.messages(object) > 0).count();
        let holding = match holding {
            0 => "no queue of it has updates now".to_owned(),
            1 => "1 queue of it has updates now".to_owned(),
            many => format!("{many} queues of it have updates now"),
        };
        let what = format!(
            "dispatch.prefetch = {wanted}, but the current layout {number} has {prefetch}, and {holding}"
        );
        let set = Fix::Config(format!("dispatch.prefetch = {prefetch}"));
        Finding::new(Code::PrefetchDiffers, what, vec![set, or_change()])
    })
}

fn or_change() -> Fix {
    Fix::Do(
        "or change the layout to what the config says, while updates flow: `lanekeeper topology apply`"
            .to_owned(),
    )
}
