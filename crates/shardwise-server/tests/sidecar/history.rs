//! What is kept: the journal, what is remembered, and what is counted when something is lost.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};

use serde_json::Value;
use shardwise_server::{Journal, JournalLimits, ServeConfig};
use shardwise_types::HistoryRecord;

use crate::support::{Sidecar, config, journal, journal_files};

fn ids(lines: &[Value]) -> Vec<u64> {
    let mut ids: Vec<u64> = lines.iter().map(|line| line["decision_id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn everything_that_was_accepted_is_in_the_journal_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(ServeConfig { log_share: 1.0, ..config(&folder) });
    let mut answered = Vec::new();
    for _ in 0..50 {
        let answer = sidecar.place();
        answered.push(answer["decisionId"].as_str().unwrap().parse::<u64>().unwrap());
        sidecar.settle(&answer);
    }
    let summary = sidecar.stop();
    answered.sort_unstable();
    let decisions = journal(&folder, "decision");
    assert_eq!((ids(&decisions), ids(&journal(&folder, "outcome"))), (answered.clone(), answered));
    assert_eq!((summary.decisions, summary.journaled, summary.outcomes, summary.dropped), (50, 50, 50, 0));
    // What is written can be read as it was.
    for line in &decisions {
        let record: HistoryRecord = serde_json::from_value(line.clone()).unwrap();
        let HistoryRecord::Decision(decision) = record else { panic!("{line}") };
        let features = decision.logged_features.len();
        assert!(features > 0 && features.is_multiple_of(decision.logged_shards.len()), "{line}");
        assert!(decision.logged_features.iter().any(|value| value.is_nan()), "what is missing is missing");
    }
}

#[test]
fn who_looks_at_the_dashboard_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let mut stream = std::net::TcpStream::connect(&sidecar.started.listen).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("data: {")), "the state comes once a second");
    let (sender, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(sidecar.stop()));
    // Otherwise it would wait for `drain_ms`, ten seconds.
    assert!(stopped.recv_timeout(std::time::Duration::from_secs(8)).is_ok());
}

#[test]
fn a_router_that_is_started_again_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let first = sidecar.place();
    for _ in 0..30 {
        let answer = sidecar.place();
        sidecar.settle(&answer);
    }
    sidecar.stop();
    let sidecar = Sidecar::start(config(&folder));
    assert_eq!(sidecar.started.lost_before, 0);
    let fallback = sidecar.place()["decidedBy"].clone();
    assert_eq!(fallback, "online_estimates", "what functions take is remembered");
    // The outcome of a decision that the process before made goes to the history, and there alone.
    assert_eq!(sidecar.settle(&first).1["unmatched"], 1);
    sidecar.stop();
    assert!(ids(&journal(&folder, "outcome")).contains(&first["decisionId"].as_str().unwrap().parse().unwrap()));
}

#[test]
fn what_a_killed_process_lost_is_counted_and_what_it_tore_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    (0..10).for_each(|_| _ = sidecar.place());
    sidecar.wait_until("10 in the journal", |status| status["journal"]["decisions"] == 10);
    // As a kill would leave it: copied while it runs, two lines short, the third torn.
    let killed = tempfile::tempdir().unwrap();
    let data = killed.path().join("data");
    std::fs::create_dir_all(data.join("journal")).unwrap();
    std::fs::copy(folder.path().join("data/accepted"), data.join("accepted")).unwrap();
    let from = journal_files(&folder.path().join("data/journal")).pop().unwrap();
    let text = std::fs::read_to_string(&from).unwrap();
    let (decisions, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("\"decision\""));
    let torn = format!("{}\n{}\n{}", others.join("\n"), decisions[..7].join("\n"), &decisions[7][..40]);
    std::fs::write(data.join("journal").join(from.file_name().unwrap()), torn).unwrap();

    let again = Sidecar::start(config(&killed));
    assert_eq!((again.started.recovered_files, again.started.lost_before), (1, 3));
    assert!(again.get("/metrics").1.contains("shardwise_journal_lost_before 3"));
    again.place();
    again.stop();
    assert_eq!(journal(&killed, "decision").len(), 8, "seven were whole, and one is new");
    assert_eq!(Sidecar::start(config(&killed)).started.lost_before, 0, "it is counted once");
}

