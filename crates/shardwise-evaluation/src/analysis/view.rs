//! The drawings of an analysis.

use super::figures::{DriftRow, FeatureEffect, FeatureImportance, RegretParts, Slice, SliceKind};
use crate::charts::{AXIS_ROOM, WIDTH, axis_below, axis_left, interval_mark, range_of, ratio_axis, tick_label};
use crate::numbers::{change_percent, grouped, short_millis};
use crate::svg::{Anchor, Scale, Svg, fit};

/// Height of a row.
const ROW: f64 = 26.0;
/// Width for names.
const NAMES: f64 = 210.0;

/// One bar: its name, how far it reaches, and what stands at its end.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) text: String,
}

/// Bars that are longer than so many times the last limit are cut: beside them nobody would see the limits.
const MOST_LIMITS: f64 = 4.0;

/// Bars from zero, one below the other; `limits` are drawn across them.
pub(super) fn bars(
    id: &str,
    title: &str,
    description: &str,
    axis: &str,
    bars: &[Bar],
    limits: &[f64],
) -> Option<String> {
    if bars.is_empty() {
        return None;
    }
    let (left, right, top) = (NAMES + 8.0, WIDTH - 84.0, 8.0);
    let bottom = top + ROW * bars.len() as f64;
    let mut svg = Svg::new(id, (WIDTH, bottom + AXIS_ROOM), title, description);
    let (low, high) = range_of(bars.iter().map(|bar| bar.value).chain(limits.iter().copied()).chain([0.0]));
    let high = limits.last().map_or(high, |limit| high.min(MOST_LIMITS * limit));
    let x = Scale::linear((low, high), (left, right));
    axis_below(&mut svg, &x, &x.ticks(52.0), (top, bottom), tick_label);
    for (row, bar) in bars.iter().enumerate() {
        let y = top + ROW * (row as f64 + 0.5);
        svg.text((4.0, y), Anchor::Start, "label", &fit(&bar.name, NAMES));
        svg.rect((x.at(0.0), y - 7.0), (x.at(bar.value), y + 7.0), "mark c0");
        let arrow = if bar.value > high { "→ " } else { "" };
        svg.text((x.at(bar.value.max(0.0)) + 6.0, y), Anchor::Start, "label", &format!("{arrow}{}", bar.text));
    }
    for limit in limits {
        svg.line((x.at(*limit), top), (x.at(*limit), bottom), "limit");
    }
    svg.line((x.at(0.0), top), (x.at(0.0), bottom), "zero");
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", axis);
    Some(svg.finish())
}

/// What rounds to nothing has no sign.
fn without_minus_zero(ms: f64) -> f64 {
    if ms.abs() < 0.005 { 0.0 } else { ms }
}

pub(super) fn regret_parts(parts: &RegretParts) -> Option<String> {
    let bar = |(name, ms): (&str, f64)| Bar {
        name: name.to_owned(),
        value: ms,
        text: format!("{:.2} ms", without_minus_zero(ms)),
    };
    bars(
        "regret",
        "What makes the chosen shard slower than the best",
        "One bar for each part of the mean regret; a bar to the left is a part in which the chosen shard is the faster one.",
        "mean ms slower than the best shard",
        &parts.named().map(bar),
        &[],
    )
}

pub(super) fn importance(features: &[FeatureImportance]) -> Option<String> {
    let bar = |feature: &FeatureImportance| Bar {
        name: feature.feature.clone(),
        value: feature.mean_contribution,
        text: format!("{:.3}", feature.mean_contribution),
    };
    bars(
        "importance",
        "What moves the prediction of execution",
        "Mean absolute contribution of the features that contribute most, largest first.",
        "mean absolute contribution in ln ms",
        &features.iter().take(15).map(bar).collect::<Vec<_>>(),
        &[],
    )
}

