//! `shardwise arena`: every policy against every rival on the same simulated traffic. Finished runs are kept, so that an
//! arena that was interrupted, or is asked for more, goes on where it was.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use miette::{IntoDiagnostic, miette};
use serde_json::json;
use shardwise_evaluation::{
    ArenaPage, ArenaPlan, ArenaProgress, ArenaResult, Net, RunCell, SPECIMENS, arena_subject, league, run_arena,
    write_arena_page,
};
use shardwise_policies::NAMES;
use shardwise_simulator::{FleetKind, NO_QUEUE_BOUND, ORACLES, ReplayInputs, Scenario};
use shardwise_types::key_of;

use super::files;
use super::generator::read_traces;
use super::roster::{FleetRoster, MODEL_POLICIES, needs_model, needs_training};
use super::variants::variant_names;
use crate::arguments::ArenaArguments;
use crate::output::{self, Stage};

pub(crate) fn run(options: &ArenaArguments, json: bool) -> miette::Result<()> {
    let plan = plan(options)?;
    let runs = plan.runs();
    eprintln!("{runs} runs of about {} requests: {} policies", plan.requests, plan.policies.len());
    let roster = FleetRoster::make(options, &plan)?;
    output::stop_if_interrupted()?;
    let journal = Journal::open(&options.out, &format!("{} {}", plan_key(&plan), roster.identity()))?;
    let stage = Mutex::new(Stage::start("arena"));
    let progress = |progress: &ArenaProgress<'_>| {
        journal.add(progress.run);
        let ArenaProgress { run, done, all } = progress;
        let key = &run.key;
        let last = format!("{} {} at {} with {} routers", run.policy, key.scenario, key.load, key.routers);
        stage.lock().expect("no holder panics").at(format!("{done} of {all} runs, last {last}"));
    };
    let result = run_arena(&plan, &roster, output::clock_ns, &journal.earlier, &progress, output::interrupt_flag())
        .map_err(|error| miette!("{error}"));
    let result = match result {
        Err(_) if output::is_interrupted() => {
            return Err(miette!(
                "interrupted; finished runs are kept in {}, run the same command to go on",
                options.out.display()
            ));
        }
        other => other?,
    };
    let speed = format!("{:.0} requests a second and core", result.requests_per_s);
    stage.into_inner().expect("no holder panics").done(format!("{runs} runs, {speed}"));
    let page = options.out.join("arena.html");
    let asked = options.subject.clone().filter(|name| result.cells.iter().any(|cell| cell.policy == *name));
    let subject = asked.or_else(|| arena_subject(&result)).unwrap_or_default();
    write_arena_page(
        &page,
        &ArenaPage { plan: &plan, result: &result, subject: &subject, command: &files::this_command() },
    )
    .into_diagnostic()?;
    files::write_json(&options.out.join("arena.json"), &result)?;
    if json {
        let mut object = serde_json::to_value(&result).into_diagnostic()?;
        object["page"] = json!(page);
        object["subject"] = json!(subject);
        object["peak_memory_mib"] = json!(output::peak_memory_mib());
        output::print_json(&object)?;
    } else {
        print(&result, &page);
    }
    faulty(&result)
}

/// A policy with a bug fails the command, after all else is written.
fn faulty(result: &ArenaResult) -> miette::Result<()> {
    let named = |problem: &shardwise_evaluation::Problem| {
        format!("{} {} ({})", problem.policy, problem.bug.meaning(), problem.detail)
    };
    let named: Vec<String> = result.problems.iter().map(named).collect();
    match named.is_empty() {
        true => Ok(()),
        false => Err(miette!(
            help = "such a policy is left out of all averages; mend it, or leave it out of --policies",
            "policies with bugs: {}",
            named.join("; ")
        )),
    }
}

fn plan(options: &ArenaArguments) -> miette::Result<ArenaPlan> {
    let in_range = |option: &str, value: f64, least: f64, most: f64| match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(miette!("{option} {value} is out of range; it must lie between {least} and {most}")),
    };
    for load in &options.load.0 {
        in_range("--load", *load, 0.01, 3.0)?;
    }
    for routers in &options.routers.0 {
        in_range("--routers", *routers as f64, 1.0, 64.0)?;
    }
    for age_s in &options.report_age.0 {
        in_range("--report-age", *age_s, 0.01, 3_600.0)?;
    }
    in_range("--requests", options.requests as f64, 500.0, 1e8)?;
    in_range("--shards", options.shards as f64, 1.0, 4_096.0)?;
    in_range("--heterogeneity", options.heterogeneity.into(), 0.0, 3.0)?;
    Ok(ArenaPlan {
        kind: one_of("--fleet-kind", &options.fleet_kind, &FleetKind::ALL, FleetKind::as_str)?,
        fleets: options.fleets.0.clone(),
        seeds: options.seeds.0.clone(),
        loads: options.load.0.clone(),
        routers: options.routers.0.iter().map(|routers| *routers as usize).collect(),
        report_ages_s: options.report_age.0.clone(),
        nets: options.net.0.iter().map(|net| one_of("--net", net, &Net::ALL, Net::as_str)).collect::<Result<_, _>>()?,
        scenarios: scenarios(&options.scenario.0)?,
        policies: policies(options)?,
        requests: options.requests,
        shards: options.shards,
        heterogeneity: options.heterogeneity,
        traces: traces(options)?,
    })
}

