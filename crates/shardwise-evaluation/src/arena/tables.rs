//! The arena's tables of all policies: the league over all settings, and all other figures at one of them.

use super::charts::{DRAWN, Standings};
use super::facets::{Differing, Facet};
use super::pairs::knows_the_truth;
use super::run::REGRET_EVERY;
use super::{Cell, LeagueRow};
use crate::charts::range_of;
use crate::numbers::{in_unit, millis, short_millis};
use crate::{METRICS, Unit};

/// Metrics that the closer look shows besides those of cells alone.
const CLOSER: [&str; 8] =
    ["p50_ms", "p999_ms", "slo_miss", "error_rate", "core_use", "cold_rate", "jain", "max_over_mean"];

/// Rivals, and those that know the truth, best first.
pub(super) type Groups<C> = [Vec<Line<C>>; 2];

/// A policy's line of a table.
pub(super) struct Line<C> {
    pub(super) policy: String,
    pub(super) is_subject: bool,
    pub(super) cells: Vec<C>,
}

pub(super) struct Figure {
    pub(super) text: String,
    pub(super) is_best: bool,
}

pub(super) struct LeagueView {
    /// Heads above those of the columns, with how many columns each spans; may be empty.
    pub(super) heads: Vec<(String, usize)>,
    pub(super) columns: Vec<String>,
    pub(super) groups: Groups<[Figure; 2]>,
}

/// All other figures at one setting.
pub(super) struct CloserView {
    pub(super) setting: String,
    pub(super) columns: Vec<(&'static str, &'static str)>,
    pub(super) groups: Groups<Figure>,
}

pub(super) fn league_view(
    standings: &Standings<'_>,
    facets: &[Facet],
    differing: Differing,
    subject: &str,
) -> LeagueView {
    let settings = standings.settings;
    let places: Vec<usize> = facets.iter().flat_map(|facet| facet.places.iter().copied()).collect();
    let named = facets.iter().any(|facet| !facet.label.is_empty());
    let load = |place: &usize| match differing.in_load() {
        true => format!("load {}", settings[*place].load),
        false => differing.label(&settings[*place]),
    };
    let heads = facets.iter().map(|facet| (facet.label.clone(), facet.places.len()));
    let best = |read: fn(&Cell) -> f64| -> Vec<f64> {
        places.iter().map(|place| best_rival_at(standings.rows, *place, |cell| Some(read(cell)))).collect()
    };
    let best = DRAWN.map(|drawn| best(drawn.read));
    let line = |row: &LeagueRow| Line {
        policy: row.policy.clone(),
        is_subject: row.policy == subject,
        cells: places
            .iter()
            .enumerate()
            .map(|(column, place)| {
                let cell = row.by_setting[*place].as_ref();
                std::array::from_fn(|goal| figure(row, cell.map(DRAWN[goal].read), best[goal][column], short_millis))
            })
            .collect(),
    };
    LeagueView {
        // One load a facet needs no second line of heads.
        heads: if named && differing.in_load() { heads.collect() } else { Vec::new() },
        columns: places.iter().map(load).collect(),
        groups: grouped_lines(standings.rows, line),
    }
}

fn grouped_lines<C>(rows: &[LeagueRow], line: impl Fn(&LeagueRow) -> Line<C>) -> Groups<C> {
    let of = |knowing: bool| rows.iter().filter(|row| knows_the_truth(&row.policy) == knowing).map(&line).collect();
    [of(false), of(true)]
}

/// The lowest figure at a setting of those that do not know the truth; NaN when all are equal.
fn best_rival_at(rows: &[LeagueRow], place: usize, read: impl Fn(&Cell) -> Option<f64>) -> f64 {
    let rivals = rows.iter().filter(|row| !knows_the_truth(&row.policy));
    let (low, high) = range_of(rivals.filter_map(|row| row.by_setting[place].as_ref().and_then(&read)));
    if low < high { low } else { f64::NAN }
}

fn figure(row: &LeagueRow, value: Option<f64>, best: f64, write: impl Fn(f64) -> String) -> Figure {
    Figure {
        text: value.map_or("–".to_owned(), write), is_best: value == Some(best) && !knows_the_truth(&row.policy)
    }
}

/// Reads a figure that a cell may lack.
type Reader = Box<dyn Fn(&Cell) -> Option<f64>>;

/// A column of the closer look.
pub(super) struct Column {
    pub(super) label: &'static str,
    pub(super) unit: &'static str,
    pub(super) is_goal: bool,
    pub(super) meaning: String,
    pub(super) read: Reader,
    pub(super) write: Box<dyn Fn(f64) -> String>,
}

pub(super) fn columns() -> Vec<Column> {
    let shared = METRICS.iter().filter(|metric| CLOSER.contains(&metric.key)).map(|metric| Column {
        label: metric.label,
        unit: match metric.unit {
            Unit::Millis => "ms",
            Unit::Share => "%",
            Unit::Plain => "",
        },
        is_goal: metric.is_goal,
        meaning: metric.meaning.to_owned(),
        read: Box::new(|cell| Some((metric.read)(&cell.metrics))),
        write: Box::new(|value| in_unit(metric.unit, value)),
    });
    let own = |label, unit, meaning: &str, read: fn(&Cell) -> Option<f64>| Column {
        label,
        unit,
        is_goal: false,
        meaning: meaning.to_owned(),
        read: Box::new(read),
        write: Box::new(millis),
    };
    let regret = format!(
        "How much later than on the best eligible shard a request was foreseen to be done when it was placed, by a \
         foresight that knows every queue; the mean over every {REGRET_EVERY}th request."
    );
    let own = [
        own(
            "Risk gap",
            "points",
            "Objectives missed in the worst risk tier less those in the best, in percentage points.",
            |cell| Some(cell.risk_gap_pp),
        ),
        own("Regret", "ms", &regret, |cell| cell.regret),
        own("Decision p50", "µs", "Median time that a decision took on the machine that ran this.", |cell| {
            cell.decide_us_p50
        }),
        own("Decision p99", "µs", "99th percentile of the same.", |cell| cell.decide_us_p99),
    ];
    shared.chain(own).collect()
}

pub(super) fn closer_view(standings: &Standings<'_>, subject: &str) -> CloserView {
    let Standings { settings, rows } = *standings;
    // The first of the hardest, which is the ordinary scenario wherever that was run.
    let weight = |place: &usize| (settings[*place].load, settings[*place].routers);
    let harder = |a: &usize, b: &usize| {
        let ((load_a, routers_a), (load_b, routers_b)) = (weight(a), weight(b));
        load_a.total_cmp(&load_b).then(routers_a.cmp(&routers_b)).then(b.cmp(a))
    };
    let Some(place) = (0..settings.len()).max_by(harder) else {
        return CloserView { setting: String::new(), columns: Vec::new(), groups: Default::default() };
    };
    let columns = columns();
    let goal = |column: &Column| match column.is_goal {
        true => best_rival_at(rows, place, &column.read),
        false => f64::NAN,
    };
    let best: Vec<f64> = columns.iter().map(goal).collect();
    let line = |row: &LeagueRow| {
        let cell = row.by_setting[place].as_ref();
        let figures = columns.iter().zip(&best);
        Line {
            policy: row.policy.clone(),
            is_subject: row.policy == subject,
            cells: figures.map(|(c, best)| figure(row, cell.and_then(&c.read), *best, &c.write)).collect(),
        }
    };
    CloserView {
        setting: settings[place].label(),
        columns: columns.iter().map(|column| (column.label, column.unit)).collect(),
        groups: grouped_lines(rows, line),
    }
}
