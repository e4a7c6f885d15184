//! The lines that are printed.

use indicatif::HumanFloatCount;

use super::run::{Measured, Memory, ScenarioFigure};

/// The line of a scenario and a contender, over all runs, of which there is at least one.
pub(super) fn line(scenario: &str, contender: &str, runs: &[Measured]) -> String {
    let name = if contender.is_empty() { scenario.to_owned() } else { format!("{scenario} {contender}") };
    let of = |value: fn(&Measured) -> f64| Spread::of(runs.iter().map(value));
    let kept = |half: usize| kept_of(runs, half);
    let figure = match &runs[0].special {
        ScenarioFigure::None => rate(runs),
        ScenarioFigure::Hottest(_) => {
            let hottest = Spread::of(runs.iter().filter_map(|run| match run.special {
                ScenarioFigure::Hottest(share) => Some(share),
                _ => None,
            }));
            format!("{} {} of the hottest record's bound", rate(runs), hottest.format("", share))
        }
        ScenarioFigure::Memory(_) => {
            let mb = |value: fn(&Memory) -> f64| {
                let values = runs.iter().filter_map(|run| match &run.special {
                    ScenarioFigure::Memory(memory) => Some(value(memory)),
                    _ => None,
                });
                Spread::of(values).median
            };
            format!(
                "{} memory {:.0} MB early, {:.0} to {:.0}, {:.0} afterwards",
                rate(runs),
                mb(|memory| memory.early),
                mb(|memory| memory.least),
                mb(|memory| memory.most),
                mb(|memory| memory.after),
            )
        }
        ScenarioFigure::Kept(_) => {
            format!("first half {} second half {}", kept(0).format("", share), kept(1).format("", share))
        }
        ScenarioFigure::Delays(_) => {
            let [p50, p99, p999] = [0, 1, 2].map(|index| delay_of(runs, index));
            format!(
                "p50 {} p99 {:.2} ms p99.9 {:.2} ms",
                p50.format(" ms", |value| format!("{value:.2}")),
                p99.median,
                p999.median
            )
        }
    };
    let cpu = cpu(runs);
    let broker = Spread::of(runs.iter().filter_map(|run| run.broker)).median;
    let broker = if broker.is_nan() { "?".to_owned() } else { format!("{broker:.2}") };
    let peak = of(|run| run.peak_mb).median;
    let duplicates: u64 = runs.iter().map(|run| run.duplicates).sum();
    let duplicates = if duplicates == 0 { String::new() } else { format!(" duplicates {duplicates}") };
    format!("{name} {figure} CPU {cpu:.2} s/10k broker {broker} RSS {peak:.0} MB order OK{duplicates}")
}

/// The line of a contender that has no figure because one of its runs was wrong.
pub(super) fn failed(scenario: &str, contender: &str, wrong: &str) -> String {
    let name = if contender.is_empty() { scenario.to_owned() } else { format!("{scenario} {contender}") };
    format!("{name} FAIL: {wrong}")
}

/// Processor time of the forwarder per 10,000 updates, the median of all runs.
pub(super) fn cpu(runs: &[Measured]) -> f64 {
    Spread::of(runs.iter().map(|run| run.cpu)).median
}

/// The ratio of Lanekeeper to another contender, taken within each round, since only then the machine is the same.
pub(super) fn ratio(scenario: &str, contender: &str, ours: &[Measured], theirs: &[Measured]) -> String {
    let rounds = || ours.iter().zip(theirs);
    let rate = Spread::of(rounds().map(|(ours, theirs)| ours.rate / theirs.rate));
    let cpu = Spread::of(rounds().map(|(ours, theirs)| ours.cpu / theirs.cpu));
    let figure = match &ours[0].special {
        ScenarioFigure::Delays(_) => {
            let less = |index: usize| delay_of(ours, index).median - delay_of(theirs, index).median;
            format!("p50 {:+.2} ms p99 {:+.2} ms", less(0), less(1))
        }
        ScenarioFigure::Kept(_) => String::new(),
        ScenarioFigure::None | ScenarioFigure::Hottest(_) | ScenarioFigure::Memory(_) => {
            format!("rate {}", rate.format("", share))
        }
    };
    format!("{scenario} against {contender}: {figure} CPU {}", cpu.format("", share)).replace("  ", " ")
}

