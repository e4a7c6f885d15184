//! How the model driver uses the ledger: asks before an attempt, writes in commits that many share, claims, loads what was
//! released. As `src/runtime` does it, late and interleaved.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::message::{Event, Holder, ParkedSeq, Tenure, TenureNumber};
use lanekeeper_core::outcome::{Known, Outcome};
use lanekeeper_core::ownership::Standing;
use lanekeeper_core::policy::{DeadLetterReason, ParkReason, Resolution};
use lanekeeper_core::update::Update;

use crate::dispatcher::Writing;
use crate::kills::Step;
use crate::ledger::{Answer, Entry, Ledger, What};
use crate::trace::Line;
use crate::world::{Happening, World};

/// What can happen between the dispatcher, an operator and the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// The ledger looks an update up.
    Consult { request: usize },
    /// Its answer comes.
    Consulted { request: usize },
    /// A letter is in the dead-letter queue.
    Lettered { writing: usize },
    /// What waits is committed together.
    Commit,
    /// What failed is tried again.
    Again { writing: usize },
    /// The ledger is told of a claim.
    Claim { process: u32, tenure: u64, number: u64, other: Option<u64> },
    /// Somebody looks for released records.
    Look,
    /// The ledger gives the parked updates of a record.
    Load { loading: usize },
    /// They come.
    Loaded { loading: usize },
    /// The broker hands over what somebody has sent into the queue, so that its owner looks.
    Nudged { process: u32, channel: u64 },
    /// An operator comes.
    Operate,
}

/// The ledger, and what is on its way to and from it.
#[derive(Debug)]
pub struct Books {
    pub ledger: Ledger,
    /// Writings that share the next commit.
    waiting: Vec<usize>,
    loadings: Vec<Loading>,
    /// Of the claim that the ledger knows of.
    number: u64,
}

#[derive(Debug)]
struct Loading {
    process: u32,
    tenure: Tenure,
    record: usize,
    updates: Vec<(ParkedSeq, Arc<Update>)>,
    over: bool,
}

impl Books {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, waiting: Vec::new(), loadings: Vec::new(), number: 0 }
    }
}

impl Page {
    /// Whether it waits while the dispatcher stands still.
    pub fn is_the_dispatchers(self) -> bool {
        !matches!(self, Self::Commit | Self::Lettered { .. } | Self::Operate)
    }
}

impl World {
    pub fn open_books(&mut self) {
        if let Some(manners) = &self.setup.ledger {
            let (operator, look) = (manners.operator, manners.look);
            self.soon(operator, Happening::Page(Page::Operate));
            self.soon(look, Happening::Page(Page::Look));
        }
    }

    pub fn turn_page(&mut self, page: Page) {
        match page {
            Page::Consult { request } => self.consult(request),
            Page::Consulted { request } => self.consulted(request),
            Page::Lettered { writing } => self.lettered(writing),
            Page::Commit => self.commit(),
            Page::Again { writing } => self.join_commit(writing),
            Page::Claim { process, tenure, number, other } if process == self.dispatcher.process => {
                self.claim_written(tenure, number, other);
            }
            Page::Look => self.look(),
            Page::Load { loading } => self.load(loading),
            Page::Loaded { loading } => self.loaded(loading),
            Page::Nudged { process, channel } if process == self.dispatcher.process => self.nudged(channel),
            // Of a dead process.
            Page::Claim { .. } | Page::Nudged { .. } => {}
            Page::Operate => self.operate(),
        }
    }

    pub fn books(&mut self) -> &mut Books {
        self.books.as_mut().expect("there is a ledger")
    }

    fn ledger_fails(&mut self, share: u64) -> bool {
        self.now < self.setup.calm_at && self.rng.chance(share)
    }

    /// Asked, some time ago.
    fn consult(&mut self, request: usize) {
        let manners = self.manners();
        let (silent, delay) = (manners.silent, manners.consult);
        let found = if self.ledger_fails(silent) {
            Some(Outcome::Withheld)
        } else {
            let of = &self.requests[request];
            let (name, id, holder) = (of.sent.update, of.sent.id.clone(), of.holder);
            let record = self.record_of(name);
            self.books().ledger.consult(record, name, &id, holder).map(Outcome::Known)
        };
        self.requests[request].found = found;
        self.soon(delay, Happening::Page(Page::Consulted { request }));
    }

