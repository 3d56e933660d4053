//! The arena: every policy meets every rival on the same sample paths, over fleets, seeds, loads, routers, ages of
//! reports, distances and scenarios.
//!
//! A *cell* is one choice of all of these; its world and traffic are made from its seeds alone, so any cell can be run
//! again by itself, bit for bit (the times that decisions take excepted). A policy that shows a bug anywhere is named and
//! left out of every average. How policies are made is the caller's business.

mod answers;
mod charts;
mod facets;
mod headline;
mod losses;
mod page;
mod pairs;
mod plan;
mod run;
mod specimens;
mod tables;

pub(crate) use answers::calibrations;
pub use answers::{Calibration, CoverageRow};
pub use headline::arena_subject;
pub use losses::{ArenaLoss, LossKind, arena_losses};
pub use page::{ArenaPage, write_arena_page};
pub use pairs::{Group, LeagueRow, Paired, Setting, league, paired};
pub use plan::{ArenaPlan, CellKey, Net};
pub use run::{ArenaProgress, Cell, Problem, Roster, RunCell, run_arena};
pub use specimens::{SPECIMENS, specimen};

use serde::{Deserialize, Serialize};

/// All that an arena found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArenaResult {
    /// One row a cell and policy, in the order of the plan.
    pub cells: Vec<Cell>,
    /// Policies against each other, paired by fleet and seed.
    pub paired: Vec<Paired>,
    /// How true the answers of those policies were that give any.
    pub calibration: Vec<Calibration>,
    /// Bugs of policies; such a policy is in no average.
    pub problems: Vec<Problem>,
    /// Simulated requests per second of one core's time, decisions included, over all runs.
    pub requests_per_s: f64,
    /// Wall-clock time in s.
    pub elapsed_s: f64,
}

impl ArenaResult {
    /// Whether a policy showed a bug.
    pub fn is_faulty(&self, policy: &str) -> bool {
        self.problems.iter().any(|problem| problem.policy == policy)
    }

    /// The cells of policies without a bug.
    pub fn sound_cells(&self) -> Vec<Cell> {
        self.cells.iter().filter(|cell| !self.is_faulty(&cell.policy)).cloned().collect()
    }
}
