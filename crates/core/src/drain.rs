//! When a partition of a layout that drains holds nothing more.
//!
//! When nothing is published to a layout any more, a marker is put at the end of each of its queues. Its consumer holds it
//! and never settles it, so that it comes back after everything that is not settled, to the next owner too. A marker that
//! comes *first* in a tenure proves that all before it is settled at the broker: acks that were only sent can still be
//! lost with their channel (docs/decisions/007). So if updates came before it, the partition is given back when they are
//! settled, and consumed once more.

use std::collections::VecDeque;
use std::time::Duration;

use super::message::DeliveryTag;
use super::tick::Tick;

/// How long after the way into a layout was closed a marker is put into its queues. What is still on its way inside the
/// broker by then comes before it: at most 125 ms were seen (RabbitMQ 3.10.8, 15,000 to 34,000 messages/s).
pub const LATE_PUBLISH_MAX: Duration = Duration::from_secs(2);
/// How long after a marker nothing may come.
const QUIET: Duration = Duration::from_secs(1);

/// How long everything must have been settled before a partition is given back: acks that are under way are lost with
/// their channel, and what comes back may be sent again.
const SETTLED: Duration = Duration::from_millis(300);

/// How long a marker is held in a layout that does not drain, as far as this process knows: another process may have read
/// before this one that it drains, and its marker must not be lost.
pub const DOCUMENT_LATE_MAX: Duration = Duration::from_secs(30);

/// Markers that came while the layout did not drain, in one tenure. They are held until the layout drains, and settled if
/// it does not in time: then somebody else has put them there.
#[derive(Debug, Default)]
pub struct UnexpectedMarkers(VecDeque<(Tick, DeliveryTag)>);

impl UnexpectedMarkers {
    /// A marker came.
    pub fn marker_came(&mut self, marker: DeliveryTag, now: Tick) {
        self.0.push_back((now.after(DOCUMENT_LATE_MAX), marker));
    }

    /// When [`Self::take_due`] has something to give.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        self.0.front().map(|(until, _)| *until)
    }

    /// The next marker to settle, if its time has come.
    pub fn take_due(&mut self, now: Tick) -> Option<DeliveryTag> {
        let (_, marker) = *self.0.front().filter(|(until, _)| *until <= now)?;
        self.0.pop_front();
        Some(marker)
    }

    /// The layout drains: the markers were early, and are held like all others. Returns true if there were some.
    pub fn layout_drains(&mut self) -> bool {
        let any = !self.0.is_empty();
        self.0.clear();
        any
    }

    /// The tenure ended: they come again in the next one.
    pub fn tenure_ended(&mut self) {
        self.0.clear();
    }
}

/// Watches one partition, over all tenures of one process.
#[derive(Debug, Default)]
pub struct DrainWatch(DrainState);

/// What the present tenure has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DrainState {
    /// Neither updates nor a marker. Leaves to `Updates`, `MarkerFirst`.
    #[default]
    Nothing,
    /// Updates, no marker behind them. Leaves to `MarkerBehind`.
    Updates,
    /// A marker behind updates, or updates behind a marker; since when everything is done. Leaves to `GivenBack`.
    MarkerBehind { at_rest_since: Option<Tick> },
    /// A marker, and nothing before it. Leaves to `MarkerBehind`, `FirstAndQuiet`, `Drained`.
    MarkerFirst { quiet_until: Tick },
    /// The same, and nothing came for long enough; something is under way. Leaves to `MarkerBehind`, `Drained`.
    FirstAndQuiet,
    /// The partition is on its way back to the broker. Ends with the tenure.
    GivenBack,
    /// There is nothing more to come.
    Drained,
}

/// What is to be done about a partition with a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that came is done: give the partition back and take it again, to see that the marker is first.
    GiveBack,
    /// It holds nothing more and never will.
    Proven,
}

impl DrainWatch {
    /// The tenure ended: everything that is held comes again in the next one.
    pub fn tenure_ended(&mut self) {
        if self.0 != DrainState::Drained {
            self.0 = DrainState::Nothing;
        }
    }

    /// Something came that is neither a marker nor a witness.
    pub fn update_came(&mut self) {
        self.0 = match self.0 {
            DrainState::Nothing | DrainState::Updates => DrainState::Updates,
            DrainState::MarkerBehind { .. } | DrainState::MarkerFirst { .. } | DrainState::FirstAndQuiet => {
                DrainState::MarkerBehind { at_rest_since: None }
            }
            DrainState::GivenBack => DrainState::GivenBack,
            DrainState::Drained => unreachable!("nothing is taken from a partition that is drained"),
        }
    }

