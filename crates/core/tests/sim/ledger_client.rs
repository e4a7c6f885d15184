//! How the model driver uses the ledger: asks before an attempt, writes in commits that many share, claims, loads what was
//! released. As `src/runtime` does it, late and interleaved.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_core::message::{Event, Holder, ParkedSeq, Tenure, TenureNumber};
use lanekeeper_core::outcome::{Known, Outcome};
use lanekeeper_core::ownership::OwnershipState;
use lanekeeper_core::policy::{DeadLetterReason, ParkReason, Resolution};
use lanekeeper_core::update::Update;

use crate::dispatcher::Writing;
use crate::kills::Step;
use crate::ledger::{Ledger, LedgerWrite, WriteKind, WriteResult};
use crate::trace::TraceLine;
use crate::world::{SimEvent, World};

/// What can happen between the dispatcher, an operator and the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LedgerEvent {
    /// The ledger looks an update up.
    Lookup { request: usize },
    /// Its answer comes.
    LookedUp { request: usize },
    /// A letter is in the dead-letter queue.
    DeadLetterPublished { writing: usize },
    /// What waits is committed together.
    Commit,
    /// What failed is tried again.
    Again { writing: usize },
    /// The ledger is told of a claim.
    Claim { process: u32, tenure: u64, number: u64, rival_claim: Option<u64> },
    /// Somebody looks for released records.
    Look,
    /// The ledger gives the parked updates of a record.
    Load { loading: usize },
    /// They come.
    Loaded { loading: usize },
    /// The broker hands over what somebody has sent into the queue, so that its owner looks.
    OwnershipHint { process: u32, channel: u64 },
    /// An operator comes.
    Operate,
}

/// The ledger, and what is on its way to and from it.
#[derive(Debug)]
pub struct SimLedgerClient {
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

impl SimLedgerClient {
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, waiting: Vec::new(), loadings: Vec::new(), number: 0 }
    }
}

impl LedgerEvent {
    /// Whether it waits while the dispatcher stands still.
    pub fn is_of_dispatcher(self) -> bool {
        !matches!(self, Self::Commit | Self::DeadLetterPublished { .. } | Self::Operate)
    }
}

impl World {
    pub fn start_ledger(&mut self) {
        if let Some(behaviour) = &self.setup.ledger {
            let (operator, look) = (behaviour.operator, behaviour.look);
            self.soon(operator, SimEvent::Ledger(LedgerEvent::Operate));
            self.soon(look, SimEvent::Ledger(LedgerEvent::Look));
        }
    }

    pub fn handle_ledger_event(&mut self, event: LedgerEvent) {
        match event {
            LedgerEvent::Lookup { request } => self.lookup(request),
            LedgerEvent::LookedUp { request } => self.looked_up(request),
            LedgerEvent::DeadLetterPublished { writing } => self.dead_letter_published(writing),
            LedgerEvent::Commit => self.commit(),
            LedgerEvent::Again { writing } => self.join_commit(writing),
            LedgerEvent::Claim { process, tenure, number, rival_claim }
                if process == self.dispatcher.process =>
            {
                self.claim_written(tenure, number, rival_claim);
            }
            LedgerEvent::Look => self.look(),
            LedgerEvent::Load { loading } => self.load(loading),
            LedgerEvent::Loaded { loading } => self.loaded(loading),
            LedgerEvent::OwnershipHint { process, channel } if process == self.dispatcher.process => {
                self.ownership_hint(channel);
            }
            // Of a dead process.
            LedgerEvent::Claim { .. } | LedgerEvent::OwnershipHint { .. } => {}
            LedgerEvent::Operate => self.operate(),
        }
    }

    pub fn ledger_client(&mut self) -> &mut SimLedgerClient {
        self.ledger_client.as_mut().expect("there is a ledger")
    }

    fn ledger_fails(&mut self, share: u64) -> bool {
        self.now < self.setup.calm_at && self.rng.chance(share)
    }

