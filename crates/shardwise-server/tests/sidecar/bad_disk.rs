//! A journal on a disk that is slow, full, or gives up halfway: what was acknowledged is there once, what was dropped is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use shardwise_server::{Clock, Disk, DiskFile, Journal, JournalLimits, Limits, ServeConfig};
use shardwise_types::{HistoryRecord, MarketRecord, combine_keys, unit_of};

use crate::answers::envelope;
use crate::support::{Sidecar, config, journal, journal_files, outcome, request};

/// What a disk does, and what it did.
#[derive(Default)]
struct Manner {
    /// Shortest and longest time that each answer takes, in ms.
    delay_ms: (f64, f64),
    /// Of the answers of each kind, those whose number leaves the second when it is divided by the first are failures.
    failing: BTreeMap<&'static str, (u64, u64)>,
    /// The same for writes that take only half of what they are given.
    short: Option<(u64, u64)>,
    is_full: AtomicBool,
    asked: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

impl Manner {
    fn say(&self, kind: &'static str) -> io::Result<u64> {
        let count = |counts: &Mutex<BTreeMap<_, u64>>, kind| {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(kind).or_default();
            *count += 1;
            *count - 1
        };
        let nth = count(&self.asked, kind);
        let (least, most) = self.delay_ms;
        let share = unit_of(combine_keys(kind.len() as u64, nth));
        thread::sleep(Duration::from_secs_f64((least + (most - least) * share) / 1e3));
        let fails = self.failing.get(kind).is_some_and(|(divisor, rest)| nth % divisor == *rest);
        if fails || self.is_full.load(Relaxed) {
            count(&self.failures, kind);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(nth)
    }

    fn failures(&self) -> BTreeMap<&'static str, u64> {
        self.failures.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct BadDisk(Arc<Manner>);

struct BadFile(File, Arc<Manner>);

impl Disk for BadDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.say("create")?;
        let file = OpenOptions::new().create_new(true).write(true).open(path)?;
        Ok(Box::new(BadFile(file, Arc::clone(&self.0))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.say("rename")?;
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.0.say("sync_folder").map(drop)
    }
}

impl Write for BadFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let nth = self.1.say("write")?;
        let is_short = self.1.short.is_some_and(|(divisor, rest)| nth % divisor == rest);
        self.0.write(if is_short { &bytes[..bytes.len().div_ceil(2)] } else { bytes })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for BadFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl DiskFile for BadFile {
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.1.say("set_len")?;
        self.0.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.say("sync").map(drop)
    }
}

/// Each kind of call fails again and again, the first time at once or nearly so; of two writes in a row the first is short and
/// the second fails, which tears a line.
fn moody(delay_ms: (f64, f64)) -> Manner {
    let failing = [
        ("create", (2, 0)),
        ("sync_folder", (3, 0)),
        ("write", (5, 3)),
        ("sync", (4, 1)),
        ("set_len", (3, 0)),
        ("rename", (3, 0)),
    ];
    Manner { delay_ms, failing: failing.into(), short: Some((5, 2)), ..Manner::default() }
}

/// What was answered while a disk was as it is.
#[derive(Default)]
struct Acknowledged {
    decisions: Vec<u64>,
    outcomes: Vec<u64>,
    /// Shard and time of each report.
    reports: BTreeSet<(String, String)>,
    refused_reports: u64,
    latencies_ms: Vec<f64>,
}

fn id(line: &Value) -> u64 {
    line["decision_id"].as_u64().unwrap()
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort_unstable();
    values
}

/// Asks for decisions, tells their outcomes until they are acknowledged.
fn decide(sidecar: &Sidecar, is_over: &AtomicBool) -> Acknowledged {
    let (clock, mut acknowledged) = (Clock::new(), Acknowledged::default());
    while !is_over.load(Relaxed) {
        let asked_at = clock.now();
        let answer = sidecar.place();
        acknowledged.latencies_ms.push(clock.now().millis_since(asked_at));
        let decision_id = answer["decisionId"].as_str().unwrap().parse().unwrap();
        acknowledged.decisions.push(decision_id);
        while sidecar.settle(&answer).0 != 200 {
            thread::sleep(Duration::from_millis(20));
        }
        acknowledged.outcomes.push(decision_id);
        thread::sleep(Duration::from_millis(2));
    }
    acknowledged
}

/// Sends reports of a shard, each until it is acknowledged.
fn report(sidecar: &Sidecar, envelopes: &[Value], is_over: &AtomicBool) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    for envelope in envelopes {
        if is_over.load(Relaxed) {
            break;
        }
        loop {
            let (status, told) = sidecar.post("/v1/reports", envelope);
            if status == 200 {
                break;
            }
            assert_eq!((status, &told["reason"]), (503, &json!("journal")), "{told}");
            acknowledged.refused_reports += 1;
            thread::sleep(Duration::from_millis(20));
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        acknowledged.reports.insert((text(&envelope["shard"]), text(&envelope["report"]["eventAt"])));
    }
    acknowledged
}

/// Shards that report; so many wait together for the disk, as those of a fleet do.
const SHARDS: usize = 40;

/// Two clients decide and some shards report, each report twice at the same time, for so long.
fn busy(sidecar: &Sidecar, lasts: Duration) -> Acknowledged {
    let is_over = AtomicBool::new(false);
    let of = |shard: usize| (0..1_000).map(|n| envelope(&format!("shard-{shard:02}"), n)).collect::<Vec<_>>();
    let envelopes: Vec<_> = (0..SHARDS).map(of).collect();
    let parts = thread::scope(|scope| {
        let mut clients = Vec::new();
        for (n, envelopes) in envelopes.iter().enumerate() {
            if n < 2 {
                clients.push(scope.spawn(|| decide(sidecar, &is_over)));
            }
            for _ in 0..2 {
                clients.push(scope.spawn(|| report(sidecar, envelopes, &is_over)));
            }
        }
        thread::sleep(lasts);
        is_over.store(true, Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let mut all = Acknowledged::default();
    for mut part in parts {
        all.decisions.append(&mut part.decisions);
        all.outcomes.append(&mut part.outcomes);
        all.reports.append(&mut part.reports);
        all.latencies_ms.append(&mut part.latencies_ms);
        all.refused_reports += part.refused_reports;
    }
    all.latencies_ms.sort_unstable_by(f64::total_cmp);
    all
}

/// The reports that these shards sent, late ones included.
fn kept_reports(folder: &tempfile::TempDir) -> Vec<(String, String)> {
    let lines = ["report", "late_report"].map(|table| journal(folder, table)).concat();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = lines.iter().map(|line| (text(&line["shard"]), text(&line["report"]["eventAt"])));
    // The fleet begins with others.
    let reports = |shard: &str| shard.strip_prefix("shard-").is_some_and(|name| name.parse::<usize>().is_ok());
    sorted(all.filter(|(shard, _)| reports(shard)).collect())
}

#[test]
fn a_slow_and_moody_disk_has_all_that_was_acknowledged_once() {
    for (name, manner, lasts) in [("quick", Manner::default(), 3), ("moody", moody((50.0, 500.0)), 12)] {
        let (folder, disk) = (tempfile::tempdir().unwrap(), BadDisk(Arc::new(manner)));
        let config = config(&folder);
        let config = ServeConfig { limits: Limits { drain_ms: 60_000, ..config.limits }, ..config };
        let sidecar = Sidecar::start_on(Box::new(disk.clone()), config);
        let told = busy(&sidecar, Duration::from_secs(lasts));
        let summary = sidecar.stop();
        let at = |share: f64| told.latencies_ms[((told.latencies_ms.len() - 1) as f64 * share) as usize];
        println!(
            "{name} disk: {} decisions, {} outcomes and {} reports acknowledged, {} reports refused, failures {:?}; a decision \
             took p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms",
            told.decisions.len(),
            told.outcomes.len(),
            told.reports.len(),
            told.refused_reports,
            disk.0.failures(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
        assert!(!told.decisions.is_empty() && told.reports.len() > SHARDS, "{name}");
        if name == "moody" {
            assert_eq!(disk.0.failures().len(), 6, "it fails in all ways: {:?}", disk.0.failures());
            assert!(told.refused_reports > 0);
        }
        assert_eq!((summary.dropped, summary.decisions), (0, summary.journaled), "{name}");
        let ids = |table| sorted(journal(&folder, table).iter().map(id).collect());
        assert_eq!(ids("decision"), sorted(told.decisions), "{name}");
        assert_eq!(ids("outcome"), sorted(told.outcomes), "{name}");
        assert_eq!(kept_reports(&folder), Vec::from_iter(told.reports), "{name}");
        assert_eq!(Sidecar::start(crate::support::config(&folder)).started.lost_before, 0, "{name}");
    }
}

#[test]
fn what_a_full_disk_has_no_room_for_is_refused_or_counted() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), BadDisk(Arc::new(Manner::default())));
    let sidecar = Sidecar::start_on(Box::new(disk.clone()), config(&folder));
    let first = sidecar.place();
    disk.0.is_full.store(true, Relaxed);
    let batch = json!({ "requests": vec![request(); 1_024] });
    let mut answered = 1;
    let dropped = || sidecar.json("/v1/status")["log"]["dropped"].as_u64().unwrap();
    while dropped() < 1_000 {
        assert_eq!(sidecar.post("/v1/predict-optimal-shard/batch", &batch).0, 200);
        answered += 1_024;
        assert!(answered < 500_000, "what waits has no bound");
    }
    // All is full by now: what can be told later must be.
    let (status, told) = sidecar.post("/v1/outcomes", &outcome(&first));
    assert_eq!((status, &told["reason"]), (503, &json!("log_full")), "{told}");
    let (status, told) = sidecar.post("/v1/reports", &envelope("shard-00", 0));
    assert_eq!((status, &told["reason"]), (503, &json!("journal")), "{told}");
    let metrics = sidecar.get("/metrics").1;
    let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<f64>().unwrap();
    assert_eq!(value("shardwise_journal_failing "), 1.0);
    let (waiting, longest_line) = (value("shardwise_journal_waiting_bytes "), 65_536.0);
    assert!(waiting < JournalLimits::default().waiting_bytes as f64 + longest_line, "{waiting}");
    disk.0.is_full.store(false, Relaxed);
    sidecar.wait_until("it is written again", |status| status["journal"]["problem"].is_null());
    let is_taken = || sidecar.settle(&first).0 == 200;
    while !is_taken() {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(sidecar.post("/v1/reports", &envelope("shard-00", 0)).0, 200);
    let summary = sidecar.stop();
    println!("{answered} decisions, of which {} were dropped and counted", summary.dropped);
    assert_eq!((summary.decisions, summary.journaled + summary.dropped), (answered, answered));
    let decisions: BTreeSet<u64> = journal(&folder, "decision").iter().map(id).collect();
    assert_eq!(decisions.len() as u64, summary.journaled, "each is there once");
    assert_eq!(journal(&folder, "outcome").len(), 1);
    assert_eq!(kept_reports(&folder).len(), 1);
}

#[test]
fn what_a_disk_does_not_take_in_the_end_is_counted() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), BadDisk(Arc::new(Manner::default())));
    let config = config(&folder);
    let config = ServeConfig { limits: Limits { drain_ms: 300, ..config.limits }, ..config };
    let sidecar = Sidecar::start_on(Box::new(disk.clone()), config);
    sidecar.place();
    sidecar.wait_until("the first is written", |status| status["journal"]["decisions"] == 1);
    disk.0.is_full.store(true, Relaxed);
    let answers: Vec<Value> = (0..5).map(|_| sidecar.place()).collect();
    answers.iter().take(3).for_each(|answer| assert_eq!(sidecar.settle(answer).0, 200));
    let summary = sidecar.stop();
    assert_eq!((summary.decisions, summary.journaled, summary.dropped), (6, 1, 5 + 3));
    assert_eq!(
        Sidecar::start(crate::support::config(&folder)).started.lost_before,
        5,
        "the decisions, to its successor"
    );
}

#[test]
fn a_journal_has_each_line_that_it_took_once_whatever_fails_in_between() {
    let line = |n: u64| {
        HistoryRecord::Market(MarketRecord {
            sequence: n,
            router: None,
            event_at: "2026-01-05".parse().unwrap(),
            known_at: "2026-01-05".parse().unwrap(),
            instrument: "x".repeat((n % 90) as usize + 1),
            price_usd: 65_000.0,
            volume: 1.0,
            volatility_bp: None,
            trend_bp: None,
        })
    };
    for seed in 0..50 {
        let folder = tempfile::tempdir().unwrap();
        let disk = BadDisk(Arc::new(moody((0.0, 0.0))));
        let limits = JournalLimits { file_bytes: 700, waiting_bytes: 1 << 20 };
        let (mut journal, _) = Journal::open_on(Box::new(disk.clone()), folder.path(), "boot", limits).unwrap();
        let (mut kept, mut next) = (Vec::new(), 0);
        for step in 0..200 {
            let draw = unit_of(combine_keys(seed, step));
            if draw < 0.5 {
                journal.add(&line(next));
                kept.push(next);
                next += 1;
            } else if draw < 0.6 {
                _ = journal.flush();
            } else if draw < 0.65 {
                _ = journal.close();
            } else if draw < 0.7 {
                _ = journal.sync();
            } else if journal.flush().is_ok() {
                let lines = next..next + 1 + step % 3;
                next = lines.end;
                if journal.keep(|journal| lines.clone().for_each(|n| journal.add(&line(n)))).is_ok() {
                    kept.extend(lines);
                }
            }
        }
        while !(journal.flush().is_ok() && journal.close().is_ok()) {}
        let files = journal_files(folder.path());
        assert!(files.len() > 3 && files.iter().all(|file| file.extension().unwrap() == "ndjson"), "{files:?}");
        let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let sequence = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64().unwrap();
        assert_eq!(text.lines().map(sequence).collect::<Vec<_>>(), kept, "seed {seed}");
    }
}
