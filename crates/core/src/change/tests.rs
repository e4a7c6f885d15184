use super::*;
use crate::witness::witnesses;

fn shape(partitions: u16) -> Shape {
    Shape { partitions, prefetch: 100 }
}

fn witness(partition: u16) -> Vec<Witness> {
    vec![Witness { key: "w".to_owned(), partition: PartitionNumber(partition) }]
}

fn layouts() -> Layouts {
    Layouts::first(shape(2).numbered(LayoutNumber(1)), witness(1))
}

fn all(draining: Layout) -> Vec<(LayoutNumber, PartitionNumber)> {
    draining.partitions().map(|partition| (draining.number, partition)).collect()
}

/// Goes on with this wish until there is nothing to do, and answers with the steps.
fn steps(layouts: &mut Layouts, mut desired: Desired) -> Vec<Step> {
    let mut done = Vec::new();
    while let Some(step) = layouts.next_step(&desired) {
        *layouts = match &step {
            Step::Undo(_) => layouts.undone(),
            Step::Prepare(_) => layouts.prepared(witness(0)),
            Step::Switch { .. } => layouts.switched(7),
            Step::Record => layouts.with_drained(&desired.drained).expect("it is news"),
            Step::Remove(draining) => layouts.removed(draining.layout.number),
            Step::Begin(shape) => layouts.begun(*shape, "a", 5),
        };
        desired.begun = desired.begun.or(layouts.changing.as_ref().map(|changing| changing.to.number));
        done.push(step);
        assert!(done.len() < 20, "it comes to an end: {done:?}");
    }
    done
}

fn wants(partitions: u16) -> Desired {
    Desired { shape: Some(shape(partitions)), ..Desired::default() }
}

#[test]
fn a_change_begins_is_prepared_switches_and_its_old_layout_drains_and_goes() {
    let mut layouts = layouts();
    let (old, new) = (layouts.in_force, shape(3).numbered(LayoutNumber(2)));
    let taken = steps(&mut layouts, wants(3));
    assert_eq!(taken, [Step::Begin(shape(3)), Step::Prepare(new), Step::Switch { from: old, to: new }]);
    assert_eq!(layouts.in_force, new);
    assert!(layouts.drains());
    assert_eq!(steps(&mut layouts, wants(4)), [], "one change at a time");

    let one = Desired { drained: all(old)[..1].to_vec(), ..Desired::default() };
    assert_eq!(steps(&mut layouts, one.clone()), [Step::Record]);
    assert_eq!(steps(&mut layouts, one), [], "it is no news");
    assert_eq!(layouts.active_layouts()[0].partitions, BTreeSet::from([PartitionNumber(1)]));
    assert_eq!(steps(&mut layouts, Desired { remove: true, ..Desired::default() }), [], "it is not drained");

    let desired = Desired { drained: all(old), remove: true, ..Desired::default() };
    let taken = steps(&mut layouts, desired);
    assert!(
        matches!(taken.as_slice(), [Step::Record, Step::Remove(gone)] if gone.layout == old),
        "{taken:?}"
    );
    assert_eq!(active_layouts(&layouts), "2");
    assert!(!layouts.drains());
    assert_eq!(layouts.draining, []);
}

/// As in `1- 2<01`: layout 1, which drains, and layout 2, whose records wait for two partitions of the one before.
fn active_layouts(layouts: &Layouts) -> String {
    let describe = |active_layout: ActiveLayout| {
        let previous = active_layout.previous.undrained.iter().map(|partition| partition.0.to_string());
        let previous: String = previous.collect();
        let waits = if previous.is_empty() { String::new() } else { format!("<{previous}") };
        format!("{}{}{waits}", active_layout.layout.number.0, if active_layout.draining { "-" } else { "" })
    };
    let all: Vec<String> = layouts.active_layouts().into_iter().map(describe).collect();
    all.join(" ")
}

#[test]
fn the_current_layout_is_active_beside_the_one_that_drains_if_previous_partitions_can_be_computed() {
    let first = |witnesses| {
        let mut layouts = Layouts::first(shape(4).numbered(LayoutNumber(1)), witnesses);
        assert_eq!(active_layouts(&layouts), "1");
        steps(&mut layouts, wants(3));
        layouts
    };
    let drained = |layouts: &Layouts, partitions: &[u16]| {
        let drained = partitions.iter().map(|partition| (LayoutNumber(1), PartitionNumber(*partition)));
        layouts.with_drained(&drained.collect::<Vec<_>>()).expect("it is news")
    };
    let layouts = first(witnesses(4));
    assert_eq!(active_layouts(&layouts), "1- 2<0123");
    assert_eq!(layouts.active_layouts()[1].previous.partitions, 4);
    let layouts = drained(&layouts, &[1, 3]);
    assert_eq!(active_layouts(&layouts), "1- 2<02");
    assert_eq!(active_layouts(&drained(&layouts, &[0, 2])), "2", "also before it is removed");
    // One of many lies elsewhere, or there are none: the whole layout first.
    let mut moved = witnesses(4);
    moved[5].partition.0 = (moved[5].partition.0 + 1) % 4;
    for witnesses in [moved, Vec::new()] {
        let layouts = first(witnesses);
        assert_eq!(active_layouts(&layouts), "1-");
        assert_eq!(active_layouts(&drained(&layouts, &[0, 1, 3])), "1-");
        assert_eq!(active_layouts(&drained(&layouts, &[0, 1, 2, 3])), "2");
    }
    // Two that drain, as nobody makes them: one after the other.
    let two = layouts.begun(shape(5), "a", 5).prepared(witnesses(5)).switched(9);
    assert_eq!(active_layouts(&two), "1-");
    assert_eq!(
        active_layouts(&drained(&two, &[0, 2])),
        "2-",
        "the witnesses of this test's layout 2 are none"
    );
}

