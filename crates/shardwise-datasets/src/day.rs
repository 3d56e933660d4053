//! Builds the rows of one day: replays its records, extracts candidates as their decisions come, and labels rows that
//! are still in memory. Outcomes that come later than that are handed on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use shardwise_features::{DecisionContext, DecisionFeatures, FeatureVector, ServiceObservations};
use shardwise_types::{
    DecisionRecord, HistoryRecord, Response, ShardSnapshot, Timestamp, combine_keys, key_of, unit_of,
};

use crate::files;
use crate::part_writer::{PartWriter, Written};
use crate::quality::ClockHistograms;
use crate::replay::unknown_shard;
use crate::rows::PartBuffer;
use crate::state::{Checkpoint, DayCounts, DayState, RowAt, bucket_of, day_dir, part_file};
use crate::{Answered, BuildOptions, DatasetError, Replay};

/// Rows of a file; the last file of a day has fewer.
#[cfg(not(test))]
const ROWS_PER_PART: usize = 65_536;
/// Small in tests, so that a few hundred decisions fill several files.
#[cfg(test)]
const ROWS_PER_PART: usize = 64;
/// Rows between two reports of progress.
const ROWS_PER_REPORT: u64 = 20_000;
const NANOS_PER_S: i64 = 1_000_000_000;
const S_PER_HOUR: i64 = 3_600;

/// The blocks of time, aligned to UTC; block 0 holds the first decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockGrid {
    first_ns: i64,
    length_ns: i64,
}

impl BlockGrid {
    /// Blocks as long as asked, else an hour, else a sixth of a first day shorter than six hours.
    pub(crate) fn new(first: Timestamp, last: Timestamp, minutes: Option<u32>) -> Self {
        let span_s = (last.nanos() - first.nanos()).div_euclid(NANOS_PER_S) + 1;
        let length_s = match minutes {
            Some(minutes) => i64::from(minutes) * 60,
            None if span_s >= 6 * S_PER_HOUR => S_PER_HOUR,
            None if span_s >= S_PER_HOUR => round_up(round_up(span_s, 6) / 6, 60),
            None => round_up(span_s, 6) / 6,
        };
        Self { first_ns: first.nanos(), length_ns: length_s.max(1) * NANOS_PER_S }
    }

    /// The block of an instant; what came before the first decision belongs to block 0.
    pub(crate) fn block_of(&self, at: Timestamp) -> i64 {
        (at.nanos().div_euclid(self.length_ns) - self.first_ns.div_euclid(self.length_ns)).max(0)
    }

    pub(crate) fn end_of_first(&self) -> Timestamp {
        Timestamp::from_nanos((self.first_ns.div_euclid(self.length_ns) + 1) * self.length_ns)
    }

    pub(crate) fn length_s(&self) -> u64 {
        (self.length_ns / NANOS_PER_S).cast_unsigned()
    }

    pub(crate) fn first_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.first_ns)
    }
}

fn round_up(value: i64, unit: i64) -> i64 {
    (value + unit - 1).div_euclid(unit) * unit
}

/// One day while it is built.
pub(crate) struct DayBuilder<'a> {
    date: Arc<str>,
    dir: PathBuf,
    options: &'a BuildOptions,
    grid: BlockGrid,
    replay: Replay,
    block: i64,
    /// Rows of decisions that wait for their outcome, of this day and of earlier ones.
    waiting: FxHashMap<u64, RowAt>,
    /// The file that is being filled, and the one before it, which still takes labels.
    part: PartBuffer,
    previous: Option<PartBuffer>,
    part_number: u32,
    /// Files that were handed on to be written.
    parts: u32,
    writer: PartWriter,
    open: BTreeMap<u64, RowAt>,
    late: Vec<(u64, RowAt, Response)>,
    counts: DayCounts,
    clocks: ClockHistograms,
    reported: u64,
}

