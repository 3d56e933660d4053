//! A few helpers for inline SVG: scales with ticks, escaped text, labels that do not overlap. Colours and dashes are
//! classes of the page's style sheet, so that light, dark and print share one drawing.

use std::fmt::Write as _;

use crate::visible::escape;

/// Width of a character relative to the font size, on the wide side.
const CHARACTER_WIDTH: f64 = 0.58;

/// Font size of all labels in px.
pub(crate) const FONT_PX: f64 = 13.0;

/// Maps values to pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    log: bool,
    domain: (f64, f64),
    range: (f64, f64),
}

impl Scale {
    /// A linear scale; an empty domain is widened.
    pub(crate) fn linear(domain: (f64, f64), range: (f64, f64)) -> Self {
        let domain = if domain.1 > domain.0 { domain } else { (domain.0, domain.0 + 1.0) };
        Self { log: false, domain, range }
    }

    /// A log scale; the domain is kept above 0 and widened when it is empty.
    pub(crate) fn log(domain: (f64, f64), range: (f64, f64)) -> Self {
        let low = domain.0.max(1e-3);
        let domain = if domain.1 > low { (low, domain.1) } else { (low / 1.5, low * 1.5) };
        Self { log: true, domain, range }
    }

    /// The pixel of a value, clamped to the range.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let (low, high) = self.domain;
        let value = value.clamp(low, high);
        let share = if self.log { (value / low).ln() / (high / low).ln() } else { (value - low) / (high - low) };
        self.range.0 + share * (self.range.1 - self.range.0)
    }

    /// Round values within the domain, few enough that labels of `label_px` fit.
    pub(crate) fn ticks(&self, label_px: f64) -> Vec<f64> {
        let candidates = if self.log { log_ticks(self.domain) } else { linear_ticks(self.domain) };
        self.without_overlap(candidates, label_px)
    }

    /// Keeps the values that lie in the domain and at least `label_px` apart; the first given win.
    pub(crate) fn without_overlap(&self, candidates: Vec<f64>, label_px: f64) -> Vec<f64> {
        let mut kept: Vec<f64> = Vec::new();
        for value in candidates.into_iter().filter(|v| (self.domain.0..=self.domain.1).contains(v)) {
            if kept.iter().all(|&other| (self.at(other) - self.at(value)).abs() >= label_px) {
                kept.push(value);
            }
        }
        kept.sort_by(f64::total_cmp);
        kept
    }
}

/// Powers of ten first, then their fives and twos, so that the rounder survive where labels would overlap.
fn log_ticks(domain: (f64, f64)) -> Vec<f64> {
    let (low, high) = (domain.0.log10().floor() as i32, domain.1.log10().ceil() as i32);
    let decades = |factor: f64| (low..=high).map(move |exponent| factor * 10_f64.powi(exponent));
    [1.0, 5.0, 2.0, 3.0, 7.0, 1.5, 4.0, 6.0].into_iter().flat_map(decades).collect()
}

fn linear_ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|f| f * power).into_iter().find(|&s| s >= rough).unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Where a text hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A drawing under construction. All text is escaped; classes are ours.
#[derive(Debug)]
pub(crate) struct Svg {
    body: String,
}

impl Svg {
    /// Opens a drawing with a title and a description for those who cannot see it; `id` is unique on the page.
    pub(crate) fn new(id: &str, (width, height): (f64, f64), title: &str, description: &str) -> Self {
        let (title, description) = (escape(title), escape(description));
        Self {
            body: format!(
                "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
                 <title id=\"{id}-title\">{title}</title>\n<desc id=\"{id}-desc\">{description}</desc>\n"
            ),
        }
    }

