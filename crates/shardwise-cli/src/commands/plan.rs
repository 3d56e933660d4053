//! `shardwise plan`: what the planner would do with a fleet, from its history or as it runs, and, when asked, done.

mod apply;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use miette::{IntoDiagnostic, miette};
use serde_json::{Value, json};
use shardwise_datasets::History;
use shardwise_evaluation::{Fact, PlanPage, grouped, visible, write_plan_page};
use shardwise_features::ServiceTable;
use shardwise_models::{CHAMPION, Registry};
use shardwise_planner::{
    BeforeAfter, Ledger, ObservationSettings, Observations, PlanKind, PlanStory, Planner, PlannerSettings,
};
use shardwise_policies::Runtime;
use shardwise_simulator::WorldSpec;
use shardwise_types::{DirectiveRecord, FunctionId, Placements, RouterId, ShardId, Timestamp};

use super::configuration::ask_at;
use super::files;
use crate::arguments::{PlanArguments, PlanCommand};
use crate::output::{self, Stage};

/// Steps that the table shows; `--json` and the page have all.
const SHOWN: usize = 20;
/// Columns of the terminal's picture.
const BAR: usize = 30;

/// A plan as it was made here or elsewhere.
struct Made {
    now: Timestamp,
    plan: Value,
    story: PlanStory,
    facts: Vec<Fact>,
}

pub(crate) fn run(command: &PlanCommand, json: bool) -> miette::Result<()> {
    let (kind, options, factor) = command.parts();
    if options.apply && options.live.is_none() {
        let help = "name the router that coordinates the fleet with --live, instead of a history";
        return Err(miette!(help = help, "only a plan for a running fleet can be carried out"));
    }
    let made = match (&options.history, &options.live) {
        (None, Some(server)) if let Some(path) = &options.steps_from => written(server, path)?,
        (Some(history), _) => of_history(kind, options, factor, history)?,
        (None, Some(server)) => of_router(kind, options, factor, server)?,
        (None, None) => return Err(miette!("name a history with --history, or a router with --live")),
    };
    let done = match (&options.live, options.apply) {
        (Some(server), true) => Some(apply::apply(server, options, &made.plan)?),
        _ => None,
    };
    if let Some(path) = &options.html {
        write_plan_page(path, &page(kind, &made, done.as_deref().unwrap_or_default())).into_diagnostic()?;
        output::note(format!("the plan's page is {}", path.display()));
    }
    if json {
        let mut object = made.plan;
        let fields = [("kind", json!(kind)), ("now", json!(made.now)), ("summary", json!(made.story.sentence))];
        let fields = fields.into_iter().chain(done.map(|done| ("applied", json!(done))));
        let object_fields =
            object.as_object_mut().ok_or_else(|| miette!("the plan is no object; please report this"))?;
        fields.for_each(|(name, value)| drop(object_fields.insert(name.to_owned(), value)));
        return output::print_json(&object);
    }
    print!("{}", visible(&text(&made.story)));
    for step in done.iter().flatten() {
        println!("{}", visible(&step.line()));
    }
    Ok(())
}

fn of_history(kind: PlanKind, options: &PlanArguments, factor: Option<f64>, dir: &Path) -> miette::Result<Made> {
    let given: Option<Ledger> = options.ledger.as_deref().map(files::read_json).transpose()?;
    let table = options.models.as_deref().map(|models| service_table(models, &options.name)).transpose()?;
    let history = History::open(dir).into_diagnostic()?;
    let mut settings = serde_json::to_value(usual_settings(&history)?).into_diagnostic()?;
    if let Some(path) = &options.settings {
        lay_over(&mut settings, files::read_json(path)?);
    }
    let settings: PlannerSettings = serde_json::from_value(settings).into_diagnostic()?;
    let observing = ObservationSettings::default();
    let last_day = history.days().last().map(|day| day.parse::<Timestamp>()).transpose().into_diagnostic()?;
    // What is older is let go again.
    let from = last_day.map(|day| day.plus_millis(-60_000.0 * observing.keep_minutes as f64));
    let mut observations = Observations::new(observing).into_diagnostic()?;
    let mut stage = Stage::start("reading the history".to_owned());
    let mut count = 0_u64;
    for record in history.records(from, None).into_diagnostic()? {
        observations.observe(&record.into_diagnostic()?).into_diagnostic()?;
        count += 1;
        if count.is_multiple_of(100_000) {
            output::stop_if_interrupted()?;
            stage.at(format!("{} records", grouped(count)));
        }
    }
    stage.done(format!("{} records", grouped(count)));
    let help = "bring a history with decisions, or widen it";
    let now = observations.now().ok_or_else(|| miette!(help = help, "{} holds no record", dir.display()))?;
    let ledger = match given {
        Some(ledger) => ledger,
        None => told(&history.directives().into_diagnostic()?),
    };
    let teach = |function: &FunctionId, shard: &ShardId| table.as_ref()?.pair_effect(function, shard);
    let planner = Planner {
        observations: &observations,
        ledger: &ledger,
        settings: &settings,
        now,
        assumed_spike: factor,
        teacher: Some(&teach),
    };
    let stage = Stage::start("planning".to_owned());
    let plan = planner.plan(kind).into_diagnostic()?;
    let story = plan.story(&observations);
    stage.done(format!("{} steps", story.steps.len()));
    let left = observations.left_out();
    let facts = vec![
        Fact::new("history", dir.display().to_string()),
        Fact::new("now, its last record", now.to_string()),
        Fact::new("records", grouped(count)),
        Fact::new(
            "left out for want of room or of a decision",
            grouped(left.no_room + left.unknown_decision + left.given_up),
        ),
    ];
    Ok(Made { now, plan: serde_json::to_value(&plan).into_diagnostic()?, story, facts })
}