impl<'a> DayBuilder<'a> {
    pub(crate) fn new(
        date: &str,
        dataset: &Path,
        options: &'a BuildOptions,
        grid: BlockGrid,
        before: Checkpoint,
    ) -> Result<Self, DatasetError> {
        Ok(Self {
            date: Arc::from(date),
            dir: dataset.join(day_dir(date)),
            options,
            grid,
            replay: Replay::restore(before.replay)?,
            block: before.block,
            waiting: before.rows.into_iter().collect(),
            part: PartBuffer::new(),
            previous: None,
            part_number: 0,
            parts: 0,
            writer: PartWriter::default(),
            open: BTreeMap::new(),
            late: Vec::new(),
            counts: DayCounts::default(),
            clocks: ClockHistograms::default(),
            reported: 0,
        })
    }

    /// Takes in the next record of the day.
    pub(crate) fn take(
        &mut self,
        record: &HistoryRecord,
        report: &mut dyn FnMut(u64) -> Result<(), DatasetError>,
    ) -> Result<(), DatasetError> {
        self.enter_block(record.order().0);
        self.clocks.take(record, |decision_id| self.replay.shard_of(decision_id));
        if let HistoryRecord::Decision(decision) = record
            && self.options.from.is_none_or(|from| from <= decision.known_at)
        {
            self.extract(decision)?;
            if self.counts.rows >= self.reported + ROWS_PER_REPORT {
                self.reported = self.counts.rows;
                report(self.counts.rows)?;
            }
        }
        if let Some(answered) = self.replay.apply(record)? {
            self.label(&answered);
        }
        Ok(())
    }

    /// What was seen of service times so far.
    pub(crate) fn observations(&self) -> &ServiceObservations {
        self.replay.observations()
    }

    /// At the border of a block the service table is fitted on what was known before it.
    fn enter_block(&mut self, at: Timestamp) {
        let block = self.grid.block_of(at);
        if block > self.block {
            self.block = block;
            let observations = self.replay.observations();
            let table = (observations.samples() > 0.0).then(|| Arc::new(observations.fit()));
            self.replay.set_table(table);
        }
    }

    fn extract(&mut self, decision: &DecisionRecord) -> Result<(), DatasetError> {
        let context = self.replay.context(decision);
        let candidates = candidates(&context, decision, self.options.candidate_share)?;
        let features = DecisionFeatures::new(&context);
        for candidate in candidates {
            let shard = &context.fleet.shards[candidate].id;
            let vector = FeatureVector::extract(&features, candidate);
            let row = self.part.push(decision, shard, self.block, &vector);
            self.counts.rows += 1;
            if *shard == decision.shard {
                let at = RowAt { date: Arc::clone(&self.date), part: self.part_number, row };
                self.waiting.insert(decision.decision_id, at);
            }
        }
        self.counts.decisions += 1;
        self.counts.eligible += u64::from(decision.eligible);
        let first = self.counts.span.map_or(decision.known_at, |(first, _)| first);
        self.counts.span = Some((first, decision.known_at));
        if self.part.rows() >= ROWS_PER_PART {
            self.turn_over()?;
        }
        Ok(())
    }

    fn label(&mut self, answered: &Answered) {
        let Answered { decision_id, response, .. } = *answered;
        *self.counts.total_ms.entry(bucket_of(response.total_ms)).or_default() += 1;
        // A decision before the range that was asked for has no row.
        let Some(at) = self.waiting.remove(&decision_id) else { return };
        if at.date == self.date && at.part == self.part_number {
            self.part.label(at.row, response);
            self.counts.labelled += 1;
        } else if let Some(previous) = self.previous.as_mut()
            && at.date == self.date
            && at.part + 1 == self.part_number
        {
            previous.label(at.row, response);
            self.counts.labelled += 1;
        } else {
            self.late.push((decision_id, at, response));
        }
    }

    /// Starts a new file; the one before the last has waited long enough for labels.
    fn turn_over(&mut self) -> Result<(), DatasetError> {
        let full = std::mem::replace(&mut self.part, PartBuffer::new());
        self.part_number += 1;
        match self.previous.replace(full) {
            Some(previous) => self.write(previous),
            None => Ok(()),
        }
    }

