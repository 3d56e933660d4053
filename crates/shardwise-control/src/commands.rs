//! What `shardwise config split|limits|drain|undrain|history|rollback` do, without the command line: options in, results out that are
//! JSON for programs and a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shardwise_types::{FunctionId, InvalidInput, Placements, ShardId};

use crate::{
    ControlError, ControlPlane, Entry, FileError, History, Member, Outcome, Proposal, Refusal, ShardLimits, SplitStep,
    TrafficSplit, What, entries,
};

/// Who wants a change, why, and who is left out of it.
#[derive(Debug, Clone, Default)]
pub struct ChangeOptions {
    /// Who wants it.
    pub author: String,
    /// Why.
    pub why: String,
    /// Members that need not agree, `shard/NAME` or `router/NAME`: dead ones, which would have every change withdrawn.
    /// They catch up when they come back, and say until then that they are not certain.
    pub without: Vec<String>,
    /// The version that the change was made from; it is refused when another one holds by now. None is whichever holds.
    pub from_version: Option<u64>,
}

/// Options of `config split`.
#[derive(Debug, Clone, Default)]
pub struct SplitOptions {
    /// Whose requests are shared out.
    pub function: String,
    /// The steps, see [`parse_step`]; none takes the function's split away.
    pub steps: Vec<String>,
    /// Who, why, and without whom.
    pub change: ChangeOptions,
}

/// Options of `config limits`.
#[derive(Debug, Clone)]
pub struct LimitsOptions {
    /// Which shard.
    pub shard: String,
    /// What it may use at most.
    pub limits: ShardLimits,
    /// Who, why, and without whom.
    pub change: ChangeOptions,
}

/// What a plan wants of where functions live.
#[derive(Debug, Clone, Default)]
pub struct PlacementsOptions {
    /// All that is to be avoided, kept warm and drained.
    pub placements: Placements,
    /// Who, why, and without whom.
    pub change: ChangeOptions,
}

/// Options of `config rollback`.
#[derive(Debug, Clone, Default)]
pub struct RollbackOptions {
    /// The version to go back to; 0 is the empty configuration.
    pub to: u64,
    /// Who, why, and without whom.
    pub change: ChangeOptions,
}

/// What became of a change that a command has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Changed(pub Entry);

/// The changes of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// Newest first.
    pub changes: Vec<Entry>,
}

/// Shares out the requests of a function.
///
/// # Errors
/// When an option is wrong or the change cannot be proposed; a change that is withdrawn is a result, not an error.
pub async fn split(plane: &ControlPlane, fleet: &[Member], options: &SplitOptions) -> Result<Changed, ControlError> {
    let function = FunctionId::new(&options.function);
    let what = if options.steps.is_empty() {
        What::NoSplit { function }
    } else {
        let steps: Result<Vec<SplitStep>, InvalidInput> = options.steps.iter().map(|step| parse_step(step)).collect();
        What::Split { function, split: TrafficSplit::new(steps?)? }
    };
    change(plane, fleet, &options.change, what).await
}

/// Limits what a shard may use.
///
/// # Errors
/// As of [`split`].
pub async fn limits(plane: &ControlPlane, fleet: &[Member], options: &LimitsOptions) -> Result<Changed, ControlError> {
    let what = What::Limits { shard: ShardId::new(&options.shard), limits: options.limits };
    change(plane, fleet, &options.change, what).await
}

/// Says where functions are to live.
///
/// # Errors
/// As of [`split`].
pub async fn placements(
    plane: &ControlPlane,
    fleet: &[Member],
    options: &PlacementsOptions,
) -> Result<Changed, ControlError> {
    let what = What::Placements { placements: options.placements.clone() };
    // They may speak of shards that need not agree, and go on speaking of those that have gone since.
    let held = plane.status().current.placements;
    let is_of_fleet = |shard: &ShardId| fleet.iter().any(|member| member.as_shard() == Some(shard));
    what.check(|shard| is_of_fleet(shard) || held.names(shard)).map_err(Refusal::from)?;
    change(plane, fleet, &options.change, what).await
}

/// Goes back to what held at an earlier version.
///
/// # Errors
/// As of [`split`], and when that version was never committed.
pub async fn rollback(
    plane: &ControlPlane,
    fleet: &[Member],
    options: &RollbackOptions,
) -> Result<Changed, ControlError> {
    let members = left(fleet, &options.change.without)?;
    plane.rollback(options.to, &options.change, &members).await.map(Changed)
}

/// Lists the newest changes of the history in a folder; it may be in use.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn history(folder: &Path, most: usize) -> Result<Changes, FileError> {
    let mut changes = entries(&History::read(folder)?);
    changes.reverse();
    changes.truncate(most);
    Ok(Changes { changes })
}

async fn change(
    plane: &ControlPlane,
    fleet: &[Member],
    options: &ChangeOptions,
    what: What,
) -> Result<Changed, ControlError> {
    let members = left(fleet, &options.without)?;
    let ChangeOptions { author, why, from_version, .. } = options.clone();
    let proposal = Proposal { author, why, what, from_version };
    plane.change(proposal, &members).await.map(Changed)
}

