//! The largest message that the broker takes, compared with `updates.body_bytes_max`.

use super::super::codes::Code;
use super::super::finding::Finding;
use super::super::fix::Fix;
use super::case::Case;
use lanekeeper_broker::MessageSize;

pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    limited(&case.observed.message_size, case.config.updates.body_bytes_max).into_iter().collect()
}

/// `wanted`: `updates.body_bytes_max`.
pub fn limited(size: &MessageSize, wanted: usize) -> Option<Finding> {
    let MessageSize::Refuses { tried, max } = size else { return None };
    let limit = match max {
        Some(max) => format!("messages over {max} bytes"),
        None => format!("a message of {tried} bytes"),
    };
    let what = format!(
        "the broker refuses {limit} (max_message_size), but updates.body_bytes_max allows bodies of {wanted} bytes"
    );
    let mut fix = vec![Fix::Do(format!(
        "set max_message_size = {wanted} in rabbitmq.conf on every node, and restart the nodes one after another"
    ))];
    if let Some(max) = max {
        fix.push(Fix::Do("or tell publishers the lower limit:".to_owned()));
        fix.push(Fix::Config(format!("updates.body_bytes_max = {max}")));
    }
    Some(Finding::new(Code::MessageSizeLimited, what, fix))
}
