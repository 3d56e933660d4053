//! Claims about swaps under traffic: each answer is that of one bundle, whole, and memory stays as it is.
//!
//! In every run 200 swaps during 400,000 decisions. `SHARDWISE_SWAPS=N` makes it N swaps during 10,000 times as many
//! decisions; before a release that is `SHARDWISE_SWAPS=10000 cargo test --release -p shardwise-inference --test swaps`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use shardwise_features::golden::{GoldenContext, contexts};
use shardwise_features::{ServiceObservations, ServiceTable};
use shardwise_inference::{Guards, Placer, PlacerConfig};
use shardwise_models::forest::{Forest, TreeNode};
use shardwise_models::{BundleDraft, ExecDraft, ExecHead, ModelBundle};
use shardwise_types::{DecidedBy, Response, ShardPrediction};

const SWAPS: u64 = 200;
const DECISIONS_PER_SWAP: u64 = 2_000;
const DECISIONS_PER_SWAP_AT_FULL_SIZE: u64 = 10_000;
const THREADS: u64 = 2;
/// Versions that take turns. Of each, service table, trees and smearing are its own: an answer that mixes two is none of them.
const VERSIONS: u64 = 16;
/// Freed bundles leave holes behind; a bundle that is kept for each swap would take many times as much.
const MOST_GROWTH_KB: u64 = 4_096;

fn draft(number: u64) -> BundleDraft {
    let example = BundleDraft::example();
    let ExecDraft { head, metrics } = example.exec.expect("the example has an execution head");
    let leaf = TreeNode::Leaf(0.01 * number as f64);
    let forest = Forest::new(head.forest().n_features(), &[vec![leaf]]).expect("a sound tree");
    let smearing = 1.0 + 0.001 * number as f64;
    let head = ExecHead::new(forest, head.offset_feature(), 2.5, smearing, 0.5).expect("sound numbers");
    let service_table = table(8.0 + 0.37 * number as f32);
    BundleDraft { seed: number, exec: Some(ExecDraft { head, metrics }), service_table, ..BundleDraft::example() }
}

fn table(exec_ms: f32) -> ServiceTable {
    let golden = contexts().remove(1);
    let mut observations = ServiceObservations::default();
    for i in 0..90_u8 {
        let exec_ms = exec_ms + f32::from(i % 3);
        let response = Response { error: None, total_ms: exec_ms, exec_ms, queue_ms: 0.0, queue_len: 0, cold: false };
        observations.observe(&golden.request, &golden.fleet.shards[usize::from(i % 3)].id, &response);
    }
    observations.fit()
}

fn bundle(draft: &BundleDraft) -> Arc<ModelBundle> {
    Arc::new(draft.bundle().expect("a sound draft"))
}

fn placer(first: Arc<ModelBundle>) -> Placer {
    Placer::with_model(first).with_config(PlacerConfig {
        guards: Guards::none(),
        exploration: None,
        ..PlacerConfig::default()
    })
}

fn place(placer: &Placer, golden: &GoldenContext) -> ShardPrediction {
    placer.predict_optimal_shard(&golden.context()).expect("a healthy shard")
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "swaps are timed")]
fn every_answer_is_that_of_one_bundle_whole() {
    let asked =
        std::env::var("SHARDWISE_SWAPS").ok().map(|text| text.parse::<u64>().expect("SHARDWISE_SWAPS is a number"));
    let swaps = asked.unwrap_or(SWAPS);
    let decisions = swaps * if asked.is_some() { DECISIONS_PER_SWAP_AT_FULL_SIZE } else { DECISIONS_PER_SWAP };

    let golden = contexts().remove(1);
    // What each bundle says when no other is near.
    let drafts: Vec<BundleDraft> = (0..VERSIONS).map(draft).collect();
    let answers: HashMap<Arc<str>, ShardPrediction> = drafts
        .iter()
        .map(|draft| place(&placer(bundle(draft)), &golden))
        .map(|answer| (answer.model_version.clone().expect("a bundle"), answer))
        .collect();
    assert_eq!(answers.len() as u64, VERSIONS);
    assert!(answers.values().all(|answer| answer.decided_by == DecidedBy::Model));

    let placer = placer(bundle(&drafts[0]));
    let done = AtomicU64::new(0);
    let mut took: Vec<Duration> = Vec::with_capacity(usize::try_from(swaps).expect("few"));
    let (mut resident_early, mut seen) = (0, [0_u64; 2]);
    let began = Instant::now();
    thread::scope(|scope| {
        let deciders = [(); THREADS as usize].map(|()| {
            scope.spawn(|| {
                let (mut changes, mut before) = (0, Arc::<str>::from(""));
                while done.fetch_add(1, Relaxed) < decisions {
                    let answer = place(&placer, &golden);
                    let version = answer.model_version.as_ref().expect("there is always a bundle");
                    assert_eq!(Some(&answer), answers.get(version), "a mixture");
                    if *version != before {
                        changes += 1;
                        before = Arc::clone(version);
                    }
                }
                changes
            })
        });
        for swap in 1..=swaps {
            // Made anew each time, as a reload does, and the one before is freed by whoever lets go of it last.
            let next = bundle(&drafts[swap as usize % drafts.len()]);
            while done.load(Relaxed) < swap * (decisions / (swaps + 1)) {
                thread::sleep(Duration::from_micros(20));
            }
            let start = Instant::now();
            let before = placer.swap_model(Some(next));
            took.push(start.elapsed());
            drop(before);
            if swap == swaps / 10 {
                resident_early = resident_kb();
            }
        }
        seen = deciders.map(|decider| decider.join().expect("no mixture"));
    });
    let resident_late = resident_kb();
    took.sort();
    if asked.is_some() {
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        writeln!(
            std::io::stderr(),
            "{swaps} swaps during {decisions} decisions in {:?}; versions seen one after the other by each thread: {seen:?}; \
             a swap took p50 {:?}, p99 {:?}, at most {:?}; resident {resident_early} KiB, then {resident_late} KiB",
            began.elapsed(),
            at(0.5),
            at(0.99),
            at(1.0),
        )
        .expect("stderr can be written");
    }
    assert!(seen.iter().sum::<u64>() > swaps / 2, "decisions went on between the swaps: {seen:?}");
    assert!(resident_late <= resident_early + MOST_GROWTH_KB, "{resident_early} KiB grew to {resident_late} KiB");
}
