//! The cluster: its nodes, how it handles a split, and where the copies (replicas) of queues and streams are.

use super::super::codes::Code;
use super::super::facts::{Management, Queue};
use super::super::finding::Finding;
use super::super::fix::{Fix, quoted};
use super::case::{Case, listed};
use lanekeeper_broker::ObjectState;

/// Copies that a queue or stream should have, if there are so many nodes: one node can fail then.
const COPIES_WANTED: usize = 3;

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = online_copies(case);
    let Ok(management) = &case.observed.management else { return findings };
    let of_the_cluster = [partitioned, partition_handling, few_copies, even_copies, leaders, no_replica];
    findings.extend(of_the_cluster.into_iter().filter_map(|rule| rule(case, management)));
    findings
}

/// Copies that are not online, and the nodes that have them.
fn online_copies(case: &Case<'_>) -> Vec<Finding> {
    let (mut without_majority, mut missing) = (Vec::new(), Vec::new());
    let objects = case.observed.broker.objects.iter().filter(|object| object.role.is_queue());
    let members = case.names.members();
    let mut copies: Vec<(&str, usize, usize)> = Vec::new();
    for object in objects {
        match (&object.state, case.observed.queue(&object.name)) {
            (ObjectState::Unavailable(_), _) => copies.push((&object.name, 0, 1)),
            (_, Some(queue)) => copies.push((&object.name, queue.online.len(), queue.members.len())),
            (_, None) => {}
        }
    }
    if let Some(queue) = case.observed.queue(&members) {
        copies.push((&members, queue.online.len(), queue.members.len()));
    }
    for (name, online, members) in copies {
        if online < members && online <= members / 2 {
            without_majority.push(name);
        } else if online < members {
            missing.push(name);
        }
    }
    let down = match &case.observed.management {
        Ok(management) => nodes_down(management),
        Err(_) => Vec::new(),
    };
    let down = match down.as_slice() {
        [] => String::new(),
        down => format!("; nodes that are down: {}", down.join(", ")),
    };
    let status = || {
        vec![
            Fix::Run("rabbitmqctl cluster_status".to_owned()),
            Fix::Do("start the nodes that are down".to_owned()),
        ]
    };
    let mut findings = Vec::new();
    if !without_majority.is_empty() {
        let what = format!("no majority of copies is online: {}{down}", listed(&without_majority));
        findings.push(Finding::new(Code::NoMajority, what, status()));
    }
    if !missing.is_empty() {
        let what = format!("a copy is not online: {}{down}", listed(&missing));
        findings.push(Finding::new(Code::CopiesMissing, what, status()));
    }
    findings
}

fn nodes_down(management: &Management) -> Vec<&str> {
    let down = management.known_nodes().iter().filter(|node| !node.running);
    down.map(|node| node.name.as_str()).collect()
}

/// After a split under `ignore`, each side keeps what it knows until one of them is restarted. The nodes show it once they
/// reach each other again.
fn partitioned(_: &Case<'_>, management: &Management) -> Option<Finding> {
    let nodes = management.known_nodes().iter().filter(|node| !node.partitions.is_empty());
    let views: Vec<String> =
        nodes.map(|node| format!("{} from {}", node.name, node.partitions.join(", "))).collect();
    if views.is_empty() {
        return None;
    }
    let views: Vec<&str> = views.iter().map(String::as_str).collect();
    let what = format!("the cluster was split, and nodes still keep a view of their own: {}", listed(&views));
    let mut fix = vec![Fix::Do(
        "restart the nodes of the smaller side, one after another; they then take over what the others know:"
            .to_owned(),
    )];
    fix.push(Fix::Run("rabbitmqctl cluster_status".to_owned()));
    fix.push(Fix::Run("rabbitmqctl --node NODE stop_app && rabbitmqctl --node NODE start_app".to_owned()));
    Some(Finding::new(Code::ClusterPartitioned, what, fix))
}

/// No API shows the setting (looked for in `/api/overview`, `/api/nodes` and `/api/nodes/NAME` of RabbitMQ 3.10.8).
/// Khepri has no such strategies: there the smaller side refuses changes.
fn partition_handling(_: &Case<'_>, management: &Management) -> Option<Finding> {
    let nodes = management.known_nodes().len();
    if nodes < 2 || management.khepri == Ok(true) {
        return None;
    }
    let what = format!(
        "the broker is a cluster of {nodes} nodes, and no API shows how it handles a split (cluster_partition_handling)"
    );
    let look = Fix::Do("look on each node:".to_owned());
    let show =
        Fix::Run("rabbitmqctl eval 'application:get_env(rabbit, cluster_partition_handling).'".to_owned());
    let set = Fix::Do(
        "if it is ignore, which is the default: set cluster_partition_handling = pause_minority in rabbitmq.conf of each node \
         and restart the nodes one after another; it needs three nodes or more"
            .to_owned(),
    );
    Some(Finding::new(Code::PartitionHandlingUnknown, what, vec![look, show, set]))
}