pub(super) fn drift(rows: &[DriftRow]) -> Option<String> {
    let bar = |row: &DriftRow| Bar { name: row.feature.clone(), value: row.psi, text: format!("{:.3}", row.psi) };
    bars(
        "drift",
        "How far features moved",
        "Population stability index of the features that moved furthest; below 0.1 a feature is stable, above 0.25 it is another \
         population. Both are drawn as lines; bars that are much longer are cut, with an arrow.",
        "population stability index; lines at 0.1 and 0.25",
        &rows.iter().take(15).map(bar).collect::<Vec<_>>(),
        &[0.1, 0.25],
    )
}

/// Ratios to the rival of all slices of a kind.
pub(super) fn slices(kind: SliceKind, rival: &str, slices: &[&Slice]) -> Option<String> {
    // All in one part says what the whole says.
    if slices.len() < 2 {
        return None;
    }
    let (left, right, top) = (NAMES + 8.0, WIDTH - 216.0, 26.0);
    let bottom = top + ROW * slices.len() as f64;
    let mut svg = Svg::new(
        &format!("slices-{}", kind.name()),
        (WIDTH, bottom + AXIS_ROOM),
        &format!("Mean latency against {rival} by {}", kind.name()),
        "Change of the mean with its 95 percent interval, one row for each part of the traffic; left of no change is better.",
    );
    let ends = slices.iter().flat_map(|slice| {
        let [low, high] = slice.interval.unwrap_or([slice.ratio; 2]);
        [slice.ratio, low, high]
    });
    let x = ratio_axis(&mut svg, ends, (left, right), (top, bottom));
    for (row, slice) in slices.iter().enumerate() {
        let y = top + ROW * (row as f64 + 0.5);
        let name_class = if slice.loses() { "label ours" } else { "label" };
        svg.text((4.0, y), Anchor::Start, name_class, &fit(&slice.of, NAMES));
        interval_mark(&mut svg, &x, y, (slice.ratio, slice.interval.map(|[low, high]| (low, high))), Svg::circle);
        let ms = short_millis(slice.mean_ms);
        let figures = format!("{} · {ms} ms · n {}", change_percent(slice.ratio), grouped(slice.requests));
        svg.text((right + 10.0, y), Anchor::Start, "label", &figures);
    }
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", "change of the mean in % (log)");
    Some(svg.finish())
}

/// How a prediction moves with a feature.
pub(super) fn effect(effect: &FeatureEffect) -> Option<String> {
    if effect.points.len() < 2 {
        return None;
    }
    let (width, left, right, top, bottom) = (380.0, 52.0, 368.0, 26.0, 176.0);
    let mut svg = Svg::new(
        &format!("effect-{}", effect.feature),
        (width, bottom + AXIS_ROOM),
        &format!("Effect of {}", effect.feature),
        "Mean contribution to the prediction by the value of the feature, with a band from the lowest to the highest tenth.",
    );
    let points = || effect.points.iter();
    let x = Scale::linear(range_of(points().map(|point| point.value)), (left, right));
    let y = Scale::linear(range_of(points().flat_map(|point| [point.low, point.high, point.mean, 0.0])), (bottom, top));
    axis_below(&mut svg, &x, &x.ticks(60.0), (top, bottom), tick_label);
    axis_left(&mut svg, &y, &y.ticks(26.0), (left, right), tick_label);
    let line = |read: fn(&super::EffectPoint) -> f64| -> Vec<(f64, f64)> {
        points().map(|point| (x.at(point.value), y.at(read(point)))).collect()
    };
    svg.area(&line(|point| point.low), &line(|point| point.high), "area");
    svg.line((left, y.at(0.0)), (right, y.at(0.0)), "zero");
    svg.polyline(&line(|point| point.mean), "series c0 d0 strong");
    svg.text((left, 10.0), Anchor::Start, "label", &fit(&effect.feature, right - left));
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", "value; vertical: ln ms");
    Some(svg.finish())
}
