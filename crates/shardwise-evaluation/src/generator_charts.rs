//! Drawings of a generator's check: values in their bands, and curves over what is known of them.

use shardwise_simulator::{Curve, Reference};

use crate::charts::{AXIS_ROOM, WIDTH, axis_below, axis_left, range_of, tick_label};
use crate::generator_page::CheckedStatistic;
use crate::numbers::figure;
use crate::svg::{Anchor, Scale, Svg, fit};

/// Height of a row with one statistic.
const ROW: f64 = 26.0;
/// Width for the names of statistics.
const NAME_ROOM: f64 = 250.0;
/// Room for the ends of a band on either side.
const END_ROOM: f64 = 62.0;

/// One row per statistic: its band, a circle per seed, a diamond for real traces. Every row has its own scale, the band
/// in the middle half of it; what lies beyond is drawn at the edge.
pub(crate) fn band_chart(statistics: &[CheckedStatistic]) -> String {
    let group = &statistics[0].group;
    let height = ROW * statistics.len() as f64 + 8.0;
    let id = format!("bands-{}", group.replace(' ', "-"));
    let mut svg = Svg::new(
        &id,
        (WIDTH, height),
        &format!("Values and bands: {group}"),
        "One row per statistic: the band as a bar with its ends in numbers, the seeds as circles, real traces as a \
         diamond. The same numbers are in the table below.",
    );
    let (left, right) = (NAME_ROOM + END_ROOM, WIDTH - END_ROOM);
    for (row, statistic) in statistics.iter().enumerate() {
        let y = 4.0 + ROW * (row as f64 + 0.5);
        let width = statistic.high - statistic.low;
        let x = Scale::linear((statistic.low - width / 2.0, statistic.high + width / 2.0), (left, right));
        svg.text((4.0, y), Anchor::Start, "label", &fit(&statistic.name, NAME_ROOM));
        svg.line((left, y), (right, y), "grid");
        svg.line((x.at(statistic.low), y), (x.at(statistic.high), y), "band");
        svg.text((left - 8.0, y), Anchor::End, "label", &figure(statistic.low));
        svg.text((right + 8.0, y), Anchor::Start, "label", &figure(statistic.high));
        for value in statistic.values.iter().flatten() {
            let inside = (statistic.low..=statistic.high).contains(value);
            svg.circle((x.at(*value), y), if inside { "mark c0" } else { "mark c1" });
        }
        if let Some(real) = statistic.real {
            svg.diamond((x.at(real), y), "mark c2");
        }
    }
    svg.finish()
}

/// The seeds' curves, thin, over the band or the published values, with the real curve; `None` without curves.
pub(crate) fn curve_chart(reference: &Reference, seeds: &[Curve], real: Option<&Curve>) -> Option<String> {
    let (left, right, top, bottom) = (64.0, WIDTH - 16.0, 12.0, 252.0);
    let drawn: Vec<(f64, f64)> = seeds.iter().chain(real).flat_map(|curve| curve.points.iter().copied()).collect();
    if drawn.is_empty() {
        return None;
    }
    let mut svg = Svg::new(
        reference.key,
        (WIDTH, bottom + AXIS_ROOM),
        reference.title,
        &format!("{} over {}; one thin line per seed.", reference.y_label, reference.x_label),
    );
    let ends = reference.marks.iter().flat_map(|mark| [mark.low, mark.high]);
    let scale =
        |log: bool, ends: (f64, f64), range| if log { Scale::log(ends, range) } else { Scale::linear(ends, range) };
    let x = scale(reference.log.0, range_of(drawn.iter().map(|(x, _)| *x)), (left, right));
    let y = scale(reference.log.1, range_of(drawn.iter().map(|(_, y)| *y).chain(ends)), (bottom, top));
    axis_below(&mut svg, &x, &x.ticks(44.0), (top, bottom), tick_label);
    axis_left(&mut svg, &y, &y.ticks(20.0), (left, right), tick_label);
    let caption = format!("{}; vertical: {}", reference.x_label, reference.y_label);
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", &fit(&caption, WIDTH));
    for mark in reference.marks.iter().filter(|mark| mark.low < mark.high) {
        svg.line((x.at(mark.x), y.at(mark.low)), (x.at(mark.x), y.at(mark.high)), "band");
    }
    for curve in seeds {
        svg.polyline(&placed(&curve.points, &x, &y), "series c0");
    }
    if let Some(real) = real {
        svg.polyline(&placed(&real.points, &x, &y), "series c2 d1 strong");
    }
    let values: Vec<(f64, f64)> =
        reference.marks.iter().filter(|mark| mark.low == mark.high).map(|mark| (mark.x, mark.low)).collect();
    if !values.is_empty() {
        svg.polyline(&placed(&values, &x, &y), "series c3 d2 strong");
    }
    Some(svg.finish())
}

fn placed(points: &[(f64, f64)], x: &Scale, y: &Scale) -> Vec<(f64, f64)> {
    points.iter().map(|(at, value)| (x.at(*at), y.at(*value))).collect()
}
