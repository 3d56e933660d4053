//! What the specification's strategies share: what a strategy demands of a shard, how far it goes down its ladder when
//! nothing meets that, and the ranking that comes of it, with the parts of each score and what was rejected and why.

use std::fmt;

use arrayvec::ArrayVec;
use serde::Serialize;
use shardwise_types::{ShardId, ShardSnapshot, Widening};

macro_rules! rejections {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $meaning:literal;)*) => {
        /// Why a strategy would not take a shard by itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Rejection { $($(#[$doc])* $name),* }

        impl Rejection {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word for it in JSON.
            pub fn as_str(self) -> &'static str { match self { $(Self::$name => $word),* } }
        }

        impl fmt::Display for Rejection {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(match self { $(Self::$name => $meaning),* }) }
        }
    };
}

rejections! {
    /// The strategy's map does not name it for the request.
    NotInMap = "not_in_map", "the map does not name it for the request";
    /// It belongs to another risk tier.
    OtherTier = "other_tier", "it belongs to another risk tier";
    /// The amount is too large for its tier.
    AmountTooLarge = "amount_too_large", "the amount is too large for its tier";
    /// It is not capable of what is critically urgent.
    NotCapable = "not_capable", "it is not capable of what is critically urgent";
    /// Its load is at the limit.
    Full = "full", "its load is at the limit";
    /// Its load is unknown.
    UnknownLoad = "unknown_load", "its load is unknown";
    /// Another shard is much nearer to the exchange.
    TooFar = "too_far", "another shard is much nearer to the exchange";
    /// Another shard has much more success with the exchange.
    LessFamiliar = "less_familiar", "another shard has much more success with the exchange";
    /// Its free cores do not suffice.
    CpuTooSmall = "cpu_too_small", "its free cores do not suffice";
    /// Its free memory does not suffice.
    MemoryTooSmall = "memory_too_small", "its free memory does not suffice";
}

/// The parts of a score by name; they add up to it.
pub type Parts = ArrayVec<(&'static str, f64), 5>;

/// A shard that a strategy would take.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Position in the context's fleet.
    pub position: usize,
    /// More is better.
    pub score: f64,
    /// What the score is the sum of.
    pub parts: Parts,
}

/// A strategy's answer; it is reused between calls and allocates nothing once it has grown.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    /// The shards on the rung that was reached, best first; ties go by shard id.
    pub ranked: Vec<Ranked>,
    /// The shards that the strategy would not take by itself, each once, in the order of the fleet. A wider rung may rank
    /// them all the same.
    pub rejected: Vec<(usize, Rejection)>,
    /// How far it had to go down its ladder.
    pub widening: Widening,
}

impl Default for Ranking {
    fn default() -> Self {
        Self { ranked: Vec::new(), rejected: Vec::new(), widening: Widening::None }
    }
}

/// How far a ladder must be gone down for a shard: the widening, and within it the nearest first. One number, because it
/// is compared for every shard of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rung(u16);

impl Rung {
    pub(crate) const FIRST: Self = Self::new(Widening::None, 0);
    pub(crate) const LAST: Self = Self(u16::MAX);

    pub(crate) const fn new(widening: Widening, steps: u8) -> Self {
        Self((widening as u16) << 8 | steps as u16)
    }

    /// The same rung for a shard in doubt: after all that are not.
    pub(crate) fn in_doubt(self) -> Self {
        Self(self.0 | IN_DOUBT)
    }

    pub(crate) fn widening(self) -> Widening {
        let is_certain = self.0 & IN_DOUBT == 0;
        if is_certain { Widening::ALL[usize::from(self.0 >> 8)] } else { Widening::Doubtful }
    }
}

/// The highest bit, which no widening reaches.
const IN_DOUBT: u16 = 1 << 15;

/// What a strategy demands of a shard for one request.
pub(crate) trait Demand {
    /// Whether the shard meets it; if not, why, and how far down the ladder it is let in.
    fn judge(&self, shard: &ShardSnapshot) -> Result<(), (Rejection, Rung)>;

    /// The rung on which the shard is let in.
    fn rung(&self, shard: &ShardSnapshot) -> Rung {
        self.judge(shard).err().map_or(Rung::FIRST, |(_, rung)| rung)
    }
}

impl Ranking {
    /// Forgets the last answer.
    pub fn clear(&mut self) {
        self.ranked.clear();
        self.rejected.clear();
        self.widening = Widening::None;
    }

    /// The best; `None` when no shard was eligible.
    pub fn best(&self) -> Option<&Ranked> {
        self.ranked.first()
    }