    /// The request leaves, if the partition is still ours, or is needless.
    fn consulted(&mut self, request: usize) {
        let of = &self.requests[request];
        if of.process != self.dispatcher.process {
            return;
        }
        if let Some(found) = of.found.clone() {
            let update = of.sent.update;
            if found == Outcome::Known(Known::RecordParked) {
                self.clear_in_a_hurry(update);
            }
            if let Outcome::Known(known) = &found {
                self.trace(Line::Consulted { update, found: told(*known) });
            }
            return self.ends_unsent(request, found);
        }
        let (under, name, holder) = (of.sent.under, of.sent.update, of.holder);
        let may = self.dispatcher.partition.may_send_until();
        let may = may.filter(|(number, until)| *number == Some(TenureNumber(under)) && self.now <= *until);
        if may.is_none() {
            return self.ends_unsent(request, Outcome::Withheld);
        }
        let record = self.record_of(name);
        self.trace(Line::Left { update: name, parked: matches!(holder, Holder::Ledger(_)) });
        self.judge.sent_under(self.now, name, Some(under));
        // Where another has claimed the partition since, this is a request of an owner that does not know it yet.
        if Some(under) > self.rival_claim {
            let earlier = self.judge.earlier_of(record, name);
            let known = self.setup.publications[name].id.is_some();
            self.judge.judge_repetition(name);
            self.books().ledger.judge_sending(&earlier, name, record, holder, known);
        }
        self.leave(request, record);
        self.dies_after(Step::AttemptSent);
    }

    fn ends_unsent(&mut self, request: usize, outcome: Outcome) {
        self.requests[request].outcome = outcome;
        self.answer(request);
    }

    /// A resolution is to be written down.
    pub fn submit(&mut self, writing: usize, update: Arc<Update>, resolution: &Resolution) {
        let Writing { holder, update: name, dead_letter, .. } = self.writings[writing];
        let parked = match holder {
            Holder::Broker(_) => None,
            Holder::Ledger(seq) => Some(seq),
        };
        let id = update.id.clone();
        let what = match (resolution, parked) {
            (Resolution::Applied, _) => What::Applied { parked },
            (Resolution::Duplicate, None) => return self.soon(0, Happening::Written { writing }),
            (Resolution::Duplicate | Resolution::Superseded | Resolution::DeadLettered(_), _) => {
                What::Resolved { parked }
            }
            (Resolution::Parked(reason), Some(seq)) => What::Repark { seq, reused: is_reused(reason) },
            (Resolution::Parked(reason), None) => {
                What::Park { update, reused: is_reused(reason), only_behind: *reason == ParkReason::Behind }
            }
        };
        let (record, number) = (self.record_of(name), self.books().number);
        self.writings[writing].entry = Some(Entry { number, record, update: name, id, what });
        if dead_letter {
            self.soon(self.setup.delays.record, Happening::Page(Page::Lettered { writing }));
        } else {
            self.join_commit(writing);
        }
    }

    fn lettered(&mut self, writing: usize) {
        let Writing { process, update, .. } = self.writings[writing];
        if process == self.dispatcher.process {
            self.trace(Line::DeadLettered { update });
            self.judge.dead_lettered(update);
            self.join_commit(writing);
        }
    }

    fn join_commit(&mut self, writing: usize) {
        if self.writings[writing].process != self.dispatcher.process {
            return;
        }
        let delay = self.manners().commit;
        let queue = &mut self.books().waiting;
        queue.push(writing);
        if queue.len() == 1 {
            self.soon(delay, Happening::Page(Page::Commit));
        }
    }

    /// All or nothing. Where the connection is lost meanwhile nobody knows which.
    fn commit(&mut self) {
        let waiting = std::mem::take(&mut self.books().waiting);
        if waiting.is_empty() {
            return; // its process has died
        }
        let manners = self.manners();
        let (fails, retry, answer) = (manners.fails, manners.retry, manners.answer);
        let failed = self.ledger_fails(fails);
        let landed = !failed || self.rng.chance(300);
        self.trace(Line::Committed { entries: waiting.len(), failed, landed });
        if landed {
            self.keep(&waiting);
        }
        for writing in waiting {
            if failed {
                self.soon(retry, Happening::Page(Page::Again { writing }));
            } else {
                self.soon(answer, Happening::Written { writing });
            }
        }
        if landed {
            self.dies_after(Step::Committed);
        }
    }

