//! Open files: before RabbitMQ 4.0, what quorum queues reserve is not left for connections.

use std::collections::BTreeMap;

use super::super::codes::Code;
use super::super::facts::{Node, Observed, Version};
use super::super::finding::Finding;
use super::super::fix::Fix;
use super::case::Case;

/// What each copy of a quorum queue reserves, whether or not it uses them (`file_handle_cache:info()` of 3.10.8: 1,500 with
/// 500 queues).
const FILES_PER_COPY: u64 = 3;
/// What the broker keeps for its own files: 97 of 1,024 and of 20,000 (3.10.8).
const FILES_FOR_BROKER: u64 = 100;
/// What is to be left for connections: three of each dispatcher, and those of publishers.
const FILES_FOR_CONNECTIONS: u64 = 100;
/// From this version on, nothing is reserved.
const WITHOUT_RESERVATION: Version = Version(4, 0, 0);
/// Copies of a quorum queue that RabbitMQ makes, if there are so many nodes.
const COPIES: u64 = 3;
/// So many partitions are made where the limit cannot be seen. They fit the limit of 1,024 that a process has by default.
const PARTITIONS_UNSEEN_MAX: u16 = 256;
/// What a limit is raised to: Debian's service has it.
const FILES_ADVISED: u64 = 65_536;

/// Of the current layout; or of the first one, that is to be made.
pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let more = match case.observed.broker.layout {
        Ok(None) => case.config.updates.partitions.get(),
        Ok(Some(_)) | Err(_) => 0,
    };
    with_more(case.observed, more).into_iter().collect()
}

/// With so many partitions more than there are.
pub fn with_more(observed: &Observed, more: u16) -> Option<Finding> {
    let seen = match &observed.management {
        Ok(management) => match (&management.nodes, &management.quorum_copies) {
            (Ok(nodes), Ok(copies)) => Ok((nodes.as_slice(), copies)),
            (Err(words), _) | (_, Err(words)) => Err(words.clone()),
        },
        Err(fault) => Err(fault.cause.to_string()),
    };
    files_with(observed.version(), seen, more)
}

/// `seen`: the nodes, and how many copies of quorum queues each has; or why that is not known.
pub fn files_with(
    version: Option<Version>,
    seen: Result<(&[Node], &BTreeMap<String, u64>), String>,
    more: u16,
) -> Option<Finding> {
    if version.is_some_and(|version| version >= WITHOUT_RESERVATION) {
        return None;
    }
    let (nodes, copies) = match seen {
        Ok(seen) => seen,
        Err(_) if more <= PARTITIONS_UNSEEN_MAX => return None,
        Err(why) => return Some(unseen(more, &why)),
    };
    let is_hidden = nodes.iter().any(|node| node.running && node.files_max.is_none());
    if is_hidden && more > PARTITIONS_UNSEEN_MAX {
        return Some(unseen(more, "it does not show it yet"));
    }
    let of_each = match nodes.len() as u64 {
        many if many > COPIES => (u64::from(more) * COPIES).div_ceil(many),
        _ => u64::from(more),
    };
    let needed = |node: &Node| {
        let copies = copies.get(&node.name).copied().unwrap_or_default() + of_each;
        let files = copies * FILES_PER_COPY + FILES_FOR_BROKER + FILES_FOR_CONNECTIONS;
        (copies > 0).then_some((copies, files))
    };
    let too_few = nodes.iter().find_map(|node| {
        let ((copies, files), max) = (needed(node)?, node.files_max?);
        (files > max).then_some((node, copies, files, max))
    });
    let (node, copies, files, max) = too_few?;
    let there_are = if more > 0 { "there are to be" } else { "there are" };
    let what = format!(
        "the process of node {} may open {max} files, and {there_are} {copies} copies of quorum queues on it, which reserve {} of them",
        node.name,
        copies * FILES_PER_COPY
    );
    let mut fix = raise(files);
    let fit = max.saturating_sub(FILES_FOR_BROKER + FILES_FOR_CONNECTIONS) / FILES_PER_COPY;
    let room = fit.saturating_sub(copies - of_each);
    if more > 0 && room > 0 {
        fix.push(Fix::Do(format!("or choose fewer partitions: {room} fit")));
    }
    Some(Finding::new(Code::FilesTooFew, what, fix))
}

fn raise(files: u64) -> Vec<Fix> {
    let to = files.max(FILES_ADVISED);
    vec![Fix::Do(format!(
        "raise the limit of open files on every node to {to}: LimitNOFILE={to} in the unit of the systemd service, `--ulimit \
         nofile={to}` of a container, or `ulimit -n {to}` before the start; then restart the nodes, one after another"
    ))]
}

fn unseen(partitions: u16, why: &str) -> Finding {
    let what = format!(
        "{partitions} partitions are wanted, and without the management API it cannot be seen how many files the broker's process may \
         open; at most {PARTITIONS_UNSEEN_MAX} are made then ({why})"
    );
    let see = Fix::Config("broker.management_url = \"http://USER:PASSWORD@HOST:15672\"".to_owned());
    let fewer = Fix::Do(format!("or choose at most {PARTITIONS_UNSEEN_MAX} partitions"));
    Finding::new(Code::FilesTooFew, what, vec![see, fewer])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With so many files and copies on each of so many nodes, and so many partitions more.
    #[track_caller]
    fn check(version: &str, (files, copies, nodes): (u64, u64, usize), more: u16, expected: Option<&str>) {
        let name = |number: usize| format!("rabbit@{number}");
        let node = |number| Node {
            name: name(number),
            running: true,
            files_max: (files > 0).then_some(files),
            ..Node::default()
        };
        let all: Vec<Node> = (0..nodes).map(node).collect();
        let of_each = (0..nodes).map(|number| (name(number), copies)).collect();
        let found = files_with(Version::parse(version), Ok((&all, &of_each)), more);
        let said = found.map(|finding| format!("{}; {:?}", finding.what, finding.fix));
        match (&said, expected) {
            (None, None) => {}
            (Some(said), Some(part)) => assert!(said.contains(part), "{said}"),
            _ => panic!("{said:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn so_many_partitions_are_made_as_leave_files_for_connections() {
        check("3.10.8", (1024, 1, 1), 256, None);
        check("3.10.8", (1024, 1, 1), 400, Some("401 copies of quorum queues on it, which reserve 1203"));
        check("3.10.8", (1024, 1, 1), 400, Some("273 fit"));
        check("3.10.8", (1024, 257, 1), 300, Some("may open 1024 files"));
        check("3.10.8", (65_536, 1, 1), 1024, None);
        check("3.13.7", (1024, 300, 3), 0, Some("there are 300 copies"));
        check("3.13.7", (1024, 1, 9), 400, None);
        check("4.0.5", (1024, 1, 1), 1024, None);
        check("3.10.8", (1024, 0, 1), 0, None);
        // In its first seconds a node shows no limit.
        check("3.10.8", (0, 1, 1), 256, None);
        check("3.10.8", (0, 1, 1), 257, Some("at most 256"));
    }

    #[test]
    fn where_the_limit_is_not_seen_there_is_a_bound() {
        let unseen = |version: &str, more| {
            files_with(Version::parse(version), Err("connection refused".to_owned()), more).is_some()
        };
        assert!(!unseen("3.10.8", 256));
        assert!(unseen("3.10.8", 257));
        assert!(unseen("", 257), "an unknown version");
        assert!(!unseen("4.0.5", 1024));
    }
}
