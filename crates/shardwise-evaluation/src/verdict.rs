//! May this model go live? The rule, applied to figures; it neither simulates nor publishes.
//!
//! A model may go live when all of this holds:
//! 1. In the closed loop it is below [`STANDARD`], which is the same cost with its service table alone, and below the champion
//!    when there is one: the 95 % interval of the mean latency's ratio lies below 1 as a whole, p99 is not above, and in no
//!    replicate is the mean more than 2 % above or p99 more than 10 %.
//! 2. Its mean is not above that of any of [`BASELINES`] (geometric mean over seeds of the paired ratios at most
//!    1 + [`TOLERANCE`]).
//! 3. On decisions that it only watched it foretold warm executions better than the champion, or than the service table where
//!    there is no champion, as shown by a test that holds however long one watches ([`ShadowTest`]).
//! 4. On those decisions it is not much farther off than on the later split: who is knew there what routers do not know.
//! 5. Its execution head is nearer to the truth on the later split than the service table alone.
//!
//! The champion itself passes 1 and 3 against itself: there is nothing to replace. What was not measured does not hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::numbers::{change_percent, grouped, millis};
use crate::{CHAMPION, ClosedLoop, Comparison, REQUIRED_CAPITAL, ShadowTest};

/// How much the mean may lie above a baseline that must not be beaten: half a percent, which is below what another
/// draw of seeds changes and below what anybody feels.
pub const TOLERANCE: f64 = 0.005;

/// The baselines that a model must not be worse than: what a router does without a model.
pub const BASELINES: [&str; 2] = ["sed_tab", "sed_tab_lambda"];

/// What a model must be shown to beat.
pub const STANDARD: &str = "sed_off_lambda";

/// How much the mean and p99 may lie above a rival's in the worst replicate.
const WORST: [(&str, f64); 2] = [("mean_ms", 1.02), ("p99_ms", 1.10)];

/// How much farther off a model may be on decisions that it watched than on the later split. Sound models were within 3 %
/// in simulated worlds; one that was trained on features that knew the future was eleven times as far off.
const PROMISE: f64 = 1.25;

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
    /// What was foretold on watched decisions, against the champion, or the service table where there is none; `None` when
    /// it did not watch.
    pub shadow: Option<&'a ShadowTest>,
}

/// One condition and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reason {
    /// Whether it speaks for going live.
    pub holds: bool,
    /// Whether it fails by no more than chance may explain, so that more replicates could turn it.
    #[serde(default)]
    pub undecided: bool,
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verdict {
    /// Whether every condition holds.
    pub may_go_live: bool,
    /// The conditions, failing ones first.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether all that speaks against going live may be chance.
    pub fn is_undecided(&self) -> bool {
        !self.may_go_live && self.reasons.iter().all(|reason| reason.holds || reason.undecided)
    }
}

/// Judges on `replicates`, and while that decides nothing on twice as many, up to `most`.
///
/// The rule stays what it is; only the evidence grows. Who looks more than once is fooled more often: with three looks, a
/// model that is exactly as good as its rival has a whole 95 % interval below 1 in at most 7.5 % of the cases and not 2.5 %.
/// The test on watched decisions, which the verdict asks for as well, holds however often one looks.
///
/// # Errors
/// The first of `judged`.
pub fn until_decided<T, E>(
    replicates: u64,
    most: u64,
    mut judged: impl FnMut(u64) -> Result<T, E>,
    verdict: impl Fn(&T) -> &Verdict,
) -> Result<T, E> {
    let mut asked = replicates;
    loop {
        let judgement = judged(asked)?;
        if asked.saturating_mul(2) > most || !verdict(&judgement).is_undecided() {
            return Ok(judgement);
        }
        asked *= 2;
    }
}

/// The verdict where there is nothing to judge.
pub fn refusal(sentence: String) -> Verdict {
    Verdict { may_go_live: false, reasons: vec![reason(false, sentence)] }
}

