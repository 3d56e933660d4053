//! Policies against each other, paired: the same fleet, the same seed, the same requests.
//!
//! A replicate is a fleet and a seed. Its log-ratio is the mean over the settings (scenario, load, routers, age of
//! reports, distance) that are compared, so that the interval over replicates does not take settings that share a fleet
//! and a seed for independent ones. The worst is that of any single cell.

use serde::{Deserialize, Serialize};
use shardwise_simulator::{NO_QUEUE_BOUND, ORACLES};

use super::run::Cell;
use super::{CellKey, Net};
use crate::closed_loop::average as average_of_metrics;
use crate::statistics::ratio_interval;

/// Reads a figure of a cell.
pub(crate) type Read = fn(&Cell) -> f64;

/// Metrics in which policies are paired: less is better in all of them.
pub(crate) const PAIRED: [(&str, Read); 5] = [
    ("mean_ms", |cell| cell.metrics.mean_ms),
    ("p50_ms", |cell| cell.metrics.p50_ms),
    ("p99_ms", |cell| cell.metrics.p99_ms),
    ("p999_ms", |cell| cell.metrics.p999_ms),
    ("core_use", |cell| cell.metrics.core_use),
];

/// A setting: all of a cell but fleet and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The scenario.
    pub scenario: String,
    /// Offered core time over the fleet's.
    pub load: f64,
    /// Routers.
    pub routers: usize,
    /// Time between reports in s.
    pub report_age_s: f64,
    /// Distances.
    pub net: Net,
}

impl Setting {
    /// The setting of a cell.
    pub fn of(key: &CellKey) -> Self {
        let CellKey { scenario, load, routers, report_age_s, net, .. } = key.clone();
        Self { scenario, load, routers, report_age_s, net }
    }

    /// In a few words.
    pub fn label(&self) -> String {
        self.parts().join(", ")
    }

    /// Each of its parts in words, in the order in which a plan crosses its lists: the load comes last.
    pub(crate) fn parts(&self) -> [String; 5] {
        [
            self.scenario.clone(),
            self.net.as_str().to_owned(),
            format!("reports every {} s", self.report_age_s),
            if self.routers == 1 { "1 router".to_owned() } else { format!("{} routers", self.routers) },
            format!("load {}", self.load),
        ]
    }
}

/// One policy against another in one metric; a ratio below 1 is better for `policy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The policy.
    pub policy: String,
    /// What it is compared with.
    pub versus: String,
    /// The metric.
    pub metric: String,
    /// Geometric mean of the ratios over replicates.
    pub ratio: f64,
    /// Lower bound of the 95 % Student-t interval; `None` with fewer than two replicates.
    pub low: Option<f64>,
    /// Upper bound of the same.
    pub high: Option<f64>,
    /// The largest ratio of a single cell.
    pub worst: f64,
    /// Replicates in which the ratio is below 1.
    pub wins: usize,
    /// Replicates: pairs of a fleet and a seed.
    pub replicates: usize,
}

/// One setting of a result with its cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Group<'a> {
    /// The setting.
    pub setting: Setting,
    /// Its cells.
    pub cells: Vec<&'a Cell>,
}

/// The cells by setting, in the order in which settings come.
pub(crate) fn groups<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for cell in cells {
        let setting = Setting::of(&cell.key);
        match groups.iter_mut().find(|group| group.setting == setting) {
            Some(group) => group.cells.push(cell),
            None => groups.push(Group { setting, cells: vec![cell] }),
        }
    }
    groups
}

/// Whether a name is that of an oracle or of the bound, which are no rivals.
pub(crate) fn knows_the_truth(policy: &str) -> bool {
    policy == NO_QUEUE_BOUND || ORACLES.iter().any(|(oracle, _)| *oracle == policy)
}

/// Names of the policies in the order in which they come.
pub(crate) fn policies(cells: &[Cell]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        if !names.contains(&cell.policy.as_str()) {
            names.push(&cell.policy);
        }
    }
    names
}

