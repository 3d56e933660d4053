//! `shardwise gate nights`: weeks in fast motion. Every day the live model places some minutes of traffic, which become history;
//! every night a model is trained on all of it, judged, and perhaps made live. In between the world drifts, a shard joins, the market
//! crashes, and a day's data is lost.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use miette::{IntoDiagnostic, miette};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_datasets::{HistoryWriter, traces};
use shardwise_evaluation::{CANDIDATE, Contender, STANDARD, SamplePaths, run as run_closed_loop};
use shardwise_models::{CHAMPION, ModelBundle, Registry};
use shardwise_policies::by_name;
use shardwise_simulator::{
    FleetOptions, Numbered, Surge, Workload, WorkloadOptions, WorldSpec, duration_of_requests, simulate,
};
use shardwise_types::{MarketBar, Timestamp, key_of};

use super::contenders::contenders;
use super::history::Recording;
use super::placers::placer;
use super::{files, nightly};
use crate::arguments::{Arguments, Command, GateNightsArguments, NightlyArguments};
use crate::output::{self, Stage};

/// The first day, at noon: a Monday.
const FIRST_DAY: &str = "2026-01-05T12:00:00Z";
const DAY_MS: f64 = 86_400_000.0;
/// Load of every day but for what happens.
const LOAD: f64 = 0.7;
/// Minutes of a market before the first of the traffic.
const MINUTES_BEFORE: usize = 61;
/// Seeds of what a day's policies are compared on, as they are in a night.
const COMPARED_SEEDS: u64 = 4;
/// Seeds below are for tuning.
const FIRST_SEED: u64 = 11;

/// What happens on a day, from the next morning on or for that day alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Nothing,
    /// Functions cost otherwise and shards are other machines, from this day on.
    Drift,
    /// A shard joins that history does not know, and stays.
    NewShard,
    /// The market crashes: twice the traffic for a while, in a market that is as wild as a real one was.
    Crash,
    /// Nothing of the day is logged.
    NoData,
}

impl Happening {
    /// The story of a fortnight, and again of the next.
    fn on(day: u64) -> Self {
        match day % 14 {
            4 => Self::Drift,
            7 => Self::NewShard,
            9 => Self::Crash,
            11 => Self::NoData,
            _ => Self::Nothing,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Drift => "drift",
            Self::NewShard => "a new shard",
            Self::Crash => "a crash",
            Self::NoData => "no data",
        }
    }
}

/// A day and the night after it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Day {
    date: String,
    happening: String,
    requests: usize,
    /// The version that placed; none before the first was promoted.
    live: Option<String>,
    live_mean_ms: f64,
    /// SED-off+λ with the live version's table, or online estimates alone where nothing is live.
    standard_mean_ms: f64,
    mean_ratio: f64,
    p99_ratio: f64,
    /// Exit code of the night.
    exit_code: u8,
    /// What became of the night's version; nothing when the night failed.
    outcome: Option<String>,
    /// What the night said against its version, or what it failed of.
    said: Vec<String>,
}

/// What is kept to go on.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: u64,
    days: Vec<Day>,
}

pub(crate) fn nights(options: &GateNightsArguments, json: bool) -> miette::Result<()> {
    let nights = Nights::new(options)?;
    let mut kept = nights.kept()?;
    fs::create_dir_all(&options.out).into_diagnostic()?;
    for number in kept.days.len() as u64..options.days {
        let day = nights.day(number)?;
        eprintln!("{}", row(&day));
        kept.days.push(day);
        files::write_json(&nights.file(), &kept)?;
        output::stop_if_interrupted()?;
    }
    let days = &kept.days[..(options.days as usize).min(kept.days.len())];
    let ratios: Vec<f64> = days.iter().filter(|day| day.live.is_some()).map(|day| day.mean_ratio).collect();
    let above = ratios.iter().filter(|ratio| **ratio > 1.0).count();
    let worst = ratios.iter().copied().fold(f64::NAN, f64::max);
    if json {
        return output::print_json(
            &json!({ "days": days, "live_days": ratios.len(), "above": above, "worst_mean_ratio": worst }),
        );
    }
    println!("date         what            live              mean ms   {STANDARD:<15}  ratio   p99    night");
    days.iter().for_each(|day| println!("{}", row(day)));
    match ratios.len() {
        0 => println!("no model was live on any day"),
        live => println!(
            "above {STANDARD} in the mean on {above} of {live} days with a live model, at most {worst:.3} times it"
        ),
    }
    Ok(())
}