    /// Asked, some time ago.
    fn lookup(&mut self, request: usize) {
        let behaviour = self.ledger_behaviour();
        let (silent, delay) = (behaviour.silent, behaviour.lookup);
        let found = if self.ledger_fails(silent) {
            Some(Outcome::Withheld)
        } else {
            let of = &self.requests[request];
            let (name, id, holder) = (of.sent.update, of.sent.id.clone(), of.holder);
            let record = self.record_of(name);
            self.ledger_client().ledger.lookup(record, name, &id, holder).map(Outcome::Known)
        };
        (self.requests[request].found, self.requests[request].asked_at) = (found, self.now);
        self.soon(delay, SimEvent::Ledger(LedgerEvent::LookedUp { request }));
    }

    /// The request leaves, if the partition is still ours, or is needless.
    fn looked_up(&mut self, request: usize) {
        let of = &self.requests[request];
        if of.process != self.dispatcher.process {
            return;
        }
        let asked_at = of.asked_at;
        if let Some(found) = of.found.clone() {
            let update = of.sent.update;
            if found == Outcome::Known(Known::RecordParked) {
                self.discard_at_once(update);
            }
            if let Outcome::Known(known) = &found {
                self.trace(TraceLine::LookedUp { update, found: known_name(*known) });
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
        self.trace(TraceLine::Left { update: name, parked: matches!(holder, Holder::Ledger(_)) });
        self.judge.sent_under(self.now, name, Some(under));
        // Where another has claimed the partition since, this is a request of an owner that does not know it yet.
        if Some(under) > self.rival_claim {
            let earlier = self.judge.earlier_of(record, name);
            let known = self.setup.publications[name].id.is_some();
            self.judge.judge_repetition(name);
            self.ledger_client().ledger.judge_sending(&earlier, name, record, (holder, asked_at), known);
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
            (Resolution::Applied, _) => WriteKind::Applied { parked },
            (Resolution::Duplicate, None) => return self.soon(0, SimEvent::Written { writing }),
            (Resolution::Duplicate | Resolution::Superseded | Resolution::DeadLettered(_), _) => {
                WriteKind::Resolved { parked }
            }
            (Resolution::Parked(reason), Some(seq)) => {
                let of_pause = *reason == ParkReason::Behind;
                WriteKind::Repark { seq, reused: is_reused(reason), of_pause }
            }
            (Resolution::Parked(reason), None) => WriteKind::Park {
                update,
                reused: is_reused(reason),
                only_behind: *reason == ParkReason::Behind,
            },
        };
        let (record, number) = (self.record_of(name), self.ledger_client().number);
        self.writings[writing].entry = Some(LedgerWrite { number, record, update: name, id, what });
        if dead_letter {
            self.soon(
                self.setup.delays.record,
                SimEvent::Ledger(LedgerEvent::DeadLetterPublished { writing }),
            );
        } else {
            self.join_commit(writing);
        }
    }

    fn dead_letter_published(&mut self, writing: usize) {
        let Writing { process, update, .. } = self.writings[writing];
        if process == self.dispatcher.process {
            self.trace(TraceLine::DeadLettered { update });
            self.judge.dead_lettered(update);
            self.join_commit(writing);
        }
    }

    fn join_commit(&mut self, writing: usize) {
        if self.writings[writing].process != self.dispatcher.process {
            return;
        }
        let delay = self.ledger_behaviour().commit;
        let queue = &mut self.ledger_client().waiting;
        queue.push(writing);
        if queue.len() == 1 {
            self.soon(delay, SimEvent::Ledger(LedgerEvent::Commit));
        }
    }

    /// All or nothing. Where the connection is lost meanwhile nobody knows which.
    fn commit(&mut self) {
        let waiting = std::mem::take(&mut self.ledger_client().waiting);
        if waiting.is_empty() {
            return; // its process has died
        }
        let behaviour = self.ledger_behaviour();
        let (fails, retry, answer) = (behaviour.fails, behaviour.retry, behaviour.answer);
        let failed = self.ledger_fails(fails);
        let landed = !failed || self.rng.chance(300);
        self.trace(TraceLine::Committed { entries: waiting.len(), failed, landed });
        if landed {
            self.keep(&waiting);
        }
        for writing in waiting {
            if failed {
                self.soon(retry, SimEvent::Ledger(LedgerEvent::Again { writing }));
            } else {
                self.soon(answer, SimEvent::Written { writing });
            }
        }
        if landed {
            self.dies_after(Step::Committed);
        }
    }

    fn keep(&mut self, writings: &[usize]) {
        for writing in writings {
            let entry = self.writings[*writing].entry.clone().expect("what waits has an entry");
            let answer = self.ledger_client().ledger.write(&entry);
            if let (WriteKind::Applied { .. }, WriteResult::Done) = (&entry.what, answer) {
                self.judge.judge_kept_as_applied(entry.update);
            }
            if let (WriteKind::Park { only_behind, .. }, WriteResult::Done) = (&entry.what, answer) {
                self.trace(TraceLine::Parked { update: entry.update, behind: *only_behind });
            }
            if let (WriteKind::Repark { of_pause, .. }, WriteResult::Done) = (&entry.what, answer) {
                self.trace(TraceLine::Reparked { update: entry.update, of_pause: *of_pause });
            }
            self.writings[*writing].answer = answer;
        }
    }

    /// What was being committed when the process died is, or is not.
    pub fn ledger_client_crashed(&mut self) {
        if self.ledger_client.is_none() {
            return;
        }
        let waiting = std::mem::take(&mut self.ledger_client().waiting);
        if !waiting.is_empty() {
            let landed = self.rng.chance(500);
            self.trace(TraceLine::CommitAborted { entries: waiting.len(), landed });
            if landed {
                self.keep(&waiting);
            }
        }
        self.ledger_client().number = 0;
    }

    /// The answer to an entry. Whether it was written.
    pub fn handle_answer(&mut self, writing: usize) -> bool {
        let Writing { answer, update, turn, tenure, holder, .. } = self.writings[writing];
        let record_key = self.writings[writing].record_key.clone();
        match answer {
            WriteResult::Done => return true,
            WriteResult::NotParked => {
                self.trace(TraceLine::NotRecorded { update });
                // How often it had failed in an earlier tenure went with what was being written.
                if self.dispatcher.channel.as_ref().is_none_or(|channel| channel.tenure != tenure) {
                    self.judge.begin_turn(update);
                }
            }
            WriteResult::Fenced => {
                self.trace(TraceLine::Fenced { update });
                let present = self.dispatcher.channel.as_ref().filter(|channel| channel.tenure == tenure);
                if let Some(channel) = present.map(|channel| channel.number) {
                    self.lose_fenced(channel);
                }
            }
        }
        self.judge.recording_ended(update, turn);
        if let Some(record_key) = record_key {
            self.feed_core(Event::NotRecorded { tenure, holder, record_key });
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
    pub fn write_claim(&mut self, tenure: u64, number: u64, rival_claim: Option<u64>) {
        let (process, delay) = (self.dispatcher.process, self.ledger_behaviour().commit);
        self.soon(delay, SimEvent::Ledger(LedgerEvent::Claim { process, tenure, number, rival_claim }));
    }

    fn claim_written(&mut self, tenure: u64, number: u64, rival_claim: Option<u64>) {
        let Some(channel) = self.dispatcher.channel.as_ref().filter(|channel| channel.tenure.0 == tenure)
        else {
            return; // forgotten with its tenure
        };
        let channel = channel.number;
        let behaviour = self.ledger_behaviour();
        let (fails, retry, process) = (behaviour.fails, behaviour.retry, self.dispatcher.process);
        if self.ledger_fails(fails) {
            return self
                .soon(retry, SimEvent::Ledger(LedgerEvent::Claim { process, tenure, number, rival_claim }));
        }
        if self.ledger_client().ledger.claim(number) == WriteResult::Fenced {
            self.trace(TraceLine::ClaimFenced { number });
            return self.lose_fenced(channel);
        }
        self.ledger_client().number = number;
        self.claim_known(tenure, number, rival_claim);
    }

    /// Released records are looked for.
    fn look(&mut self) {
        if self.is_over() {
            return;
        }
        let look = self.ledger_behaviour().look;
        self.at(self.now.after(Duration::from_millis(look)), SimEvent::Ledger(LedgerEvent::Look));
        if !self.loading().is_empty() {
            return;
        }
        let releasing = self.ledger_client().ledger.releasing();
        if !releasing.is_empty()
            && self.dispatcher.partition.ownership_state() == OwnershipState::Unclaimed
            && let Some(channel) = self.dispatcher.channel.as_ref().map(|channel| channel.number)
        {
            let (process, delay) = (self.dispatcher.process, self.setup.delays.delivery);
            self.soon(delay, SimEvent::Ledger(LedgerEvent::OwnershipHint { process, channel }));
        }
        for record in releasing {
            self.begin_loading(record);
        }
    }

    fn ownership_hint(&mut self, channel: u64) {
        let ours = self.dispatcher.channel.as_ref().filter(|of| of.number == channel);
        if let Some(tenure) = ours.map(|channel| channel.tenure).filter(|_| self.broker.is_open(channel)) {
            self.trace(TraceLine::OwnershipHint);
            self.feed_core(Event::OwnershipHint(tenure));
        }
    }

    fn loading(&self) -> Vec<usize> {
        let Some(channel) = &self.dispatcher.channel else { return Vec::new() };
        let loadings =
            self.ledger_client.iter().flat_map(|ledger_client| ledger_client.loadings.iter().enumerate());
        let open = loadings.filter(|(_, loading)| {
            !loading.over && loading.process == self.dispatcher.process && loading.tenure == channel.tenure
        });
        open.map(|(index, _)| index).collect()
    }

    fn begin_loading(&mut self, record: usize) {
        let Some(channel) = &self.dispatcher.channel else { return };
        let tenure = channel.tenure;
        let record_key = &self.setup.record_keys[record];
        if self.dispatcher.stopping.is_some() || self.dispatcher.partition.has_released(record_key) {
            return;
        }
        let (process, delay) = (self.dispatcher.process, self.ledger_behaviour().lookup);
        let loadings = &mut self.ledger_client().loadings;
        loadings.push(Loading { process, tenure, record, updates: Vec::new(), over: false });
        let loading = loadings.len() - 1;
        self.soon(delay, SimEvent::Ledger(LedgerEvent::Load { loading }));
    }

    /// After the last of the released updates that were loaded together there may be more.
    pub fn load_further(&mut self, holder: Holder, update: usize) {
        if matches!(holder, Holder::Ledger(_)) {
            let record = self.record_of(update);
            self.begin_loading(record);
        }
    }

    fn load(&mut self, loading: usize) {
        let behaviour = self.ledger_behaviour();
        let (silent, delay, most) = (behaviour.silent, behaviour.lookup, behaviour.released_max);
        if !self.ledger_fails(silent) {
            let ledger_client = self.ledger_client();
            let record = ledger_client.loadings[loading].record;
            let releasing = ledger_client.ledger.parked(record).is_some_and(|parked| parked.releasing);
            let parked = ledger_client.ledger.oldest(record, if releasing { most } else { 0 });
            ledger_client.loadings[loading].updates =
                parked.into_iter().map(|parked| (parked.seq, parked.update)).collect();
        }
        self.soon(delay, SimEvent::Ledger(LedgerEvent::Loaded { loading }));
    }

    fn loaded(&mut self, loading: usize) {
        let ours = self.loading().contains(&loading);
        let Loading { tenure, record, updates, over, .. } = &mut self.ledger_client().loadings[loading];
        *over = true;
        let (tenure, record, updates) = (*tenure, *record, std::mem::take(updates));
        if ours {
            let record_key = self.setup.record_keys[record].clone();
            self.trace(TraceLine::Released { record, updates: updates.len() });
            let names: Vec<usize> =
                updates.iter().map(|(seq, update)| self.name_of(Holder::Ledger(*seq), update)).collect();
            let before = self.dispatcher.partition.view().released;
            self.dispatcher.partition.handle(self.now, Event::Released { tenure, record_key, updates });
            let taken_in = self.dispatcher.partition.view().released - before;
            if taken_in > 0 {
                self.judge.released(record, &names[..taken_in]);
            }
            self.core_was_fed();
        }
    }

    /// Of an update that is none of the malformed ones.
    pub fn record_of(&self, name: usize) -> usize {
        self.setup.publications[name].record.expect("what is malformed has no record")
    }
}

const fn known_name(known: Known) -> &'static str {
    match known {
        Known::Resolved => "resolved",
        Known::Superseded => "superseded",
        Known::IdReused => "id_reused",
        Known::RecordParked => "record_parked",
        Known::RecordPaused => "record_paused",
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
        Resolution::Parked(ParkReason::Behind) => {
            matches!(last, Some(Outcome::Known(Known::RecordParked | Known::RecordPaused)))
        }
        _ => false,
    }
}
