//! From a ranking to a choice: what may overrule the cheapest, and the draw.
//!
//! Each guard that changes the choice names itself as the decider. The chosen ends up first in the ranking.

use shardwise_features::DecisionContext;
use shardwise_types::{DecidedBy, Urgency, UsdAmount};

use crate::config::{Admission, Cap, Exploration, PlacerConfig};
use crate::placer::Chosen;
use crate::ranking::{Ranking, Scored};

/// What chance says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Draw {
    /// A uniform draw in [0, 1).
    Uniform(f64),
    /// What it said before: the shard at this position in the fleet was chosen.
    Again(usize),
    /// Nothing: the cheapest is taken, with the propensity that it has.
    Nothing,
}

/// Lets the guards and the draw choose.
pub(crate) fn choose(
    context: &DecisionContext<'_>,
    config: &PlacerConfig,
    ranking: &mut Ranking,
    chosen: &mut Chosen,
    draw: Draw,
) {
    let scored = &mut ranking.scored;
    if chosen.decided_by == DecidedBy::Model
        && let Some(index) = config.guards.cap.and_then(|cap| capped(scored, &cap))
    {
        take(scored, index, DecidedBy::Cap, chosen);
    }
    if let Some(index) = config.guards.admission.and_then(|admission| freer(scored, &admission)) {
        take(scored, index, DecidedBy::Admission, chosen);
    }
    if config.guards.slow_start
        && let Some(index) = seasoned(context, scored)
    {
        take(scored, index, DecidedBy::SlowStart, chosen);
    }
    if let Some(exploration) = config.exploration.filter(|exploration| may_explore(context, scored, exploration)) {
        explore(scored, &exploration, chosen, draw);
    }
}

/// Brings a candidate to the front and leaves the order of the others.
fn take(scored: &mut [Scored], index: usize, decided_by: DecidedBy, chosen: &mut Chosen) {
    scored[..=index].rotate_right(1);
    chosen.decided_by = decided_by;
}

/// The candidate to take instead of one that is far dearer without the model than need be.
fn capped(scored: &[Scored], cap: &Cap) -> Option<usize> {
    let plain_ms = |index: &usize| scored[*index].plain_ms;
    let least = (0..scored.len()).min_by(|a, b| plain_ms(a).total_cmp(&plain_ms(b)))?;
    (plain_ms(&0) > cap.factor * plain_ms(&least) + cap.slack_ms).then_some(least)
}

/// The cheapest candidate with a core to spare, when the first is crowded and hardly cheaper.
fn freer(scored: &[Scored], admission: &Admission) -> Option<usize> {
    let first = &scored[0];
    if first.candidate.utilisation() <= admission.crowded {
        return None;
    }
    let dearest_ms = admission.dearest * first.terms.total_ms();
    cheapest(scored, |scored| scored.candidate.utilisation() < 1.0 && scored.terms.total_ms() <= dearest_ms)
}

/// The cheapest of those that suit; the first of them when there are several.
fn cheapest(scored: &[Scored], suits: impl Fn(&Scored) -> bool) -> Option<usize> {
    let suiting = (0..scored.len()).filter(|index| suits(&scored[*index]));
    suiting.min_by(|a, b| scored[*a].terms.total_ms().total_cmp(&scored[*b].terms.total_ms()))
}

/// The cheapest candidate that may have more traffic, when the first is new and has had its share for now. When all are
/// new, nobody else could take it.
fn seasoned(context: &DecisionContext<'_>, scored: &[Scored]) -> Option<usize> {
    let shard = |scored: &Scored| &context.fleet.shards[scored.position].id;
    if !context.router.has_new_shards(context.decided_at) {
        return None;
    }
    let all_cores: f64 = scored.iter().map(|scored| scored.candidate.cores).sum();
    let may_have = |of: &Scored| {
        let share = of.candidate.cores / all_cores;
        context.router.slow_start_allows(shard(of), share, context.decided_at)
    };
    if may_have(&scored[0]) { None } else { cheapest(scored, may_have) }
}

/// Nothing is left to chance that must not be.
fn may_explore(context: &DecisionContext<'_>, scored: &[Scored], exploration: &Exploration) -> bool {
    let request = context.request;
    exploration.share > 0.0
        && request.urgency != Urgency::Critical
        && request.amount_usd.map_or(0.0, UsdAmount::usd) <= exploration.most_usd
        && scored[0].candidate.utilisation() <= exploration.most_utilisation
}

/// Whether a candidate is safe to draw beside the first of the ranking.
fn safe<'a>(scored: &[Scored], exploration: &'a Exploration) -> impl Fn(&Scored) -> bool + use<'a> {
    let dearest_ms = exploration.dearest * scored[0].terms.total_ms();
    move |scored| scored.terms.total_ms() <= dearest_ms && scored.candidate.local.error_rate <= exploration.most_errors
}

/// What the draw might have been of a ranking whose first was taken with this propensity: positions of the fleet with their
/// probabilities.
pub(crate) fn odds(config: &PlacerConfig, scored: &[Scored], propensity: f64, out: &mut Vec<(usize, f64)>) {
    out.push((scored[0].position, propensity));
    if let Some(exploration) = config.exploration.filter(|_| propensity < 1.0) {
        let is_safe = safe(scored, &exploration);
        let each = exploration.share / scored.iter().filter(|scored| is_safe(scored)).count() as f64;
        out.extend(scored[1..].iter().filter(|scored| is_safe(scored)).map(|scored| (scored.position, each)));
    }
}

/// With a small probability draws evenly from the safe set; the propensity is exact either way.
fn explore(scored: &mut [Scored], exploration: &Exploration, chosen: &mut Chosen, draw: Draw) {
    let is_safe = safe(scored, exploration);
    let safe = scored.iter().filter(|scored| is_safe(scored)).count();
    let each = exploration.share / safe.max(1) as f64;
    if safe == 0 || (safe == 1 && is_safe(&scored[0])) {
        return;
    }
    let first = 1.0 - exploration.share + if is_safe(&scored[0]) { each } else { 0.0 };
    let mut safe_ones = (0..scored.len()).filter(|index| is_safe(&scored[*index]));
    let drawn = match draw {
        Draw::Uniform(draw) if draw < exploration.share => safe_ones.nth(((draw / each) as usize).min(safe - 1)),
        Draw::Again(position) => safe_ones.find(|index| scored[*index].position == position),
        Draw::Uniform(_) | Draw::Nothing => None,
    };
    let drawn = drawn.unwrap_or(0);
    if drawn == 0 {
        chosen.propensity = first;
    } else {
        chosen.propensity = each;
        take(scored, drawn, DecidedBy::Exploration, chosen);
    }
}
