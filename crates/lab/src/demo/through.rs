//! Act 2, with Lanekeeper: the same updates are published to RabbitMQ, and a dispatcher sends them to the API. It is killed
//! on the way.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::api::{Api, Findings};
use super::console::{Console, count};
use super::error::DemoError;
use super::publish;
use super::stage::Stage;
use super::stall_timeout::StallTimeout;
use super::workload::{FAILING_RECORD, Workload};
use crate::receiver::Report;

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long there is no dispatcher after the kill.
const DOWN_FOR: Duration = Duration::from_secs(1);

/// Publishes all updates while a dispatcher runs, and prints what happens.
pub(super) async fn act(
    stage: &mut Stage,
    workload: &Workload,
    api: &Api,
    console: &Console,
) -> Result<Findings, DemoError> {
    let config = stage.dispatcher_config(&api.url)?;
    stage.declare(&config).await?;
    let publisher = publish::connect(stage, workload.updates.len()).await?;
    let begun = Instant::now();
    let id = stage.dispatcher.start()?;
    console
        .step(begun.elapsed(), &format!("`lanekeeper run` is started (process {id}); updates are published"));
    console.begin_progress(workload.total(), "updates applied");
    let confirmed = Cell::new(0);
    let mut watch = Watch {
        stage,
        workload,
        api,
        console,
        begun,
        confirmed: &confirmed,
        announced: Announced::default(),
    };
    let publishing = publish::all(publisher, &workload.updates, begun, &confirmed);
    let ((), took) = tokio::try_join!(publishing, watch.whole_story())?;
    console.end_progress();
    Ok(api.judge(workload, took))
}

/// Watches what happens, prints it, and kills the dispatcher.
struct Watch<'a> {
    stage: &'a mut Stage,
    workload: &'a Workload,
    api: &'a Api,
    console: &'a Console,
    begun: Instant,
    /// Updates that RabbitMQ has confirmed.
    confirmed: &'a Cell<u64>,
    announced: Announced,
}

/// What was printed when it happened.
#[derive(Debug, Default)]
struct Announced {
    all_confirmed: bool,
    failing_record_works: bool,
}

impl Watch<'_> {
    /// Returns when the last update is settled; the time that all of it took.
    async fn whole_story(&mut self) -> Result<Duration, DemoError> {
        let total = self.workload.total();
        let seen = self
            .until("a third of the updates to be applied", |seen| seen.counts.updates >= total / 3)
            .await?;
        self.stage.dispatcher.kill()?;
        self.announce(&format!(
            "{} applied, {} in flight: `lanekeeper run` is killed (SIGKILL)",
            count(seen.counts.updates, "update"),
            seen.in_progress,
        ));
        let up_again = Instant::now() + DOWN_FOR;
        let seen = self.until("a moment without a dispatcher", |_| Instant::now() >= up_again).await?;
        let waiting = self.confirmed.get().saturating_sub(seen.counts.updates);
        self.stage.dispatcher.start()?;
        self.announce(&format!(
            "{} wait safely in RabbitMQ; `lanekeeper run` is started again",
            count(waiting, "update")
        ));
        self.until("all updates to be applied", |seen| seen.counts.updates >= total).await?;
        self.until_settled().await?;
        self.announce(&format!("all {} are applied and acknowledged", count(total, "update")));
        let took = self.begun.elapsed();
        self.stage.dispatcher.stop().await?;
        Ok(took)
    }

    /// Waits until the API has seen enough, and returns what it has seen then.
    async fn until(
        &mut self,
        what: &'static str,
        enough: impl Fn(&Report) -> bool,
    ) -> Result<Report, DemoError> {
        let mut stall_timeout = StallTimeout::new(what);
        loop {
            let seen = self.look()?;
            if enough(&seen) {
                return Ok(seen);
            }
            let confirmed = self.confirmed.get();
            stall_timeout.see(confirmed + seen.counts.updates, || {
                format!("{confirmed} of {} confirmed; the API saw {}", self.workload.total(), seen.counts)
            })?;
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until the dispatcher has nothing left: an update that was applied and answered 500 is sent once more.
    async fn until_settled(&mut self) -> Result<(), DemoError> {
        let mut stall_timeout = StallTimeout::new("the last updates to be settled");
        loop {
            let seen = self.look()?;
            let unsettled = self.stage.dispatcher.unsettled().await;
            if unsettled == Some(0) && seen.in_progress == 0 {
                return Ok(());
            }
            stall_timeout.see(unsettled.unwrap_or(u64::MAX), || match unsettled {
                Some(unsettled) => format!("the dispatcher has {unsettled} unsettled updates"),
                None => "the dispatcher does not serve its metrics".to_owned(),
            })?;
            sleep(POLL_INTERVAL).await;
        }
    }

    fn look(&mut self) -> Result<Report, DemoError> {
        self.stage.dispatcher.check()?;
        let seen = self.api.report();
        self.console.progress(seen.counts.updates);
        let total = self.workload.total();
        if !self.announced.all_confirmed && self.confirmed.get() == total {
            self.announced.all_confirmed = true;
            self.announce(&format!("all {} are published and confirmed by RabbitMQ", count(total, "update")));
        }
        if !self.announced.failing_record_works && self.api.applied(FAILING_RECORD) > 0 {
            self.announced.failing_record_works = true;
            let others = seen.counts.updates - self.api.applied(FAILING_RECORD).min(seen.counts.updates);
            self.announce(&format!(
                "{FAILING_RECORD} works again; until now the others got {}",
                count(others, "update")
            ));
        }
        Ok(seen)
    }

    fn announce(&self, text: &str) {
        self.console.step(self.begun.elapsed(), text);
    }
}
