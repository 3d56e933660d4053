//! The page of a plan: what it comes to, the fleet before and after, its steps. It computes nothing.

use std::path::Path;

use askama::Template;

use crate::charts::{AXIS_ROOM, WIDTH, axis_below, tick_label};
use crate::page::in_lines;
use crate::report::write_atomically;
use crate::svg::{Anchor, Scale, Svg, fit};
use crate::{EvaluationError, Fact, plain};

/// Height of a pair of bars.
const ROW: f64 = 38.0;
/// Width for names.
const NAMES: f64 = 220.0;

/// All that the page shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanPage {
    /// What kind of plan.
    pub kind: String,
    /// The question that it answers.
    pub question: String,
    /// The answer.
    pub sentence: String,
    /// What else should be known.
    pub notes: Vec<String>,
    /// Where it comes from.
    pub facts: Vec<Fact>,
    /// What the picture shows.
    pub what: String,
    /// The value that is not to be passed, if there is one.
    pub limit: Option<f64>,
    /// Name, before, after.
    pub rows: Vec<(String, f64, f64)>,
    /// The steps: what is done, to what, where, what it saves, why.
    pub steps: Vec<[String; 5]>,
    /// Steps that were carried out: which, what became of it, why.
    pub done: Vec<[String; 3]>,
    /// The command that makes this page again.
    pub command: String,
}

#[derive(Template)]
#[template(path = "plan.html")]
struct View<'a> {
    page: &'a PlanPage,
    bars: Option<String>,
    command: String,
}

/// Writes the page, one file that needs no network. The file is whole or untouched.
///
/// # Errors
/// When the page cannot be rendered or written.
pub fn write_plan_page(path: &Path, page: &PlanPage) -> Result<(), EvaluationError> {
    let html = View { page, bars: bars(page), command: in_lines(&page.command) }.render()?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| EvaluationError::Write { path: folder.to_owned(), source })?;
    }
    write_atomically(path, html.as_bytes())
}

/// A pair of bars for each row; `None` when there are no rows.
fn bars(page: &PlanPage) -> Option<String> {
    let values = || page.rows.iter().flat_map(|(_, before, after)| [*before, *after]).filter(|value| value.is_finite());
    let most = values().chain(page.limit).fold(f64::NEG_INFINITY, f64::max);
    if page.rows.is_empty() || most <= 0.0 {
        return None;
    }
    let (left, right, top) = (NAMES + 8.0, WIDTH - 64.0, 8.0);
    let bottom = top + ROW * page.rows.len() as f64;
    let mut svg = Svg::new("fleet", (WIDTH, bottom + AXIS_ROOM), "Before and after", &page.what);
    let x = Scale::linear((0.0, most), (left, right));
    axis_below(&mut svg, &x, &x.ticks(52.0), (top, bottom), tick_label);
    for (row, (name, before, after)) in page.rows.iter().enumerate() {
        let y = top + ROW * (row as f64 + 0.5);
        svg.text((4.0, y), Anchor::Start, "label", &fit(name, NAMES));
        for (value, offset, class) in [(before, -15.0, "mark plain"), (after, 1.0, "mark c0")] {
            if value.is_finite() && *value > 0.0 {
                svg.rect((x.at(0.0), y + offset), (x.at(*value), y + offset + 12.0), class);
            }
            svg.text((x.at(value.max(0.0)) + 4.0, y + offset + 6.0), Anchor::Start, "label tick", &plain(*value));
        }
    }
    if let Some(limit) = page.limit {
        svg.line((x.at(limit), top), (x.at(limit), bottom), "limit");
    }
    svg.line((x.at(0.0), top), (x.at(0.0), bottom), "zero");
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_its_steps_and_its_picture_and_hostile_names_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plans/plan.html");
        let hostile = "<script>alert(1)</script>".to_owned();
        let page = PlanPage {
            kind: "warm".to_owned(),
            question: "What should be kept warm?".to_owned(),
            sentence: "1 step.".to_owned(),
            rows: vec![(hostile.clone(), 0.4, 0.5)],
            limit: Some(1.0),
            steps: vec![["keep_warm".into(), hostile, "shard-a".into(), "3 ms".into(), "cold".into()]],
            ..PlanPage::default()
        };
        write_plan_page(&path, &page).unwrap();
        let html = std::fs::read_to_string(&path).unwrap();
        assert!(html.contains("<svg") && html.contains("keep_warm") && !html.contains("<script>"), "{html}");
        let empty = PlanPage { rows: vec![], steps: vec![], ..page };
        write_plan_page(&path, &empty).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("nothing to do"));
    }
}