    /// A marker came.
    pub fn marker_came(&mut self, now: Tick) {
        self.0 = match self.0 {
            DrainState::Nothing => DrainState::MarkerFirst { quiet_until: now.after(QUIET) },
            DrainState::Updates => DrainState::MarkerBehind { at_rest_since: None },
            state @ (DrainState::MarkerBehind { .. }
            | DrainState::MarkerFirst { .. }
            | DrainState::FirstAndQuiet
            | DrainState::GivenBack
            | DrainState::Drained) => state,
        }
    }

    /// When to call [`Self::look`] if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        match self.0 {
            DrainState::MarkerFirst { quiet_until } => Some(quiet_until),
            DrainState::MarkerBehind { at_rest_since } => at_rest_since.map(|since| since.after(SETTLED)),
            DrainState::Nothing
            | DrainState::Updates
            | DrainState::FirstAndQuiet
            | DrainState::GivenBack
            | DrainState::Drained => None,
        }
    }

    /// What is to be done now; returned once. `at_rest`: nothing but markers is held, in flight or being written down.
    pub fn look(&mut self, now: Tick, at_rest: bool) -> Option<Drained> {
        match &mut self.0 {
            DrainState::MarkerBehind { at_rest_since } => {
                *at_rest_since = at_rest.then(|| at_rest_since.unwrap_or(now));
                if at_rest_since.is_none_or(|since| now < since.after(SETTLED)) {
                    return None;
                }
                self.0 = DrainState::GivenBack;
                Some(Drained::GiveBack)
            }
            DrainState::MarkerFirst { quiet_until } if *quiet_until <= now => {
                self.0 = DrainState::FirstAndQuiet;
                self.look(now, at_rest)
            }
            DrainState::FirstAndQuiet if at_rest => {
                self.0 = DrainState::Drained;
                Some(Drained::Proven)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, one letter after another, a hundred milliseconds apart: `u` an update that is held, `,` something else
    /// that is under way, `.` all that is done, `m` a marker, `e` the tenure ends. `expected`: what is to be done, with the
    /// place of the letter.
    fn check(script: &str, expected: &[(usize, Drained)]) {
        let mut watch = DrainWatch::default();
        let (mut decided, mut at_rest) = (Vec::new(), true);
        for (place, letter) in script.chars().enumerate() {
            let now = Tick::from_micros(u64::try_from(place).unwrap() * 100_000);
            match letter {
                'u' => watch.update_came(),
                'm' => watch.marker_came(now),
                'e' => watch.tenure_ended(),
                _ => {}
            }
            at_rest = letter == '.' || letter == 'e' || at_rest && letter == 'm';
            decided.extend(watch.look(now, at_rest).map(|drained| (place, drained)));
        }
        assert_eq!(decided, expected, "{script}");
    }

    #[test]
    fn a_marker_that_comes_first_and_is_followed_by_nothing_proves_it() {
        check("m...............", &[(10, Drained::Proven)]);
        check("mm..............", &[(10, Drained::Proven)]);
        check("m,,,,,,,,,,,,,,.", &[(15, Drained::Proven)]);
    }

    #[test]
    fn updates_before_or_behind_a_marker_are_done_and_looked_for_again() {
        use Drained::{GiveBack, Proven};
        check("uum.............", &[(6, GiveBack)]);
        check("um,,,,..........", &[(9, GiveBack)]);
        check("um..,...........", &[(8, GiveBack)]);
        check("um....em...........", &[(5, GiveBack), (17, Proven)]);
        check("m....u....em..........", &[(9, GiveBack), (21, Proven)]);
        check("um....eum....em..........", &[(5, GiveBack), (12, GiveBack), (24, Proven)]);
    }

    #[test]
    fn a_marker_in_a_layout_that_does_not_drain_is_settled_after_a_while_and_kept_if_it_drains_after_all() {
        let at = |seconds| Tick::ZERO.after(Duration::from_secs(seconds));
        let (first, second) = (DeliveryTag(7), DeliveryTag(9));
        let mut markers = UnexpectedMarkers::default();
        assert_eq!((markers.next_deadline(), markers.take_due(at(1_000))), (None, None));
        markers.marker_came(first, at(0));
        markers.marker_came(second, at(10));
        assert_eq!((markers.next_deadline(), markers.take_due(at(29))), (Some(at(30)), None));
        assert_eq!((markers.take_due(at(30)), markers.take_due(at(30))), (Some(first), None));
        assert!(markers.layout_drains());
        assert!(!markers.layout_drains());
        assert_eq!(markers.take_due(at(1_000)), None, "it is held for good");
        markers.marker_came(first, at(0));
        markers.tenure_ended();
        assert_eq!(markers.next_deadline(), None);
    }

    #[test]
    fn without_a_marker_or_with_the_tenure_gone_nothing_is_proven() {
        check("................", &[]);
        check("u...............", &[]);
        check("m.....e.........", &[]);
        check("um....u.........", &[(5, Drained::GiveBack)]);
    }
}
