//! May this model go live? The rule of the first version, applied to figures; it neither simulates nor publishes.
//!
//! A model may go live when all of this holds:
//! 1. Its mean latency in the closed loop is not above that of any of [`BASELINES`] (geometric mean over
//!    seeds of the paired ratios at most 1 + [`TOLERANCE`]): it must be worth more than the same cost without trees.
//! 2. When there is a champion, its mean latency on the same sample paths is strictly below the champion's. The
//!    champion itself passes: there is nothing to replace.
//! 3. Its execution head is nearer to the truth on the later split than the service table alone.
//!
//! What was not measured does not hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::numbers::{change_percent, millis};
use crate::{CHAMPION, ClosedLoop, Comparison};

/// How much the mean may lie above a baseline that must not be beaten: half a percent, which is below what another
/// draw of seeds changes and below what anybody feels.
pub const TOLERANCE: f64 = 0.005;

/// The baselines that a model must not be worse than: what a router does without a model, and with tables only.
pub const BASELINES: [&str; 3] = ["sed_tab", "sed_tab_lambda", "sed_off_lambda"];

/// What the verdict rests on.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The closed-loop comparison; the champion runs in it under the name [`CHAMPION`].
    pub closed_loop: &'a ClosedLoop,
    /// Version of the model under test.
    pub candidate_version: &'a str,
    /// Version of the present champion, if there is one.
    pub champion_version: Option<&'a str>,
    /// Error of the execution head on the later split; `None` when the model has no such head.
    pub exec_rmse: Option<f64>,
    /// Error of the service table alone on the same rows, in the same unit; `None` when it was not measured.
    pub table_rmse: Option<f64>,
}

/// One condition and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Whether it speaks for going live.
    pub holds: bool,
    /// What was found, in a sentence with its figures.
    pub sentence: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// The answer with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every condition holds.
    pub may_go_live: bool,
    /// The conditions, failing ones first.
    pub reasons: Vec<Reason>,
}

/// Applies the rule.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut reasons: Vec<Reason> = BASELINES.iter().map(|baseline| against_baseline(evidence, baseline)).collect();
    reasons.push(against_champion(evidence));
    reasons.push(against_table(evidence));
    reasons.sort_by_key(|reason| reason.holds);
    Verdict { may_go_live: reasons.iter().all(|reason| reason.holds), reasons }
}

fn against_baseline(evidence: &Evidence<'_>, baseline: &str) -> Reason {
    let Some(comparison) = evidence.closed_loop.comparison(baseline, "mean_ms") else {
        return not_measured(baseline);
    };
    let limit = format!("at most {} % above is allowed", TOLERANCE * 100.0);
    reason(
        comparison.ratio <= 1.0 + TOLERANCE,
        format!("{} ({limit}).", mean_sentence(evidence.closed_loop, comparison)),
    )
}

fn against_champion(evidence: &Evidence<'_>) -> Reason {
    let Some(version) = evidence.champion_version else {
        return reason(true, "There is no champion that this version can serve, so there is none to beat.".to_owned());
    };
    if version == evidence.candidate_version {
        return reason(true, format!("Version {version} is already champion; there is nothing to replace."));
    }
    let Some(comparison) = evidence.closed_loop.comparison(CHAMPION, "mean_ms") else {
        return not_measured(CHAMPION);
    };
    reason(
        comparison.ratio < 1.0,
        format!("{} (it must be below that of champion {version}).", mean_sentence(evidence.closed_loop, comparison)),
    )
}

fn against_table(evidence: &Evidence<'_>) -> Reason {
    let (Some(exec), Some(table)) = (evidence.exec_rmse, evidence.table_rmse) else {
        let sentence =
            "The execution head was not measured against the service table, so it is not shown to be nearer.";
        return reason(false, sentence.to_owned());
    };
    let how = if exec < table { "below" } else { "not below" };
    reason(
        exec < table,
        format!(
            "On the later split the execution head's error is {how} the service table's: rmse {exec:.4} against {table:.4}."
        ),
    )
}

fn mean_sentence(closed_loop: &ClosedLoop, comparison: &Comparison) -> String {
    let mean = |name: &str| closed_loop.policy(name).map_or(f64::NAN, |policy| policy.pooled.mean_ms);
    let interval = match (comparison.low, comparison.high) {
        (Some(low), Some(high)) => format!(", 95 % interval {} to {}", change_percent(low), change_percent(high)),
        _ => ", no interval from one seed".to_owned(),
    };
    format!(
        "Mean latency is {} {}'s: {} ms against {} ms, lower on {} of {} seeds{interval}",
        in_words(comparison.ratio),
        comparison.rival,
        millis(mean(&closed_loop.candidate)),
        millis(mean(&comparison.rival)),
        comparison.wins,
        comparison.seeds,
    )
}

