//! From what was found to a verdict in words.

use std::collections::BTreeMap;
use std::path::Path;

use super::clocks::{ClockFacts, Stamped, read_clocks};
use super::scan::{ColumnDistances, Faults, Joined, Scan};
use super::{ColumnDrift, Profile, QualityCheck, QualityLimits, QualityReport, Spot};
use crate::DatasetError;

/// Nothing more can be said of a dataset whose files cannot be read.
pub(super) fn unreadable(error: &DatasetError) -> QualityReport {
    let check = QualityCheck {
        name: "schema",
        ok: false,
        refuses: true,
        value: 1.0,
        limit: 0.0,
        spot: match error {
            DatasetError::MissingColumn { column, .. } | DatasetError::WrongType { column, .. } => {
                Spot::new(Some(column), None, None)
            }
            _ => Spot::default(),
        },
        sentence: error.to_string(),
    };
    QualityReport { accepted: false, checks: vec![check], columns: Vec::new(), against: None }
}

pub(super) fn verdict(
    dataset: &Path,
    scan: &Scan<'_>,
    duplicates: (u64, Option<Spot>),
    (reference, comparable): (Option<&Profile>, Option<&Profile>),
    limits: &QualityLimits,
    accept_drift: bool,
) -> QualityReport {
    let mut checks = vec![
        rows_that("schema", 0, None, "all files have the dataset's columns and as many rows as the card says", ""),
        faults("nulls", &scan.nulls, "no column is null that must not be", "are null where they must not be"),
        faults(
            "ranges",
            &scan.ranges,
            "all values are within their ranges",
            "lie outside of what their column may hold",
        ),
        rows_that(
            "duplicates",
            duplicates.0,
            duplicates.1,
            "every decision and shard is there once",
            "repeat the decision and shard of another",
        ),
        join_rate(&scan.joined, limits),
        clock_skew(read_clocks(dataset), limits),
    ];
    checks.extend(drift(&scan.distances, (reference, comparable), limits, accept_drift));
    QualityReport {
        accepted: checks.iter().all(|check| check.ok || !check.refuses),
        checks,
        columns: columns(&scan.distances),
        against: reference.map(|reference| reference.dataset.clone()),
    }
}

fn faults(name: &'static str, faults: &Faults, well: &str, wrong: &str) -> QualityCheck {
    rows_that(name, faults.total(), faults.worst().map(|(spot, _)| spot), well, wrong)
}

/// A check of rows none of which may be wrong.
fn rows_that(name: &'static str, wrong: u64, spot: Option<Spot>, well: &str, how: &str) -> QualityCheck {
    let spot = spot.unwrap_or_default();
    let sentence = match wrong {
        0 => well.to_owned(),
        n => format!("{n} values {how}; none may; most: {spot}"),
    };
    QualityCheck { name, ok: wrong == 0, refuses: true, value: wrong as f64, limit: 0.0, spot, sentence }
}

/// The worst of all days, and of the shards of a day that had enough decisions.
fn join_rate(joined: &BTreeMap<(String, String), Joined>, limits: &QualityLimits) -> QualityCheck {
    let mut days: BTreeMap<&str, Joined> = BTreeMap::new();
    for ((day, _), of_shard) in joined {
        let of_day = days.entry(day).or_default();
        of_day.decisions += of_shard.decisions;
        of_day.answered += of_shard.answered;
    }
    let of_days = days.iter().map(|(day, joined)| (Spot::new(None, Some(day), None), *joined));
    let of_shards = joined.iter().map(|((day, shard), joined)| (Spot::new(None, Some(day), Some(shard)), *joined));
    let of_shards = of_shards.filter(|(_, joined)| joined.decisions >= limits.min_decisions);
    let worst = of_days.chain(of_shards).min_by(|(_, one), (_, other)| one.rate().total_cmp(&other.rate()));
    let (spot, worst) = worst.unwrap_or_default();
    let (rate, limit) = (worst.rate(), limits.min_join_rate);
    let sentence = match worst.decisions {
        0 => "no decision is old enough to miss its outcome".to_owned(),
        n => format!(
            "{:.2} % of {n} decisions have their outcome ({spot}), at least {:.2} % must",
            rate * 100.0,
            limit * 100.0
        ),
    };
    QualityCheck { name: "join_rate", ok: rate >= limit, refuses: true, value: rate, limit, spot, sentence }
}