    fn keep(&mut self, writings: &[usize]) {
        for writing in writings {
            let entry = self.writings[*writing].entry.clone().expect("what waits has an entry");
            let answer = self.books().ledger.write(&entry);
            if let (What::Applied { .. }, Answer::Done) = (&entry.what, answer) {
                self.judge.judge_kept_as_applied(entry.update);
            }
            if let (What::Park { only_behind, .. }, Answer::Done) = (&entry.what, answer) {
                self.trace(Line::Parked { update: entry.update, behind: *only_behind });
            }
            if let What::Repark { .. } = entry.what {
                self.trace(Line::Reparked { update: entry.update });
            }
            self.writings[*writing].answer = answer;
        }
    }

    /// What was being committed when the process died is, or is not.
    pub fn books_crashed(&mut self) {
        if self.books.is_none() {
            return;
        }
        let waiting = std::mem::take(&mut self.books().waiting);
        if !waiting.is_empty() {
            let landed = self.rng.chance(500);
            self.trace(Line::CommitCut { entries: waiting.len(), landed });
            if landed {
                self.keep(&waiting);
            }
        }
        self.books().number = 0;
    }

    /// The answer to an entry. Whether it was written.
    pub fn heard_of(&mut self, writing: usize) -> bool {
        let Writing { answer, update, tenure, holder, .. } = self.writings[writing];
        let record_key = self.writings[writing].record_key.clone();
        match answer {
            Answer::Done => return true,
            Answer::NotParked => self.trace(Line::NotRecorded { update }),
            Answer::Fenced => {
                self.trace(Line::Fenced { update });
                let present = self.dispatcher.channel.as_ref().filter(|channel| channel.tenure == tenure);
                if let Some(channel) = present.map(|channel| channel.number) {
                    self.lose_fenced(channel);
                }
            }
        }
        if let Some(record_key) = record_key {
            self.tell(Event::NotRecorded { tenure, holder, record_key });
        }
        false
    }

    /// A newer owner has written.
    fn lose_fenced(&mut self, channel: u64) {
        if self.broker.is_open(channel) {
            let done = self.acks_that_arrive();
            self.lose_at_broker(done);
        }
        self.channel_gone(channel);
    }

    /// A claim was read back: the ledger is told before the core.
    pub fn write_claim(&mut self, tenure: u64, number: u64, other: Option<u64>) {
        let (process, delay) = (self.dispatcher.process, self.manners().commit);
        self.soon(delay, Happening::Page(Page::Claim { process, tenure, number, other }));
    }

    fn claim_written(&mut self, tenure: u64, number: u64, other: Option<u64>) {
        let Some(channel) = self.dispatcher.channel.as_ref().filter(|channel| channel.tenure.0 == tenure)
        else {
            return; // forgotten with its tenure
        };
        let channel = channel.number;
        let manners = self.manners();
        let (fails, retry, process) = (manners.fails, manners.retry, self.dispatcher.process);
        if self.ledger_fails(fails) {
            return self.soon(retry, Happening::Page(Page::Claim { process, tenure, number, other }));
        }
        if self.books().ledger.claim(number) == Answer::Fenced {
            self.trace(Line::ClaimFenced { number });
            return self.lose_fenced(channel);
        }
        self.books().number = number;
        self.claim_known(tenure, number, other);
    }

    /// Released records are looked for.
    fn look(&mut self) {
        if self.is_over() {
            return;
        }
        let look = self.manners().look;
        self.at(self.now.after(Duration::from_millis(look)), Happening::Page(Page::Look));
        if !self.loading().is_empty() {
            return;
        }
        let releasing = self.books().ledger.releasing();
        if !releasing.is_empty()
            && self.dispatcher.partition.standing() == Standing::Unclaimed
            && let Some(channel) = self.dispatcher.channel.as_ref().map(|channel| channel.number)
        {
            let (process, delay) = (self.dispatcher.process, self.setup.delays.delivery);
            self.soon(delay, Happening::Page(Page::Nudged { process, channel }));
        }
        for record in releasing {
            self.begin_loading(record);
        }
    }