fn row(day: &Day) -> String {
    let live = day.live.as_deref().unwrap_or("none");
    let outcome = day.outcome.as_deref().unwrap_or("failed");
    format!(
        "{}   {:<14}  {live:<16}  {:>7.1}   {:>15.1}  {:.3}   {:.3}  {outcome} ({})",
        day.date, day.happening, day.live_mean_ms, day.standard_mean_ms, day.mean_ratio, day.p99_ratio, day.exit_code
    )
}

struct Nights<'a> {
    options: &'a GateNightsArguments,
    fleet: FleetOptions,
    /// Of a real market, when there is one.
    crash: Option<Vec<MarketBar>>,
    start: Timestamp,
}

impl<'a> Nights<'a> {
    fn new(options: &'a GateNightsArguments) -> miette::Result<Self> {
        if !(1..=365).contains(&options.days) {
            return Err(miette!("--days {} is out of range; it must lie between 1 and 365", options.days));
        }
        if options.requests < 2_000 {
            return Err(miette!("--requests {} are too few to train on; give 2000 a day or more", options.requests));
        }
        let crash = options.market.as_deref().map(wildest).transpose()?;
        let start = FIRST_DAY.parse().into_diagnostic()?;
        Ok(Self { options, fleet: FleetOptions { routers: 4, ..FleetOptions::default() }, crash, start })
    }

    fn file(&self) -> PathBuf {
        self.options.out.join("nights.json")
    }

    fn history(&self) -> PathBuf {
        self.options.out.join("history")
    }

    /// The days of an earlier run of the same program with the same options.
    fn kept(&self) -> miette::Result<Kept> {
        let GateNightsArguments { fleet_seed, seed, requests, market, out, .. } = self.options;
        let key = key_of(&format!("{fleet_seed} {seed} {requests} {market:?} {:?}", files::this_program()));
        let Ok(bytes) = fs::read(self.file()) else {
            let is_free = fs::read_dir(out).map_or(true, |mut entries| entries.next().is_none());
            let help = "choose a folder that is empty or not there yet";
            return if is_free {
                Ok(Kept { key, days: Vec::new() })
            } else {
                Err(miette!(help = help, "{} is not empty", out.display()))
            };
        };
        let kept: Kept = serde_json::from_slice(&bytes).into_diagnostic()?;
        if kept.key != key {
            let help = "choose another folder, or remove this one to begin anew";
            return Err(miette!(help = help, "{} holds nights of other options or of another program", out.display()));
        }
        Ok(kept)
    }

    /// The world on a day: what happened before lasts.
    fn world(&self, number: u64) -> WorldSpec {
        let fleet_seed = self.options.fleet_seed;
        let mut world = WorldSpec::generate(fleet_seed, &self.fleet);
        for day in 0..=number {
            match Happening::on(day) {
                Happening::Drift => world.drift(fleet_seed, &self.fleet, day),
                Happening::NewShard => {
                    let mut shard = world.another_shard(fleet_seed, &self.fleet);
                    shard.id = format!("{}-{day}", shard.id).into();
                    world.shards.push(shard);
                }
                Happening::Nothing | Happening::Crash | Happening::NoData => {}
            }
        }
        world
    }

