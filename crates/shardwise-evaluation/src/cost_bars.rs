//! What each shard would have cost, as bars of the terms of its cost.

use crate::charts::{AXIS_ROOM, WIDTH, axis_below, tick_label};
use crate::decision_page::PageCandidate;
use crate::numbers::millis;
use crate::svg::{Anchor, Scale, Svg, fit, width_px};

/// Height of a row.
const ROW: f64 = 24.0;
/// Width for names.
const NAMES: f64 = 200.0;
/// Bars longer than so many times the chosen one's are cut: a hopeless shard must not squeeze the close ones.
const MOST_TIMES: f64 = 6.0;

/// A row for each candidate, in their order; `None` when no cost is known.
pub(crate) fn cost_bars(candidates: &[&PageCandidate]) -> Option<String> {
    let costs = || candidates.iter().filter_map(|candidate| Some((candidate.chosen, candidate.terms?)));
    let finite = || costs().map(|(chosen, terms)| (chosen, terms.total_ms())).filter(|(_, ms)| ms.is_finite());
    let most = finite().map(|(_, ms)| ms).fold(0.0, f64::max);
    let chosen = finite().find(|(chosen, _)| *chosen).map_or(most, |(_, ms)| ms);
    let names = costs().next()?.1.named().map(|(name, _)| name);
    let end = if chosen > 0.0 { most.min(MOST_TIMES * chosen) } else { most };

    let (left, right, top) = (NAMES + 8.0, WIDTH - 80.0, 34.0);
    let bottom = top + ROW * candidates.len() as f64;
    let mut svg = Svg::new(
        "costs",
        (WIDTH, bottom + AXIS_ROOM),
        "What each shard would have cost",
        "One bar for each eligible shard, cheapest first, made of the terms of its cost; the number at its end is the cost in ms.",
    );
    legend(&mut svg, &names);
    let x = Scale::linear((0.0, end), (left, right));
    axis_below(&mut svg, &x, &x.ticks(52.0), (top, bottom), tick_label);
    for (row, candidate) in candidates.iter().enumerate() {
        bar(&mut svg, &x, top + ROW * (row as f64 + 0.5), candidate, end);
    }
    svg.line((x.at(0.0), top), (x.at(0.0), bottom), "zero");
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", "ms; what is chosen stands in bold");
    Some(svg.finish())
}

fn legend(svg: &mut Svg, names: &[&str]) {
    let mut left = 4.0;
    for (term, name) in names.iter().enumerate() {
        svg.rect((left, 6.0), (left + 12.0, 18.0), &format!("mark c{term}"));
        svg.text((left + 18.0, 12.0), Anchor::Start, "label", name);
        left += 18.0 + width_px(name) + 16.0;
    }
}

fn bar(svg: &mut Svg, x: &Scale, y: f64, candidate: &PageCandidate, end: f64) {
    let class = if candidate.chosen { "label ours" } else { "label" };
    svg.text((4.0, y), Anchor::Start, class, &fit(&candidate.shard, NAMES));
    let Some(terms) = candidate.terms else { return };
    let mut from = 0.0;
    for (term, (_, ms)) in terms.named().into_iter().enumerate() {
        let to = from + ms.max(0.0);
        if x.at(to) - x.at(from) > 0.05 {
            svg.rect((x.at(from), y - 8.0), (x.at(to), y + 8.0), &format!("mark c{term}"));
        }
        from = to;
    }
    let cost_ms = terms.total_ms();
    let arrow = if cost_ms > end { "→ " } else { "" };
    svg.text((x.at(from) + 6.0, y), Anchor::Start, class, &format!("{arrow}{}", millis(cost_ms)));
}