fn left(fleet: &[Member], without: &[String]) -> Result<Vec<Member>, InvalidInput> {
    let without: Vec<Member> = without.iter().map(|text| Member::try_from(text.clone())).collect::<Result<_, _>>()?;
    if let Some(unknown) = without.iter().find(|member| !fleet.contains(member)) {
        return Err(InvalidInput::new("without", format!("'{unknown}' is not in this fleet")));
    }
    Ok(fleet.iter().filter(|member| !without.contains(member)).cloned().collect())
}

/// Reads one step of a split: `shard-a=0.9,shard-b=0.1`, or `10m@shard-a=0.5,shard-b=0.5` for ten minutes (`ms`, `s`,
/// `m`, `h`) after the split takes effect.
///
/// # Errors
/// Says what cannot be read; weights are checked by [`TrafficSplit::new`].
pub fn parse_step(text: &str) -> Result<SplitStep, InvalidInput> {
    let (after_ms, list) = match text.split_once('@') {
        Some((after, list)) => (parse_ms(after)?, list),
        None => (0, text),
    };
    let mut weights = BTreeMap::new();
    for part in list.split(',') {
        let (shard, weight) = part.split_once('=').unwrap_or((part, ""));
        let weight = weight.trim().parse().map_err(|_| {
            InvalidInput::new(
                "weights",
                format!("'{part}' is not SHARD=WEIGHT, such as shard-a=0.9; separate them by ','"),
            )
        })?;
        if weights.insert(ShardId::new(shard.trim()), weight).is_some() {
            return Err(InvalidInput::new("weights", format!("'{}' is there twice", shard.trim())));
        }
    }
    Ok(SplitStep { after_ms, weights })
}

fn parse_ms(text: &str) -> Result<u64, InvalidInput> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let unit_ms = match &text[digits..] {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let ms = unit_ms.zip(text[..digits].parse::<u64>().ok()).and_then(|(unit, count)| count.checked_mul(unit));
    ms.ok_or_else(|| InvalidInput::new("after", format!("'{text}' is not a time such as 90s, 10m or 2h")))
}

impl Changed {
    /// What became of it in words.
    pub fn table(&self) -> String {
        let Entry { change, outcome, members, reasons, unacknowledged, .. } = &self.0;
        let mut text = format!("version {} {}: {}\n", change.version, outcome.as_str(), change.what.summary());
        // A `String` takes all that is written.
        _ = match outcome {
            Outcome::Committed => writeln!(text, "holds from {} on, in {} members", change.effective_at, members.len()),
            Outcome::Withdrawn => writeln!(text, "holds nowhere; version {} stays", change.from_version),
            Outcome::Undecided => writeln!(
                text,
                "the decision could not be recorded, see the coordinator's log; version {} is served meanwhile",
                change.from_version
            ),
        };
        for reason in reasons {
            _ = writeln!(text, "  {reason}");
        }
        if *outcome == Outcome::Committed {
            for member in unacknowledged.iter().flatten() {
                _ = writeln!(
                    text,
                    "  {member} has not acknowledged the commit; it says that it is in doubt until it has asked"
                );
            }
        }
        text
    }
}

impl Changes {
    /// One line a change.
    pub fn table(&self) -> String {
        let mut rows = vec![["version", "from", "outcome", "effective", "author", "change", "why"].map(str::to_owned)];
        rows.extend(self.changes.iter().map(|Entry { change, outcome, .. }| {
            [
                change.version.to_string(),
                change.from_version.to_string(),
                outcome.as_str().to_owned(),
                change.effective_at.to_string(),
                change.author.clone(),
                change.what.summary(),
                change.why.clone(),
            ]
        }));
        let widths: [usize; 7] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let line = |row: [String; 7]| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        rows.into_iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_and_what_cannot_be_is_named() {
        let step = parse_step("10m@shard-a=0.5, shard-b=.5").expect("it is right");
        assert_eq!(step.after_ms, 600_000);
        assert_eq!(step.weights, [(ShardId::new("shard-a"), 0.5), (ShardId::new("shard-b"), 0.5)].into());
        assert_eq!(parse_step("a=1").expect("it is right").after_ms, 0);
        for (text, field, part) in [
            ("a", "weights", "'a' is not SHARD=WEIGHT"),
            ("a=x", "weights", "'a=x'"),
            ("", "weights", "SHARD=WEIGHT"),
            ("a=.5,a=.5", "weights", "'a' is there twice"),
            ("10@a=1", "after", "'10' is not a time"),
            ("m@a=1", "after", "'m' is not a time"),
            ("99999999999999999999h@a=1", "after", "is not a time"),
            ("9999999999999999999h@a=1", "after", "is not a time"),
        ] {
            let wrong = parse_step(text).expect_err(text);
            assert_eq!(wrong.field, field, "{text}");
            assert!(wrong.problem.contains(part), "{text}: {wrong}");
        }
    }

    #[test]
    fn only_members_can_be_left_out() {
        let fleet = [Member::shard("a"), Member::shard("b"), Member::router("r")];
        let without = |names: &[&str]| left(&fleet, &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(without(&["shard/b"]).expect("a member"), [Member::shard("a"), Member::router("r")]);
        assert!(without(&["shard/c"]).expect_err("unknown").problem.contains("shard/c"));
        assert!(without(&["b"]).expect_err("no kind").problem.contains("shard/NAME"));
    }
}