fn clock_skew(clocks: Option<Vec<ClockFacts>>, limits: &QualityLimits) -> QualityCheck {
    let limit = limits.max_clock_skew_ms;
    let check = |ok, value, spot, sentence| QualityCheck {
        name: "clock_skew",
        ok,
        refuses: true,
        value,
        limit,
        spot,
        sentence,
    };
    let Some(clocks) = clocks else {
        let sentence = "the dataset says nothing of clocks that can be read; build it again".to_owned();
        return check(false, f64::MAX, Spot::default(), sentence);
    };
    let Some(worst) = clocks.iter().max_by(|one, other| one.p99_ms.total_cmp(&other.p99_ms)) else {
        return check(true, 0.0, Spot::default(), "there are no rows whose clocks could be compared".to_owned());
    };
    let ClockFacts { date, rows, owner, count, p99_ms, max_ms } = worst;
    let (table, is_shard) = match rows {
        Stamped::Decisions => ("decisions", false),
        Stamped::Outcomes => ("outcomes", true),
        Stamped::ShardReports => ("shard_reports", true),
        Stamped::Market => ("market", false),
    };
    let spot = Spot::new(Some("event_at"), Some(date), is_shard.then_some(owner.as_str()));
    let sentence = format!(
        "the clock that is furthest off is that of {owner} on {date}: event_at of 99 % of its {count} rows in {table} fits the \
         router's within {p99_ms:.0} ms, of all within {max_ms:.0}; {limit:.0} may be"
    );
    check(*p99_ms <= limit, *p99_ms, spot, sentence)
}

/// The two warnings, and the share of columns that they concern.
fn drift(
    distances: &BTreeMap<&'static str, ColumnDistances>,
    (reference, comparable): (Option<&Profile>, Option<&Profile>),
    limits: &QualityLimits,
    accept_drift: bool,
) -> [QualityCheck; 3] {
    let nothing = match (reference, comparable) {
        (None, _) => "there is no dataset to compare with",
        (Some(_), None) => "the dataset to compare with has other features",
        _ => "there are too few decisions to compare",
    };
    let worst = |name, measure: fn(&super::drift::Distance) -> f64, limit: f64, title: &str| {
        let of =
            |distances: &ColumnDistances| measure(&distances.all).max(distances.new_days.as_ref().map_or(0.0, measure));
        let found = distances.iter().max_by(|(_, one), (_, other)| of(one).total_cmp(&of(other)));
        let Some((column, distances)) = found else {
            let (spot, sentence) = (Spot::default(), nothing.to_owned());
            return QualityCheck { name, ok: true, refuses: false, value: 0.0, limit, spot, sentence };
        };
        let (value, all) = (of(distances), measure(&distances.all));
        let day = distances.worst_day.as_ref().map(|(day, _)| day.as_str());
        let spot = Spot::new(Some(column), day, None);
        let of_new =
            distances.new_days.as_ref().map_or(String::new(), |new| format!(", {:.2} of the new days", measure(new)));
        let sentence =
            format!("the largest {title} is {all:.2} of all rows{of_new} ({spot}); above {limit:.2} is a warning");
        QualityCheck { name, ok: value <= limit, refuses: false, value, limit, spot, sentence }
    };
    let psi = worst("psi", |distance| distance.psi, limits.warn_psi, "population stability index");
    let ks = worst("ks", |distance| distance.ks, limits.warn_ks, "Kolmogorov–Smirnov distance");
    let far = |distances: &ColumnDistances| distances.all.psi > limits.warn_psi || distances.all.ks > limits.warn_ks;
    let drifted = distances.values().filter(|distances| far(distances)).count();
    let (value, limit) = (drifted as f64 / distances.len().max(1) as f64, limits.max_drifted);
    let sentence = match distances.len() {
        0 => nothing.to_owned(),
        n => format!(
            "{drifted} of {n} columns look otherwise than in the last accepted dataset, {:.0} % of them may{}",
            limit * 100.0,
            if accept_drift { "; drift was accepted" } else { "" }
        ),
    };
    let share = QualityCheck {
        name: "drift",
        ok: value <= limit,
        refuses: !accept_drift,
        value,
        limit,
        spot: psi.spot.clone(),
        sentence,
    };
    [psi, ks, share]
}

fn columns(distances: &BTreeMap<&'static str, ColumnDistances>) -> Vec<ColumnDrift> {
    let mut columns: Vec<ColumnDrift> = distances
        .iter()
        .map(|(column, distances)| ColumnDrift {
            column,
            psi: distances.all.psi,
            ks: distances.all.ks,
            new_days_psi: distances.new_days.map(|new| new.psi),
            new_days_ks: distances.new_days.map(|new| new.ks),
        })
        .collect();
    columns.sort_by(|one, other| other.psi.total_cmp(&one.psi).then(one.column.cmp(other.column)));
    columns
}