    fn nudged(&mut self, channel: u64) {
        let ours = self.dispatcher.channel.as_ref().filter(|of| of.number == channel);
        if let Some(tenure) = ours.map(|channel| channel.tenure).filter(|_| self.broker.is_open(channel)) {
            self.trace(Line::Nudged);
            self.tell(Event::Nudged(tenure));
        }
    }

    fn loading(&self) -> Vec<usize> {
        let Some(channel) = &self.dispatcher.channel else { return Vec::new() };
        let loadings = self.books.iter().flat_map(|books| books.loadings.iter().enumerate());
        let open = loadings.filter(|(_, loading)| {
            !loading.over && loading.process == self.dispatcher.process && loading.tenure == channel.tenure
        });
        open.map(|(index, _)| index).collect()
    }

    fn begin_loading(&mut self, record: usize) {
        let Some(channel) = &self.dispatcher.channel else { return };
        let tenure = channel.tenure;
        let record_key = &self.setup.record_keys[record];
        if self.dispatcher.drain.is_some() || self.dispatcher.partition.has_released(record_key) {
            return;
        }
        let (process, delay) = (self.dispatcher.process, self.manners().consult);
        let loadings = &mut self.books().loadings;
        loadings.push(Loading { process, tenure, record, updates: Vec::new(), over: false });
        let loading = loadings.len() - 1;
        self.soon(delay, Happening::Page(Page::Load { loading }));
    }

    /// After the last of the released updates that were loaded together there may be more.
    pub fn load_further(&mut self, holder: Holder, update: usize) {
        if matches!(holder, Holder::Ledger(_)) {
            let record = self.record_of(update);
            self.begin_loading(record);
        }
    }

    fn load(&mut self, loading: usize) {
        let manners = self.manners();
        let (silent, delay, most) = (manners.silent, manners.consult, manners.released_max);
        if !self.ledger_fails(silent) {
            let books = self.books();
            let record = books.loadings[loading].record;
            let releasing = books.ledger.parked(record).is_some_and(|parked| parked.releasing);
            let parked = books.ledger.oldest(record, if releasing { most } else { 0 });
            books.loadings[loading].updates =
                parked.into_iter().map(|parked| (parked.seq, parked.update)).collect();
        }
        self.soon(delay, Happening::Page(Page::Loaded { loading }));
    }

    fn loaded(&mut self, loading: usize) {
        let ours = self.loading().contains(&loading);
        let Loading { tenure, record, updates, over, .. } = &mut self.books().loadings[loading];
        *over = true;
        let (tenure, record, updates) = (*tenure, *record, std::mem::take(updates));
        if ours {
            let record_key = self.setup.record_keys[record].clone();
            self.trace(Line::Released { record, updates: updates.len() });
            self.tell(Event::Released { tenure, record_key, updates });
        }
    }

    /// Of an update that is none of the malformed ones.
    pub fn record_of(&self, name: usize) -> usize {
        self.setup.publications[name].record.expect("what is malformed has no record")
    }
}

const fn told(known: Known) -> &'static str {
    match known {
        Known::Resolved => "resolved",
        Known::Superseded => "superseded",
        Known::IdReused => "id_reused",
        Known::RecordParked => "record_parked",
    }
}

fn is_reused(reason: &ParkReason) -> bool {
    matches!(reason, ParkReason::Failed { reason: DeadLetterReason::IdReused, .. })
}

/// Whether this is how the turn of an update ends after such an attempt, where there is a ledger.
pub fn ends_so(resolution: &Resolution, last: Option<&Outcome>) -> bool {
    match resolution {
        Resolution::Superseded => {
            matches!(last, Some(Outcome::Known(Known::Superseded) | Outcome::Conflict(_)))
        }
        Resolution::Parked(ParkReason::Behind) => last == Some(&Outcome::Known(Known::RecordParked)),
        _ => false,
    }
}