    fn workload(&self, number: u64, world: &WorldSpec) -> miette::Result<Workload> {
        let seed = self.options.seed + number;
        let start = self.start.plus_millis(DAY_MS * number as f64);
        let is_crash = Happening::on(number) == Happening::Crash;
        let surge = is_crash.then_some(Surge { from: 0.4, until: 0.6, factor: 2.0 });
        let mut traffic = WorkloadOptions { surge, ..WorkloadOptions::new(start, 0.0, LOAD) };
        traffic.duration_ms = duration_of_requests(world, seed, &traffic, self.options.requests).into_diagnostic()?;
        match self.crash.as_ref().filter(|_| is_crash) {
            Some(bars) => Workload::generate_on(world, seed, &traffic, bars),
            None => Workload::generate(world, seed, &traffic),
        }
        .into_diagnostic()
    }

    fn day(&self, number: u64) -> miette::Result<Day> {
        let date = self.start.plus_millis(DAY_MS * number as f64).date_utc();
        let world = self.world(number);
        let workload = self.workload(number, &world)?;
        let (live, version) = self.live()?;
        let [mean, p99, live_mean_ms, standard_mean_ms] = compare(&world, &workload, live.as_ref())?;
        let is_logged = Happening::on(number) != Happening::NoData;
        if is_logged {
            self.log(number, &date, &world, &workload, live.as_ref())?;
        }
        let night = nightly::night(&self.night(&date)?);
        output::stop_if_interrupted()?;
        let (exit_code, outcome, said) = match night {
            Ok(done) => {
                (done.exit_code, done.result["run"]["outcome"].as_str().map(str::to_owned), refusals(&done.result))
            }
            Err(failure) => (failure.kind.exit_code(), None, vec![failure.message()]),
        };
        Ok(Day {
            date,
            happening: Happening::on(number).in_words().to_owned(),
            requests: workload.arrivals.len(),
            live: version,
            live_mean_ms,
            standard_mean_ms,
            mean_ratio: mean,
            p99_ratio: p99,
            exit_code,
            outcome,
            said,
        })
    }

    /// The champion of the night before.
    fn live(&self) -> miette::Result<(Option<Arc<ModelBundle>>, Option<String>)> {
        let registry = Registry::open_or_create(&self.options.out.join("work/models"), "default").into_diagnostic()?;
        let Some(version) = registry.alias(CHAMPION).into_diagnostic()? else { return Ok((None, None)) };
        Ok((Some(Arc::new(registry.load(&version).into_diagnostic()?)), Some(version)))
    }

    /// As an operator would ask for it.
    fn night(&self, date: &str) -> miette::Result<NightlyArguments> {
        let GateNightsArguments { seed, replicates, out, .. } = self.options;
        let [seed, replicates] = [seed, replicates].map(ToString::to_string);
        let (history, work) = (self.history(), out.join("work"));
        let words: [&OsStr; 12] = [
            "shardwise".as_ref(),
            "nightly".as_ref(),
            "--history".as_ref(),
            history.as_ref(),
            "--work".as_ref(),
            work.as_ref(),
            "--date".as_ref(),
            date.as_ref(),
            "--seed".as_ref(),
            seed.as_ref(),
            "--replicates".as_ref(),
            replicates.as_ref(),
        ];
        match Arguments::try_parse_from(words).into_diagnostic()?.command {
            Command::Nightly(options) => Ok(options),
            _ => unreachable!("the words ask for a night"),
        }
    }

    /// Lets the live model place the day, and adds what routers logged of it to the history, with the world as it is now.
    fn log(
        &self,
        number: u64,
        date: &str,
        world: &WorldSpec,
        workload: &Workload,
        live: Option<&Arc<ModelBundle>>,
    ) -> miette::Result<()> {
        let scratch = tempfile::tempdir_in(&self.options.out).into_diagnostic()?;
        let day = scratch.path().join("day");
        let world_json = serde_json::to_string(world).into_diagnostic()?;
        let writer = HistoryWriter::create(&day, &world.network, Some(&world_json)).into_diagnostic()?;
        let mut recording =
            Recording::new(writer, Stage::start(format!("{date}: {} requests", workload.arrivals.len())));
        let policies = world.routers.iter().map(|_| Box::new(placer(live, world.timing.runtime())) as _).collect();
        let seed = self.options.seed + number;
        simulate(world, workload, seed, policies, &mut Numbered::new(&mut recording, number)).into_diagnostic()?;
        let (written, stage) = recording.finish()?;
        stage.done(format!("{} decisions", written.rows["decisions"]));
        add_day(&day, &self.history())
    }
}

