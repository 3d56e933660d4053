//! The report's drawings: distribution, p50 and p99, p99 over time, paired ratios. No layout of the page.

use crate::numbers::{change, change_percent, grouped, millis};
use crate::svg::{Anchor, FONT_PX, Scale, Svg, fit, spread};
use crate::{CdfPoint, ClosedLoop, Comparison, Metric, PolicyResult};

/// Width of every drawing in px; the page scales it down.
pub(crate) const WIDTH: f64 = 680.0;
/// Height of a row in a drawing that has one row per policy.
const ROW: f64 = 30.0;
/// Room for an axis with its numbers and its name.
pub(crate) const AXIS_ROOM: f64 = 48.0;
/// Where the distribution's axis ends.
const MOST_SHARE: f64 = 0.9995;
/// Ratios that the paired comparison draws; one hopeless rival must not squeeze the close ones.
const FOREST_DOMAIN: (f64, f64) = (0.5, 2.0);
/// Width for the names of policies.
const NAME_ROOM: f64 = 158.0;

/// Classes that give a series its colour, dash and width; the candidate is the solid, strong one.
fn series_class(closed_loop: &ClosedLoop, policy: &str) -> String {
    if policy == closed_loop.candidate {
        return "series c0 d0 strong".to_owned();
    }
    let rank = closed_loop.rivals().position(|rival| rival.name == policy).unwrap_or(0);
    format!("series c{} d{}", rank % 7 + 1, (rank + rank / 7) % 7 + 1)
}

fn fill_class(closed_loop: &ClosedLoop, policy: &str) -> String {
    let series = series_class(closed_loop, policy);
    format!("mark {}", series.split(' ').nth(1).unwrap_or("c0"))
}

/// The policies by a pooled metric, lowest first.
fn sorted_by(closed_loop: &ClosedLoop, read: fn(&PolicyResult) -> f64) -> Vec<&PolicyResult> {
    let mut policies: Vec<&PolicyResult> = closed_loop.policies.iter().collect();
    policies.sort_by(|a, b| read(a).total_cmp(&read(b)).then_with(|| a.name.cmp(&b.name)));
    policies
}

pub(crate) fn range_of(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

pub(crate) fn axis_below(
    svg: &mut Svg,
    scale: &Scale,
    ticks: &[f64],
    (top, bottom): (f64, f64),
    label: impl Fn(f64) -> String,
) {
    for &tick in ticks {
        let x = scale.at(tick);
        svg.line((x, top), (x, bottom), "grid");
        svg.text((x, bottom + 14.0), Anchor::Middle, "label tick", &label(tick));
    }
}

/// Round values up the left side, with a line each.
pub(crate) fn axis_left(
    svg: &mut Svg,
    scale: &Scale,
    ticks: &[f64],
    (left, right): (f64, f64),
    label: impl Fn(f64) -> String,
) {
    for &tick in ticks {
        let y = scale.at(tick);
        svg.line((left, y), (right, y), "grid");
        svg.text((left - 6.0, y), Anchor::End, "label tick", &label(tick));
    }
}

/// Named confidence against the share that came true, by points that rise; `None` without any.
pub(crate) fn reliability(of: &str, points: &[(f64, f64)]) -> Option<String> {
    if points.is_empty() {
        return None;
    }
    let (left, right, top, bottom) = (58.0, WIDTH - 20.0, 12.0, 232.0);
    let mut svg = Svg::new(
        "reliability",
        (WIDTH, bottom + AXIS_ROOM),
        &format!("Confidence of {of} against what came true"),
        "Share of choices that were within 10 percent and 5 ms of the best eligible shard, by the confidence that was named; \
         on the diagonal the two agree.",
    );
    let (x, y) = (Scale::linear((0.0, 1.0), (left, right)), Scale::linear((0.0, 1.0), (bottom, top)));
    let ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
    axis_below(&mut svg, &x, &ticks, (top, bottom), |tick| format!("{tick:.1}"));
    axis_left(&mut svg, &y, &ticks, (left, right), |tick| format!("{tick:.1}"));
    svg.line((x.at(0.0), y.at(0.0)), (x.at(1.0), y.at(1.0)), "zero");
    let drawn: Vec<(f64, f64)> = points.iter().map(|(named, right)| (x.at(*named), y.at(*right))).collect();
    svg.polyline(&drawn, "series c0 d0 strong");
    drawn.iter().for_each(|point| svg.circle(*point, "mark c0"));
    svg.text(
        ((left + right) / 2.0, bottom + 34.0),
        Anchor::Middle,
        "label",
        "named confidence; vertical: share that was right",
    );
    Some(svg.finish())
}

/// Shares on the scale of nines: the slow end is stretched so that the tail can be seen.
fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-4).log10()
}

