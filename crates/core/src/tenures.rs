//! What a process knows of the tenures of one partition, from the messages of the stream of members.
//!
//! All processes read the same messages in the same order, so that they agree which claim counts. A tenure begins with a
//! claim, whose offset is its number. It ends in order with a message that says so; without one nobody knows if its owner
//! is dead or cut off, and a later owner waits until its lease is over and its requests are.
//!
//! What is read late is read at the same place: a claim that a cut-off node kept back and that lands behind another
//! process's claim names what its process had read by then, and is void for everyone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::message::TenureNumber;
use super::tick::Tick;

/// Tenures of unknown end that are known one by one. Of more, the oldest are merged.
const OPEN_MAX: usize = 16;
/// Processes whose newest claim is known. More claims than these cannot stand between what a process has read and its own
/// claim without one of another process among them.
const CLAIMANTS: usize = 2;

/// How long what a process does can go on without a word of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long it may begin requests after it sent the newest note that it read back.
    pub lease: Duration,
    /// How long a request of it can be at work.
    pub at_work: Duration,
}

impl Terms {
    /// After so long none of its requests is at work.
    #[must_use]
    pub fn whole(self) -> Duration {
        self.lease.saturating_add(self.at_work)
    }

    /// The longer of both, each for itself.
    #[must_use]
    pub fn longest(self, other: Self) -> Self {
        Self { lease: self.lease.max(other.lease), at_work: self.at_work.max(other.at_work) }
    }
}

/// A claim, as it stands in the stream.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Where it stands.
    pub offset: u64,
    /// The epoch that it counts in; its number is this and its offset.
    pub epoch: u64,
    /// A message of a higher epoch stands before it: nobody counts it.
    pub outdated: bool,
    /// Who claims.
    pub process: &'a str,
    /// Counts the claims of the process. The same claim can stand in the stream twice: the first one counts.
    pub count: u64,
    /// Up to where the process had read when it claimed: everything before this offset. `None`: an older program claims.
    pub read: Option<u64>,
    /// `None`: an older program claims.
    pub terms: Option<Terms>,
    /// The tenure did without a number, since the broker took no publishes, and is over; for so long its requests can
    /// still be at work.
    pub over: Option<Duration>,
}

/// The claim of this process that was read back last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnClaim {
    /// Which of its claims.
    pub count: u64,
    /// The number of the tenure.
    pub number: TenureNumber,
    /// The newest tenure of another process before it.
    pub rival: Option<TenureNumber>,
    /// Another process's claim, or a higher epoch, stands between what was read and this one: nobody counts it.
    pub void: bool,
}

/// A tenure whose owner has not said that it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OpenTenure {
    process: String,
    terms: Terms,
    /// Until when requests of it can be at work. Known once another process's claim stands behind it: no lease is renewed
    /// after that. `None`: it may be the present owner's.
    until: Option<Tick>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    until: Tick,
    /// The newest tenure that tells of it: the owner of a later one knows of it and has waited for it.
    number: TenureNumber,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenures {
    process: String,
    /// Of this process; also what is assumed of those that do not say.
    terms: Terms,
    ours: Option<OwnClaim>,
    /// The newest claim of another process that counts.
    rival: Option<TenureNumber>,
    /// The newest tenure of another process, also without a number.
    rival_tenure: Option<TenureNumber>,
    /// The newest claims, each of another process, newest first: where it stands, and its count.
    claimants: Vec<(String, u64, u64)>,
    open: BTreeMap<TenureNumber, OpenTenure>,
    /// Of tenures up to this number it is known that they are over.
    ended: Option<TenureNumber>,
    /// Until when requests of tenures that are not known one by one can be at work.
    rest: Option<Rest>,
    /// The stream does not reach back to its beginning, and says nothing of the partition: there may have been a tenure.
    unknown_before: bool,
}