/// Past moves, as routers were directed; what was directed long ago may hold still.
fn told(directives: &[DirectiveRecord]) -> Ledger {
    let (mut ledger, mut held, nothing) = (Ledger::default(), None, Placements::default());
    let mut last: BTreeMap<&RouterId, &Placements> = BTreeMap::new();
    // A router that begins anew says that nothing holds until it hears what does; others go on following it.
    for directive in directives.iter().filter(|it| it.sequence > 0 || !it.placements.is_empty()) {
        // What else changed a router's view says nothing new of placements.
        if last.insert(&directive.router, &directive.placements).unwrap_or(&nothing) != &directive.placements {
            // All routers are directed alike: the first one tells it, and the others say the same.
            ledger.placed(held.unwrap_or(&nothing), &directive.placements, directive.known_at);
            held = Some(&directive.placements);
        }
    }
    ledger
}

/// Values of a file over others, field by field.
fn lay_over(usual: &mut Value, file: Value) {
    match (usual, file) {
        (Value::Object(usual), Value::Object(file)) => {
            for (name, value) in file {
                lay_over(usual.entry(name).or_insert(Value::Null), value);
            }
        }
        (usual, file) => *usual = file,
    }
}

/// What the model in use was taught of functions and shards.
fn service_table(models: &Path, name: &str) -> miette::Result<Arc<ServiceTable>> {
    let bundle = Registry::open(models, name).into_diagnostic()?.load(CHAMPION).into_diagnostic()?;
    Ok(bundle.service_table())
}

/// The usual settings; functions stay loaded for as long as shards keep them in a simulated history's world, else for as long
/// as routers believe.
fn usual_settings(history: &History) -> miette::Result<PlannerSettings> {
    let world: Option<WorldSpec> = history.world_json().map(serde_json::from_str).transpose().into_diagnostic()?;
    let warm_ttl_ms = world.map_or(Runtime::default().warm_ttl_ms, |world| world.timing.warm_ttl_ms);
    let mut settings = PlannerSettings::default();
    settings.warm.time_to_live_minutes = warm_ttl_ms / 60_000.0;
    Ok(settings)
}

fn of_router(kind: PlanKind, options: &PlanArguments, factor: Option<f64>, server: &str) -> miette::Result<Made> {
    let query = factor.map_or_else(String::new, |factor| format!("?factor={factor}"));
    let (_, mut answer) =
        ask_at(server, &options.access.files(), "--live", &format!("plans/{}{query}", kind.as_str()), None)?;
    let story: PlanStory = serde_json::from_value(answer["story"].take()).into_diagnostic()?;
    let now: Timestamp = serde_json::from_value(answer["now"].take()).into_diagnostic()?;
    let facts = vec![Fact::new("router", server.to_owned()), Fact::new("now", now.to_string())];
    Ok(Made { now, plan: answer["plan"].take(), story, facts })
}

/// A plan that was made before.
fn written(server: &str, path: &Path) -> miette::Result<Made> {
    let mut plan: Value = files::read_json(path)?;
    // As a router answers, or as `--json` prints it.
    if plan["plan"].is_object() {
        plan = plan["plan"].take();
    }
    let now = output::wall_clock();
    let picture = BeforeAfter { what: String::new(), limit: None, rows: Vec::new() };
    let sentence = format!("The steps of {}.", path.display());
    let story = PlanStory { sentence, notes: Vec::new(), steps: Vec::new(), picture };
    Ok(Made { now, plan, story, facts: vec![Fact::new("router", server.to_owned())] })
}