    /// Goes down the ladder to the first rung that lets in any of the eligible shards, and ranks those there: by `score`
    /// where the strategy knows its way, by emptiness on the wider rungs.
    pub(crate) fn fill(
        &mut self,
        shards: &[ShardSnapshot],
        eligible: &[usize],
        demand: &impl Demand,
        score: impl Fn(&ShardSnapshot) -> Parts,
    ) {
        self.reach(shards, eligible, demand);
        let is_known = self.widening <= Widening::HigherTier;
        for ranked in &mut self.ranked {
            let shard = &shards[ranked.position];
            ranked.parts = if is_known { score(shard) } else { emptiness(shard) };
            ranked.score = ranked.parts.iter().map(|(_, part)| part).sum();
        }
        self.sort();
    }

    fn reach(&mut self, shards: &[ShardSnapshot], eligible: &[usize], demand: &impl Demand) {
        self.clear();
        let mut reached = Rung::LAST;
        for &position in eligible {
            let rung = demand.judge(&shards[position]).map_or_else(
                |(why, rung)| {
                    self.rejected.push((position, why));
                    rung
                },
                |()| Rung::FIRST,
            );
            if rung < reached {
                reached = rung;
                self.ranked.clear();
            }
            if rung == reached {
                self.ranked.push(Ranked { position, score: 0.0, parts: Parts::new() });
            }
        }
        self.widening = if self.ranked.is_empty() { Widening::None } else { reached.widening() };
        self.rejected.sort_unstable_by_key(|(position, _)| *position);
    }

    /// Keeps only what is within `margin` of the lowest value; all when no value is a number.
    pub(crate) fn keep_within(&mut self, margin: f64, why: Rejection, value: impl Fn(usize) -> f64) {
        let lowest = self.ranked.iter().map(|ranked| value(ranked.position)).fold(f64::INFINITY, f64::min);
        if !lowest.is_finite() {
            return;
        }
        let (rejected, is_first) = (&mut self.rejected, self.widening == Widening::None);
        self.ranked.retain(|ranked| {
            let is_near = value(ranked.position) <= lowest + margin;
            // On a wider rung it is rejected already, for not being on the first.
            if !is_near && is_first {
                rejected.push((ranked.position, why));
            }
            is_near
        });
        rejected.sort_unstable_by_key(|(position, _)| *position);
    }

    /// Best first; ties go by shard id, which is the order of positions. A score that is not a number is the worst.
    fn sort(&mut self) {
        let number = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
        self.ranked.sort_unstable_by(|a, b| {
            number(b.score).total_cmp(&number(a.score)).then_with(|| a.position.cmp(&b.position))
        });
    }
}

/// Names of shards by key, for look-up.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Named(Vec<u64>);

impl Named {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a ShardId>) -> Self {
        let mut keys: Vec<u64> = names.into_iter().map(ShardId::key).collect();
        keys.sort_unstable();
        Self(keys)
    }

    pub(crate) fn has(&self, shard: &ShardSnapshot) -> bool {
        self.0.binary_search(&shard.id.key()).is_ok()
    }
}

/// Whether a shard's load is known and below a limit.
pub(crate) fn has_room(shard: &ShardSnapshot, max_load: f64) -> Result<(), Rejection> {
    match load(shard) {
        None => Err(Rejection::UnknownLoad),
        Some(load) if load < max_load => Ok(()),
        Some(_) => Err(Rejection::Full),
    }
}

/// Reported load in [0, 1], when known.
pub(crate) fn load(shard: &ShardSnapshot) -> Option<f64> {
    shard.load().map(f64::from).filter(|load| !load.is_nan())
}

/// 1 − load in one part; what is unknown counts as full.
pub(crate) fn emptiness(shard: &ShardSnapshot) -> Parts {
    [("load", 1.0 - load(shard).unwrap_or(1.0))].into_iter().collect()
}

/// Reported mean latency in ms, when it is a number.
pub(crate) fn latency_ms(shard: &ShardSnapshot) -> Option<f64> {
    let latency = shard.report.as_ref().map(|report| f64::from(report.mean_latency_ms));
    latency.filter(|ms| ms.is_finite())
}

/// 1 at no latency, 0 from `scale_ms` on and when it is unknown.
pub(crate) fn latency_score(shard: &ShardSnapshot, scale_ms: f64) -> f64 {
    latency_ms(shard).map_or(0.0, |ms| 1.0 - (ms / scale_ms).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> = Rejection::ALL.iter().map(|why| why.as_str()).collect();
        assert_eq!(words.len(), Rejection::ALL.len());
        assert_eq!(Rejection::Full.to_string(), "its load is at the limit");
    }

    #[test]
    fn scores_that_are_no_numbers_come_last_and_ties_go_by_position() {
        let ranked = |(position, score)| Ranked { position, score, parts: Parts::new() };
        let scores = [(3, 1.0), (0, f64::NAN), (2, 1.0), (1, 2.0)];
        let mut ranking = Ranking { ranked: scores.map(ranked).to_vec(), ..Ranking::default() };
        ranking.sort();
        assert_eq!(ranking.ranked.iter().map(|ranked| ranked.position).collect::<Vec<_>>(), [1, 2, 3, 0]);
    }
}
