//! The arena's drawings: latency against load, or by policy at one load; ratios by scenario; paired comparison.

use super::facets::Facet;
use super::{Cell, LeagueRow, Paired, Setting};
use crate::charts::{
    AXIS_ROOM, DotRow, WIDTH, axis_below, axis_left, dots, dots_height, interval_mark, range_of, ratio_axis, tick_label,
};
use crate::numbers::change;
use crate::svg::{Anchor, FONT_PX, Scale, Svg, fit, spread};

/// Width of a drawing that has another one beside it, in px.
const HALF_WIDTH: f64 = 540.0;
/// Height of a row of the paired comparison.
const ROW: f64 = 24.0;
/// Width for the names of policies.
const NAME_ROOM: f64 = 162.0;

/// A metric to draw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) read: fn(&Cell) -> f64,
}

/// What is drawn for every setting.
pub(super) const DRAWN: [Drawn; 2] = [
    Drawn { key: "mean_ms", name: "mean", read: |cell| cell.metrics.mean_ms },
    Drawn { key: "p99_ms", name: "p99", read: |cell| cell.metrics.p99_ms },
];

/// Who stands out in the drawings; all others are thin and grey.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cast<'a> {
    pub(super) subject: &'a str,
    /// Best first, six at most.
    pub(super) rivals: &'a [&'a str],
    pub(super) oracle: Option<&'a str>,
}

impl Cast<'_> {
    /// Colour and dash of a policy that stands out.
    fn class(&self, policy: &str) -> Option<String> {
        if policy == self.subject {
            return Some("c0 d0".to_owned());
        }
        if self.oracle == Some(policy) {
            return Some("c7 d7".to_owned());
        }
        let rank = self.rivals.iter().position(|rival| *rival == policy)?;
        Some(format!("c{0} d{0}", rank + 1))
    }

    fn fill(&self, policy: &str) -> String {
        let class = self.class(policy);
        format!("mark {}", class.as_deref().and_then(|class| class.split(' ').next()).unwrap_or("plain"))
    }
}

/// Policies over settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standings<'a> {
    pub(super) settings: &'a [Setting],
    /// Best first.
    pub(super) rows: &'a [LeagueRow],
}

/// A metric against load, one line a policy. The vertical axis is that of all `facets` and holds those that stand out:
/// what is slower runs along its upper edge. The facet at `place` is drawn.
pub(super) fn curves(
    standings: &Standings<'_>,
    cast: &Cast<'_>,
    facets: &[Facet],
    place: usize,
    drawn: Drawn,
) -> String {
    let (left, right, top, bottom) = (52.0, HALF_WIDTH - 182.0, 12.0, 262.0);
    let facet = &facets[place];
    let mut svg = Svg::new(
        &format!("curves-{place}-{}", drawn.name),
        (HALF_WIDTH, bottom + AXIS_ROOM),
        &titled(&format!("{} latency against load", drawn.name), &facet.label),
        "One line a policy on a vertical log axis; lower is better. The numbers are in the league table.",
    );
    let value = |row: &LeagueRow, place: usize| row.by_setting[place].as_ref().map(drawn.read);
    let shown = || standings.rows.iter().filter(|row| cast.class(&row.policy).is_some());
    let all = facets.iter().flat_map(|facet| &facet.places);
    let all = all.flat_map(|place| shown().filter_map(|row| value(row, *place)));
    let y = Scale::log(range_of(all), (bottom, top));
    let loads: Vec<f64> = facet.places.iter().map(|place| standings.settings[*place].load).collect();
    let x = Scale::linear(range_of(loads.iter().copied()), (left, right));
    axis_below(&mut svg, &x, &x.without_overlap(loads.clone(), 30.0), (top, bottom), tick_label);
    axis_left(&mut svg, &y, &y.ticks(20.0), (left, right), tick_label);
    let axis = format!("load; vertical: {} in ms (log)", drawn.name);
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", &axis);
    let line = |row: &LeagueRow| -> Vec<(f64, f64)> {
        let points = facet.places.iter().zip(&loads);
        points.filter_map(|(place, load)| value(row, *place).map(|value| (x.at(*load), y.at(value)))).collect()
    };
    for row in standings.rows.iter().filter(|row| cast.class(&row.policy).is_none()) {
        svg.polyline(&line(row), "series faint");
    }
    // The subject comes first: its thick line shows on both sides of a thin one that lies on it.
    let mut named: Vec<(&LeagueRow, String)> =
        shown().filter_map(|row| cast.class(&row.policy).map(|class| (row, class))).collect();
    named.sort_by_key(|(row, _)| row.policy != cast.subject);
    let lines: Vec<Vec<(f64, f64)>> = named.iter().map(|(row, _)| line(row)).collect();
    let ends: Vec<f64> = lines.iter().map(|line| line.last().map_or(bottom, |(_, y)| *y)).collect();
    let labels = spread(&ends, FONT_PX + 3.0, (top, bottom));
    for (((row, class), line), (end, label)) in named.iter().zip(&lines).zip(ends.iter().zip(labels)) {
        let is_subject = row.policy == cast.subject;
        svg.polyline(line, &format!("series {class}{}", if is_subject { " strong" } else { "" }));
        svg.line((right, *end), (right + 22.0, label), &format!("series {class}"));
        let name = if is_subject { "label ours" } else { "label" };
        svg.text((right + 26.0, label), Anchor::Start, name, &fit(&row.policy, HALF_WIDTH - right - 28.0));
    }
    svg.finish()
}