#[test]
fn a_second_router_is_kept_out_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let error = Sidecar::try_start(config(&folder)).err().unwrap().to_string();
    assert!(error.contains("another router") && error.contains("--data"), "{error}");
    (0..3).for_each(|_| _ = sidecar.place());
    assert_eq!(sidecar.stop().journaled, 3, "and the first goes on as if nothing had been");
}

#[test]
fn what_the_fleet_file_says_is_in_the_journal_before_the_first_decision() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(config(&folder));
    let shards = sidecar.json("/v1/fleet")["shards"].as_array().unwrap().len();
    sidecar.place();
    sidecar.stop();
    assert_eq!(journal(&folder, "report").len(), shards);
}

#[test]
fn damaged_memory_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    Sidecar::start(config(&folder)).stop();
    let memory = folder.path().join("data/memory.json");
    for damaged in ["", "{}", "{\"router\":3}", "\u{0}"] {
        std::fs::write(&memory, damaged).unwrap();
        Sidecar::start(config(&folder)).place();
    }
}

#[test]
fn a_full_disk_keeps_what_waits_until_it_takes_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let (mut journal, _) = Journal::open(&dir, "boot", JournalLimits { file_bytes: 400, waiting_bytes: 600 }).unwrap();
    let line = |n: u64| {
        HistoryRecord::Market(shardwise_types::MarketRecord {
            sequence: n,
            router: None,
            event_at: "2026-01-05".parse().unwrap(),
            known_at: "2026-01-05".parse().unwrap(),
            instrument: "BTC-PERP".to_owned(),
            price_usd: 65_000.0,
            volume: 1.0,
            volatility_bp: None,
            trend_bp: None,
        })
    };
    journal.add(&line(0));
    journal.flush().unwrap();
    // No new file can be made: the place where it would be is taken by a folder without permission to it.
    let gone = folder.path().join("elsewhere");
    std::fs::rename(&dir, &gone).unwrap();
    let mut added = 1;
    while journal.has_room() {
        journal.add(&line(added));
        added += 1;
    }
    journal.flush().unwrap();
    journal.add(&line(added));
    assert!(journal.flush().is_err() || journal.flush().is_err(), "the next file has nowhere to go");
    assert!(journal.waiting_bytes() > 0);
    std::fs::rename(&gone, &dir).unwrap();
    journal.flush().unwrap();
    journal.close().unwrap();
    let files = journal_files(&dir);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let sequences: Vec<u64> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (0..=added).collect::<Vec<_>>());
    assert!(files.len() > 1 && files.iter().all(|file| file.extension().unwrap() == "ndjson"), "{files:?}");
}

#[test]
fn a_journal_that_is_cut_anywhere_keeps_its_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let whole = b"{\"table\":\"decision\",\"a\":1}\n{\"table\":\"outcome\"}\n{\"table\":\"decision\",\"a\":2}\n";
    for end in 0..=whole.len() {
        let dir = folder.path().join(end.to_string());
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("0-000000.ndjson.open");
        OpenOptions::new().create_new(true).write(true).open(&path).unwrap().write_all(&whole[..end]).unwrap();
        let (_, recovered) = Journal::open(&dir, "1", JournalLimits::default()).unwrap();
        let kept = std::fs::read(dir.join("0-000000.ndjson")).unwrap();
        assert!(kept.is_empty() || kept.ends_with(b"\n"));
        assert_eq!(kept, whole[..kept.len()]);
        assert_eq!(kept.len() as u64 + recovered.torn_bytes, end as u64);
        let decisions = String::from_utf8(kept).unwrap().matches("decision").count() as u64;
        assert_eq!(recovered.decisions, decisions);
    }
}