/// Applies the rule.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut reasons: Vec<Reason> = BASELINES.iter().map(|baseline| against_baseline(evidence, baseline)).collect();
    reasons.extend(below(evidence, STANDARD));
    reasons.extend(against_champion(evidence));
    reasons.push(watched(evidence));
    reasons.extend(as_promised(evidence));
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

/// Whether the model is shown to be below a rival, and nowhere much above.
fn below(evidence: &Evidence<'_>, rival: &str) -> Vec<Reason> {
    let closed_loop = evidence.closed_loop;
    let [Some(mean), Some(p99)] = ["mean_ms", "p99_ms"].map(|metric| closed_loop.comparison(rival, metric)) else {
        return vec![not_measured(rival)];
    };
    let mut reasons = vec![
        Reason {
            undecided: mean.ratio < 1.0 && mean.high.is_some_and(|high| high >= 1.0),
            ..reason(
                mean.high.is_some_and(|high| high < 1.0),
                format!("{} (all of the interval must be below).", mean_sentence(closed_loop, mean)),
            )
        },
        Reason {
            undecided: p99.ratio > 1.0 && p99.low.is_some_and(|low| low < 1.0),
            ..reason(p99.ratio <= 1.0, format!("p99 is {} {rival}'s (it must not be above).", in_words(p99.ratio)))
        },
    ];
    for (comparison, (metric, limit)) in [mean, p99].into_iter().zip(WORST) {
        let (worst, name) = (comparison.worst, metric.trim_end_matches("_ms"));
        let sentence = format!(
            "Where it does worst, with seed {}, its {name} is {} {rival}'s (at most {} % above is allowed).",
            worst.seed,
            in_words(worst.ratio),
            ((limit - 1.0) * 100.0).round()
        );
        reasons.push(reason(worst.ratio <= limit, sentence));
    }
    reasons
}

fn against_champion(evidence: &Evidence<'_>) -> Vec<Reason> {
    let Some(version) = evidence.champion_version else {
        let sentence = "There is no champion that this version can serve, so there is none to beat.";
        return vec![reason(true, sentence.to_owned())];
    };
    if version == evidence.candidate_version {
        return vec![reason(true, format!("Version {version} is already champion; there is nothing to replace."))];
    }
    below(evidence, CHAMPION)
}

fn watched(evidence: &Evidence<'_>) -> Reason {
    let is_champion = evidence.champion_version == Some(evidence.candidate_version);
    let rival = if evidence.champion_version.is_some() && !is_champion { CHAMPION } else { "the service table" };
    match evidence.shadow {
        Some(test) => {
            let nearer = test.mean_difference > 0.0;
            let (how, on, stake) = match nearer {
                true => ("nearer", "it", test.capital_on_challenger()),
                false => ("farther off", rival, test.capital_on_live()),
            };
            let sentence = format!(
                "On {} decisions that it only watched it foretold warm executions {how} than {rival}, by {:.4} in ln on \
                 average; a stake of 1 on {on} became {} ({REQUIRED_CAPITAL} shows it).",
                grouped(test.compared),
                test.mean_difference.abs(),
                capital(stake),
            );
            reason(test.is_better(), sentence)
        }
        None if is_champion => reason(true, "As champion it has nobody to watch.".to_owned()),
        None => {
            reason(false, format!("It did not watch decisions, so it is not shown to foretell better than {rival}."))
        }
    }
}

/// Whether what was watched is foretold about as well as the later split; without either figure another reason fails already.
fn as_promised(evidence: &Evidence<'_>) -> Option<Reason> {
    let (live, promised) = (evidence.shadow?.challenger_rmse()?, evidence.exec_rmse?);
    let sentence = format!(
        "On decisions that it only watched the execution head's error is {live:.4} against {promised:.4} on the later split \
         (at most {} % above is allowed; more means that it learned from what routers do not know, or that the world changed).",
        ((PROMISE - 1.0) * 100.0).round()
    );
    Some(reason(live <= PROMISE * promised, sentence))
}