/// Real traces, when the replay is asked for and there are any.
fn traces(options: &ArenaArguments) -> miette::Result<Option<Arc<ReplayInputs>>> {
    let is_asked = ["replay", "all"].iter().any(|name| options.scenario.0.iter().any(|asked| asked == name));
    let folder = options.traces.clone().or_else(|| std::env::var_os("SHARDWISE_TRACES").map(PathBuf::from));
    match folder.filter(|_| is_asked) {
        Some(folder) => Ok(Some(Arc::new(read_traces(&folder)?))),
        None => Ok(None),
    }
}

fn one_of<T: Copy>(option: &str, text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> miette::Result<T> {
    all.iter().copied().find(|item| name(*item) == text).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|item| name(*item)).collect();
        miette!("{option} '{text}' is not one of {}", names.join(", "))
    })
}

fn scenarios(names: &[String]) -> miette::Result<Vec<Scenario>> {
    if names == ["all"] {
        return Ok(Scenario::ALL.to_vec());
    }
    names.iter().map(|name| one_of("--scenario", name, Scenario::ALL, Scenario::as_str)).collect()
}

/// The policies asked for; `all` is all that can take part.
fn policies(options: &ArenaArguments) -> miette::Result<Vec<String>> {
    let knowing = ORACLES.iter().map(|(name, _)| *name).chain([NO_QUEUE_BOUND]);
    // The explorer writes histories; it is no rival, and can be asked for by name.
    let rivals = NAMES.iter().copied().filter(|name| *name != "sed_tab_softmax");
    let all: Vec<&str> = rivals.chain(MODEL_POLICIES).chain(knowing).collect();
    if options.policies.0 == ["all"] {
        let (taking_part, left_out): (Vec<&str>, Vec<&str>) = all.iter().partition(|name| has_model(options, name));
        if !left_out.is_empty() {
            eprintln!("note: {} need models of each fleet and are left out; add --train", left_out.join(", "));
        }
        return Ok(taking_part.into_iter().map(str::to_owned).collect());
    }
    let variants: Vec<&str> = variant_names().collect();
    for name in options.policies.0.iter().map(String::as_str) {
        if ![&all[..], NAMES, &SPECIMENS[..], &variants].concat().contains(&name) {
            let names = [&all[..], &SPECIMENS[..], &variants].concat().join(", ");
            return Err(miette!(help = format!("choose from {names}"), "there is no policy '{name}'"));
        }
        if !has_model(options, name) {
            return Err(miette!(help = "add --train", "policy '{name}' needs a model of each fleet"));
        }
    }
    Ok(options.policies.0.clone())
}

/// Whether a policy has what it needs; ours has fallbacks.
fn has_model(options: &ArenaArguments, policy: &str) -> bool {
    !needs_model(policy) || options.train || (options.models.is_some() && !needs_training(policy))
}

/// What all cells of a plan have in common, beside what names them.
fn plan_key(plan: &ArenaPlan) -> String {
    let ArenaPlan { kind, requests, shards, heterogeneity, traces, .. } = plan;
    let traces = traces.as_ref().map(|traces| traces.arrivals.len());
    let text = format!("{} {requests} {shards} {heterogeneity} {traces:?} {:?}", kind.as_str(), files::this_program());
    format!("{:016x}", key_of(&text))
}

fn print(result: &ArenaResult, page: &Path) {
    let (settings, rows) = league(&result.sound_cells());
    println!("mean / p99 in ms, averaged over fleets and seeds; best first");
    for (place, setting) in settings.iter().enumerate() {
        println!("  [{}] {}", place + 1, setting.label());
    }
    let heads: Vec<String> = (1..=settings.len()).map(|place| format!("{:>13}", format!("[{place}]"))).collect();
    println!("{:<22}{}", "", heads.join(""));
    for row in rows {
        let cells = row.by_setting.iter().map(|cell| match cell {
            Some(cell) => format!("{:>13}", format!("{:.1}/{:.0}", cell.metrics.mean_ms, cell.metrics.p99_ms)),
            None => format!("{:>13}", "–"),
        });
        println!("{:<22}{}", row.policy, cells.collect::<String>());
    }
    println!("{}", page.display());
}

/// Finished runs, a line each, under a first line that says what they were made with.
struct Journal {
    file: Mutex<File>,
    earlier: Vec<RunCell>,
}

impl Journal {
    fn open(folder: &Path, key: &str) -> miette::Result<Self> {
        std::fs::create_dir_all(folder)
            .map_err(|error| miette!("cannot make the folder {}: {error}", folder.display()))?;
        let path: PathBuf = folder.join("runs.ndjson");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let earlier: Vec<RunCell> = match lines.next() {
            // A line that a kill cut short is run again.
            Some(first) if first == key => lines.filter_map(|line| serde_json::from_str(line).ok()).collect(),
            _ => Vec::new(),
        };
        let wrong = |error: std::io::Error| miette!("cannot write {}: {error}", path.display());
        let mut file = File::create(&path).map_err(wrong)?;
        writeln!(file, "{key}").map_err(wrong)?;
        for run in &earlier {
            writeln!(file, "{}", serde_json::to_string(run).into_diagnostic()?).map_err(wrong)?;
        }
        if !earlier.is_empty() {
            eprintln!("{} runs are kept from before", earlier.len());
        }
        Ok(Self { file: Mutex::new(file), earlier })
    }

    /// What cannot be kept must be run again; that is no reason to stop.
    fn add(&self, run: &RunCell) {
        if let Ok(line) = serde_json::to_string(run)
            && let Err(error) = writeln!(self.file.lock().expect("no holder panics"), "{line}")
        {
            eprintln!("warning: a finished run cannot be kept: {error}");
        }
    }
}
