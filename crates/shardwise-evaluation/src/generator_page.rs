//! The page of a generator's check: every statistic beside its band, and the distributions behind them. It measures
//! nothing itself.

use std::fs;
use std::path::Path;

use askama::Template;
use serde::Serialize;
use shardwise_simulator::{Curve, Reference, references};

use crate::EvaluationError;
use crate::generator_charts::{band_chart, curve_chart};
use crate::numbers::figure;
use crate::report::write_atomically;

/// A statistic over several seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckedStatistic {
    /// What it belongs to, such as `market`.
    pub group: String,
    /// What it is.
    pub name: String,
    /// Unit; empty for ratios, shares and correlations.
    pub unit: String,
    /// Least value in the band.
    pub low: f64,
    /// Most value in the band.
    pub high: f64,
    /// The value of every seed, in the order of the seeds; `None` when a seed's traces did not allow it.
    pub values: Vec<Option<f64>>,
    /// Whether every seed has a value, and it lies in the band.
    pub in_band: bool,
    /// The value of real traces, when there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real: Option<f64>,
    /// Where the band comes from.
    pub source: String,
}

/// All that the page shows.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorCheck {
    /// The seeds that were generated.
    pub seeds: Vec<u64>,
    /// The statistics, group by group.
    pub statistics: Vec<CheckedStatistic>,
    /// The curves of every seed.
    pub curves: Vec<Vec<Curve>>,
    /// The curves of real traces; empty without them.
    pub real_curves: Vec<Curve>,
    /// The command that makes this page again.
    pub command: String,
}

impl GeneratorCheck {
    /// Whether every statistic of every seed lies in its band.
    pub fn in_band(&self) -> bool {
        self.statistics.iter().all(|statistic| statistic.in_band)
    }
}

#[derive(Template)]
#[template(path = "generator.html")]
struct Page<'a> {
    in_band: bool,
    answer: String,
    seeds: String,
    has_real: bool,
    groups: Vec<GroupView<'a>>,
    drawings: Vec<Drawing>,
    command: &'a str,
}

struct GroupView<'a> {
    name: &'a str,
    chart: String,
    rows: Vec<RowView<'a>>,
}

struct RowView<'a> {
    name: String,
    median: String,
    range: String,
    band: String,
    real: String,
    in_band: bool,
    source: &'a str,
}

struct Drawing {
    title: &'static str,
    svg: String,
}

/// Writes the page, one file that needs no network. The file is whole or untouched.
///
/// # Errors
/// When the page cannot be rendered or written.
pub fn write_generator_page(path: &Path, check: &GeneratorCheck) -> Result<(), EvaluationError> {
    let html = render(check)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| EvaluationError::Write { path: folder.to_owned(), source })?;
    }
    write_atomically(path, html.as_bytes())
}

fn render(check: &GeneratorCheck) -> Result<String, EvaluationError> {
    let out = check.statistics.iter().filter(|statistic| !statistic.in_band).count();
    let answer = match out {
        0 => format!("Every statistic of every seed lies in its band: {} statistics.", check.statistics.len()),
        out => format!("{out} of {} statistics leave their bands.", check.statistics.len()),
    };
    let page = Page {
        in_band: check.in_band(),
        answer,
        seeds: check.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        has_real: check.statistics.iter().any(|statistic| statistic.real.is_some()),
        groups: check.statistics.chunk_by(|a, b| a.group == b.group).map(group_view).collect(),
        drawings: references().iter().filter_map(|reference| drawing(check, reference)).collect(),
        command: &check.command,
    };
    Ok(page.render()?)
}

fn group_view(statistics: &[CheckedStatistic]) -> GroupView<'_> {
    GroupView {
        name: &statistics[0].group,
        chart: band_chart(statistics),
        rows: statistics.iter().map(row_view).collect(),
    }
}

fn row_view(statistic: &CheckedStatistic) -> RowView<'_> {
    let unit = if statistic.unit.is_empty() { String::new() } else { format!(", {}", statistic.unit) };
    let (median, least, most) = summary(statistic);
    RowView {
        name: format!("{}{unit}", statistic.name),
        median: figure(median),
        range: format!("{} – {}", figure(least), figure(most)),
        band: format!("{} – {}", figure(statistic.low), figure(statistic.high)),
        real: statistic.real.map_or("–".to_owned(), figure),
        in_band: statistic.in_band,
        source: &statistic.source,
    }
}

/// Median, least and most over the seeds; not numbers without any.
pub fn summary(statistic: &CheckedStatistic) -> (f64, f64, f64) {
    let mut values: Vec<f64> = statistic.values.iter().flatten().copied().collect();
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => (f64::NAN, f64::NAN, f64::NAN),
        [least, .., most] | [least @ most] => {
            let half = values.len() / 2;
            let median = if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
            (median, *least, *most)
        }
    }
}

fn drawing(check: &GeneratorCheck, reference: &Reference) -> Option<Drawing> {
    let of_key = |curves: &'_ [Curve]| curves.iter().find(|curve| curve.key == reference.key).cloned();
    let seeds: Vec<Curve> = check.curves.iter().filter_map(|curves| of_key(curves)).collect();
    let svg = curve_chart(reference, &seeds, of_key(&check.real_curves).as_ref())?;
    Some(Drawing { title: reference.title, svg })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> GeneratorCheck {
        let statistic = |name: &str, values: &[f64], real| CheckedStatistic {
            group: "market".to_owned(),
            name: name.to_owned(),
            unit: "min".to_owned(),
            low: 24.0,
            high: 60.0,
            values: values.iter().map(|value| Some(*value)).collect(),
            in_band: values.iter().all(|value| (24.0..=60.0).contains(value)),
            real,
            source: "two <series>".to_owned(),
        };
        let curve = Curve { key: "hour-of-day", points: (0..24).map(|hour| (f64::from(hour), 1.1)).collect() };
        GeneratorCheck {
            seeds: vec![1, 2],
            statistics: vec![statistic("length", &[30.0, 40.0], Some(41.0)), statistic("other", &[10.0, 50.0], None)],
            curves: vec![vec![curve.clone()], vec![curve]],
            real_curves: Vec::new(),
            command: "shardwise generator check".to_owned(),
        }
    }

    #[test]
    fn the_page_says_what_left_its_band() {
        let html = render(&check()).unwrap();
        assert!(html.contains("1 of 2 statistics leave their bands."));
        assert!(html.contains("24.0 – 60.0") && html.contains("30.0 – 40.0") && html.contains("35.0"));
        assert!(html.contains("two &lt;series&gt;") && html.trim_end().ends_with("</html>"));
        assert!(!html.contains("://"), "it loads nothing");
    }

    #[test]
    fn a_value_outside_is_drawn_at_the_edge_and_marked() {
        let html = render(&check()).unwrap();
        assert_eq!(html.matches("mark c1").count(), 2, "in the legend, and for one seed of one statistic");
    }
}
