//! Exchanges, queues and bindings must be as `lanekeeper run` declares them, with no other binding between them.

use super::super::codes::Code;
use super::super::facts::{Binding, DestinationKind, Management};
use super::super::finding::Finding;
use super::super::fix::{Fix, delete_exchange, delete_queue, unbind};
use super::case::{Case, listed};
use lanekeeper_broker::{Object, ObjectState, Role};
use lanekeeper_core::layout::Layout;

/// The management API's name for a binding without routing key and arguments. All of ours are such.
pub const WITHOUT_KEY: &str = "~";
const QUEUE_TYPE: &str = "x-queue-type";

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = objects(case);
    if let (Ok(management), Some(layout)) = (&case.observed.management, case.observed.layout()) {
        findings.extend(missing_bindings(case, management, layout));
        findings.extend(foreign_bindings(case, management, layout));
    }
    findings
}

fn objects(case: &Case<'_>) -> Vec<Finding> {
    let objects = &case.observed.broker.objects;
    let mut findings: Vec<Finding> = objects.iter().filter_map(|object| differs(case, object)).collect();
    if let Some(misfit) = &case.observed.broker.misfit {
        let stop = Fix::Do("stop all dispatchers; if the ingress is bound to the layout that is to be kept, and to nothing else:".to_owned());
        let adopt = Fix::Run("lanekeeper topology adopt --config FILE".to_owned());
        let start = Fix::Do(
            "then start them again (docs/operating.md, \"If the layout document is gone\")".to_owned(),
        );
        findings.push(Finding::new(Code::DocumentMisfits, misfit.clone(), vec![stop, adopt, start]));
    }
    match &case.observed.broker.layout {
        Err(fault) => {
            let what = fault.clone();
            let show = Fix::Do(
                "run the version of Lanekeeper that wrote the document, or a newer one; if the broker refuses to let it be \
                 read, grant the permission read on the stream"
                    .to_owned(),
            );
            findings.push(Finding::new(Code::DocumentUnreadable, what, vec![show]));
        }
        Ok(None) => {
            let what = format!("the exchange {} has no layout yet", case.names.public());
            let run = Fix::Run("lanekeeper run --config FILE".to_owned());
            findings.push(Finding::new(Code::NoLayoutYet, what, vec![run]));
        }
        Ok(Some(_)) => {
            let missing = objects.iter().filter(|object| object.state == ObjectState::Missing);
            let missing: Vec<&str> = missing.map(|object| object.name.as_str()).collect();
            if !missing.is_empty() {
                let what = format!("missing in the broker: {}", listed(&missing));
                let fix = declare_again();
                findings.push(Finding::new(Code::ObjectMissing, what, fix));
            }
        }
    }
    findings
}

/// Declares and binds what is missing.
pub fn declare_again() -> Vec<Fix> {
    vec![
        Fix::Do(
            "stop all publishers and dispatchers, so that no update goes to a wrong queue; then run"
                .to_owned(),
        ),
        Fix::Run("lanekeeper run --config FILE".to_owned()),
        Fix::Do("which declares and binds the missing objects".to_owned()),
    ]
}

fn differs(case: &Case<'_>, object: &Object) -> Option<Finding> {
    let ObjectState::Differs { argument, expected, found, .. } = &object.state else { return None };
    let name = &object.name;
    let kind = if object.role.is_queue() { "queue" } else { "exchange" };
    // The broker names the first argument that differs, which is seldom the type.
    let wanted_type = if object.role == Role::Document { "stream" } else { "quorum" };
    let other_type = case.observed.queue(name).and_then(|queue| queue.kind.as_deref());
    let other_type = other_type.filter(|found| object.role.is_queue() && *found != wanted_type);
    let (code, what) = match other_type {
        Some(found) => {
            (Code::QueueTypeDiffers, format!("queue {name} is of type {found}, but it must be {wanted_type}"))
        }
        None => (
            if argument == QUEUE_TYPE { Code::QueueTypeDiffers } else { Code::ObjectDiffers },
            format!("{kind} {name} has {argument} = {found}, but it must be {expected}"),
        ),
    };
    let vhost = &case.observed.vhost;
    let messages = case.observed.messages(object);
    let mut fix = Vec::new();
    if object.role.is_queue() {
        if messages > 0 {
            fix.push(Fix::Do(format!(
                "the queue holds {messages} messages, which are deleted with it: take them out first"
            )));
        }
        fix.push(delete_queue(vhost, name));
    } else if let Ok(management) = &case.observed.management {
        fix.push(delete_exchange((&management.url, &management.user), vhost, name));
    } else {
        fix.push(Fix::Do(format!("delete the exchange {name}, in the RabbitMQ UI under Exchanges")));
    }
    fix.push(Fix::Run("lanekeeper run --config FILE".to_owned()));
    Some(Finding::new(code, what, fix))
}

