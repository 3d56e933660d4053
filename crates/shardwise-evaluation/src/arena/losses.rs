//! Where a policy loses: computed from the cells, never written by hand, and never empty.

use super::pairs::{PAIRED, compare, groups, knows_the_truth, policies};
use super::{Cell, Paired, Setting};

/// Why something is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// A rival is better over the replicates of a setting.
    Setting,
    /// A rival is better in a single cell only.
    Cell,
    /// A player that knows the truth is better: what is left to gain.
    Truth,
    /// No rival is better anywhere; this one comes closest.
    Closest,
}

/// One comparison that a policy does not win.
#[derive(Debug, Clone, PartialEq)]
pub struct ArenaLoss {
    /// Why it is listed.
    pub kind: LossKind,
    /// Where.
    pub setting: Setting,
    /// The comparison; its ratio is above 1, but for [`LossKind::Closest`].
    pub paired: Paired,
}

/// Metrics that count as losing.
const COUNTED: [&str; 3] = ["mean_ms", "p99_ms", "p999_ms"];

/// Every comparison that `policy` loses, the worst first; where it loses none, the closest; and what those are better
/// by that know the truth.
pub fn arena_losses(policy: &str, cells: &[Cell]) -> Vec<ArenaLoss> {
    let mut all = Vec::new();
    for group in groups(cells.iter()) {
        let of =
            |name: &str| -> Vec<&Cell> { group.cells.iter().copied().filter(|cell| cell.policy == name).collect() };
        let ours = of(policy);
        for versus in policies(cells).into_iter().filter(|versus| *versus != policy) {
            let theirs = of(versus);
            for (metric, read) in PAIRED.iter().filter(|(metric, _)| COUNTED.contains(metric)) {
                let setting = || group.setting.clone();
                let paired = compare(policy, &ours, versus, &theirs, metric, *read);
                all.extend(paired.map(|paired| ArenaLoss { kind: kind(&paired), setting: setting(), paired }));
            }
        }
    }
    let severity = |loss: &ArenaLoss| match loss.kind {
        LossKind::Cell => loss.paired.worst,
        _ => loss.paired.ratio,
    };
    all.sort_by(|a, b| severity(b).total_cmp(&severity(a)));
    let closest = all.iter().find(|loss| loss.kind == LossKind::Closest).cloned();
    all.retain(|loss| loss.kind != LossKind::Closest && severity(loss) > 1.0);
    if !all.iter().any(|loss| matches!(loss.kind, LossKind::Setting | LossKind::Cell)) {
        all.extend(closest);
    }
    all
}

fn kind(paired: &Paired) -> LossKind {
    match () {
        () if knows_the_truth(&paired.versus) => LossKind::Truth,
        () if paired.ratio > 1.0 => LossKind::Setting,
        () if paired.worst > 1.0 => LossKind::Cell,
        () => LossKind::Closest,
    }
}