impl Tenures {
    /// Nothing is known, and nothing was: the stream is read from its beginning.
    #[must_use]
    pub fn new(process: String, terms: Terms) -> Self {
        Self {
            process,
            terms,
            ours: None,
            rival: None,
            rival_tenure: None,
            claimants: Vec::new(),
            open: BTreeMap::new(),
            ended: None,
            rest: None,
            unknown_before: false,
        }
    }

    /// The stream begins later than with its first message, or a part of it could not be read: there may have been tenures.
    pub fn something_is_missing(&mut self) {
        self.unknown_before = true;
    }

    /// The stream was deleted, and begins again, in a new epoch. Our claim counts until the next one.
    pub fn recreated(&mut self, now: Tick) {
        for (number, open) in std::mem::take(&mut self.open) {
            self.add_rest(number, open.until.unwrap_or(now.after(open.terms.whole())));
        }
        self.claimants.clear();
        (self.rival, self.rival_tenure, self.ended) = (None, None, None);
        self.unknown_before = true;
    }

    /// Our newest claim that was read back.
    #[must_use]
    pub fn ours(&self) -> Option<OwnClaim> {
        self.ours
    }

    /// The newest claim of another process that counts.
    #[must_use]
    pub fn rival(&self) -> Option<TenureNumber> {
        self.rival
    }

    /// The newest tenure of another process, also one without a number.
    #[must_use]
    pub fn rival_tenure(&self) -> Option<TenureNumber> {
        self.rival_tenure
    }

    /// A claim was read. Returns true if it changes anything.
    pub fn claimed(&mut self, now: Tick, claim: &Claim<'_>) -> bool {
        let known = self.claimants.iter().find(|(process, ..)| process == claim.process);
        if known.is_some_and(|(.., count)| *count >= claim.count) {
            return false;
        }
        let number = TenureNumber::at(claim.epoch, claim.offset);
        let is_ours = claim.process == self.process;
        let between = self.claimants.iter().find(|(process, ..)| process != claim.process);
        let overtaken = claim.read.zip(between).is_some_and(|(read, (_, offset, _))| *offset >= read);
        let void = claim.outdated || overtaken;
        self.claimants.retain(|(process, ..)| process != claim.process);
        self.claimants.insert(0, (claim.process.to_owned(), claim.offset, claim.count));
        self.claimants.truncate(CLAIMANTS);
        if is_ours {
            self.ours = Some(OwnClaim { count: claim.count, number, rival: self.rival_tenure, void });
        }
        if let Some(at_work) = claim.over {
            self.add_rest(number, now.after(at_work));
            if !is_ours {
                self.rival_tenure = Some(number);
            }
            return true;
        }
        if void {
            return is_ours;
        }
        for open in self.open.values_mut().filter(|open| open.process != claim.process) {
            open.until.get_or_insert(now.after(open.terms.whole()));
        }
        if self.unknown_before && is_ours {
            self.unknown_before = false;
            self.add_rest(number, now.after(self.terms.whole()));
        }
        self.open_tenure(now, number, claim.process, claim.terms.unwrap_or(self.terms));
        if !is_ours {
            (self.rival, self.rival_tenure) = (Some(number), Some(number));
        }
        true
    }

    /// A note was read in which a process says that it owns the partition. Returns true if it changes anything.
    pub fn noted(&mut self, now: Tick, process: &str, number: TenureNumber, terms: Terms) -> bool {
        if self.ended.is_some_and(|ended| number <= ended) {
            return false;
        }
        let is_newest = self.open.keys().next_back().is_none_or(|newest| *newest < number);
        match self.open.get_mut(&number) {
            // What was at work before its terms became shorter still is.
            Some(open) if open.until.is_none() && open.process == process => {
                let longest = open.terms.longest(terms);
                std::mem::replace(&mut open.terms, longest) != longest
            }
            // Its claim stands before what was read.
            None if is_newest => {
                self.open_tenure(now, number, process, terms);
                if process != self.process {
                    (self.rival, self.rival_tenure) =
                        (self.rival.max(Some(number)), self.rival_tenure.max(Some(number)));
                }
                true
            }
            Some(_) | None => false,
        }
    }

