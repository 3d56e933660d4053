//! The arena's answer in a sentence or two, computed: whom the page is about, and whether it wins.

use shardwise_simulator::NO_QUEUE_BOUND;

use super::pairs::{knows_the_truth, league};
use super::{ArenaResult, Paired};
use crate::CANDIDATE;
use crate::numbers::{change, change_percent};

/// What a policy must be ahead in to win: metric, its name, where that is.
pub(super) const GOALS: [(&str, &str, &str); 2] =
    [("mean_ms", "Mean latency", "in the mean"), ("p99_ms", "The 99th percentile", "at p99")];

/// Whether a policy wins, and by how much.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Headline {
    /// Whether it is ahead of every rival, by more than chance.
    pub(super) wins: bool,
    /// The answer.
    pub(super) answer: String,
    /// Its figures.
    pub(super) sentences: Vec<String>,
}

/// Whom a page is about when nobody says: `shardwise` if it ran without a bug, or else the best of those that do not know
/// the truth. `None` when there is none of them.
pub fn arena_subject(result: &ArenaResult) -> Option<String> {
    let (_, rows) = league(&result.sound_cells());
    let mut names = rows.into_iter().map(|row| row.policy).filter(|name| !knows_the_truth(name));
    let best = names.next()?;
    let candidate = (best == CANDIDATE || names.any(|name| name == CANDIDATE)).then(|| CANDIDATE.to_owned());
    Some(candidate.unwrap_or(best))
}

/// The subject against the rival that is hardest to beat in each goal.
pub(super) fn headline(paired: &[Paired], subject: &str) -> Headline {
    let against = |metric: &str, counts: &dyn Fn(&str) -> bool| {
        let pairs = paired.iter().filter(|pair| pair.policy == subject && pair.metric == metric);
        pairs.filter(|pair| counts(&pair.versus)).max_by(|a, b| a.ratio.total_cmp(&b.ratio))
    };
    let is_rival = |name: &str| !knows_the_truth(name);
    let is_oracle = |name: &str| knows_the_truth(name) && name != NO_QUEUE_BOUND;
    let hardest: Vec<(&Paired, &str, &str)> = GOALS
        .iter()
        .filter_map(|(metric, name, place)| against(metric, &is_rival).map(|pair| (pair, *name, *place)))
        .collect();
    let mut sentences: Vec<String> = hardest.iter().map(|(pair, name, _)| sentence(pair, name)).collect();
    let left: Vec<String> = GOALS
        .iter()
        .filter_map(|(metric, _, place)| against(metric, &is_oracle).map(|pair| (pair, place)))
        .map(|(pair, place)| format!("{} {place} ({})", change_percent(pair.ratio), pair.versus))
        .collect();
    if !left.is_empty() {
        sentences.push(format!("Against those that know the truth: {}.", left.join(", ")));
    }
    let (wins, answer) = answer(&hardest);
    // A number and its unit stay on one line.
    let sentences = sentences.into_iter().map(|sentence| sentence.replace(" %", "\u{a0}%")).collect();
    Headline { wins, answer, sentences }
}

fn answer(hardest: &[(&Paired, &str, &str)]) -> (bool, String) {
    let named = |of: fn(&Paired) -> bool, link: &str| {
        let those = hardest.iter().filter(|(pair, ..)| of(pair));
        those.map(|(pair, _, place)| format!("{} {place}", pair.versus)).collect::<Vec<_>>().join(link)
    };
    let behind = named(|pair| pair.ratio >= 1.0, ", nor of ");
    let unclear = named(|pair| pair.ratio < 1.0 && pair.high.is_none_or(|high| high >= 1.0), ", nor from ");
    match hardest.first() {
        None => (false, "There is no rival to win against.".to_owned()),
        Some(_) if !behind.is_empty() => (false, format!("No: it is not ahead of {behind}.")),
        Some((pair, ..)) if !unclear.is_empty() => {
            let replicates = counted(pair.replicates, "replicate does", "replicates do");
            (false, format!("Not for certain: it is ahead, but {replicates} not tell it from {unclear}."))
        }
        Some(_) => (true, "Yes: it is ahead of every rival, in the mean and at p99.".to_owned()),
    }
}

fn sentence(pair: &Paired, name: &str) -> String {
    let compared = match change_percent(pair.ratio) {
        same if same.starts_with('0') => "the same as".to_owned(),
        change => match change.strip_prefix('−') {
            Some(lower) => format!("{lower} lower than"),
            None => format!("{} higher than", change.trim_start_matches('+')),
        },
    };
    let interval = match pair.low.zip(pair.high) {
        Some((low, high)) => format!("95 % interval {} to {}", change(low), change_percent(high)),
        None => "no interval from one replicate".to_owned(),
    };
    let (versus, wins, worst) = (&pair.versus, pair.wins, change_percent(pair.worst));
    let replicates = counted(pair.replicates, "replicate", "replicates");
    format!(
        "{name} is {compared} with {versus}, the hardest rival there: {interval}, lower in {wins} of {replicates}, worst \
         single cell {worst}."
    )
}

/// A count with its noun.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::paired;
    use crate::synthetic::arena_cells;

    #[test]
    fn ahead_by_more_than_chance_is_a_win() {
        let pairs = paired(&arena_cells(&["a", "b", "oracle_greedy"], 4));
        let ahead = headline(&pairs, "a");
        assert!(ahead.wins, "{ahead:?}");
        assert!(ahead.sentences[0].contains("lower than with b, the hardest rival"), "{ahead:?}");
        let behind = headline(&pairs, "b");
        assert!(!behind.wins && behind.answer.contains("not ahead of a in the mean, nor of a at p99"), "{behind:?}");
    }

    #[test]
    fn one_replicate_is_no_certain_win() {
        let pairs = paired(&arena_cells(&["a", "b"], 1));
        let found = headline(&pairs, "a");
        assert!(!found.wins && found.answer.starts_with("Not for certain"), "{found:?}");
    }

    #[test]
    fn an_oracle_is_no_rival() {
        let pairs = paired(&arena_cells(&["oracle_greedy", "no_queue_bound", "a"], 2));
        assert_eq!(headline(&pairs, "a").answer, "There is no rival to win against.");
    }
}
