//! What the new model's confidence stands for: it plays days before those that judge it, with seeds that nobody is judged on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use miette::IntoDiagnostic;
use shardwise_datasets::DatasetCard;
use shardwise_evaluation::{CANDIDATE, Contender, SamplePaths, calibrate};
use shardwise_models::BundleDraft;
use shardwise_simulator::{Workload, WorldSpec};
use shardwise_types::{HistoryRecord, Timestamp};

use super::Night;
use super::evaluate::Period;
use super::failure::{NightResult, history_is_broken};
use super::window::{Played, Window};
use crate::commands::placers::placer;
use crate::output::{Stage, note};

/// Seeds of the runs; the last is measured on. Those from 11 on judge models.
const SEEDS: [u64; 4] = [1, 2, 3, 4];
/// As long as the held-out days; a warm-up of the same length comes before.
const PERIODS: i64 = 2;

impl Night<'_> {
    /// Gives the draft its calibration, when the history has a world to play in and there are enough choices to tell.
    pub(super) fn calibrate(&self, draft: &mut BundleDraft, card: &DatasetCard) -> NightResult<()> {
        let Some((world, workload, warm_up)) = self.before_the_test(card)? else { return Ok(()) };
        let stage = Stage::start(format!(
            "calibrating confidence: {} seeds × {} requests",
            SEEDS.len(),
            workload.arrivals.len()
        ));
        let (bundle, runtime) = (Arc::new(draft.bundle().into_diagnostic()?), world.timing.runtime());
        let contender = Contender::new(CANDIDATE, move || Box::new(placer(Some(&bundle), runtime)));
        let paths = SamplePaths { world: &world, workload: &workload, warm_up, seeds: &SEEDS };
        // It is part of a stage, and a stage that is at work is finished; a second signal does not wait for it.
        draft.calibration = calibrate(&paths, &contender, &AtomicBool::new(false))?;
        let Some(calibration) = &draft.calibration else {
            stage.done("too few choices to tell; the built-in calibration stays".to_owned());
            return Ok(());
        };
        let metrics = &calibration.metrics;
        stage.done(format!("off by {:.3}, the built-in by {:.3}", metrics.error, metrics.built_in_error));
        // A dataset alone does not make these bytes again.
        let (name, seed) = (&self.options.name, self.options.seed);
        draft.how_to_make_again =
            format!("shardwise nightly --history HISTORY --work WORK --name {name} --seed {seed} --date {}", self.date);
        Ok(())
    }

    /// The world, the arrivals of the days before the held-out ones, or the last of many, and the share of them that is warm-up.
    fn before_the_test(&self, card: &DatasetCard) -> NightResult<Option<(WorldSpec, Workload, f64)>> {
        let Some(world) = self.history.world_json() else { return Ok(None) };
        let world: WorldSpec = serde_json::from_str(world).map_err(history_is_broken)?;
        world.check().map_err(history_is_broken)?;
        let test_from = card.splits.test.from;
        let held_out_ns = card.to.nanos() - test_from.nanos();
        let from = Timestamp::from_nanos(test_from.nanos() - PERIODS * held_out_ns).max(card.from);
        let measured_from = Timestamp::from_nanos(test_from.nanos() - held_out_ns);
        let mut window = Window::new(measured_from);
        for record in self.history.records(Some(from), Some(test_from))? {
            match record? {
                HistoryRecord::Decision(decision) => window.decided(*decision),
                HistoryRecord::Market(minute) => window.heard(minute),
                HistoryRecord::Report(_)
                | HistoryRecord::Outcome(_)
                | HistoryRecord::Shadow(_)
                | HistoryRecord::Directive(_) => {}
            }
        }
        let Played { decisions, market, measured } =
            window.close(Period { from, test_from: measured_from, to: test_from });
        if decisions.is_empty() {
            note("nothing was decided before the held-out days, so confidence is not calibrated on this history");
            return Ok(None);
        }
        let workload = Workload::from_decisions(&world, decisions, market, card.from).map_err(history_is_broken)?;
        let warm_up = if measured.is_whole { 1.0 / PERIODS as f64 } else { measured.warm_up(&workload) };
        Ok(Some((world, workload, warm_up)))
    }
}