    /// A process has said that its tenure is over, and all before it that it had waited for: requests of them can be at work
    /// for no longer than `rest`. Returns true if it changes anything.
    pub fn ended(&mut self, now: Tick, number: TenureNumber, rest: Duration) -> bool {
        if self.ended.is_some_and(|ended| number <= ended) {
            return false;
        }
        self.ended = Some(number);
        self.open = self.open.split_off(&TenureNumber(number.0.saturating_add(1)));
        self.unknown_before = false;
        self.rest = self.rest.filter(|rest| rest.number > number);
        if !rest.is_zero() {
            self.add_rest(number, now.after(rest));
        }
        true
    }

    /// Until when requests of other processes' tenures can be at work; `None`: none is. To be asked once our own claim was
    /// read back: every message before it was read by then.
    #[must_use]
    pub fn wait_until(&self, now: Tick) -> Option<Tick> {
        let others = self.open.values().filter(|open| open.process != self.process);
        let waits = others.map(|open| open.until.unwrap_or(now.after(open.terms.whole())));
        let unknown = self.unknown_before.then(|| now.after(self.terms.whole()));
        waits.chain(self.rest.map(|rest| rest.until)).chain(unknown).max().filter(|until| *until > now)
    }

    /// Begins without a number, since the broker takes no publishes: any process may be the owner, and its lease may have been
    /// renewed just now.
    #[must_use]
    pub fn wait_without_number(&self) -> Duration {
        let longest = self.open.values().map(|open| open.terms).fold(self.terms, Terms::longest);
        longest.whole()
    }

    fn open_tenure(&mut self, now: Tick, number: TenureNumber, process: &str, terms: Terms) {
        self.open.insert(number, OpenTenure { process: process.to_owned(), terms, until: None });
        while self.open.len() > OPEN_MAX
            && let Some((number, oldest)) = self.open.pop_first()
        {
            self.add_rest(number, oldest.until.unwrap_or(now.after(oldest.terms.whole())));
        }
    }