    /// A straight line.
    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.push(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        ));
    }

    /// A line through points.
    pub(crate) fn polyline(&mut self, points: &[(f64, f64)], class: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        self.push(format_args!("<polyline points=\"{}\" class=\"{class}\"/>", path.trim_end()));
    }

    /// A text whose baseline is centred on `y`.
    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let (anchor, baseline, text) = (anchor.as_str(), y + FONT_PX * 0.35, escape(text));
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{baseline:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        ));
    }

    /// A rectangle between two corners, in any order.
    pub(crate) fn rect(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        let (x, y, width, height) = (x1.min(x2), y1.min(y2), (x1 - x2).abs(), (y1 - y2).abs());
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{class}\"/>"
        ));
    }

    /// The area between two lines through points of the same x.
    pub(crate) fn area(&mut self, low: &[(f64, f64)], high: &[(f64, f64)], class: &str) {
        let mut path = String::new();
        for (x, y) in low.iter().chain(high.iter().rev()) {
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        self.push(format_args!("<polygon points=\"{}\" class=\"{class}\"/>", path.trim_end()));
    }

    /// A circle of radius 5.
    pub(crate) fn circle(&mut self, (x, y): (f64, f64), class: &str) {
        self.push(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" class=\"{class}\"/>"));
    }

    /// A diamond of the same size.
    pub(crate) fn diamond(&mut self, (x, y): (f64, f64), class: &str) {
        let (left, right, top, bottom) = (x - 6.0, x + 6.0, y - 6.0, y + 6.0);
        self.push(format_args!(
            "<path d=\"M{x:.1} {top:.1}L{right:.1} {y:.1}L{x:.1} {bottom:.1}L{left:.1} {y:.1}Z\" class=\"{class}\"/>"
        ));
    }

    /// Closes the drawing.
    pub(crate) fn finish(mut self) -> String {
        self.body.push_str("</svg>");
        self.body
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.body, "{element}");
    }
}

/// Width that a label takes in px, on the wide side.
pub(crate) fn width_px(text: &str) -> f64 {
    text.chars().count() as f64 * FONT_PX * CHARACTER_WIDTH
}

/// Cuts a label to a width in px and says so with an ellipsis.
pub(crate) fn fit(text: &str, max_px: f64) -> String {
    if width_px(text) <= max_px {
        return text.to_owned();
    }
    let room = (max_px / (FONT_PX * CHARACTER_WIDTH)) as usize;
    let mut cut: String = text.chars().take(room.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Moves label positions apart to at least `gap`, in their order, within the bounds as far as there is room.
pub(crate) fn spread(positions: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..positions.len()).collect();
    order.sort_by(|&a, &b| positions[a].total_cmp(&positions[b]).then(a.cmp(&b)));
    let mut placed = positions.to_vec();
    let mut floor = low;
    for &i in &order {
        placed[i] = placed[i].max(floor);
        floor = placed[i] + gap;
    }
    let mut ceiling = high;
    for &i in order.iter().rev() {
        placed[i] = placed[i].min(ceiling);
        ceiling = placed[i] - gap;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ticks_are_round_and_apart() {
        let scale = Scale::log((12.0, 3000.0), (0.0, 400.0));
        let ticks = scale.ticks(40.0);
        assert!(ticks.contains(&100.0) && ticks.contains(&1000.0), "{ticks:?}");
        assert!(ticks.windows(2).all(|pair| scale.at(pair[1]) - scale.at(pair[0]) >= 40.0), "{ticks:?}");
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(Scale::linear((0.0, 58.0), (0.0, 500.0)).ticks(30.0), [0.0, 20.0, 40.0]);
    }

    #[test]
    fn an_empty_domain_still_has_a_place() {
        for scale in [Scale::log((5.0, 5.0), (0.0, 10.0)), Scale::linear((5.0, 5.0), (0.0, 10.0))] {
            assert!((0.0..=10.0).contains(&scale.at(5.0)));
        }
    }

    #[test]
    fn labels_are_spread_apart() {
        assert_eq!(spread(&[10.0, 11.0, 50.0], 15.0, (0.0, 100.0)), [10.0, 25.0, 50.0]);
        assert_eq!(spread(&[99.0, 98.0], 15.0, (0.0, 100.0)), [100.0, 85.0]);
    }

    #[test]
    fn text_is_escaped() {
        let mut svg = Svg::new("a", (10.0, 10.0), "<b>", "\"d\"");
        svg.text((0.0, 0.0), Anchor::Start, "label", "<script>'&");
        let drawn = svg.finish();
        assert!(drawn.contains("&lt;script&gt;&#39;&amp;") && !drawn.contains("<script>") && !drawn.contains("<b>"));
    }

    #[test]
    fn long_labels_are_cut_visibly() {
        assert_eq!(fit("short", 100.0), "short");
        let cut = fit("a_very_long_policy_name_indeed", 60.0);
        assert!(cut.ends_with('…') && width_px(&cut) <= 60.0, "{cut}");
    }
}