#[test]
fn what_was_begun_is_undone_before_its_keys_are_known_and_finished_afterwards() {
    let begun = layouts().begun(shape(3), "a", 5);
    let mut undone = begun.clone();
    assert_eq!(steps(&mut undone, Desired::default()), [Step::Undo(shape(3).numbered(LayoutNumber(2)))]);
    assert_eq!(undone, Layouts { number_max: 2, ..layouts() });
    let mut finished = begun.prepared(witness(2));
    let taken = steps(&mut finished, Desired::default());
    assert!(matches!(taken.as_slice(), [Step::Switch { .. }]), "{taken:?}");
}

#[test]
fn a_number_is_never_used_again() {
    let mut layouts = layouts().begun(shape(3), "a", 5).undone();
    steps(&mut layouts, wants(4));
    assert_eq!(layouts.in_force.number, LayoutNumber(3));
    let from_before = Layouts { number_max: 0, ..self::layouts() };
    assert_eq!(from_before.begun(shape(3), "a", 5).number_max, 2);
}

#[test]
fn the_same_shape_is_no_change_and_another_prefetch_is_one() {
    assert_eq!(steps(&mut layouts(), wants(2)), []);
    let shape = Shape { prefetch: 99, ..shape(2) };
    let desired = Desired { shape: Some(shape), ..Desired::default() };
    assert_eq!(layouts().next_step(&desired), Some(Step::Begin(shape)));
}

#[test]
fn reports_of_what_is_not_draining_are_passed_over() {
    let number = LayoutNumber;
    let before = layouts();
    let mut layouts = before.clone();
    steps(&mut layouts, wants(3));
    for (layout, partition) in [(2, 0), (1, 2), (7, 0)] {
        assert_eq!(layouts.with_drained(&[(number(layout), PartitionNumber(partition))]), None);
    }
    assert_eq!(before.with_drained(&[(number(1), PartitionNumber(0))]), None);
}

/// A model of the three exchanges: where a publish goes at each point, whoever died and began again.
#[test]
fn there_is_exactly_one_way_at_every_point() {
    #[derive(Clone, Debug)]
    struct Bindings {
        ingress: BTreeSet<&'static str>,
        handoff: BTreeSet<&'static str>,
    }
    impl Bindings {
        fn take(&mut self, step: RouteStep) {
            match step {
                RouteStep::BindHandoff => drop(self.handoff.insert("new")),
                RouteStep::UnbindOld => drop(self.ingress.remove("old")),
                RouteStep::BindNew => drop(self.ingress.insert("new")),
                RouteStep::UnbindHandoff => drop(self.handoff.remove("new")),
            }
        }
        fn ways(&self) -> usize {
            if self.ingress.is_empty() { self.handoff.len() } else { self.ingress.len() }
        }
    }
    for died_after in 0..=ROUTE.len() {
        let mut bindings = Bindings { ingress: BTreeSet::from(["old"]), handoff: BTreeSet::new() };
        for step in ROUTE.iter().take(died_after).chain(&ROUTE) {
            bindings.take(*step);
            assert_eq!(bindings.ways(), 1, "died after {died_after}, then {step:?}: {bindings:?}");
        }
        assert_eq!(bindings.ingress, BTreeSet::from(["new"]));
        assert!(bindings.handoff.is_empty());
    }
}

#[test]
fn layouts_are_read_as_they_were_written() {
    let mut all_parts = layouts().begun(shape(3), "a", 5);
    steps(&mut all_parts, Desired::default());
    let mut switched = layouts();
    steps(&mut switched, wants(3));
    let drained = switched.with_drained(&[(LayoutNumber(1), PartitionNumber(0))]).unwrap();
    for layouts in [all_parts, drained.clone(), drained.removed(LayoutNumber(9)), switched] {
        let text = serde_json::to_string(&layouts).unwrap();
        assert_eq!(serde_json::from_str::<Layouts>(&text).unwrap(), layouts, "{text}");
        assert_eq!(layouts.unfit(), None, "{text}");
    }
}