/// Every policy against every other in every metric, over all cells.
pub fn paired(cells: &[Cell]) -> Vec<Paired> {
    let names = policies(cells);
    let of = |name: &str| -> Vec<&Cell> { cells.iter().filter(|cell| cell.policy == name).collect() };
    let by_policy: Vec<(&str, Vec<&Cell>)> = names.iter().map(|name| (*name, of(name))).collect();
    let mut all = Vec::new();
    for (policy, ours) in &by_policy {
        for (versus, theirs) in by_policy.iter().filter(|(versus, _)| versus != policy) {
            all.extend(PAIRED.iter().filter_map(|(metric, read)| compare(policy, ours, versus, theirs, metric, *read)));
        }
    }
    all
}

/// Compares two policies on the cells that both have; `None` without any, or when a figure is 0.
pub(crate) fn compare(
    policy: &str,
    ours: &[&Cell],
    versus: &str,
    theirs: &[&Cell],
    metric: &str,
    read: fn(&Cell) -> f64,
) -> Option<Paired> {
    let mut replicates: Vec<((u64, u64), f64, u32)> = Vec::new();
    let mut worst = f64::NEG_INFINITY;
    for (place, our) in ours.iter().enumerate() {
        // Policies share the order of the cells, so the counterpart is nearly always at the same place.
        let their = match theirs.get(place).filter(|their| their.key == our.key) {
            Some(their) => their,
            None => match theirs.iter().find(|their| their.key == our.key) {
                Some(their) => their,
                None => continue,
            },
        };
        let ln = (read(our) / read(their)).ln();
        if !ln.is_finite() {
            return None;
        }
        worst = worst.max(ln);
        let key = (our.key.fleet, our.key.seed);
        match replicates.iter_mut().find(|(known, ..)| *known == key) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + ln, *count + 1),
            None => replicates.push((key, ln, 1)),
        }
    }
    let log_ratios: Vec<f64> = replicates.iter().map(|(_, sum, count)| sum / f64::from(*count)).collect();
    let interval = ratio_interval(&log_ratios)?;
    Some(Paired {
        policy: policy.to_owned(),
        versus: versus.to_owned(),
        metric: metric.to_owned(),
        ratio: interval.ratio,
        low: interval.bounds.map(|(low, _)| low),
        high: interval.bounds.map(|(_, high)| high),
        worst: worst.exp(),
        wins: log_ratios.iter().filter(|ln| **ln < 0.0).count(),
        replicates: log_ratios.len(),
    })
}

/// How a policy did in a setting: every figure averaged over fleets and seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct LeagueRow {
    /// The policy.
    pub policy: String,
    /// One entry a setting, in the order of the settings; `None` where it has no cells.
    pub by_setting: Vec<Option<Cell>>,
}

/// The league table: settings in their order, policies by their mean latency (geometric over settings), best first.
pub fn league(cells: &[Cell]) -> (Vec<Setting>, Vec<LeagueRow>) {
    let groups = groups(cells.iter());
    let row = |policy: &&str| LeagueRow {
        policy: (*policy).to_owned(),
        by_setting: groups.iter().map(|group| average(group, policy)).collect(),
    };
    let mut rows: Vec<LeagueRow> = policies(cells).iter().map(row).collect();
    let rank = |row: &LeagueRow| row.by_setting.iter().flatten().map(|cell| cell.metrics.mean_ms.ln()).sum::<f64>();
    rows.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    (groups.into_iter().map(|group| group.setting).collect(), rows)
}

fn average(group: &Group<'_>, policy: &str) -> Option<Cell> {
    let cells: Vec<&Cell> = group.cells.iter().copied().filter(|cell| cell.policy == policy).collect();
    let first = *cells.first()?;
    let n = cells.len() as f64;
    let mean = |read: fn(&Cell) -> f64| cells.iter().map(|cell| read(cell)).sum::<f64>() / n;
    let mean_of_known = |read: fn(&Cell) -> Option<f64>| {
        let known: Vec<f64> = cells.iter().filter_map(|cell| read(cell)).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    Some(Cell {
        metrics: average_of_metrics(cells.iter().map(|cell| &cell.metrics)),
        risk_gap_pp: mean(|c| c.risk_gap_pp),
        regret: mean_of_known(|c| c.regret),
        decide_us_p50: mean_of_known(|c| c.decide_us_p50),
        decide_us_p99: mean_of_known(|c| c.decide_us_p99),
        requests: cells.iter().map(|cell| cell.requests).sum(),
        copies: cells.iter().map(|cell| cell.copies).sum(),
        ..first.clone()
    })
}
