//! What headers say of a trace: W3C Trace Context, <https://www.w3.org/TR/trace-context/>.

use std::str::FromStr;
use std::sync::OnceLock;

use http::HeaderValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::http::TraceHeaders;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// The same of a `CloudEvents` publisher that sets no other (Distributed Tracing extension, 1.0.2).
const OF_CLOUD_EVENTS: [&str; 2] = ["ce-traceparent", "ce-tracestate"];

/// Version, trace id, span id and flags, with a dash between.
const TRACEPARENT_BYTES: usize = 55;

/// The trace that an update was published in, from its headers as they are sent on; `None`: they name none, or not in a valid
/// form.
pub(super) fn of_publisher(headers: &[(String, String)]) -> Option<SpanContext> {
    let find = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let [of_event, state_of_event] = OF_CLOUD_EVENTS;
    let (parent, state) = match find(TRACEPARENT) {
        Some(parent) => (parent, find(TRACESTATE)),
        None => (find(of_event)?, find(state_of_event)),
    };
    let (trace, span, flags) = parse(parent)?;
    // An invalid one is left out, and the trace goes on (section 3.3.1.1).
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Section 3.2.2; later versions can have more behind another dash (section 3.2.4).
fn parse(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    let fields = text.get(..TRACEPARENT_BYTES)?;
    let is_form = fields.bytes().enumerate().all(|(index, byte)| match index {
        2 | 35 | 52 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    });
    let (version, rest) = (&fields[..2], &text[TRACEPARENT_BYTES..]);
    if !is_form || version == "ff" || !(rest.is_empty() || version != "00" && rest.starts_with('-')) {
        return None;
    }
    let trace = TraceId::from_hex(&fields[3..35]).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(&fields[36..52]).ok().filter(|id| *id != SpanId::INVALID)?;
    let flags = u8::from_str_radix(&fields[53..], 16).ok()?;
    Some((trace, span, TraceFlags::new(flags) & TraceFlags::SAMPLED))
}

/// What requests of this span carry.
pub(super) fn to_target(context: &SpanContext) -> TraceHeaders {
    let flags = context.trace_flags().to_u8();
    let parent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
    let state = context.trace_state().header();
    TraceHeaders {
        traceparent: HeaderValue::from_str(&parent).expect("it has hexadecimal digits and dashes"),
        tracestate: Some(state)
            .filter(|state| !state.is_empty())
            .and_then(|state| HeaderValue::from_str(&state).ok()),
        is_sampled: context.is_sampled(),
        request: OnceLock::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn found(headers: &[(&str, &str)]) -> Option<String> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let context = of_publisher(&headers)?;
        let TraceHeaders { traceparent, tracestate, is_sampled, .. } = to_target(&context);
        assert_eq!(is_sampled, context.is_sampled());
        let text = |value: HeaderValue| value.to_str().unwrap().to_owned();
        Some(text(traceparent) + " " + &tracestate.map(text).unwrap_or_default())
    }

    #[test]
    fn a_traceparent_is_understood_or_is_none() {
        let check = |text: &str, expected: Option<&str>| {
            let expected = expected.map(|flags| format!("00-{TRACE}-{SPAN}-{flags} "));
            assert_eq!(found(&[("traceparent", text)]), expected, "{text}");
        };
        check(&format!("00-{TRACE}-{SPAN}-01"), Some("01"));
        check(&format!("00-{TRACE}-{SPAN}-00"), Some("00"));
        // Flags that we do not know are not passed on.
        check(&format!("00-{TRACE}-{SPAN}-ff"), Some("01"));
        check(&format!("01-{TRACE}-{SPAN}-00-later"), Some("00"));
        check(&format!("01-{TRACE}-{SPAN}-00later"), None);
        check(&format!("00-{TRACE}-{SPAN}-01-more"), None);
        check(&format!("ff-{TRACE}-{SPAN}-01"), None);
        check(&format!("00-{TRACE}-{SPAN}-1"), None);
        check(&format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None);
        check(&format!("00-{}-{SPAN}-01", "0".repeat(32)), None);
        check(&format!("00-{TRACE}-{}-01", "0".repeat(16)), None);
        check(&format!("00-+{}-{SPAN}-01", &TRACE[1..]), None);
        check(&format!("00-{TRACE}_{SPAN}-01"), None);
        check(&format!("00-{TRACE}-{SPAN}-0ü"), None);
        check("00-1-2-01", None);
        check("", None);
    }

    #[test]
    fn a_tracestate_goes_on_with_its_trace_and_a_broken_one_does_not() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let check = |headers: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(found(headers), expected.map(|state| format!("{parent} {state}")), "{headers:?}");
        };
        check(&[("tracestate", "a=1")], None);
        check(&[("tracestate", "a=1,b=2"), ("traceparent", &parent)], Some("a=1,b=2"));
        check(&[("traceparent", &parent), ("tracestate", "broken")], Some(""));
        check(&[("ce-traceparent", &parent), ("ce-tracestate", "c=3")], Some("c=3"));
        let other = format!("00-{}-{SPAN}-01", "1".repeat(32));
        check(&[("ce-traceparent", &other), ("ce-tracestate", "c=3"), ("traceparent", &parent)], Some(""));
    }
}