fn rate(runs: &[Measured]) -> String {
    Spread::of(runs.iter().map(|run| run.rate)).format("/s", whole)
}

fn kept_of(runs: &[Measured], half: usize) -> Spread {
    Spread::of(runs.iter().filter_map(|run| match run.special {
        ScenarioFigure::Kept(kept) => Some(kept[half]),
        _ => None,
    }))
}

fn delay_of(runs: &[Measured], index: usize) -> Spread {
    Spread::of(runs.iter().filter_map(|run| match run.special {
        ScenarioFigure::Delays(delays) => Some(delays[index]),
        _ => None,
    }))
}

/// Of several runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
    count: usize,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let (Some(min), Some(max)) = (values.first().copied(), values.last().copied()) else {
            return Self { median: f64::NAN, min: f64::NAN, max: f64::NAN, count };
        };
        let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Self { median, min, max, count }
    }

    /// `20,213/s (19,800 20,500 5)`: median, lowest, highest, how many.
    pub(super) fn format(&self, unit: &str, number: impl Fn(f64) -> String) -> String {
        let Self { median, min, max, count } = *self;
        format!("{}{unit} ({} {} {count})", number(median), number(min), number(max))
    }
}

pub(super) fn share(value: f64) -> String {
    format!("{value:.2}")
}

/// With commas between thousands.
pub(super) fn whole(value: f64) -> String {
    format!("{:.0}", HumanFloatCount(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64, special: ScenarioFigure) -> Measured {
        Measured { rate, cpu: rate / 50_000.0, broker: Some(0.4), peak_mb: 62.3, duplicates: 0, special }
    }

    #[test]
    fn a_line_has_the_median_and_the_spread() {
        let runs = [20_000.0, 19_000.4, 21_500.0].map(|rate| run(rate, ScenarioFigure::None));
        let text = "drain5 20,000/s (19,000 21,500 3) CPU 0.40 s/10k broker 0.40 RSS 62 MB order OK";
        assert_eq!(line("drain5", "", &runs), text);
        let doubled = [Measured { duplicates: 3, broker: None, ..runs[0].clone() }];
        let text =
            "drain5 bare 20,000/s (20,000 20,000 1) CPU 0.40 s/10k broker ? RSS 62 MB order OK duplicates 3";
        assert_eq!(line("drain5", "bare", &doubled), text);
    }

    #[test]
    fn scenarios_that_measure_something_else_print_that() {
        let kept =
            [run(800.0, ScenarioFigure::Kept([0.99, 0.9])), run(800.0, ScenarioFigure::Kept([0.97, 0.92]))];
        let text = line("stuck", "", &kept);
        assert!(
            text.starts_with("stuck first half 0.98 (0.97 0.99 2) second half 0.91 (0.90 0.92 2) CPU"),
            "{text}"
        );
        let delays = [run(100.0, ScenarioFigure::Delays([0.5, 2.0, 3.0]))];
        let text = line("trickle", "", &delays);
        assert!(
            text.starts_with("trickle p50 0.50 ms (0.50 0.50 1) p99 2.00 ms p99.9 3.00 ms CPU"),
            "{text}"
        );
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let ours = [10.0, 40.0, 9.0].map(|rate| run(rate, ScenarioFigure::None));
        let theirs = [20.0, 50.0, 10.0].map(|rate| run(rate, ScenarioFigure::None));
        let text = ratio("drain5", "bare", &ours, &theirs);
        assert_eq!(text, "drain5 against bare: rate 0.80 (0.50 0.90 3) CPU 0.80 (0.50 0.90 3)");
    }
}
