//! Charts of the last hour as inline SVG. Colours are in the stylesheet.

use std::fmt::Write as _;

use maud::{Markup, html};

/// Steps in a chart: an hour of ten seconds each.
pub(super) const STEPS: usize = 360;
const HEIGHT: f64 = 120.0;
/// Units for a step.
const STEP_WIDTH: f64 = 2.0;
/// Room for a line at its highest.
const TOP: f64 = 4.0;

/// One line.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    /// Oldest first; `None`: there is no value, and the line has a gap.
    pub(super) values: Vec<Option<f64>>,
}

/// A chart.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) lines: Vec<Series>,
}

impl Chart {
    pub(super) fn draw(&self) -> Markup {
        let width = STEP_WIDTH * STEPS as f64;
        let max =
            ceiling(self.lines.iter().flat_map(|line| &line.values).flatten().copied().fold(0.0, f64::max));
        html! {
            figure class="chart" {
                figcaption {
                    (self.title)
                    ul { @for line in &self.lines { li class=(line.class) { (line.name) ": " (self.last_and_most(line)) } } }
                }
                svg viewBox={ "0 0 " (width) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(self.in_words()) {
                    @for part in 0..=2 {
                        @let y = TOP + (HEIGHT - 2.0 * TOP) * f64::from(part) / 2.0;
                        line class="grid" x1="0" x2=(width) y1=(y) y2=(y) {}
                    }
                    @for line in &self.lines { path class=(line.class) d=(path(&line.values, max)) {} }
                }
                div class="axis" aria-hidden="true" {
                    span { "an hour ago" }
                    span { "top: " (number(max)) " " (self.unit) }
                    span { "now" }
                }
            }
        }
    }

    /// What is seen, for those who do not see it.
    fn in_words(&self) -> String {
        let lines = self.lines.iter().map(|line| format!("{}: {}", line.name, self.last_and_most(line)));
        format!("{}. {}", self.title, lines.collect::<Vec<_>>().join("; "))
    }

    fn last_and_most(&self, line: &Series) -> String {
        let last = line.values.iter().rev().find_map(|value| *value);
        let most = line.values.iter().flatten().copied().reduce(f64::max);
        match (last, most) {
            (Some(last), Some(most)) => format!("last {}, most {} {}", number(last), number(most), self.unit),
            _ => "no value".to_owned(),
        }
    }
}

/// The path of a line. Values without a neighbour are dots.
fn path(values: &[Option<f64>], max: f64) -> String {
    let (mut path, mut is_down) = (String::new(), false);
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_down = false;
            continue;
        };
        let x = STEP_WIDTH * index as f64;
        let y = TOP + (HEIGHT - 2.0 * TOP) * (1.0 - value / max);
        let _ = if is_down { write!(path, "L{x:.0} {y:.1}") } else { write!(path, "M{x:.0} {y:.1}h1") };
        is_down = true;
    }
    path
}

/// The next 1, 2 or 5 with zeros.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let magnitude = 10_f64.powf(value.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * magnitude >= value);
    digit.unwrap_or(10.0) * magnitude
}

/// With as many digits as are of use.
fn number(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_within_its_chart() {
        assert_eq!(path(&[Some(0.0), Some(5.0), None, Some(10.0)], 10.0), "M0 116.0h1L2 60.0M6 4.0h1");
        assert_eq!(path(&[None, None], 1.0), "");
        for (value, expected) in
            [(0.0, 1.0), (0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (47.0, 50.0), (501.0, 1000.0)]
        {
            assert!((ceiling(value) - expected).abs() < 1e-9, "{value}: {}", ceiling(value));
        }
        assert!((ceiling(f64::NAN) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_chart_says_in_words_what_it_shows() {
        let line =
            Series { name: "ended", class: "line-1", values: vec![Some(2.5), None, Some(30.0), Some(4.0)] };
        let chart = Chart { title: "Attempts in a second", unit: "/s", lines: vec![line] };
        let drawn = chart.draw().into_string();
        assert!(drawn.contains("aria-label=\"Attempts in a second. ended: last 4, most 30 /s\""), "{drawn}");
        assert!(!drawn.contains("style="), "the policy for scripts and styles forbids it");
    }
}
