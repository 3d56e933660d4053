//! What shards say of themselves: reports, answers to probes, notices of idle cores. And the market's news.

use std::ops::ControlFlow;

use rand::RngExt;
use shardwise_types::{HistoryRecord, ReportRecord, ShardReport};

use crate::engine::{Flow, Simulation};
use crate::events::Event;
use crate::shard::{SimTime, nanos};
use crate::streams::{Purpose, stream};

/// A small message under way.
pub(crate) enum Message {
    /// A router asks a shard.
    Probe { router: u32, shard: u16 },
    /// The shard answers.
    ProbeAnswer { router: u32, shard: u16, in_flight: u32, latency_ms: Option<f64> },
    /// A shard tells a router that it has a core to spare.
    Idle { router: u32, shard: u16 },
}

impl Simulation<'_> {
    /// A shard measures itself, and the report sets out unless it is lost.
    pub(crate) fn send_report(&mut self, shard: usize) {
        let timing = &self.world.timing;
        self.events.push(self.now + nanos(timing.report_interval_ms), Event::Measure(shard as u32));
        let mut report = self.measure(shard);
        let count = self.report_counts[shard];
        let mut rng = stream(self.seed, Purpose::Reports, ((shard as u64) << 32) + 2 * count);
        let lost = rng.random_bool(timing.report_loss);
        let travel = nanos(timing.report_delay_ms + timing.report_jitter_ms * rng.random::<f64>());
        if lost || self.shards[shard].is_silent(self.now) {
            return;
        }
        let stamped = self.at(self.now).plus_millis(self.shards[shard].clock_ahead_ms(self.now));
        (report.event_at, report.known_at) = (stamped, self.at(self.now + travel));
        let record = self.report_record(shard, report);
        let slot = self.reports.put(record);
        self.events.push(self.now + travel, Event::Report(slot));
    }

    pub(crate) fn measure(&mut self, shard: usize) -> ShardReport {
        self.report_counts[shard] += 1;
        let index = ((shard as u64) << 32) + 2 * self.report_counts[shard] + 1;
        let mut rng = stream(self.seed, Purpose::Reports, index);
        let mut report = self.shards[shard].report(self.now, self.world.timing.report_noise, &mut rng);
        report.known_at = self.at(self.now);
        report
    }

    pub(crate) fn report_record(&self, shard: usize, report: ShardReport) -> ReportRecord {
        let spec = &self.world.shards[shard];
        ReportRecord { sequence: 0, router: None, shard: spec.id.clone(), shape: spec.shape.clone(), report }
    }

    pub(crate) fn tell_report(&mut self, mut record: ReportRecord) -> Flow {
        self.routers.iter_mut().for_each(|router| router.on_report(&record));
        if !self.records {
            return ControlFlow::Continue(());
        }
        record.sequence = self.next_record();
        self.record(HistoryRecord::Report(Box::new(record)))
    }

    /// Sends the probes that the policy wants beside the request that it has just placed.
    pub(crate) fn send_probes(&mut self, index: usize) {
        let arrival = &self.workload.arrivals[index];
        let (router, at) = (arrival.router, self.at(self.now));
        let mut probes = std::mem::take(&mut self.probes);
        self.routers[router as usize].probes(&arrival.request, at, &mut probes);
        for shard in probes.drain(..) {
            self.tally.counts.probes += 1;
            self.post(router, shard, Message::Probe { router, shard });
        }
        self.probes = probes;
    }

    /// A shard with a core to spare tells one router.
    pub(crate) fn tell_idle(&mut self, shard: usize) {
        if !self.shards[shard].has_spare_core() || self.shards[shard].is_silent(self.now) {
            return;
        }
        self.idle_notices += 1;
        let mut rng = stream(self.seed, Purpose::IdleNotices, self.idle_notices);
        let router = rng.random_range(0..self.routers.len()) as u32;
        let shard = shard as u16;
        self.post(router, shard, Message::Idle { router, shard });
    }

    fn post(&mut self, router: u32, shard: u16, message: Message) {
        let travel = self.tables.half_rtt(router as usize, shard);
        let slot = self.messages.put(message);
        self.events.push_after(self.now, travel, Event::Message(slot));
    }

    pub(crate) fn deliver(&mut self, slot: u32) {
        match self.messages.take(slot) {
            Message::Probe { router, shard } => {
                let asked = &self.shards[usize::from(shard)];
                if !asked.is_silent(self.now) {
                    let (in_flight, latency_ms) = (asked.occupancy(), asked.latency_estimate_ms());
                    self.post(router, shard, Message::ProbeAnswer { router, shard, in_flight, latency_ms });
                }
            }
            Message::ProbeAnswer { router, shard, in_flight, latency_ms } => {
                let known_at = self.at(self.now);
                self.routers[router as usize].on_probe(shard, in_flight, latency_ms, known_at);
            }
            Message::Idle { router, shard } => self.routers[router as usize].on_idle(shard),
        }
    }

    /// When a market record becomes known in the run; what is older than the start is known at the start.
    pub(crate) fn market_at(&self, index: usize) -> Option<SimTime> {
        self.workload.market.get(index).map(|record| self.since_start(record.known_at))
    }

    pub(crate) fn schedule_market(&mut self) {
        if let Some(at) = self.market_at(self.next_market) {
            self.events.push(at.max(self.now), Event::Market(0));
        }
    }

    pub(crate) fn tell_market(&mut self) -> Flow {
        let record = &self.workload.market[self.next_market];
        self.next_market += 1;
        self.routers.iter_mut().for_each(|router| router.on_market(record));
        if !self.records {
            return ControlFlow::Continue(());
        }
        let mut record = record.clone();
        record.sequence = self.next_record();
        self.record(HistoryRecord::Market(record))
    }
}