/// Why a night's version was refused.
fn refusals(result: &Value) -> Vec<String> {
    let reasons = result["verdict"]["reasons"].as_array().into_iter().flatten();
    let failed = reasons.filter(|reason| reason["holds"] == false);
    failed.filter_map(|reason| reason["sentence"].as_str().map(str::to_owned)).collect()
}

/// Ratios of mean and p99 of what is live to its service table alone on a day's traffic, and both means in ms.
fn compare(world: &WorldSpec, workload: &Workload, live: Option<&Arc<ModelBundle>>) -> miette::Result<[f64; 4]> {
    let runtime = world.timing.runtime();
    let seeds: Vec<u64> = (FIRST_SEED..FIRST_SEED + COMPARED_SEEDS).collect();
    let paths = SamplePaths { world, workload, warm_up: 0.2, seeds: &seeds };
    let contenders = match live {
        Some(live) => contenders(live, None, &[], runtime),
        None => vec![
            Contender::new(CANDIDATE, move || Box::new(placer(None, runtime))),
            Contender::new(STANDARD, move || by_name("sed_tab_lambda", runtime).expect("a known policy")),
        ],
    };
    let stage = Stage::start("the day, played by the live model and by its service table alone");
    let result = run_closed_loop(&paths, &contenders, &|_, _, _| (), output::interrupt_flag()).into_diagnostic()?;
    stage.done(format!("{COMPARED_SEEDS} seeds"));
    let ratio = |metric| result.comparison(STANDARD, metric).map_or(f64::NAN, |comparison| comparison.ratio);
    let mean = |name| result.policy(name).map_or(f64::NAN, |policy| policy.pooled.mean_ms);
    Ok([ratio("mean_ms"), ratio("p99_ms"), mean(CANDIDATE), mean(STANDARD)])
}

/// Moves the days of one history into another, whose own of the same dates are gone then; the world is the new one's.
fn add_day(day: &Path, history: &Path) -> miette::Result<()> {
    if !history.exists() {
        return fs::rename(day, history).into_diagnostic();
    }
    for table in folders(day)? {
        let into = history.join(table.file_name().expect("a folder in a folder has a name"));
        fs::create_dir_all(&into).into_diagnostic()?;
        for part in folders(&table)? {
            let to = into.join(part.file_name().expect("a folder in a folder has a name"));
            if to.exists() {
                fs::remove_dir_all(&to).into_diagnostic()?;
            }
            fs::rename(part, to).into_diagnostic()?;
        }
    }
    fs::rename(day.join("world.json"), history.join("world.json")).into_diagnostic()
}

fn folders(of: &Path) -> miette::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(of).into_diagnostic()?;
    let paths = entries.map(|entry| Ok(entry.into_diagnostic()?.path())).collect::<miette::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

/// The hour of a real market that moved most, from an hour before.
pub(crate) fn wildest(market: &Path) -> miette::Result<Vec<MarketBar>> {
    let bars = traces::read_market(market).into_diagnostic()?;
    let length = 2 * MINUTES_BEFORE;
    let range = |start: usize| {
        let hour = &bars[start + MINUTES_BEFORE..start + length];
        let (low, high) =
            hour.iter().fold((f64::MAX, f64::MIN), |(low, high), bar| (low.min(bar.low_usd), high.max(bar.high_usd)));
        high / low
    };
    let start = (0..bars.len().saturating_sub(length)).max_by(|a, b| range(*a).total_cmp(&range(*b)));
    let start = start.ok_or_else(|| miette!("{} has fewer than {length} minutes", market.display()))?;
    Ok(bars[start..start + length].to_vec())
}