    fn add_rest(&mut self, number: TenureNumber, until: Tick) {
        let rest = self.rest.unwrap_or(Rest { until, number });
        self.rest = Some(Rest { until: rest.until.max(until), number: rest.number.max(number) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(9);

    fn at(seconds: u64) -> Tick {
        Tick::from_micros(seconds * 1_000_000)
    }

    fn terms(at_work_seconds: u64) -> Terms {
        Terms { lease: LEASE, at_work: Duration::from_secs(at_work_seconds) }
    }

    /// A claim of a process, which has read everything before `read`, with requests of at most `at_work_seconds`.
    fn claim(offset: u64, process: &str, (count, read): (u64, u64), at_work_seconds: u64) -> Claim<'_> {
        let (read, terms) = (Some(read), Some(terms(at_work_seconds)));
        Claim { offset, epoch: 0, outdated: false, process, count, read, terms, over: None }
    }

    /// What "a" knows, whose requests take at most a second.
    fn tenures() -> Tenures {
        Tenures::new("a".to_owned(), terms(1))
    }

    #[test]
    fn the_first_owner_of_all_does_not_wait() {
        let mut known = tenures();
        assert!(known.claimed(at(0), &claim(10, "a", (1, 10), 1)));
        let ours = known.ours().expect("it was read back");
        assert_eq!((ours.number, ours.rival, ours.void), (TenureNumber(10), None, false));
        assert_eq!(known.wait_until(at(0)), None);
    }

    #[test]
    fn a_claim_that_stands_in_the_stream_twice_counts_once() {
        let mut known = tenures();
        known.claimed(at(0), &claim(10, "b", (1, 10), 1));
        assert!(!known.claimed(at(0), &claim(11, "b", (1, 10), 1)));
        assert_eq!(known.rival(), Some(TenureNumber(10)));
    }

    #[test]
    fn a_tenure_of_unknown_end_is_waited_for_by_its_own_terms_from_the_next_claim_on() {
        let mut known = tenures();
        known.claimed(at(0), &claim(10, "b", (1, 10), 30));
        known.claimed(at(100), &claim(12, "a", (1, 11), 1));
        assert_eq!(known.wait_until(at(100)), Some(at(139)), "its lease, and its 30 s, not our 1 s");
        assert_eq!(known.wait_until(at(120)), Some(at(139)));
        known.claimed(at(120), &claim(14, "a", (2, 13), 1));
        assert_eq!(
            known.wait_until(at(120)),
            Some(at(139)),
            "a further claim of ours does not begin it again"
        );
        assert_eq!(known.wait_until(at(139)), None);
        assert!(known.ended(at(125), TenureNumber(10), Duration::ZERO));
        assert_eq!(known.wait_until(at(125)), None, "it lives, and says that nothing is at work");
    }

    #[test]
    fn a_note_tells_of_longer_requests_and_of_a_claim_that_the_stream_does_not_hold_any_more() {
        let mut known = tenures();
        assert!(known.noted(at(0), "b", TenureNumber(7), terms(5)));
        assert!(known.noted(at(0), "b", TenureNumber(7), terms(50)));
        assert!(!known.noted(at(0), "b", TenureNumber(7), terms(5)), "what was at work before still is");
        known.claimed(at(1), &claim(12, "a", (1, 11), 1));
        assert_eq!(known.wait_until(at(1)), Some(at(60)));
        assert!(
            !known.noted(at(2), "b", TenureNumber(7), terms(500)),
            "its lease cannot be renewed any more"
        );
        assert_eq!(known.ours().and_then(|ours| ours.rival), Some(TenureNumber(7)));
    }

    #[test]
    fn what_ended_in_order_is_not_waited_for_but_for_the_rest_that_it_names() {
        let mut known = tenures();
        known.claimed(at(0), &claim(10, "b", (1, 10), 30));
        known.claimed(at(0), &claim(11, "c", (1, 11), 30));
        assert!(known.ended(at(20), TenureNumber(11), Duration::from_secs(19)));
        known.claimed(at(30), &claim(13, "a", (1, 13), 1));
        assert_eq!(known.wait_until(at(30)), Some(at(39)), "c waited for b, and says for how long still");
        assert!(known.ended(at(40), TenureNumber(13), Duration::ZERO));
        known.claimed(at(40), &claim(15, "a", (2, 15), 1));
        assert_eq!(known.wait_until(at(40)), None);
        assert!(!known.noted(at(41), "c", TenureNumber(11), terms(30)), "a note that comes late");
    }

    #[test]
    fn a_rest_that_the_owner_did_not_know_of_is_not_ended_by_it() {
        let mut known = tenures();
        known.claimed(at(0), &claim(10, "b", (1, 10), 30));
        let over = Some(Duration::from_secs(50));
        known.claimed(at(0), &Claim { over, ..claim(11, "c", (1, 9), 30) });
        assert_eq!(known.rival(), Some(TenureNumber(10)), "c's is over, and is nobody's rival");
        assert_eq!(known.rival_tenure(), Some(TenureNumber(11)), "but has applied updates");
        known.ended(at(10), TenureNumber(10), Duration::ZERO);
        known.claimed(at(10), &claim(13, "a", (1, 13), 1));
        assert_eq!(known.wait_until(at(10)), Some(at(50)));
    }

    #[test]
    fn a_claim_behind_one_that_its_process_had_not_read_is_void() {
        let mut known = tenures();
        known.claimed(at(0), &claim(10, "b", (1, 10), 1));
        known.ended(at(0), TenureNumber(10), Duration::ZERO);
        assert!(!known.claimed(at(0), &claim(12, "c", (1, 10), 1)), "it had not read b's");
        assert_eq!(known.rival(), Some(TenureNumber(10)));
        assert!(known.claimed(at(0), &claim(13, "a", (1, 11), 1)));
        assert!(known.ours().expect("it was read back").void, "it had not read c's, void or not");
        assert_eq!(known.rival(), Some(TenureNumber(10)));
        assert!(known.claimed(at(0), &claim(14, "a", (2, 13), 1)));
        assert!(!known.ours().expect("it was read back").void);
        assert_eq!(known.wait_until(at(0)), None, "what is void has sent nothing");
    }

    #[test]
    fn a_claim_of_an_older_program_counts_always_and_is_waited_for_as_ours() {
        let mut known = tenures();
        let older = Claim { read: None, terms: None, ..claim(11, "old", (1, 0), 0) };
        known.claimed(at(0), &claim(10, "b", (1, 10), 1));
        assert!(known.claimed(at(0), &older));
        assert_eq!(known.rival(), Some(TenureNumber(11)));
        known.claimed(at(100), &claim(12, "a", (1, 12), 1));
        assert_eq!(known.wait_until(at(100)), Some(at(110)));
    }

    #[test]
    fn a_stream_that_does_not_reach_back_may_hide_a_tenure() {
        let mut known = tenures();
        known.something_is_missing();
        known.claimed(at(0), &claim(500, "a", (1, 500), 1));
        assert_eq!(known.wait_until(at(0)), Some(at(10)));
        known.claimed(at(6), &claim(510, "a", (2, 510), 1));
        assert_eq!(known.wait_until(at(6)), Some(at(10)), "once");
        known.ended(at(7), TenureNumber(510), Duration::ZERO);
        assert_eq!(known.wait_until(at(7)), None);
    }

    #[test]
    fn of_a_stream_that_begins_again_what_was_open_is_waited_for() {
        let mut known = tenures();
        known.claimed(at(0), &claim(400, "b", (1, 400), 30));
        known.recreated(at(1));
        assert_eq!(known.rival(), None);
        known.claimed(at(2), &Claim { epoch: 1, ..claim(0, "a", (1, 0), 1) });
        assert_eq!(known.ours().map(|ours| ours.number), Some(TenureNumber::at(1, 0)));
        assert_eq!(known.wait_until(at(2)), Some(at(40)));
    }

    #[test]
    fn a_claim_of_an_epoch_that_is_over_is_void() {
        let mut known = tenures();
        known.claimed(at(0), &Claim { epoch: 1, ..claim(4, "b", (1, 4), 1) });
        assert!(
            known.claimed(at(0), &Claim { outdated: true, ..claim(6, "a", (1, 6), 1) }),
            "it has to know"
        );
        assert!(known.ours().expect("it was read back").void);
        assert_eq!(known.rival(), Some(TenureNumber::at(1, 4)));
        assert!(!known.claimed(at(0), &Claim { outdated: true, ..claim(7, "c", (1, 7), 1) }));
        known.claimed(at(0), &Claim { epoch: 1, ..claim(9, "a", (2, 8), 1) });
        assert_eq!(known.ours().map(|ours| (ours.number, ours.void)), Some((TenureNumber::at(1, 9), false)));
    }

    #[test]
    fn many_tenures_of_unknown_end_are_bounded_and_waited_for_all_the_same() {
        let mut known = tenures();
        known.claimed(at(0), &claim(1, "long", (1, 1), 1000));
        for offset in 2..100 {
            let process = format!("p{offset}");
            known.claimed(at(0), &claim(offset, &process, (1, offset), 1));
        }
        assert_eq!(known.open.len(), OPEN_MAX);
        known.claimed(at(1), &claim(100, "a", (1, 100), 1));
        assert_eq!(known.wait_until(at(1)), Some(at(1009)));
    }
}
