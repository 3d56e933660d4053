//! A router's memory as data: to go on exactly from there, or to start again with what was learned.

use serde::{Deserialize, Serialize};
use shardwise_types::Timestamp;
use std::sync::atomic::Ordering::Relaxed;

use super::function_slot::{self as function, pair};
use super::stamp::instant;
use super::{NAME_BITS, PAIR_BITS, RouterConfig, RouterState, TOTALS, in_flight, shard_slot as shard};
use crate::atomic::set;
use crate::slots::SlotImage;

/// The layout of images, as a number that no other file begins with; the last byte counts up.
const FORMAT: u64 = 0x7368_6172_6477_6903;

/// A saved [`RouterState`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterImage {
    #[serde(default)]
    format: u64,
    #[serde(default)]
    config: RouterConfig,
    shards: Vec<SlotImage>,
    functions: Vec<SlotImage>,
    ratios: Vec<SlotImage>,
    dispatched: Vec<SlotImage>,
    totals: Vec<u64>,
}

/// An image that is no memory of this kind of router.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It was saved by another version, or is something else.
    #[error(
        "the router image has format {found:#x}, this program writes {FORMAT:#x}; start a router that has seen nothing, it learns again within minutes"
    )]
    OtherFormat {
        /// Its format; 0 when it names none.
        found: u64,
    },
    /// The format is right and the contents are not.
    #[error("the router image is damaged ({what}); restore an older copy, or start a router that has seen nothing")]
    Damaged {
        /// What does not fit.
        what: &'static str,
    },
}

impl RouterImage {
    /// Tells whether a router can be restored from it.
    ///
    /// # Errors
    /// As [`RouterState::restore`].
    pub fn check(&self) -> Result<(), ImageError> {
        if self.format != FORMAT {
            return Err(ImageError::OtherFormat { found: self.format });
        }
        let parts = [
            ("a slot of a shard", fit::<{ shard::FIELDS }>(&self.shards, NAME_BITS)),
            ("a slot of a function", fit::<{ function::FIELDS }>(&self.functions, NAME_BITS)),
            ("a slot of a protocol on a shard", fit::<1>(&self.ratios, NAME_BITS)),
            ("a slot of a function on a shard", fit::<{ pair::FIELDS }>(&self.dispatched, PAIR_BITS)),
            ("the totals", self.totals.len() == TOTALS),
        ];
        let damaged = parts.into_iter().find(|(_, fits)| !fits);
        damaged.map_or(Ok(()), |(what, _)| Err(ImageError::Damaged { what }))
    }
}

/// Whether all saved slots have a place in a table of `2^bits` slots and as many fields as are needed.
fn fit<const FIELDS: usize>(slots: &[SlotImage], bits: u32) -> bool {
    slots.iter().all(|(slot, key, fields)| *slot < 1 << bits && *key != 0 && fields.len() == FIELDS)
}

impl RouterState {
    /// Everything that is remembered, to be restored after a restart or at the start of a day's replay.
    pub fn save(&self) -> RouterImage {
        RouterImage {
            format: FORMAT,
            config: self.config,
            shards: self.shards.save(),
            functions: self.functions.save(),
            ratios: self.ratios.save(),
            dispatched: self.dispatched.save(),
            totals: self.totals().iter().map(|total| total.load(Relaxed)).collect(),
        }
    }

    /// A router that goes on exactly from where it was saved, what was in flight included: for replays, where the tickets
    /// are saved as well.
    ///
    /// # Errors
    /// When the image is damaged or was saved by another version.
    pub fn restore(image: &RouterImage) -> Result<Self, ImageError> {
        image.check()?;
        let state = Self::with_config(image.config);
        state.shards.restore(&image.shards);
        state.functions.restore(&image.functions);
        state.ratios.restore(&image.ratios);
        state.dispatched.restore(&image.dispatched);
        state.totals().iter().zip(&image.totals).for_each(|(total, value)| total.store(*value, Relaxed));
        Ok(state)
    }

    /// A router that keeps what was learned when its process ended, for a new process at `now`. Outcomes of what was in
    /// flight never come to it, so nothing is; they count as lost. What was true of the moment is [reconciled](Self::reconcile).
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn restore_after_restart(image: &RouterImage, now: Timestamp) -> Result<Self, ImageError> {
        let state = Self::restore(image)?;
        for fields in state.shards.values() {
            state.lost.fetch_add(in_flight::drop_all(fields), Relaxed);
            set(&fields[shard::SINCE_REPORT], 0.0);
            fields[shard::TRIAL].store(0, Relaxed);
        }
        state.reconcile(now);
        Ok(state)
    }

