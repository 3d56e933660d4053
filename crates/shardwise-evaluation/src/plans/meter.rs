//! What a fleet went through while a run was played: full shards, memory, latency by phase.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Serialize;
use shardwise_simulator::{Recorder, Workload};
use shardwise_types::{HistoryRecord, ReportRecord, ShardId};

/// A shard that is busier than this in the mean of a minute is full.
const FULL: f64 = 0.85;
const MINUTE_NS: i64 = 60_000_000_000;

/// A stretch of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    /// What it is called.
    pub name: String,
    /// Its beginning, in ms since the start of the workload.
    pub from_ms: f64,
    /// Its end.
    pub until_ms: f64,
}

/// Latency of the requests that came in a phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseLatency {
    /// The phase.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// Mean in ms; failures count as timeouts.
    pub mean_ms: f64,
    /// 99th percentile in ms.
    pub p99_ms: f64,
}

/// Listens to a run.
pub(super) struct Meter<'a> {
    workload: &'a Workload,
    timeout_ms: f32,
    phases: Vec<(&'a Phase, Vec<f32>)>,
    open: BTreeMap<ShardId, Minute>,
    over: u64,
    minutes: u64,
    memory: (f64, u64),
}

/// A minute of a shard that is not over yet.
#[derive(Clone, Copy, Default)]
struct Minute {
    number: i64,
    cpu: f64,
    reports: u32,
}

impl Minute {
    fn is_full(self) -> bool {
        self.cpu > FULL * f64::from(self.reports)
    }
}

impl<'a> Meter<'a> {
    pub(super) fn new(workload: &'a Workload, phases: &'a [Phase], timeout_ms: f64) -> Self {
        Self {
            workload,
            timeout_ms: timeout_ms as f32,
            phases: phases.iter().map(|phase| (phase, Vec::new())).collect(),
            open: BTreeMap::new(),
            over: 0,
            minutes: 0,
            memory: (0.0, 0),
        }
    }

    pub(super) fn over(&self) -> u64 {
        self.over
    }

    pub(super) fn minutes(&self) -> u64 {
        self.minutes
    }

    pub(super) fn memory(&self) -> f64 {
        self.memory.0 / self.memory.1.max(1) as f64
    }

    pub(super) fn phases(self) -> Vec<PhaseLatency> {
        let latency = |(phase, mut ms): (&Phase, Vec<f32>)| {
            ms.sort_by(f32::total_cmp);
            let mean = ms.iter().map(|ms| f64::from(*ms)).sum::<f64>() / ms.len().max(1) as f64;
            let p99 = ms.get((ms.len() * 99) / 100).or(ms.last()).copied().unwrap_or(0.0);
            PhaseLatency { name: phase.name.clone(), requests: ms.len() as u64, mean_ms: mean, p99_ms: p99.into() }
        };
        self.phases.into_iter().map(latency).collect()
    }

    fn report(&mut self, record: &ReportRecord) {
        self.memory = (self.memory.0 + f64::from(record.report.memory), self.memory.1 + 1);
        let number = record.report.event_at.nanos().div_euclid(MINUTE_NS);
        if !self.open.contains_key(&record.shard) {
            self.open.insert(record.shard.clone(), Minute { number, ..Minute::default() });
        }
        let Some(minute) = self.open.get_mut(&record.shard) else { return };
        if minute.number != number {
            self.over += u64::from(minute.is_full());
            self.minutes += 1;
            *minute = Minute { number, ..Minute::default() };
        }
        minute.cpu += f64::from(record.report.cpu);
        minute.reports += 1;
    }
}

impl Recorder for Meter<'_> {
    fn wants_history(&self) -> bool {
        true
    }

    fn record(&mut self, record: HistoryRecord) -> ControlFlow<()> {
        if let HistoryRecord::Report(record) = &record {
            self.report(record);
        }
        ControlFlow::Continue(())
    }

    fn settled(&mut self, arrival: usize, good_ms: Option<f32>) {
        let at_ms = self.workload.arrivals[arrival].at.millis_since(self.workload.start);
        for (phase, ms) in &mut self.phases {
            if (phase.from_ms..phase.until_ms).contains(&at_ms) {
                ms.push(good_ms.unwrap_or(self.timeout_ms));
            }
        }
    }
}