fn capital(capital: f64) -> String {
    if capital < 1e6 { format!("{capital:.2}") } else { "over a million".to_owned() }
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
    Reason { holds, undecided: false, sentence }
}

/// The rule in a few sentences, for the page.
pub(crate) fn rule_in_words() -> String {
    let [(_, worst_mean), (_, worst_p99)] = WORST.map(|(metric, limit)| (metric, ((limit - 1.0) * 100.0).round()));
    format!(
        "A model may go live when its mean latency is shown to be below {STANDARD}'s and the champion's if there is one, its \
         p99 is not above theirs, and in no replicate the mean is more than {worst_mean} % above or p99 more than {worst_p99} %; \
         when its mean is at most {} % above each of {}; when it foretells executions better on decisions that it only \
         watches, and about as well as its execution head did on the later split, where it must err less than the service \
         table.",
        TOLERANCE * 100.0,
        BASELINES.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Foretold, synthetic};

    /// A verdict for these ratios of the mean, versions and errors.
    fn verdict(ratios: &[(&str, f64)], champion_version: Option<&str>, exec_rmse: impl Into<Option<f64>>) -> Verdict {
        let names: Vec<&str> = ["shardwise"].into_iter().chain(ratios.iter().map(|(name, _)| *name)).collect();
        let mut closed_loop = synthetic::closed_loop(&names, 2);
        for (name, ratio) in ratios {
            for row in closed_loop.comparisons.iter_mut().filter(|row| row.rival == *name) {
                (row.ratio, row.high, row.worst.ratio) = (*ratio, Some(*ratio), *ratio);
            }
        }
        judge(&Evidence { champion_version, exec_rmse: exec_rmse.into(), ..evidence(&closed_loop, &watched()) })
    }

    fn evidence<'a>(closed_loop: &'a ClosedLoop, shadow: &'a ShadowTest) -> Evidence<'a> {
        Evidence {
            closed_loop,
            candidate_version: "v2",
            champion_version: None,
            exec_rmse: Some(0.30),
            table_rmse: Some(0.40),
            shadow: Some(shadow),
        }
    }

    /// A test that shows that the challenger is better.
    fn watched() -> ShadowTest {
        let mut test = ShadowTest::default();
        (0..100).for_each(|_| test.learn(&Foretold { live_ms: 20.0, challenger_ms: 11.0, measured_ms: 10.0 }));
        test
    }

    #[test]
    fn each_figure_of_a_rival_can_refuse() {
        let sound = |name: &str| {
            let mut closed_loop =
                synthetic::closed_loop(&["shardwise", "sed_tab", "sed_tab_lambda", STANDARD, name], 4);
            for row in &mut closed_loop.comparisons {
                (row.ratio, row.high, row.worst.ratio) = (0.9, Some(0.95), 0.99);
            }
            closed_loop
        };
        type Break = fn(&mut Comparison);
        let breaks: [(&str, &str, Break); 5] = [
            ("mean_ms", "all of the interval", |row| row.high = Some(1.0)),
            ("mean_ms", "all of the interval", |row| row.high = None),
            ("p99_ms", "p99 is", |row| row.ratio = 1.001),
            ("mean_ms", "its mean is", |row| row.worst.ratio = 1.021),
            ("p99_ms", "its p99 is", |row| row.worst.ratio = f64::NAN),
        ];
        for rival in [STANDARD, CHAMPION] {
            let judged = |closed_loop: &ClosedLoop| {
                judge(&Evidence { champion_version: Some("v1"), ..evidence(closed_loop, &watched()) })
            };
            assert!(judged(&sound(CHAMPION)).may_go_live);
            for (metric, sentence, broken) in breaks {
                let mut closed_loop = sound(CHAMPION);
                let row = closed_loop.comparisons.iter_mut().find(|row| row.rival == rival && row.metric == metric);
                broken(row.expect("it ran"));
                let verdict = judged(&closed_loop);
                assert!(!verdict.may_go_live && verdict.reasons.iter().filter(|reason| !reason.holds).count() == 1);
                assert!(verdict.reasons[0].sentence.contains(sentence), "{verdict:?}");
            }
        }
    }

    #[test]
    fn who_did_not_watch_or_foretold_no_better_is_refused() {
        let mut closed_loop = synthetic::closed_loop(&["shardwise", "sed_tab", "sed_tab_lambda", STANDARD], 4);
        for row in &mut closed_loop.comparisons {
            (row.ratio, row.high, row.worst.ratio) = (0.9, Some(0.95), 0.99);
        }
        let sound = watched();
        let none = ShadowTest::default();
        assert!(judge(&evidence(&closed_loop, &sound)).may_go_live);
        for shadow in [None, Some(&none)] {
            let verdict = judge(&Evidence { shadow, ..evidence(&closed_loop, &sound) });
            assert!(!verdict.may_go_live && verdict.reasons[0].sentence.contains("watch"), "{verdict:?}");
        }
        // 0.0953 is what it errs on what it watches.
        for (exec_rmse, may_go_live) in [(0.08, true), (0.07, false)] {
            let verdict = judge(&Evidence { exec_rmse: Some(exec_rmse), ..evidence(&closed_loop, &sound) });
            assert_eq!(verdict.may_go_live, may_go_live, "{verdict:?}");
            assert!(may_go_live || verdict.reasons[0].sentence.contains("0.0953 against 0.0700"), "{verdict:?}");
        }
        let champion = Evidence { shadow: None, champion_version: Some("v2"), ..evidence(&closed_loop, &sound) };
        assert!(judge(&champion).may_go_live, "the champion has nobody to watch");
    }

    #[test]
    fn the_rule_holds_row_by_row() {
        let rows = [
            ("better than both baselines", 0.90, 0.95, None, None, Some(0.30), true),
            ("equal to both", 1.0, 1.0, None, None, Some(0.30), false),
            ("equal to sed_tab", 1.0, 0.95, None, None, Some(0.30), true),
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
    fn only_what_chance_may_explain_gets_more_replicates() {
        let sound = {
            let mut closed_loop = synthetic::closed_loop(&["shardwise", "sed_tab", "sed_tab_lambda", STANDARD], 4);
            for row in &mut closed_loop.comparisons {
                (row.ratio, row.low, row.high, row.worst.ratio) = (0.98, Some(0.96), Some(0.99), 1.0);
            }
            closed_loop
        };
        type Break = fn(&mut Comparison);
        let breaks: [(&str, Break, &[u64]); 6] = [
            ("mean_ms", |_| (), &[4]),
            ("mean_ms", |row| row.high = Some(1.01), &[4, 8, 16]),
            ("mean_ms", |row| (row.ratio, row.high) = (1.001, Some(1.01)), &[4]),
            ("mean_ms", |row| row.worst.ratio = 1.021, &[4]),
            ("p99_ms", |row| row.ratio = 1.001, &[4, 8, 16]),
            ("p99_ms", |row| (row.ratio, row.low) = (1.02, Some(1.001)), &[4]),
        ];
        for (metric, broken, expected) in breaks {
            let mut closed_loop = sound.clone();
            let row = closed_loop.comparisons.iter_mut().find(|row| row.rival == STANDARD && row.metric == metric);
            broken(row.expect("it ran"));
            let mut asked = Vec::new();
            let judged = |replicates| {
                asked.push(replicates);
                Ok::<_, ()>(judge(&evidence(&closed_loop, &watched())))
            };
            let verdict = until_decided(4, 31, judged, |verdict| verdict).expect("no errors");
            assert_eq!(asked, expected, "{verdict:?}");
            assert_eq!(verdict.is_undecided(), expected.len() > 1);
        }
        // What is refused for another reason as well is not looked at again.
        let mut closed_loop = sound;
        closed_loop.comparisons.iter_mut().for_each(|row| row.high = Some(1.01));
        assert!(!judge(&Evidence { shadow: None, ..evidence(&closed_loop, &watched()) }).is_undecided());
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