/// A binding that must exist.
struct Expected {
    source: String,
    destination: String,
    to: DestinationKind,
}

fn expected(case: &Case<'_>, layout: Layout) -> Vec<Expected> {
    use DestinationKind::{Exchange, Queue};
    let names = &case.names;
    let hash = names.layout(layout.number);
    let mut expected = vec![
        Expected { source: names.public().to_owned(), destination: names.ingress(), to: Exchange },
        Expected { source: names.ingress(), destination: hash.clone(), to: Exchange },
        Expected { source: names.dead(), destination: names.dead(), to: Queue },
    ];
    expected.extend(layout.partitions().map(|partition| Expected {
        source: hash.clone(),
        destination: names.partition(layout.number, partition),
        to: Queue,
    }));
    expected
}

/// Only between objects that exist: missing objects are a finding of their own.
fn missing_bindings(case: &Case<'_>, management: &Management, layout: Layout) -> Vec<Finding> {
    let there = |name: &str, queue: bool| {
        let objects = &case.observed.broker.objects;
        objects.iter().any(|object| {
            object.name == name && object.role.is_queue() == queue && object.state != ObjectState::Missing
        })
    };
    let missing: Vec<String> = expected(case, layout)
        .into_iter()
        .filter(|wanted| {
            there(&wanted.source, false) && there(&wanted.destination, wanted.to == DestinationKind::Queue)
        })
        .filter(|wanted| !management.bindings.iter().any(|binding| wanted.is(binding)))
        // While the layout changes, the ingress is bound to the next one, or it is unbound and the handoff is bound.
        .filter(|wanted| case.observed.broker.changing_to.is_none() || wanted.source != case.names.ingress())
        .map(|wanted| format!("{} to {}", wanted.source, wanted.destination))
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    let what = format!("missing bindings: {}", listed(&missing));
    vec![Finding::new(Code::BindingMissing, what, declare_again())]
}

impl Expected {
    fn is(&self, binding: &Binding) -> bool {
        (&self.source, &self.destination, self.to) == (&binding.source, &binding.destination, binding.to)
            && binding.properties_key == WITHOUT_KEY
    }
}

fn foreign_bindings(case: &Case<'_>, management: &Management, layout: Layout) -> Vec<Finding> {
    let expected = expected(case, layout);
    let foreign = management.bindings.iter().filter(|binding| {
        !expected.iter().any(|wanted| wanted.is(binding)) && !is_of_a_change(case, binding)
    });
    let finding = |binding: &Binding| {
        let (code, what) = judge_foreign(case, layout, binding)?;
        Some(Finding::new(code, what, vec![unbind(management, &case.observed.vhost, binding)]))
    };
    foreign.filter_map(finding).collect()
}

/// A binding that `topology apply` makes while it changes the layout.
fn is_of_a_change(case: &Case<'_>, binding: &Binding) -> bool {
    let names = &case.names;
    case.observed.broker.changing_to.is_some_and(|to| {
        let from = [names.ingress(), names.handoff()];
        from.contains(&binding.source) && binding.destination == names.layout(to.number)
    })
}

fn judge_foreign(case: &Case<'_>, layout: Layout, binding: &Binding) -> Option<(Code, String)> {
    let names = &case.names;
    let hash = names.layout(layout.number);
    let Binding { source, destination, to, .. } = binding;
    let is_partition = *to == DestinationKind::Queue
        && layout.partitions().any(|partition| names.partition(layout.number, partition) == *destination);
    let described = match to {
        DestinationKind::Queue => format!("queue {destination}"),
        DestinationKind::Exchange => format!("exchange {destination}"),
    };
    let described = format!("exchange {source} is bound to {described}");
    let role = |name: &str| {
        let objects = &case.observed.broker.objects;
        objects.iter().find(|object| object.name == name && !object.role.is_queue()).map(|object| object.role)
    };
    match role(source) {
        Some(Role::Ingress) => {
            return Some((
                Code::IngressBoundTwice,
                format!("{described}, in addition to the layout's {hash}"),
            ));
        }
        Some(Role::Layout) => {
            return Some((
                Code::ForeignBindingOfHash,
                format!("{described}, which is not a partition or is bound twice"),
            ));
        }
        Some(Role::Handoff) => {
            return Some((
                Code::HandoffBound,
                format!("{described}, although the layout is not being changed"),
            ));
        }
        _ => {}
    }
    if is_partition {
        return Some((Code::ForeignBindingOfPartition, described));
    }
    let inner = *to == DestinationKind::Exchange
        && matches!(role(destination), Some(Role::Ingress | Role::Handoff | Role::Layout));
    inner.then_some((Code::ForeignWayIn, described))
}
