//! Which router gets which requests when: blocks of time, so that all routers meet the same shards on the same day.

use std::str::FromStr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use shardwise_simulator::Arrival;
use shardwise_types::PlacementRequest;

use super::client::rest_of;
use super::{HttpOptions, LoadDriverError};

/// A router to compare; written as `name=http://host:port`, or with `https`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// Its name in the results.
    pub name: String,
    /// Its address, as `http://host:port` or `https://host:port`.
    pub router: String,
}

impl FromStr for Arm {
    type Err = LoadDriverError;

    fn from_str(text: &str) -> Result<Self, LoadDriverError> {
        match text.split_once('=') {
            Some((name, router)) if !name.is_empty() && rest_of(router).is_some() => {
                Ok(Self { name: name.to_owned(), router: router.trim_end_matches('/').to_owned() })
            }
            _ => Err(LoadDriverError::Plan(format!("target '{text}' is none; write it as name=http://host:port"))),
        }
    }
}

/// How routers are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveOptions {
    /// How requests are sent. Failures count as latencies of `timeout_ms` at least.
    pub http: HttpOptions,
    /// How long one router gets all requests, in ms; at least 1,000.
    pub block_ms: f64,
    /// The beginning of each block that is not measured, in ms, while queues of the block before drain.
    pub settle_ms: f64,
    /// Seed of the order of the blocks.
    pub seed: u64,
    /// The router that the others are held against; `None` is the first.
    pub baseline: Option<String>,
    /// How often addresses of shards are asked for, in ms.
    pub refresh_ms: f64,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            http: HttpOptions { concurrency: 256, ..HttpOptions::default() },
            block_ms: 15_000.0,
            settle_ms: 2_000.0,
            seed: 1,
            baseline: None,
            refresh_ms: 5_000.0,
        }
    }
}

impl LiveOptions {
    /// The place of the baseline among the arms.
    pub(super) fn baseline(&self, arms: &[Arm]) -> Result<usize, LoadDriverError> {
        let Some(name) = &self.baseline else { return Ok(0) };
        arms.iter().position(|arm| arm.name == *name).ok_or_else(|| {
            let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
            LoadDriverError::Plan(format!("no target is named '{name}'; there are {}", names.join(", ")))
        })
    }

    fn check(&self, arms: &[Arm]) -> Result<(), LoadDriverError> {
        let refuse = |problem: String| Err(LoadDriverError::Plan(problem));
        if arms.is_empty() {
            return refuse("0 targets are no load test; name at least one as name=http://host:port".to_owned());
        }
        if let Some(arm) = arms.iter().enumerate().find_map(|(i, arm)| arms[..i].iter().find(|a| a.name == arm.name)) {
            return refuse(format!("two targets are named '{}'; give each its own name", arm.name));
        }
        if !(1_000.0..=3.6e6).contains(&self.block_ms) {
            return refuse(format!("blocks of {} ms must lie between 1,000 ms and an hour", self.block_ms));
        }
        if !(0.0..self.block_ms).contains(&self.settle_ms) {
            return refuse(format!("{} ms to settle must be 0 or more and less than a block", self.settle_ms));
        }
        if !(100.0..=3.6e6).contains(&self.refresh_ms) {
            return refuse(format!("refreshing every {} ms must lie between 100 ms and an hour", self.refresh_ms));
        }
        self.baseline(arms).map(drop)
    }
}

/// A request, whose it is, and when it leaves.
pub(super) struct PlannedEvent<'a> {
    pub(super) arm: usize,
    pub(super) round: usize,
    /// Since the start.
    pub(super) after: Duration,
    /// Whether it is behind the beginning of its block.
    pub(super) measured: bool,
    pub(super) request: &'a PlacementRequest,
}

/// Cuts the arrivals into rounds as long as a block; in each round every arm gets the same arrivals once, one arm after
/// the other, in an order drawn by seed. What is left over at the end, less than half a block, is not sent.
pub(super) fn plan<'a>(
    arms: &[Arm],
    arrivals: &'a [Arrival],
    options: &LiveOptions,
) -> Result<Vec<PlannedEvent<'a>>, LoadDriverError> {
    options.check(arms)?;
    let (first, last) = arrivals.first().zip(arrivals.last()).ok_or(LoadDriverError::NoEvents)?;
    let offset_ms = |arrival: &Arrival| arrival.at.millis_since(first.at).max(0.0);
    let rounds = ((offset_ms(last) / options.block_ms).round() as usize).max(1);
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut order: Vec<usize> = (0..arms.len()).collect();
    let mut plan = Vec::with_capacity(arrivals.len() * arms.len());
    for round in 0..rounds {
        let begins_ms = round as f64 * options.block_ms;
        let of_round = |arrival: &&Arrival| (begins_ms..begins_ms + options.block_ms).contains(&offset_ms(arrival));
        order.shuffle(&mut rng);
        for (place, arm) in order.iter().enumerate() {
            let block_ms = (round * arms.len() + place) as f64 * options.block_ms;
            plan.extend(arrivals.iter().filter(of_round).map(|arrival| {
                let within_ms = offset_ms(arrival) - begins_ms;
                PlannedEvent {
                    arm: *arm,
                    round,
                    after: Duration::from_secs_f64((block_ms + within_ms) / 1e3),
                    measured: within_ms >= options.settle_ms,
                    request: &arrival.request,
                }
            }));
        }
    }
    Ok(plan)
}
