//! Everything that a receiver knows: its settings, the records, and what was seen of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::delays::Delays;
use super::judge::{self, Judges};
use super::limit::{Limiter, RateLimit, RateLimitReport, TokenResult};
use super::outage::PlannedOutage;
use super::report::{RecordReport, Report};
use super::settings::ReceiverSettings;
use super::store::{Store, StoreError};
use super::wire::ConnectionPeriods;

/// See the module.
#[derive(Debug)]
pub(super) struct ReceiverState {
    pub(super) settings: ReceiverSettings,
    pub(super) judges: Judges,
    pub(super) store: Store,
    pub(super) started: Instant,
    /// Of updates that say when they were published.
    delays: Mutex<Delays>,
    /// `None`: there is no rate limit.
    limiter: Option<Mutex<Limiter>>,
    /// The outage that goes on or is to come.
    outage: Mutex<Option<PlannedOutage>>,
    pub(super) periods: Arc<ConnectionPeriods>,
    /// Ends requests that hang on purpose.
    pub(super) stopping: watch::Sender<bool>,
}

impl ReceiverState {
    pub(super) fn new(settings: ReceiverSettings, store: Store) -> Self {
        let (judges, stopping) = (Judges::default(), watch::Sender::new(false));
        let (started, delays) = (Instant::now(), Mutex::default());
        let limiter = settings.rate_limit.map(|limit| Mutex::new(Limiter::new(limit)));
        let outage = Mutex::new(settings.outage);
        let periods = Arc::default();
        Self { settings, judges, store, started, delays, limiter, outage, periods, stopping }
    }

    /// See [`super::Receiver::report`].
    pub(super) fn report(&self, records_max: usize) -> Report {
        let mut report = Report::default();
        let mut keys = Vec::new();
        let mut span: Option<judge::Span> = None;
        let mut busiest = Duration::ZERO;
        for judge in self.judges.each() {
            span = judge.span().map(|of| span.map_or(of, |span| span.and(of))).or(span);
            busiest = busiest.max(judge.busiest());
            for (key, counts, in_progress) in judge.counts() {
                report.counts += &counts;
                report.records += 1;
                report.in_progress += in_progress;
                if records_max > 0 {
                    keys.push((counts.violations() == 0, counts.duplicates == 0, key.to_owned()));
                }
            }
        }
        report.span_us = span.map_or(0, |span| micros(span.last.saturating_sub(span.first)));
        report.busiest_us = micros(busiest);
        report.delays = self.delays().report();
        report.rate_limit = self.rate_limit();
        keys.sort_unstable();
        keys.truncate(records_max);
        report.by_record = keys
            .into_iter()
            .filter_map(|(_, _, key)| self.record(&key).map(|record| (key, record)))
            .collect();
        report
    }

    /// See [`super::Receiver::forget`].
    pub(super) async fn forget(&self) -> Result<(), StoreError> {
        self.store.clear().await?;
        self.judges.each().for_each(|mut judge| judge.reset());
        *self.delays() = Delays::default();
        if let Some(limiter) = &self.limiter {
            lock(limiter).forget();
        }
        Ok(())
    }

    /// A request takes a token of the rate limit, if there is one.
    pub(super) fn take_token(&self, now: Duration) -> Option<(RateLimit, TokenResult)> {
        let limiter = self.limiter.as_ref()?;
        Some((self.settings.rate_limit?, lock(limiter).take(now)))
    }

    /// See [`super::Receiver::rate_limit`].
    pub(super) fn rate_limit(&self) -> Option<RateLimitReport> {
        let limiter = self.limiter.as_ref()?;
        Some(lock(limiter).report(self.started.elapsed()))
    }

    pub(super) fn outage(&self) -> Option<PlannedOutage> {
        *lock(&self.outage)
    }

    pub(super) fn set_outage(&self, outage: Option<PlannedOutage>) {
        *lock(&self.outage) = outage;
    }

    pub(super) fn delays(&self) -> MutexGuard<'_, Delays> {
        lock(&self.delays)
    }

    /// See [`super::Receiver::record`].
    pub(super) fn record(&self, record_key: &str) -> Option<RecordReport> {
        self.judges.of(record_key).report(record_key)
    }
}

/// A panic that held the lock is reported by itself; the value is still whole.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
