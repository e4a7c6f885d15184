//! What happens below the answers: TLS, connections that hang, odd heads, and how an answer ends.

mod connection;
mod folding;
mod silent;
mod tls;

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, HeaderValue, Version};
use axum::response::Response;

pub(super) use connection::WireListener;
pub use silent::SilentAddress;
pub use tls::TlsFiles;

use super::settings::ReceiverSettings;

/// The most header fields that an answer can be given.
pub const EXTRA_FIELDS_MAX: u16 = 10_000;

/// How the end of an answer shows. Other ways than the first need HTTP/1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AnswerEnd {
    /// By its length.
    #[default]
    Length,
    /// By the end of the connection; over TLS it says farewell (`close_notify`).
    Close,
    /// By the end of the connection; over TLS without the farewell.
    CloseWithoutNotify,
}

/// Which connections hang. Each belongs to the period in which it was opened; those of earlier periods hang.
#[derive(Debug, Default)]
pub(super) struct ConnectionPeriods {
    period: AtomicU64,
    requests: AtomicU64,
}

impl ConnectionPeriods {
    pub(super) fn current(&self) -> u64 {
        self.period.load(Ordering::Relaxed)
    }

    /// All connections of now hang from now on.
    pub(super) fn end(&self) {
        self.period.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has come. The one after the first `requests` ends the period.
    pub(super) fn count(&self, requests: u64) {
        if self.requests.fetch_add(1, Ordering::Relaxed) == requests {
            self.end();
        }
    }
}

/// Gives an answer the head and the end of these settings.
pub(super) fn finish(mut response: Response, settings: &ReceiverSettings) -> Response {
    for number in 1..=settings.extra_fields {
        let name = HeaderName::try_from(format!("x-extra-{number}")).expect("it is a name");
        response.headers_mut().insert(name, HeaderValue::from(number));
    }
    if settings.folded_field {
        response.headers_mut().insert(folding::NAME, HeaderValue::from_static(folding::VALUE));
    }
    if settings.answer_end == AnswerEnd::Length {
        return response;
    }
    // In HTTP/1.0, what has no length lasts until the connection ends.
    *response.version_mut() = Version::HTTP_10;
    if response.headers().contains_key(CONTENT_LENGTH) {
        return response; // it breaks off on purpose
    }
    response.map(|body| Body::from_stream(body.into_data_stream()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_after_so_many_ends_the_period_once() {
        let periods = ConnectionPeriods::default();
        let seen: Vec<u64> = (0..6)
            .map(|_| {
                periods.count(3);
                periods.current()
            })
            .collect();
        assert_eq!(seen, [0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn answers_have_the_fields_that_were_asked_for() {
        let check = |extra_fields, folded_field, fields: usize| {
            let settings = ReceiverSettings { extra_fields, folded_field, ..ReceiverSettings::default() };
            assert_eq!(finish(Response::default(), &settings).headers().len(), fields);
        };
        check(0, false, 0);
        check(3, true, 4);
        check(EXTRA_FIELDS_MAX, false, EXTRA_FIELDS_MAX.into());
    }
}