    /// Forgets what was true of the moment and is older than [`lost_after_ms`](RouterConfig::lost_after_ms): the queues and
    /// the other routers' work on shards that have not answered since, and the arrival rate. To be called after a
    /// restart, which does so itself, and when a partition ends. What was learned of shards and functions stays.
    pub fn reconcile(&self, now: Timestamp) {
        let is_old = |at: u64| !instant(at).is_some_and(|at| now.millis_since(at) <= self.config.lost_after_ms);
        for fields in self.shards.values() {
            self.drop_lost(fields, now);
            if is_old(fields[shard::PIGGYBACK_AT].load(Relaxed)) {
                set(&fields[shard::OTHERS], 0.0);
                set(&fields[shard::PIGGYBACK_QUEUE], 0.0);
                fields[shard::PIGGYBACK_AT].store(0, Relaxed);
            }
        }
        if is_old(self.last_arrival.load(Relaxed)) {
            set(&self.arrivals_per_s, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BreakerState;
    use super::super::tests::Bench;
    use super::*;
    use shardwise_types::ErrorClass;

    /// A router with something in every field: a shard in flight, one ejected, one new.
    fn busy() -> Bench {
        let bench = Bench::with(RouterState::new());
        bench.state.on_report(&bench.id(0), bench.at(0.0));
        bench.send(0, 0.0);
        (0..5).for_each(|_| bench.answer(&bench.send(1, 70_000.0), Some(ErrorClass::Timeout), 70_000.0));
        (0..5).for_each(|_| bench.answer(&bench.send(0, 70_000.0), None, 70_000.0));
        (0..5).for_each(|_| bench.answer(&bench.send(0, 70_000.0), Some(ErrorClass::Failed), 70_000.0));
        bench.state.on_report(&bench.id(2), bench.at(70_000.0));
        for shard in 0..3 {
            bench.send(shard, 71_000.0);
        }
        bench
    }

    #[test]
    fn a_restored_router_is_the_same_router() {
        let state = busy().state;
        let image = state.save();
        assert_eq!(image.totals.iter().filter(|total| **total == 0).count(), 0, "every total is told apart from none");
        assert_eq!(RouterState::restore(&image).unwrap().save(), image);
        let config = RouterConfig { lost_after_ms: 1_234.0, ..RouterConfig::default() };
        let image = RouterState::with_config(config).save();
        assert_eq!(RouterState::restore(&image).unwrap().config(), &config);
    }

    #[test]
    fn after_a_restart_nothing_is_in_flight_and_what_was_learned_is_kept() {
        let bench = busy();
        let now = bench.at(71_500.0);
        let before = bench.state.shard(&bench.id(0), now);
        let state = RouterState::restore_after_restart(&bench.state.save(), now).unwrap();
        let after = state.shard(&bench.id(0), now);
        assert_eq!((after.in_flight, after.in_flight_cores, after.pending_ms), (0.0, 0.0, 0.0));
        assert_eq!((after.since_report, after.in_flight_age_ms(now)), (0.0, None));
        assert_eq!(state.lost(), bench.state.lost() + 3);
        assert_eq!(
            (after.exec_ln_ms, after.residual, after.others),
            (before.exec_ln_ms, before.residual, before.others)
        );
        assert!(after.others > 0.0);
        assert!(state.breaker_admits(&bench.id(1), now), "the trial that was out is not waited for");
        assert_eq!(state.breaker(&bench.id(1), now), BreakerState::HalfOpen);
    }

    #[test]
    fn after_a_long_gap_queues_and_others_and_rates_are_forgotten() {
        let bench = busy();
        let now = bench.at(71_000.0 + 30_001.0);
        let state = RouterState::restore_after_restart(&bench.state.save(), now).unwrap();
        let local = state.shard(&bench.id(0), now);
        assert_eq!((local.others, local.piggyback_queue, local.piggyback_at), (0.0, 0.0, None));
        assert_eq!(state.arrivals_per_s(now), 0.0);
        assert!(local.exec_ln_ms > 0.0 && local.responses == 10.0);
    }

    #[test]
    fn images_of_other_programs_are_refused_with_what_to_do() {
        let image = busy().state.save();
        let refusal = |image: RouterImage| RouterState::restore(&image).err().expect("it is refused");
        let foreign = refusal(RouterImage { format: 0, ..image.clone() });
        assert_eq!(foreign, ImageError::OtherFormat { found: 0 });
        assert!(foreign.to_string().contains("start a router that has seen nothing"), "{foreign}");
        let mut short = image.clone();
        short.shards[0].2.pop();
        assert_eq!(refusal(short), ImageError::Damaged { what: "a slot of a shard" });
        assert_eq!(refusal(RouterImage { totals: vec![0; 6], ..image }), ImageError::Damaged { what: "the totals" });
    }
}