    fn write(&mut self, part: PartBuffer) -> Result<(), DatasetError> {
        let number = self.parts;
        for (decision, row) in part.unlabelled() {
            self.open.insert(decision, RowAt { date: Arc::clone(&self.date), part: number, row });
        }
        files::create_dir(&self.dir)?;
        self.parts += 1;
        self.writer.write(part, self.dir.join(part_file(number)))
    }

    /// Writes what is left and says what later days need to know.
    pub(crate) fn finish(mut self, inputs: &str) -> Result<(DayState, Checkpoint), DatasetError> {
        let last = std::mem::replace(&mut self.part, PartBuffer::new());
        let parts = self.previous.take().into_iter().chain((last.rows() > 0).then_some(last));
        for part in parts.collect::<Vec<_>>() {
            self.write(part)?;
        }
        let checkpoint =
            Checkpoint { replay: self.replay.save(), block: self.block, rows: self.waiting.into_iter().collect() };
        let Written { parts, hasher } = self.writer.written()?;
        let state = DayState {
            inputs: inputs.to_owned(),
            counts: self.counts,
            parts,
            open: self.open,
            late: self.late,
            applied: String::new(),
            content_hash: hasher.finish(),
            checkpoint: String::new(),
            clocks: self.clocks,
        };
        Ok((state, checkpoint))
    }
}

/// Positions of the candidates whose rows are wanted, in the order of the fleet: the chosen shard, and for a share of
/// the decisions the others that could have been chosen.
fn candidates(
    context: &DecisionContext<'_>,
    decision: &DecisionRecord,
    share: f64,
) -> Result<Vec<usize>, DatasetError> {
    let position = |shard| context.fleet.position(shard).ok_or_else(|| unknown_shard(decision, shard));
    let mut positions = vec![position(&decision.shard)?];
    if is_sampled(decision.decision_id, share) {
        match decision.logged_shards.is_empty() {
            false => {
                for shard in &decision.logged_shards {
                    positions.push(position(shard)?);
                }
            }
            true => positions.extend(healthy(&context.fleet.shards)),
        }
    }
    positions.sort_unstable();
    positions.dedup();
    Ok(positions)
}

fn healthy(shards: &[ShardSnapshot]) -> impl Iterator<Item = usize> {
    shards.iter().enumerate().filter(|(_, shard)| shard.is_healthy()).map(|(position, _)| position)
}

/// Whether a decision belongs to a share of all, by a hash of its id: no randomness, the same in every build.
pub(crate) fn is_sampled(decision_id: u64, share: f64) -> bool {
    const SALT: u64 = key_of("shardwise dataset candidates");
    unit_of(combine_keys(decision_id, SALT)) < share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(span_s: f64) -> BlockGrid {
        let first = Timestamp::from_nanos(1_767_225_600_000_000_000).plus_millis(1_000.0);
        BlockGrid::new(first, first.plus_millis(span_s * 1e3), None)
    }

    #[test]
    fn blocks_are_an_hour_or_a_sixth_of_a_short_day() {
        assert_eq!(grid(86_000.0).length_s(), 3_600);
        assert_eq!(grid(7_000.0).length_s(), 1_200);
        assert_eq!(grid(600.0).length_s(), 101);
        assert_eq!(grid(0.0).length_s(), 1);
    }

    #[test]
    fn block_zero_ends_at_a_border_of_utc() {
        let grid = grid(86_000.0);
        assert_eq!(grid.end_of_first().nanos() % (3_600 * NANOS_PER_S), 0);
        assert_eq!(grid.block_of(grid.end_of_first()), 1);
        assert_eq!(grid.block_of(Timestamp::from_nanos(0)), 0);
    }

    #[test]
    fn the_share_of_sampled_decisions_is_the_one_asked_for() {
        let sampled = (0..100_000).filter(|id| is_sampled(*id, 0.02)).count();
        assert!((1_800..2_200).contains(&sampled), "{sampled}");
        assert!((0..1000).all(|id| is_sampled(id, 1.0) && !is_sampled(id, 0.0)));
    }
}
