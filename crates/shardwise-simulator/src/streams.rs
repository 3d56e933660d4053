//! One random stream per purpose and index, so that a draw never depends on what was drawn before it elsewhere.
//!
//! This is what makes runs comparable: request 17 draws the same noise whichever policy placed it (common random
//! numbers). Streams are not for cryptography.

use std::convert::Infallible;

use rand::{SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;

/// What a stream is for; the number is part of what a seed means, so it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Shards of a generated fleet, by shard.
    Shards = 1,
    /// Functions of a generated fleet, by function.
    Functions = 2,
    /// How well a function suits a shard, by function key (the seed is the shard's own).
    PairNoise = 3,
    /// When arrivals happen.
    Arrivals = 4,
    /// What arrives, by arrival.
    Requests = 5,
    /// The market's path.
    Market = 6,
    /// Service noise, heavy tail and failure, by arrival.
    Service = 7,
    /// A shard's antagonist, by shard.
    Antagonist = 8,
    /// Noise, delay and loss of reports, by shard and report.
    Reports = 9,
    /// A policy's own dice, by router.
    Router = 10,
    /// Choices of a replay, by function.
    Replay = 11,
    /// Speed traces of a replay, by shard.
    SpeedTraces = 12,
    /// Events of a load test, by event, and the function that each asks for.
    LoadEvents = 13,
    /// Which router hears of an idle core, by shard and notice.
    IdleNotices = 20,
    /// How a shard's speed wanders, by shard.
    SpeedNoise = 21,
    /// What a scenario changes, by what it changes.
    Scenario = 22,
    /// How often generated functions run and how bursty they are, for all of them.
    GeneratedFunctions = 31,
    /// Generated invocations, by function and day.
    GeneratedArrivals = 32,
    /// Generated run times, for all functions.
    GeneratedDurations = 33,
    /// Generated memory, for all functions.
    GeneratedMemory = 34,
    /// Generated cold starts, for all functions.
    GeneratedLoads = 35,
    /// Generated speed of machines, by machine.
    GeneratedSpeed = 36,
    /// Spikes of the market.
    MarketSpikes = 37,
    /// A sample of amounts at stake.
    TradeSizes = 38,
    /// Which functions are mixed to measure peaks, by size of the mix.
    Mixes = 39,
}

/// `SplitMix64` (Steele, Lea, Flood 2014) from a hashed key: making one costs a few nanoseconds.
#[derive(Debug, Clone)]
pub struct KeyedStream {
    state: u64,
}

/// Returns the stream of a purpose and index under a seed.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> KeyedStream {
    let key = mix(mix(seed ^ 0x6a09_e667_f3bc_c908).wrapping_add(purpose as u64)).wrapping_add(index);
    KeyedStream { state: mix(key) }
}

/// Returns the dice of one router's policy.
pub(crate) fn router_stream(seed: u64, router: u64) -> ChaCha8Rng {
    let mut seeder = stream(seed, Purpose::Router, router);
    ChaCha8Rng::seed_from_u64(seeder.next())
}

impl KeyedStream {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

impl TryRng for KeyedStream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn neighbouring_streams_are_unlike() {
        let first = |seed, purpose, index| stream(seed, purpose, index).random::<u64>();
        let base = first(1, Purpose::Service, 1);
        for other in [first(2, Purpose::Service, 1), first(1, Purpose::Reports, 1), first(1, Purpose::Service, 2)] {
            assert!((base ^ other).count_ones() > 10, "{base:x} {other:x}");
        }
        let mean = (0..10_000).map(|i| stream(7, Purpose::Service, i).random::<f64>()).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }

    #[test]
    fn a_stream_starts_over_the_same() {
        let draw = || stream(3, Purpose::Market, 9).random_range(0..1_000_000_u32);
        assert_eq!(draw(), draw());
    }
}