/// Queues and streams whose copies are known, with the members stream.
fn replicated(management: &Management) -> impl Iterator<Item = (&str, &Queue)> {
    let replicated = management.queues.iter().filter(|(_, queue)| !queue.members.is_empty());
    replicated.map(|(name, queue)| (name.as_str(), queue))
}

fn few_copies(case: &Case<'_>, management: &Management) -> Option<Finding> {
    let wanted = management.known_nodes().len().min(COPIES_WANTED);
    let few: Vec<(&str, &Queue)> =
        replicated(management).filter(|(_, queue)| queue.members.len() < wanted).collect();
    if few.is_empty() {
        return None;
    }
    let names: Vec<&str> = few.iter().map(|(name, _)| *name).collect();
    let nodes = management.known_nodes().len();
    let what = format!("fewer than {wanted} copies in a cluster of {nodes} nodes: {}", listed(&names));
    let fix = few.iter().take(1).flat_map(|(name, queue)| more_copies(case, management, name, queue));
    let mut fix: Vec<Fix> = fix.collect();
    if few.len() > 1 {
        fix.push(Fix::Do("and the same for the others".to_owned()));
    }
    Some(Finding::new(Code::CopiesFew, what, fix))
}

fn even_copies(case: &Case<'_>, management: &Management) -> Option<Finding> {
    let nodes = management.known_nodes().len();
    let is_even = |queue: &Queue| {
        let copies = queue.members.len();
        copies >= nodes.min(COPIES_WANTED) && copies.is_multiple_of(2)
    };
    let even: Vec<(&str, &Queue)> = replicated(management).filter(|(_, queue)| is_even(queue)).collect();
    let (first, queue) = even.first()?;
    let names: Vec<&str> = even.iter().map(|(name, _)| *name).collect();
    let what = format!("an even number of copies: {}", listed(&names));
    let mut fix = more_copies(case, management, first, queue);
    if fix.is_empty() {
        fix.push(Fix::Do(
            "add a node to the cluster, so that it has an odd number, and a copy on it".to_owned(),
        ));
    }
    Some(Finding::new(Code::CopiesEven, what, fix))
}

/// The command that gives it one more copy; nothing if every node has one.
fn more_copies(case: &Case<'_>, management: &Management, name: &str, queue: &Queue) -> Vec<Fix> {
    let mut nodes = management.known_nodes().iter().filter(|node| node.running);
    let Some(node) = nodes.find(|node| !queue.members.contains(&node.name)) else { return Vec::new() };
    let is_stream = queue.kind.as_deref() == Some("stream");
    let tool = if is_stream { "rabbitmq-streams add_replica" } else { "rabbitmq-queues add_member" };
    let vhost = quoted(&case.observed.vhost);
    vec![Fix::Run(format!("{tool} --vhost {vhost} {} {}", quoted(name), quoted(&node.name)))]
}

/// A stream keeps the nodes that it was made with: one that joins the cluster later has no replica of it.
fn no_replica(case: &Case<'_>, management: &Management) -> Option<Finding> {
    let streams = [case.names.topology(), case.names.members()];
    let mut lacking: Vec<(&str, &str)> = Vec::new();
    for (name, queue) in
        replicated(management).filter(|(name, _)| streams.iter().any(|stream| stream == name))
    {
        let running = management.known_nodes().iter().filter(|node| node.running);
        let without = running.filter(|node| !queue.members.contains(&node.name));
        lacking.extend(without.map(|node| (name, node.name.as_str())));
    }
    if lacking.is_empty() {
        return None;
    }
    let described: Vec<String> = lacking.iter().map(|(stream, node)| format!("{stream} on {node}")).collect();
    let described: Vec<&str> = described.iter().map(String::as_str).collect();
    let vhost = quoted(&case.observed.vhost);
    let add = |(stream, node): &(&str, &str)| {
        let (stream, node) = (quoted(stream), quoted(node));
        Fix::Run(format!("rabbitmq-streams add_replica --vhost {vhost} {stream} {node}"))
    };
    let fix = lacking.iter().map(add).collect();
    Some(Finding::new(Code::NoReplicaOnNode, format!("no replica of {}", listed(&described)), fix))
}