/// The points from the first percent up to the first beyond the scale of nines.
fn shown(policy: &PolicyResult) -> impl Iterator<Item = &CdfPoint> {
    let end = policy.cdf.partition_point(|point| point.share < MOST_SHARE) + 1;
    policy.cdf.iter().take(end).filter(|point| point.share >= 0.01)
}

/// Distribution of the effective latency, one line per policy, with a legend in the order of the p99.
pub(crate) fn distribution(closed_loop: &ClosedLoop) -> String {
    let (left, right, top, height) = (52.0, 470.0, 12.0, 300.0);
    let policies = sorted_by(closed_loop, |policy| policy.pooled.p99_ms);
    let total_height = f64::max(top + height + AXIS_ROOM, top + 22.0 * policies.len() as f64 + 30.0);
    let mut svg = Svg::new(
        "distribution",
        (WIDTH, total_height),
        "Distribution of effective latency by policy",
        "Share of requests that are at most as slow as the latency on the horizontal log axis. A line further left is \
         faster. The percentiles are in the table of the closed loop.",
    );
    let points = policies.iter().flat_map(|policy| shown(policy));
    let x = Scale::log(range_of(points.map(|point| point.latency_ms)), (left, right));
    let y = Scale::linear((0.0, nines(MOST_SHARE)), (top + height, top));
    axis_below(&mut svg, &x, &x.ticks(44.0), (top, top + height), tick_label);
    for (share, label) in [(0.0, "0 %"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")] {
        let at = y.at(nines(share));
        svg.line((left, at), (right, at), "grid");
        svg.text((left - 6.0, at), Anchor::End, "label tick", label);
    }
    svg.text(((left + right) / 2.0, top + height + 34.0), Anchor::Middle, "label", "effective latency in ms (log)");
    // The candidate is drawn first: its thick line shows on both sides of a thin one that lies on it.
    let (ours, rivals): (Vec<&PolicyResult>, Vec<&PolicyResult>) =
        policies.iter().copied().partition(|policy| policy.name == closed_loop.candidate);
    for policy in ours.into_iter().chain(rivals) {
        let line: Vec<(f64, f64)> =
            shown(policy).map(|point| (x.at(point.latency_ms), y.at(nines(point.share)))).collect();
        svg.polyline(&line, &series_class(closed_loop, &policy.name));
    }
    svg.text((right + 16.0, top + 4.0), Anchor::Start, "label", "fastest p99 first");
    for (row, policy) in policies.iter().enumerate() {
        let at = top + 28.0 + 22.0 * row as f64;
        svg.line((right + 16.0, at), (right + 54.0, at), &series_class(closed_loop, &policy.name));
        svg.text((right + 60.0, at), Anchor::Start, "label", &fit(&policy.name, WIDTH - right - 60.0));
    }
    svg.finish()
}

/// A policy with two latencies in ms, the lower one first.
pub(crate) struct DotRow<'a> {
    pub(crate) policy: &'a str,
    pub(crate) ends_ms: [f64; 2],
    /// Class of the marks.
    pub(crate) fill: String,
    pub(crate) is_ours: bool,
}

/// p50 and p99 of every policy on one log axis.
pub(crate) fn percentile_dots(closed_loop: &ClosedLoop) -> String {
    let policies = sorted_by(closed_loop, |policy| policy.pooled.p99_ms);
    let rows: Vec<DotRow<'_>> = policies
        .iter()
        .map(|policy| DotRow {
            policy: &policy.name,
            ends_ms: [policy.pooled.p50_ms, policy.pooled.p99_ms],
            fill: fill_class(closed_loop, &policy.name),
            is_ours: policy.name == closed_loop.candidate,
        })
        .collect();
    let svg = Svg::new(
        "percentiles",
        (WIDTH, dots_height(policies.len())),
        "Median and 99th percentile of effective latency by policy",
        "One row per policy, fastest p99 first: a circle at the median, a diamond at the 99th percentile, both with \
         their numbers in ms.",
    );
    dots(svg, ["p50", "p99"], &rows)
}

const DOTS_TOP: f64 = 34.0;

/// Height of a drawing of so many dot rows.
pub(crate) fn dots_height(rows: usize) -> f64 {
    DOTS_TOP + ROW * rows as f64 + AXIS_ROOM
}