/// A ratio as `3.1 % below`, `3.1 % above` or `equal to`.
fn in_words(ratio: f64) -> String {
    let change = change_percent(ratio);
    match change.chars().next() {
        Some('−') => format!("{} below", change.trim_start_matches('−')),
        Some('+') => format!("{} above", change.trim_start_matches('+')),
        Some('0') if ratio < 1.0 => "less than 0.1 % below".to_owned(),
        Some('0') if ratio > 1.0 => "less than 0.1 % above".to_owned(),
        Some('0') => "equal to".to_owned(),
        _ => "not comparable with".to_owned(),
    }
}

fn not_measured(name: &str) -> Reason {
    reason(false, format!("{name} did not run in the closed loop, so it is not shown that the model is as good."))
}

fn reason(holds: bool, sentence: String) -> Reason {
    Reason { holds, sentence }
}

/// The rule in one sentence, for the page.
pub(crate) fn rule_in_words() -> String {
    format!(
        "A model may go live when its mean latency is at most {} % above each of {}, below the champion's if \
         there is one, and its execution head errs less than the service table on the later split.",
        TOLERANCE * 100.0,
        BASELINES.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    /// A verdict for these ratios of the mean, versions and errors.
    fn verdict(ratios: &[(&str, f64)], champion_version: Option<&str>, exec_rmse: impl Into<Option<f64>>) -> Verdict {
        let names: Vec<&str> = ["shardwise"].into_iter().chain(ratios.iter().map(|(name, _)| *name)).collect();
        let mut closed_loop = synthetic::closed_loop(&names, 2);
        for (name, ratio) in ratios {
            let row = closed_loop.comparisons.iter_mut().find(|c| c.rival == *name && c.metric == "mean_ms").unwrap();
            row.ratio = *ratio;
        }
        judge(&Evidence {
            closed_loop: &closed_loop,
            candidate_version: "v2",
            champion_version,
            exec_rmse: exec_rmse.into(),
            table_rmse: Some(0.40),
        })
    }

    #[test]
    fn the_rule_holds_row_by_row() {
        let rows = [
            ("better than both baselines", 0.90, 0.95, None, None, Some(0.30), true),
            ("equal to both", 1.0, 1.0, None, None, Some(0.30), true),
            ("within the tolerance", 1.004, 0.95, None, None, Some(0.30), true),
            ("worse than sed_tab", 1.006, 0.95, None, None, Some(0.30), false),
            ("worse than sed_off_lambda", 0.90, 1.02, None, None, Some(0.30), false),
            ("not a number", f64::NAN, 0.95, None, None, Some(0.30), false),
            ("beats the champion", 0.90, 0.95, Some(0.99), Some("v1"), Some(0.30), true),
            ("only equals the champion", 0.90, 0.95, Some(1.0), Some("v1"), Some(0.30), false),
            ("is the champion", 0.90, 0.95, None, Some("v2"), Some(0.30), true),
            ("the champion did not run", 0.90, 0.95, None, Some("v1"), Some(0.30), false),
            ("the head is no better than the table", 0.90, 0.95, None, None, Some(0.40), false),
            ("there is no head", 0.90, 0.95, None, None, None, false),
            ("the head's error is unknown", 0.90, 0.95, None, None, Some(f64::NAN), false),
        ];
        for (what, tab, off, champion_ratio, champion_version, exec_rmse, expected) in rows {
            let mut ratios = vec![("sed_tab", tab), ("sed_tab_lambda", tab), ("sed_off_lambda", off)];
            ratios.extend(champion_ratio.map(|ratio| (CHAMPION, ratio)));
            let verdict = verdict(&ratios, champion_version, exec_rmse);
            assert_eq!(verdict.may_go_live, expected, "{what}: {verdict:?}");
            assert_eq!(verdict.reasons[0].holds, expected, "{what}: failing reasons come first");
        }
    }

    #[test]
    fn a_baseline_that_did_not_run_is_no_proof() {
        let verdict = verdict(&[("sed_tab", 0.9), ("sed_tab_lambda", 0.9)], None, 0.3);
        assert!(!verdict.may_go_live);
        assert!(verdict.reasons[0].sentence.contains("sed_off_lambda did not run"), "{verdict:?}");
    }

    #[test]
    fn reasons_carry_their_figures() {
        let verdict = verdict(&[("sed_tab", 1.06), ("sed_tab_lambda", 0.9), ("sed_off_lambda", 0.9)], None, 0.3);
        assert!(verdict.reasons[0].sentence.contains("6.0 % above sed_tab's"), "{verdict:?}");
        assert!(verdict.reasons.iter().any(|r| r.sentence.contains("0.3000 against 0.4000")), "{verdict:?}");
    }

    #[test]
    fn the_champion_itself_is_told_so() {
        let verdict = verdict(&[("sed_tab", 0.9), ("sed_tab_lambda", 0.9), ("sed_off_lambda", 0.9)], Some("v2"), 0.3);
        assert!(verdict.reasons.iter().any(|r| r.sentence.contains("already champion")));
    }
}