fn leaders(case: &Case<'_>, management: &Management) -> Option<Finding> {
    let running = management.known_nodes().iter().filter(|node| node.running).count();
    let queues = case.observed.partitions().filter_map(|object| case.observed.queue(&object.name));
    let leaders: Vec<&str> = queues.filter_map(|queue| queue.leader.as_deref()).collect();
    let (first, others) = leaders.split_first()?;
    if running < 2 || others.is_empty() || others.iter().any(|leader| leader != first) {
        return None;
    }
    let what = format!("the leaders of all {} partitions are on node {first}", leaders.len());
    let fix = Fix::Run(format!(
        "rabbitmq-queues rebalance quorum --vhost-pattern {} --queue-pattern {}",
        quoted(&format!("^{}$", case.observed.vhost)),
        quoted(&format!(r"^{}\.l[0-9]+\.p[0-9]+$", case.names.public()))
    ));
    Some(Finding::new(Code::LeadersOnOneNode, what, vec![fix]))
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::super::super::change::Weight;
    use super::super::super::facts::{Node, Observed, Queue};
    use super::super::tests::{check, check_change, management};

    #[test]
    fn a_cluster_is_judged_by_its_nodes_and_by_where_the_copies_are() {
        let node = |name: &str| Node { name: name.to_owned(), running: true, ..Node::default() };
        // Khepri handles a split by itself; of Mnesia no API shows how it does.
        let on_mnesia = |observed: &mut Observed| management(observed).khepri = Ok(false);
        check(on_mnesia, &["LK110"]);
        let single = |observed: &mut Observed| {
            on_mnesia(observed);
            management(observed).nodes = Ok(vec![node("rabbit@a")]);
        };
        check(single, &[]);
        let partitioned = |observed: &mut Observed| {
            let mut nodes = ["rabbit@a", "rabbit@b", "rabbit@c"].map(node).to_vec();
            nodes[2].partitions = vec!["rabbit@a".to_owned(), "rabbit@b".to_owned()];
            management(observed).nodes = Ok(nodes);
        };
        check(partitioned, &["LK109"]);
        check_change(partitioned, 5, &[("LK109", Weight::Forbids)]);

        let copies = |queue: &'static str, nodes: &'static [&str], expected: &[&str]| {
            let change = move |observed: &mut Observed| {
                let nodes: Vec<String> = nodes.iter().map(|node| format!("rabbit@{node}")).collect();
                let copies = Queue { members: nodes.clone(), online: nodes, ..Queue::default() };
                let queue = management(observed).queues.entry(queue.to_owned()).or_default();
                *queue = Queue { effective_policy: Some(Map::new()), ..copies };
            };
            check(change, expected);
        };
        for queue in ["updates.l1.p001", "updates.dead"] {
            copies(queue, &["a", "b", "c"], &[]);
            copies(queue, &["a"], &["LK111"]);
            copies(queue, &["a", "b"], &["LK111"]);
            copies(queue, &["a", "b", "c", "d"], &["LK112"]);
        }
        // Dispatchers read the replica of the node that they are connected to.
        for stream in ["updates.topology", "updates.members"] {
            copies(stream, &["a", "b", "c"], &[]);
            copies(stream, &["a"], &["LK111", "LK114"]);
            copies(stream, &["a", "b"], &["LK111", "LK114"]);
            copies(stream, &["a", "b", "c", "d"], &["LK112"]);
        }
        let joined = |observed: &mut Observed| {
            management(observed).nodes.as_mut().unwrap().push(node("rabbit@new"));
        };
        check(joined, &["LK114"]);
        let down = |observed: &mut Observed| {
            joined(observed);
            management(observed).nodes.as_mut().unwrap().last_mut().unwrap().running = false;
        };
        check(down, &[]);
        let of_two = |observed: &mut Observed| {
            management(observed).nodes = Ok(["rabbit@a", "rabbit@b"].map(node).to_vec());
            for queue in management(observed).queues.values_mut() {
                queue.members.truncate(2);
                queue.online.truncate(2);
            }
        };
        check(of_two, &["LK112"]);
        let members = |observed: &mut Observed, online: usize| {
            let nodes = ["rabbit@a", "rabbit@b", "rabbit@c"].map(str::to_owned).to_vec();
            let queue = Queue { online: nodes[..online].to_vec(), members: nodes, ..Queue::default() };
            let queue = Queue { effective_policy: Some(Map::new()), ..queue };
            management(observed).queues.insert("updates.members".to_owned(), queue);
        };
        check(|observed| members(observed, 3), &[]);
        check(|observed| members(observed, 2), &["LK107"]);
        check(|observed| members(observed, 1), &["LK106"]);

        let led_by = |leaders: [&'static str; 2], expected: &[&str]| {
            let change = move |observed: &mut Observed| {
                for (partition, leader) in ["updates.l1.p000", "updates.l1.p001"].into_iter().zip(leaders) {
                    management(observed).queues.get_mut(partition).unwrap().leader = Some(leader.to_owned());
                }
            };
            check(change, expected);
        };
        led_by(["rabbit@a", "rabbit@b"], &[]);
        led_by(["rabbit@b", "rabbit@b"], &["LK113"]);
    }
}