/// Draws a circle and a diamond a row on one log axis, with their numbers.
pub(crate) fn dots(mut svg: Svg, names: [&str; 2], rows: &[DotRow<'_>]) -> String {
    let (left, right, top) = (NAME_ROOM + 64.0, WIDTH - 76.0, DOTS_TOP);
    let bottom = top + ROW * rows.len() as f64;
    let x = Scale::log(range_of(rows.iter().flat_map(|row| row.ends_ms)), (left, right));
    axis_below(&mut svg, &x, &x.ticks(44.0), (top, bottom), tick_label);
    svg.circle((left, 14.0), "mark plain");
    svg.text((left + 12.0, 14.0), Anchor::Start, "label", names[0]);
    svg.diamond((left + 62.0, 14.0), "mark plain");
    svg.text((left + 74.0, 14.0), Anchor::Start, "label", names[1]);
    for (place, row) in rows.iter().enumerate() {
        let y = top + ROW * (place as f64 + 0.5);
        let [low, high] = row.ends_ms.map(|ms| x.at(ms));
        let name_class = if row.is_ours { "label ours" } else { "label" };
        svg.text((4.0, y), Anchor::Start, name_class, &fit(row.policy, NAME_ROOM));
        svg.line((low, y), (high, y), "bar");
        svg.circle((low, y), &row.fill);
        svg.diamond((high, y), &row.fill);
        svg.text((low - 10.0, y), Anchor::End, "label", &millis(row.ends_ms[0]));
        svg.text((high + 10.0, y), Anchor::Start, "label", &millis(row.ends_ms[1]));
    }
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", "effective latency in ms (log)");
    svg.finish()
}

/// The rival with the lowest p99.
pub(crate) fn best_rival(closed_loop: &ClosedLoop) -> Option<&PolicyResult> {
    closed_loop.rivals().min_by(|a, b| a.pooled.p99_ms.total_cmp(&b.pooled.p99_ms).then_with(|| a.name.cmp(&b.name)))
}

/// p99 over time for the candidate and the best rival; `None` without two bins to draw.
pub(crate) fn timeline(closed_loop: &ClosedLoop) -> Option<String> {
    let candidate = closed_loop.policy(&closed_loop.candidate)?;
    let pair: Vec<&PolicyResult> =
        best_rival(closed_loop).into_iter().chain([candidate]).filter(|policy| policy.timeline.len() > 1).collect();
    if pair.is_empty() {
        return None;
    }
    let (left, right, top, bottom) = (58.0, WIDTH - 160.0, 12.0, 232.0);
    let names: Vec<&str> = pair.iter().map(|policy| policy.name.as_str()).collect();
    let mut svg = Svg::new(
        "timeline",
        (WIDTH, bottom + AXIS_ROOM),
        &format!("99th percentile over time: {}", names.join(" and ")),
        "99th percentile of effective latency in every bin of simulated time, averaged over the seeds.",
    );
    let bins = || pair.iter().flat_map(|policy| &policy.timeline);
    let x = Scale::linear((0.0, range_of(bins().map(|bin| bin.at_s)).1), (left, right));
    let y = Scale::linear((0.0, range_of(bins().map(|bin| bin.p99_ms)).1 * 1.05), (bottom, top));
    axis_below(&mut svg, &x, &x.ticks(44.0), (top, bottom), tick_label);
    axis_left(&mut svg, &y, &y.ticks(20.0), (left, right), tick_label);
    svg.text(
        ((left + right) / 2.0, bottom + 34.0),
        Anchor::Middle,
        "label",
        "simulated time in s; vertical: p99 in ms",
    );
    let ends: Vec<f64> = pair.iter().filter_map(|p| p.timeline.last()).map(|bin| y.at(bin.p99_ms)).collect();
    let labels = spread(&ends, FONT_PX + 5.0, (top, bottom));
    for (policy, label_y) in pair.iter().zip(labels) {
        let class = series_class(closed_loop, &policy.name);
        let line: Vec<(f64, f64)> = policy.timeline.iter().map(|bin| (x.at(bin.at_s), y.at(bin.p99_ms))).collect();
        svg.polyline(&line, &class);
        svg.line((right + 6.0, label_y), (right + 34.0, label_y), &class);
        svg.text((right + 40.0, label_y), Anchor::Start, "label", &fit(&policy.name, 116.0));
    }
    Some(svg.finish())
}

/// Paired ratios of the candidate to its rivals with their intervals.
pub(crate) fn forest(closed_loop: &ClosedLoop) -> Option<String> {
    let rows = &closed_loop.comparisons;
    if rows.is_empty() {
        return None;
    }
    let (left, right, top) = (NAME_ROOM + 48.0, WIDTH - 184.0, 30.0);
    let bottom = top + 26.0 * rows.len() as f64;
    let mut svg = Svg::new(
        "forest",
        (WIDTH, bottom + AXIS_ROOM),
        &format!("{} against every rival, paired by seed", closed_loop.candidate),
        "Change of mean and 99th percentile against every rival with its 95 percent interval; left of no change is \
         better. The same numbers are in the table below.",
    );
    let ends = rows.iter().flat_map(|row| [row.ratio, row.low.unwrap_or(row.ratio), row.high.unwrap_or(row.ratio)]);
    let x = ratio_axis(&mut svg, ends, (left, right), (top, bottom));
    for (row, comparison) in rows.iter().enumerate() {
        forest_row(&mut svg, &x, comparison, top + 26.0 * (row as f64 + 0.5), right);
    }
    let name = format!("change with {} in % (log)", fit(&closed_loop.candidate, 120.0));
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", &name);
    Some(svg.finish())
}

/// An axis of ratios, written as changes, with its two directions above it.
pub(crate) fn ratio_axis(
    svg: &mut Svg,
    ratios: impl Iterator<Item = f64>,
    (left, right): (f64, f64),
    (top, bottom): (f64, f64),
) -> Scale {
    let (low, high) = range_of(ratios.chain([0.95, 1.05]));
    let x = Scale::log((low.max(FOREST_DOMAIN.0), high.min(FOREST_DOMAIN.1)), (left, right));
    let round = vec![1.0, 0.5, 2.0, 0.7, 1.4, 0.8, 1.2, 0.9, 1.1, 0.95, 1.05, 0.6];
    axis_below(svg, &x, &x.without_overlap(round, 64.0), (top, bottom), change_percent);
    svg.line((x.at(1.0), top - 6.0), (x.at(1.0), bottom), "zero");
    svg.text((x.at(1.0) - 8.0, 14.0), Anchor::End, "label", "← better");
    svg.text((x.at(1.0) + 8.0, 14.0), Anchor::Start, "label", "worse →");
    x
}

fn forest_row(svg: &mut Svg, x: &Scale, row: &Comparison, y: f64, right: f64) {
    let metric = Metric::by_key(&row.metric).map_or(row.metric.as_str(), |metric| metric.label);
    svg.text((4.0, y), Anchor::Start, "label", &fit(&row.rival, NAME_ROOM - 8.0));
    svg.text((NAME_ROOM, y), Anchor::Start, "label", metric);
    let mark = if row.metric == "mean_ms" { Svg::circle } else { Svg::diamond };
    let bounds = row.low.zip(row.high);
    interval_mark(svg, x, y, (row.ratio, bounds), mark);
    let interval = bounds.map(|(low, high)| format!(" [{}, {}]", change(low), change(high)));
    let figures = change_percent(row.ratio) + &interval.unwrap_or_default();
    svg.text((right + 14.0, y), Anchor::Start, "label", &figures);
}

/// Draws a ratio with its interval.
pub(crate) fn interval_mark(
    svg: &mut Svg,
    x: &Scale,
    y: f64,
    (ratio, bounds): (f64, Option<(f64, f64)>),
    mark: fn(&mut Svg, (f64, f64), &str),
) {
    match bounds {
        Some(bounds) if on_scale(ratio) => whisker(svg, x, y, bounds),
        _ => {}
    }
    match ratio {
        _ if ratio < FOREST_DOMAIN.0 => svg.text((x.at(ratio), y), Anchor::Start, "label", "← off the scale"),
        _ if ratio > FOREST_DOMAIN.1 => svg.text((x.at(ratio), y), Anchor::End, "label", "off the scale →"),
        _ => mark(svg, (x.at(ratio), y), "mark c0"),
    }
}

fn on_scale(ratio: f64) -> bool {
    (FOREST_DOMAIN.0..=FOREST_DOMAIN.1).contains(&ratio)
}

/// The part of an interval that is on the scale, with a stop at each end that is.
fn whisker(svg: &mut Svg, x: &Scale, y: f64, (low, high): (f64, f64)) {
    svg.line((x.at(low), y), (x.at(high), y), "whisker");
    for end in [low, high].into_iter().filter(|end| on_scale(*end)) {
        svg.line((x.at(end), y - 5.0), (x.at(end), y + 5.0), "whisker");
    }
}

pub(crate) fn tick_label(value: f64) -> String {
    if value >= 1000.0 { grouped(value as u64) } else { format!("{}", (value * 1e6).round() / 1e6).replace('-', "−") }
}
