//! Builds a dataset from a history, day by day: replay, extract, label when the outcome comes, and cut time for training.
//!
//! Days that were built before from the same inputs are taken over. What was known later never changes an earlier row:
//! features come from the replay alone, labels from outcomes, and service encodings from blocks of time that are over.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shardwise_features::{FEATURES, ServiceObservations, fingerprint};
use shardwise_types::{Response, Timestamp};

use crate::card::{CARD_FILE, FORMAT_VERSION, OBSERVATIONS_FILE};
use crate::day::{BlockGrid, DayBuilder};
use crate::files::{self, StagedDir};
use crate::history::{TOPOLOGY_FILE, check_range, day_start};
use crate::quality::{CLOCKS_FILE, PROFILE_FILE, write_clocks};
use crate::rows::{PartRows, RowHasher, column, relabel};
use crate::state::{Checkpoint, DayState, RowAt, STATE_DIR, bucket_end_ms, day_dir, part_file};
use crate::{Blocks, DatasetCard, DatasetError, DayCard, FileSum, History, Replay, Splits, TimeRange};

/// The shortest gap between training and test, in ms: a timeout and a report period.
const MIN_LABEL_HORIZON_MS: f64 = 4_000.0;
/// Share of outcomes that are known within the label horizon.
const HORIZON_QUANTILE: f64 = 0.999;
/// Share of the time after block 0 that is for training.
const TRAIN_SHARE: f64 = 0.8;
const DAY_MS: f64 = 86_400_000.0;

/// How a dataset is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildOptions {
    /// Only decisions known from this instant on become rows; what was known before still counts as known.
    pub from: Option<Timestamp>,
    /// Nothing that was known at this instant or later is read.
    pub to: Option<Timestamp>,
    /// Share of decisions, by a hash of their ids, whose other eligible candidates become rows too.
    pub candidate_share: f64,
    /// Length of the blocks of the service encodings; `None` takes an hour, or a sixth of a first day that spans less
    /// than six hours.
    pub block_minutes: Option<u32>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { from: None, to: None, candidate_share: 0.02, block_minutes: None }
    }
}

impl BuildOptions {
    fn check(&self) -> Result<(), DatasetError> {
        check_range(self.from, self.to)?;
        if !(0.0..=1.0).contains(&self.candidate_share) {
            let problem = format!("{} is not a share; it must lie between 0 and 1", self.candidate_share);
            return Err(DatasetError::BadOption { option: "candidate_share", problem });
        }
        if self.block_minutes == Some(0) {
            let problem = "a block must last a minute at least; leave it out to have it chosen".to_owned();
            return Err(DatasetError::BadOption { option: "block_minutes", problem });
        }
        Ok(())
    }
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The day that is worked on.
    pub date: String,
    /// Days before it.
    pub days_done: usize,
    /// All days.
    pub days: usize,
    /// Rows of this day so far.
    pub rows: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (day {} of {}): {} rows", self.date, self.days_done + 1, self.days, self.rows)
    }
}