/// Mean and p99 of every policy at the only load of a facet.
pub(super) fn dots_by_policy(standings: &Standings<'_>, cast: &Cast<'_>, facet: &Facet, place: usize) -> String {
    let mut rows = Vec::new();
    for row in standings.rows {
        if let Some(cell) = facet.places.first().and_then(|place| row.by_setting[*place].as_ref()) {
            rows.push(DotRow {
                policy: &row.policy,
                ends_ms: [cell.metrics.mean_ms, cell.metrics.p99_ms],
                fill: cast.fill(&row.policy),
                is_ours: row.policy == cast.subject,
            });
        }
    }
    let svg = Svg::new(
        &format!("dots-{place}"),
        (WIDTH, dots_height(rows.len())),
        &titled("Mean and 99th percentile of effective latency by policy", &facet.label),
        "One row a policy: a circle at the mean, a diamond at the 99th percentile, both with their numbers in ms.",
    );
    dots(svg, ["mean", "p99"], &rows)
}

/// Ratios of the subject to the cast's rivals in one scenario, by rival; `None` where they do not compare.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScenarioRatios {
    pub(super) scenario: String,
    pub(super) by_rival: Vec<Option<f64>>,
}

/// The subject against the best rivals, one row a scenario, one dot a rival.
pub(super) fn scenario_dots(rows: &[ScenarioRatios], cast: &Cast<'_>, drawn: Drawn) -> String {
    const LEGEND_COLUMNS: usize = 3;
    let (left, right, top) = (NAME_ROOM, HALF_WIDTH - 24.0, 30.0);
    let bottom = top + ROW * rows.len() as f64;
    let legend_rows = cast.rivals.len().div_ceil(LEGEND_COLUMNS);
    let mut svg = Svg::new(
        &format!("scenarios-{}", drawn.name),
        (HALF_WIDTH, bottom + AXIS_ROOM + 20.0 * legend_rows as f64),
        &format!("{} of {} against the best rivals, by scenario", drawn.name, cast.subject),
        "One row a scenario, one dot a rival; left of no change is better. The numbers are in the table below.",
    );
    let x = ratio_axis(
        &mut svg,
        rows.iter().flat_map(|row| row.by_rival.iter().flatten().copied()),
        (left, right),
        (top, bottom),
    );
    for (place, row) in rows.iter().enumerate() {
        let y = top + ROW * (place as f64 + 0.5);
        svg.text((4.0, y), Anchor::Start, "label", &fit(&row.scenario, NAME_ROOM - 12.0));
        for (rival, ratio) in cast.rivals.iter().zip(&row.by_rival) {
            if let Some(ratio) = ratio {
                svg.circle((x.at(*ratio), y), &cast.fill(rival));
            }
        }
    }
    let axis = format!("change of the {} in % (log)", drawn.name);
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", &axis);
    let column = HALF_WIDTH / LEGEND_COLUMNS as f64;
    for (place, rival) in cast.rivals.iter().enumerate() {
        let at =
            (8.0 + column * (place % LEGEND_COLUMNS) as f64, bottom + 58.0 + 20.0 * (place / LEGEND_COLUMNS) as f64);
        svg.circle(at, &cast.fill(rival));
        svg.text((at.0 + 10.0, at.1), Anchor::Start, "label", &fit(rival, column - 22.0));
    }
    svg.finish()
}

/// The subject against everyone in one metric, with intervals.
pub(super) fn forest(pairs: &[&Paired], subject: &str, drawn: Drawn) -> String {
    let (left, right, top) = (NAME_ROOM, HALF_WIDTH - 172.0, 30.0);
    let bottom = top + ROW * pairs.len() as f64;
    let mut svg = Svg::new(
        &format!("forest-{}", drawn.name),
        (HALF_WIDTH, bottom + AXIS_ROOM),
        &format!("{} of {subject} against every other policy", drawn.name),
        "Change with its 95 percent interval; left of no change is better. The numbers are in the table below.",
    );
    let ends =
        pairs.iter().flat_map(|pair| [pair.ratio, pair.low.unwrap_or(pair.ratio), pair.high.unwrap_or(pair.ratio)]);
    let x = ratio_axis(&mut svg, ends, (left, right), (top, bottom));
    for (place, pair) in pairs.iter().enumerate() {
        let y = top + ROW * (place as f64 + 0.5);
        let bounds = pair.low.zip(pair.high);
        interval_mark(&mut svg, &x, y, (pair.ratio, bounds), Svg::circle);
        let interval = bounds.map(|(low, high)| format!(" [{}, {}]", brief(low), brief(high)));
        let figures = brief(pair.ratio) + &interval.unwrap_or_default();
        svg.text((4.0, y), Anchor::Start, "label", &fit(&pair.versus, NAME_ROOM - 8.0));
        svg.text((right + 12.0, y), Anchor::Start, "label", &fit(&figures, HALF_WIDTH - right - 12.0));
    }
    let axis = format!("change of the {} in % (log)", drawn.name);
    svg.text(((left + right) / 2.0, bottom + 34.0), Anchor::Middle, "label", &axis);
    svg.finish()
}

/// A change in percent without the unit, whole once it has doubled.
fn brief(ratio: f64) -> String {
    if ratio < 2.0 { change(ratio) } else { change((ratio * 100.0).round() / 100.0).trim_end_matches(".0").to_owned() }
}

/// A title and what it is about, which may be empty.
fn titled(title: &str, about: &str) -> String {
    if about.is_empty() { title.to_owned() } else { format!("{title}: {about}") }
}