fn question(kind: PlanKind) -> &'static str {
    match kind {
        PlanKind::Optimize => "Which functions would do better elsewhere?",
        PlanKind::Predict => "Which shards will run out of something?",
        PlanKind::Spike => "What will a spike of volatility ask for?",
        PlanKind::Protocol => "How many shards does each protocol need?",
        PlanKind::Warm => "Which functions should stay loaded, and where?",
    }
}

fn page(kind: PlanKind, made: &Made, done: &[apply::Step]) -> PlanPage {
    let PlanStory { sentence, notes, steps, picture: BeforeAfter { what, limit, rows } } = made.story.clone();
    PlanPage {
        kind: kind.as_str().to_owned(),
        question: question(kind).to_owned(),
        sentence,
        notes,
        facts: made.facts.clone(),
        what,
        limit,
        rows,
        steps,
        done: done.iter().map(apply::Step::row).collect(),
        command: files::this_command(),
    }
}

/// What fits a screen.
fn text(story: &PlanStory) -> String {
    let mut lines = vec![story.sentence.clone()];
    lines.extend(story.notes.iter().map(|note| format!("  {note}")));
    let width =
        |column: usize| story.steps.iter().take(SHOWN).map(|step| step[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    for step in story.steps.iter().take(SHOWN) {
        let cells = step.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        lines.push(format!("{}  {}", cells.collect::<Vec<_>>().join("  "), step[4]));
    }
    if story.steps.len() > SHOWN {
        lines.push(format!("… and {} more; --json and --html have all", story.steps.len() - SHOWN));
    }
    lines.extend(picture(&story.picture));
    lines.join("\n") + "\n"
}

/// Bars of before and after.
fn picture(picture: &BeforeAfter) -> Vec<String> {
    let most =
        picture.rows.iter().flat_map(|(_, before, after)| [*before, *after]).chain(picture.limit).fold(0.0, f64::max);
    if most <= 0.0 {
        return Vec::new();
    }
    let names = picture.rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
    let bar = |value: f64| "█".repeat((value / most * BAR as f64).round().max(0.0) as usize);
    let row = |(name, before, after): &(String, f64, f64)| {
        let (was, is) = (shardwise_evaluation::plain(*before), shardwise_evaluation::plain(*after));
        format!("{name:<names$}  {:<BAR$} {was} → {is}", bar(*after))
    };
    std::iter::once(format!("{} (bars: with the plan)", picture.what)).chain(picture.rows.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardwise_types::Residence;

    fn directive(sequence: u64, minute: i64, avoided: &[&str]) -> DirectiveRecord {
        let at = Timestamp::from_nanos(minute * 60_000_000_000);
        let avoided = avoided.iter().map(|shard| Residence::new("f", *shard)).collect();
        let placements = Placements::new(avoided, [].into(), [].into());
        DirectiveRecord {
            sequence,
            event_at: at,
            known_at: at,
            router: "r".into(),
            placements,
            gone: vec![],
            resized: Default::default(),
        }
    }

    #[test]
    fn a_router_that_begins_anew_brings_nobody_back() {
        let steady = [directive(5, 1, &["a"]), directive(9, 30, &["a", "b"])];
        let [first, second] = steady.clone();
        let restarted = [first, directive(0, 10, &[]), directive(2, 11, &["a"]), second];
        assert_eq!(told(&restarted), told(&steady));
        assert_eq!(told(&steady).away().map(|(_, _, away)| away.times).collect::<Vec<_>>(), [1, 1]);
        let [first, second] = steady.clone();
        let gave_up = DirectiveRecord { router: "other".into(), gone: vec!["x".into()], ..directive(4, 12, &[]) };
        assert_eq!(told(&[first, gave_up, second]), told(&steady), "another router gave a shard up, and that is all");
        // What an operator takes back is not forgotten for that.
        let back = [directive(5, 1, &["a"]), directive(7, 2, &[])];
        assert!(told(&back).away().all(|(_, _, away)| away.since.is_none()));
    }

    #[test]
    fn a_file_of_settings_changes_what_it_names() {
        let mut usual =
            json!({ "warm": { "timeToLiveMinutes": 0.5, "pressure": 0.8 }, "balance": { "headroom": 0.1 } });
        lay_over(&mut usual, json!({ "balance": { "headroom": 0.2 }, "unknown": 1 }));
        let expected = json!({
            "warm": { "timeToLiveMinutes": 0.5, "pressure": 0.8 }, "balance": { "headroom": 0.2 }, "unknown": 1,
        });
        assert_eq!(usual, expected);
    }
}