/// Builds the dataset of a history at `out`, which must be free or hold a dataset, and returns its card.
///
/// One row per decision and chosen shard, and for a share of the decisions also one per other candidate: the logged
/// shards where the decision logged them, else every healthy shard (`datasets` knows no policy's filters). `progress`
/// hears how far it is and returns whether to go on.
///
/// # Errors
/// Anything wrong with the history, the options or the disk; the dataset that stood there before still stands then.
/// When `progress` says stop, finished days are kept beside `out` for the next build.
pub fn build(
    history: &Path,
    out: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<DatasetCard, DatasetError> {
    options.check()?;
    let history = History::open(history)?;
    check_target(out)?;
    let days = days_before(&history, options.to);
    build_days(&history, out, options, &days, progress)
}

/// Builds the dataset of some days of a history.
pub(crate) fn build_days(
    history: &History,
    out: &Path,
    options: &BuildOptions,
    days: &[String],
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<DatasetCard, DatasetError> {
    let grid = block_grid(history, options, days)?;
    let staged = StagedDir::create(out)?;
    files::create_dir(&staged.path().join(STATE_DIR))?;
    let unfinished = unfinished_dir(out);
    let sources = vec![unfinished.clone(), out.to_owned()];
    let mut build = Build {
        history,
        options,
        grid,
        staged: staged.path().to_owned(),
        earlier: sources,
        days: Vec::new(),
        reused: 0,
        training_ends: training_ends(history, options, grid, days)?,
        observed: None,
    };
    match build.run(days, progress) {
        Ok(card) => {
            staged.commit_replacing()?;
            remove_unfinished(&unfinished)?;
            Ok(card)
        }
        Err(DatasetError::Interrupted) => {
            staged.park(&unfinished)?;
            Err(DatasetError::Interrupted)
        }
        Err(error) => Err(error),
    }
}

/// Where finished days of a build that was stopped are kept.
fn unfinished_dir(out: &Path) -> PathBuf {
    let name = out.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    out.with_file_name(format!(".{name}.unfinished"))
}

fn remove_unfinished(dir: &Path) -> Result<(), DatasetError> {
    match dir.exists() {
        true => std::fs::remove_dir_all(dir).map_err(DatasetError::io("remove", dir)),
        false => Ok(()),
    }
}

/// A build replaces only what a build wrote.
fn check_target(out: &Path) -> Result<(), DatasetError> {
    if files::is_free(out)? {
        return Ok(());
    }
    let files = [CARD_FILE, STATE_DIR, OBSERVATIONS_FILE, CLOCKS_FILE, PROFILE_FILE];
    let ours = |name: &str| files.contains(&name) || name.starts_with("date=");
    let names = files::names_in(out)?;
    if !names.iter().any(|name| name == CARD_FILE) {
        return Err(DatasetError::NotEmpty { path: out.to_owned() });
    }
    match names.iter().find(|name| !ours(name)) {
        Some(stranger) => Err(DatasetError::NotADataset {
            path: out.to_owned(),
            problem: format!("it also holds '{stranger}', which a new build would remove; move that away first"),
        }),
        None => Ok(()),
    }
}

fn days_before(history: &History, to: Option<Timestamp>) -> Vec<String> {
    history.days().iter().filter(|day| to.is_none_or(|to| day_start(day) < to)).cloned().collect()
}

/// The blocks, fixed by the first day with decisions.
fn block_grid(history: &History, options: &BuildOptions, days: &[String]) -> Result<BlockGrid, DatasetError> {
    for day in days {
        if let Some((first, last)) = history.decision_span(day, options.to)? {
            return Ok(BlockGrid::new(first, last, options.block_minutes));
        }
    }
    Err(no_decisions(history, options))
}

/// When the training part of these days ends; `None` where the rows must be seen first.
fn training_ends(
    history: &History,
    options: &BuildOptions,
    grid: BlockGrid,
    days: &[String],
) -> Result<Option<Timestamp>, DatasetError> {
    if options.from.is_some() {
        return Ok(None);
    }
    for day in days.iter().rev() {
        if let Some((_, last)) = history.decision_span(day, options.to)? {
            return Ok(Some(training_part(grid, grid.first_at(), after(last)).to));
        }
    }
    Ok(None)
}

/// The training part of rows in [`from`, `to`), not counted.
fn training_part(grid: BlockGrid, from: Timestamp, to: Timestamp) -> TimeRange {
    // A history within one block has no encodings anywhere; its whole time is cut then.
    let begin = Some(grid.end_of_first().max(from)).filter(|begin| *begin < to).unwrap_or(from);
    TimeRange { from: begin, to: begin.plus_millis(to.millis_since(begin) * TRAIN_SHARE), rows: 0 }
}

fn after(last: Timestamp) -> Timestamp {
    Timestamp::from_nanos(last.nanos().saturating_add(1))
}

fn no_decisions(history: &History, options: &BuildOptions) -> DatasetError {
    let mut range = String::new();
    if let Some(from) = options.from {
        range += &format!(" from {from} on");
    }
    if let Some(to) = options.to {
        range += &format!(" before {to}");
    }
    DatasetError::EmptyHistory { path: history.dir().to_owned(), range }
}

struct Build<'a> {
    history: &'a History,
    options: &'a BuildOptions,
    grid: BlockGrid,
    staged: PathBuf,
    /// Where finished days may be taken from.
    earlier: Vec<PathBuf>,
    days: Vec<(String, DayState)>,
    reused: u32,
    /// When the training part will end, as far as that is known before the rows are.
    training_ends: Option<Timestamp>,
    /// What had been seen of service times at that instant, when its day was built and not taken over.
    observed: Option<(Timestamp, ServiceObservations)>,
}

impl Build<'_> {
    fn run(
        &mut self,
        days: &[String],
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<DatasetCard, DatasetError> {
        let mut sources = vec![FileSum::of(self.history.dir(), TOPOLOGY_FILE)?];
        let first_inputs = self.first_inputs(&sources[0]);
        let mut before = String::new();
        for (done, date) in days.iter().enumerate() {
            let day_sources: Result<Vec<FileSum>, DatasetError> =
                self.history.files_of(date).iter().map(|file| FileSum::of(self.history.dir(), file)).collect();
            let day_sources = day_sources?;
            let inputs = self.inputs_of(&first_inputs, &before, date, &day_sources);
            sources.extend(day_sources);
            let mut at = Progress { date: date.clone(), days_done: done, days: days.len(), rows: 0 };
            let mut report = |rows: u64| {
                at.rows = rows;
                if progress(at.clone()) { Ok(()) } else { Err(DatasetError::Interrupted) }
            };
            report(0)?;
            let state = match self.take_over(date, &inputs)? {
                Some(state) => {
                    self.reused += 1;
                    state
                }
                None => self.build_day(date, &inputs, &mut report)?,
            };
            before.clone_from(&state.checkpoint);
            self.days.push((date.clone(), state));
        }
        self.settle_late_labels()?;
        self.finish(sources)
    }

    /// Hash of what all days depend on.
    fn first_inputs(&self, topology: &FileSum) -> String {
        let options = (FORMAT_VERSION, fingerprint(), self.options.candidate_share.to_bits(), self.options.from);
        hash_of(&(options, self.grid, &topology.blake3))
    }

    /// Hash of what a day is made from. Of the days before it only the state matters that they leave: a day that is built
    /// again and leaves the same, because its rows were only moved between files, or told of what is over by its end, does
    /// not have the days after it built again.
    fn inputs_of(&self, first: &str, before: &str, date: &str, sources: &[FileSum]) -> String {
        let end = day_start(date).plus_millis(DAY_MS);
        let cut = self.options.to.filter(|to| *to < end);
        hash_of(&(first, before, date, cut, sources))
    }

    fn take_over(&self, date: &str, inputs: &str) -> Result<Option<DayState>, DatasetError> {
        for earlier in &self.earlier {
            if let Some(state) = DayState::take_over(earlier, &self.staged, date, inputs)? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// The replay as it stood before a day.
    fn checkpoint_before(&self, day: usize) -> Result<Checkpoint, DatasetError> {
        let Some(before) = day.checked_sub(1) else {
            let replay = Replay::new(self.history.network().clone()).save();
            return Ok(Checkpoint { replay, block: 0, rows: BTreeMap::new() });
        };
        let date = &self.days[before].0;
        Checkpoint::load(&self.staged, date).ok_or_else(|| DatasetError::Unreadable {
            path: self.staged.join(STATE_DIR),
            problem: format!("the routers' state after {date} is gone; remove the dataset and build it again"),
        })
    }

    fn build_day(
        &mut self,
        date: &str,
        inputs: &str,
        report: &mut dyn FnMut(u64) -> Result<(), DatasetError>,
    ) -> Result<DayState, DatasetError> {
        let checkpoint = self.checkpoint_before(self.days.len())?;
        let mut day = DayBuilder::new(date, &self.staged, self.options, self.grid, checkpoint)?;
        let end = day_start(date).plus_millis(DAY_MS);
        let to = self.options.to.map_or(end, |to| to.min(end));
        let mut records = self.history.records(Some(day_start(date)), Some(to))?;
        let mut training_ends = self.training_ends.filter(|at| self.holds(date, *at));
        while let Some(record) = records.next() {
            let record = record?;
            if let Some(at) = training_ends.take_if(|at| *at <= record.order().0) {
                self.observed = Some((at, day.observations().clone()));
            }
            day.take(&record, report).map_err(|error| error.at(records.place()))?;
        }
        if let Some(at) = training_ends {
            self.observed = Some((at, day.observations().clone()));
        }
        let (mut state, checkpoint) = day.finish(inputs)?;
        state.applied = hash_of(&no_late_labels());
        state.checkpoint = checkpoint.save(&self.staged, date)?;
        state.save(&self.staged, date)?;
        Ok(state)
    }

    /// Whether a day that comes next is the one that an instant is replayed on.
    fn holds(&self, date: &str, at: Timestamp) -> bool {
        let end = |date: &str| day_start(date).plus_millis(DAY_MS);
        at <= end(date) && self.days.last().is_none_or(|(before, _)| end(before) < at)
    }

    fn hash_day(&self, date: &str, state: &DayState) -> Result<RowHasher, DatasetError> {
        let mut hasher = RowHasher::default();
        for part in 0..state.parts.len() as u32 {
            hasher.add(&PartRows::read(&self.part(date, part))?);
        }
        Ok(hasher)
    }

    fn part(&self, date: &str, part: u32) -> PathBuf {
        self.staged.join(day_dir(date)).join(part_file(part))
    }

    /// Brings outcomes that came after their row was written into the files, and takes out those of an earlier build
    /// that are no longer so.
    fn settle_late_labels(&mut self) -> Result<(), DatasetError> {
        for day in 0..self.days.len() {
            let (date, state) = &self.days[day];
            let late = self.late_labels_of(day);
            let applied = hash_of(&late);
            if applied == state.applied {
                continue;
            }
            let mut state = state.clone();
            let date = date.clone();
            self.relabel_day(&date, &mut state, &late)?;
            state.applied = applied;
            state.content_hash = self.hash_day(&date, &state)?.finish();
            state.save(&self.staged, &date)?;
            self.days[day].1 = state;
        }
        Ok(())
    }

    fn late_labels_of(&self, day: usize) -> BTreeMap<u64, Response> {
        let date = &self.days[day].0;
        let from_then_on = self.days[day..].iter().flat_map(|(_, state)| &state.late);
        from_then_on.filter(|(_, at, _)| *at.date == **date).map(|(id, _, response)| (*id, *response)).collect()
    }

    fn relabel_day(
        &self,
        date: &str,
        state: &mut DayState,
        late: &BTreeMap<u64, Response>,
    ) -> Result<(), DatasetError> {
        let mut changes: BTreeMap<u32, BTreeMap<u32, Option<Response>>> = BTreeMap::new();
        for (decision, RowAt { part, row, .. }) in &state.open {
            changes.entry(*part).or_default().insert(*row, late.get(decision).copied());
        }
        for (part, rows) in changes {
            let path = self.part(date, part);
            relabel(&path, &rows)?;
            state.parts[part as usize] = files::digest(&path)?;
        }
        Ok(())
    }

    fn finish(&self, sources: Vec<FileSum>) -> Result<DatasetCard, DatasetError> {
        let spans = self.days.iter().filter_map(|(_, state)| state.counts.span);
        let Some((from, last)) = spans.reduce(|(first, _), (_, last)| (first, last)) else {
            return Err(no_decisions(self.history, self.options));
        };
        let to = after(last);
        let label_horizon_ms = self.label_horizon_ms();
        let splits = self.splits(from, to, label_horizon_ms)?;
        let observations = self.write_observations(splits.train.to)?;
        let sum = |count: fn(&DayState) -> u64| self.days.iter().map(|(_, state)| count(state)).sum::<u64>();
        let decisions = sum(|state| state.counts.decisions);
        let late: usize = (0..self.days.len()).map(|day| self.late_labels_of(day).len()).sum();
        let labelled = sum(|state| state.counts.labelled) + late as u64;
        let content_hash = self.content_hash();
        let card = DatasetCard {
            format_version: FORMAT_VERSION,
            id: format!("dataset-{}", &content_hash[..12]),
            content_hash,
            feature_fingerprint: fingerprint().to_owned(),
            feature_names: FEATURES.iter().map(|feature| feature.name.to_owned()).collect(),
            rows: sum(|state| state.counts.rows),
            labelled,
            censored: decisions - labelled,
            decisions,
            candidates_per_decision: sum(|state| state.counts.eligible) as f64 / decisions as f64,
            from,
            to,
            splits,
            label_horizon_ms,
            blocks: self.grid.card(last),
            days: self.day_cards(),
            sources,
            observations,
            options: self.options.clone(),
            remake: self.remake(),
            days_reused: self.reused,
            days_built: self.days.len() as u32 - self.reused,
        };
        let clocks: Vec<_> = self.days.iter().flat_map(|(date, state)| state.clocks.facts(date)).collect();
        write_clocks(&self.staged, &clocks)?;
        let text = serde_json::to_vec_pretty(&card).expect("a card is plain data");
        files::write(&self.staged.join(CARD_FILE), &text)?;
        Ok(card)
    }

    fn label_horizon_ms(&self) -> f64 {
        let mut buckets: BTreeMap<u16, u64> = BTreeMap::new();
        for (bucket, n) in self.days.iter().flat_map(|(_, state)| &state.counts.total_ms) {
            *buckets.entry(*bucket).or_default() += n;
        }
        let wanted = (buckets.values().sum::<u64>() as f64 * HORIZON_QUANTILE).ceil() as u64;
        let mut below = 0;
        let bucket = buckets.into_iter().find(|(_, n)| {
            below += n;
            below >= wanted
        });
        bucket.map_or(0.0, |(bucket, _)| bucket_end_ms(bucket)).max(MIN_LABEL_HORIZON_MS)
    }

    fn splits(&self, from: Timestamp, to: Timestamp, horizon_ms: f64) -> Result<Splits, DatasetError> {
        let train = training_part(self.grid, from, to);
        let test_from = train.to.plus_millis(horizon_ms).min(to);
        let uncounted = |from, to| TimeRange { from, to, rows: 0 };
        let mut ranges = [train, uncounted(train.to, test_from), uncounted(test_from, to)];
        for (date, state) in &self.days {
            self.count_rows(date, state, &mut ranges)?;
        }
        let [train, gap, test] = ranges;
        Ok(Splits { train, gap, test })
    }

    fn count_rows(&self, date: &str, state: &DayState, ranges: &mut [TimeRange; 3]) -> Result<(), DatasetError> {
        let Some((first, last)) = state.counts.span else { return Ok(()) };
        if let Some(range) = ranges.iter_mut().find(|range| range.contains(first) && range.contains(last)) {
            range.rows += state.counts.rows;
            return Ok(());
        }
        let known_at = column("known_at");
        for part in 0..state.parts.len() as u32 {
            let rows = PartRows::read_columns(&self.part(date, part), &["known_at"])?;
            for row in 0..rows.rows {
                let at = Timestamp::from_nanos(rows.i64(known_at, row));
                if let Some(range) = ranges.iter_mut().find(|range| range.contains(at)) {
                    range.rows += 1;
                }
            }
        }
        Ok(())
    }

    fn write_observations(&self, train_to: Timestamp) -> Result<FileSum, DatasetError> {
        let observations = self.observations_before(train_to)?;
        let bytes = postcard::to_stdvec(&observations).expect("observations are plain data");
        files::write(&self.staged.join(OBSERVATIONS_FILE), &bytes)?;
        FileSum::of(&self.staged, OBSERVATIONS_FILE)
    }

    /// What had been seen of service times at an instant: noted when its day was built, else the day before it as saved
    /// and the rest replayed.
    fn observations_before(&self, until: Timestamp) -> Result<ServiceObservations, DatasetError> {
        if let Some((at, observed)) = &self.observed
            && *at == until
        {
            return Ok(observed.clone());
        }
        let day = self.days.iter().position(|(date, _)| until <= day_start(date).plus_millis(DAY_MS));
        let day = day.unwrap_or(self.days.len() - 1);
        let mut replay = Replay::restore(self.checkpoint_before(day)?.replay)?;
        let from = day_start(&self.days[day].0);
        // The instant may lie between two days of a history with gaps.
        if until <= from {
            return Ok(replay.observations().clone());
        }
        let mut records = self.history.records(Some(from), Some(until))?;
        while let Some(record) = records.next() {
            replay.apply(&record?).map_err(|error| error.at(records.place()))?;
        }
        Ok(replay.observations().clone())
    }

    fn content_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (date, state) in self.days.iter().filter(|(_, state)| state.counts.rows > 0) {
            hasher.update(format!("{date} {} {}\n", state.counts.rows, state.content_hash).as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn day_cards(&self) -> Vec<DayCard> {
        let card = |(date, state): &(String, DayState)| DayCard {
            date: date.clone(),
            rows: state.counts.rows,
            parts: state.parts.len() as u32,
            content_hash: state.content_hash.clone(),
        };
        self.days.iter().map(card).collect()
    }

    fn remake(&self) -> String {
        let mut command = format!("shardwise dataset build --history {} --out DATASET", self.history.dir().display());
        if let Some(from) = self.options.from {
            command += &format!(" --from {from}");
        }
        if let Some(to) = self.options.to {
            command += &format!(" --to {to}");
        }
        command
    }
}

impl BlockGrid {
    fn card(&self, last: Timestamp) -> Blocks {
        Blocks { length_s: self.length_s(), count: self.block_of(last).cast_unsigned() + 1, first_at: self.first_at() }
    }
}

fn no_late_labels() -> BTreeMap<u64, Response> {
    BTreeMap::new()
}

fn hash_of<T: Serialize>(value: &T) -> String {
    blake3::hash(&postcard::to_stdvec(value).expect("what is hashed is plain data")).to_hex().to_string()
}

#[cfg(test)]
mod tests;
