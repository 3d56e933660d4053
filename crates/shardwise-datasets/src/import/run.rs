//! One import from end to end.

use std::collections::BTreeMap;
use std::path::Path;

use shardwise_types::Timestamp;

use super::admission::{Admission, Admitted};
use super::fields::Target;
use super::mapping::{Mapping, TableWords};
use super::plan::Plan;
use super::quarantine::{Ended, Quarantine, end};
use super::source::{Next, open};
use super::value::{Refusal, Stored};
use super::{Format, ImportOptions, ImportProgress, ImportReport, RefusedRow};
use crate::DatasetError;
use crate::history::HistoryWriter;

/// Rows between two looks at whether to go on.
pub(super) const ROWS_PER_LOOK: u64 = 5_000;
/// Rows that a dry run shows.
const SHOWN: usize = 5;

/// A table's source: its plan and what is read by it.
struct Job {
    plan: Plan,
    format: Format,
    inputs: Vec<String>,
}

/// Imports what the mapping and the options say. `progress` is told how far it is and says whether to go on.
///
/// # Errors
/// A mapping or an input that cannot be used as a whole, a server or a disk that fails, or the wish to stop; nothing is
/// left behind then. Rows that cannot be used are no errors: the report counts them.
pub fn import(
    options: &ImportOptions,
    progress: &mut dyn FnMut(&ImportProgress) -> bool,
) -> Result<ImportReport, DatasetError> {
    if !(0.0..=1.0).contains(&options.max_refused) {
        let problem = format!("{} is out of range; give a share between 0 and 1", options.max_refused);
        return Err(DatasetError::BadOption { option: "max-refused", problem });
    }
    let mapping = Mapping::read(&options.map)?;
    let jobs = jobs(&mapping, options)?;
    let network = mapping.network()?;
    // All inputs are looked at before the first is read.
    for job in &jobs {
        job.inputs.iter().try_for_each(|input| open(job.format, input, &job.plan, &mapping).map(drop))?;
    }
    let writer = match options.dry_run {
        true => None,
        false => Some(HistoryWriter::create(&options.out, &network, None)?),
    };
    let scratch = writer.as_ref().map(|writer| writer.scratch().join("refused.ndjson"));
    let has = |target: fn(Target) -> bool| jobs.iter().any(|job| target(job.plan.target));
    let has_reports = has(|target| target == Target::ShardReports);
    let has_decisions = has(Target::decides);
    let mut run = Run {
        admission: Admission::new(&mapping.fleet, has_reports, has_decisions),
        writer,
        quarantine: Quarantine::new(scratch),
        rows: 0,
        stored: BTreeMap::new(),
        known: None,
        first: Vec::new(),
    };
    for job in &jobs {
        for input in &job.inputs {
            run.read(job, input, &mapping, progress)?;
        }
    }
    if has_decisions && !has_reports {
        run.stand_ins()?;
    }
    let table: Vec<&str> = jobs.iter().map(|job| job.plan.target.name()).collect();
    run.finish(options, table.join("+"))
}

fn jobs(mapping: &Mapping, options: &ImportOptions) -> Result<Vec<Job>, DatasetError> {
    let mut jobs = Vec::with_capacity(mapping.tables.len());
    for table in &mapping.tables {
        let format = table.from.unwrap_or(options.format);
        let mut plan = Plan::of(mapping, table, format)?;
        if let Some(words) = &mut plan.prometheus {
            words.from = options.since.or(words.from);
            words.to = options.until.or(words.to);
        }
        jobs.push(Job { plan, format, inputs: inputs(mapping, table, options)? });
    }
    jobs.sort_by_key(|job| job.plan.target);
    let fills = |target: fn(Target) -> bool| jobs.iter().any(|job| target(job.plan.target));
    if fills(Target::decides) && !fills(|target| target == Target::ShardReports) && mapping.fleet.is_empty() {
        return Err(mapping.wrong(
            "fills decisions, but nothing says what the shards are; describe them in [[fleet]], or add a table that fills shard_reports",
        ));
    }
    Ok(jobs)
}

fn inputs(mapping: &Mapping, table: &TableWords, options: &ImportOptions) -> Result<Vec<String>, DatasetError> {
    let Some(own) = &table.input else {
        if mapping.tables.len() > 1 {
            let name = table.fills.name();
            return Err(mapping.wrong(format!(
                "has several [[tables]], so the one that fills {name} needs an input = \"file\" in the folder that --input names"
            )));
        }
        return Ok(options.inputs.clone());
    };
    if own.names().is_empty() {
        return Err(mapping.wrong(format!("says input = [] for {}; name a file", table.fills.name())));
    }
    let [folder] = options.inputs.as_slice() else {
        return Err(mapping.wrong("names its inputs, so --input must be the one folder where they lie"));
    };
    let inside = |name: &String| -> Result<String, DatasetError> {
        if name.contains("://") {
            return Ok(name.clone());
        }
        if !Path::new(folder).is_dir() {
            return Err(super::source::bad(folder, format!("is no folder, and the mapping names '{name}' in it")));
        }
        Ok(Path::new(folder).join(name).to_string_lossy().into_owned())
    };
    own.names().iter().map(inside).collect()
}

struct Run<'a> {
    admission: Admission<'a>,
    /// None in a dry run.
    writer: Option<HistoryWriter>,
    quarantine: Quarantine,
    rows: u64,
    stored: BTreeMap<&'static str, u64>,
    known: Option<(i64, i64)>,
    first: Vec<(&'static str, serde_json::Map<String, serde_json::Value>)>,
}

impl Run<'_> {
    fn read(
        &mut self,
        job: &Job,
        input: &str,
        mapping: &Mapping,
        progress: &mut dyn FnMut(&ImportProgress) -> bool,
    ) -> Result<(), DatasetError> {
        let mut source = open(job.format, input, &job.plan, mapping)?;
        let mut since_look = 0;
        loop {
            let (refusal, is_pause) = match source.next()? {
                Next::End => break,
                Next::Pause => (None, true),
                Next::Broken(refusal) => (Some(refusal), false),
                Next::Row(values) => (self.take(&job.plan, &values)?, false),
            };
            if let Some(Refusal { reason, detail }) = refusal {
                let (row, text) = (source.row(), source.text());
                self.quarantine.add(RefusedRow { source: input.to_owned(), row, reason, detail, text })?;
            }
            since_look += 1;
            if is_pause || since_look >= ROWS_PER_LOOK {
                since_look = 0;
                let at = ImportProgress { input: input.to_owned(), rows: self.rows, refused: self.quarantine.refused };
                if !progress(&at) {
                    return Err(DatasetError::ImportStopped);
                }
            }
        }
        source.finish()?;
        if source.row() == 0 {
            return Err(super::source::bad(input, "holds no rows; bring it again, or leave it out"));
        }
        Ok(())
    }

    fn take(&mut self, plan: &Plan, values: &[super::value::Raw]) -> Result<Option<Refusal>, DatasetError> {
        let admitted = match self.admission.admit(plan, values) {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Some(refusal)),
        };
        self.rows += 1;
        for row in &admitted {
            let (first, last) = self.known.unwrap_or((row.known_at, row.known_at));
            self.known = Some((first.min(row.known_at), last.max(row.known_at)));
            self.store(row)?;
        }
        Ok(None)
    }

    fn store(&mut self, row: &Admitted) -> Result<(), DatasetError> {
        let name = row.table.name();
        *self.stored.entry(name).or_default() += 1;
        match &mut self.writer {
            Some(writer) => {
                let cells = row.cells.iter().map(Stored::cell).collect();
                writer.cells(row.table, Timestamp::from_nanos(row.known_at), cells)?;
            }
            None if self.first.len() < SHOWN => {
                let specs = row.table.specs();
                let shown = specs.iter().zip(&row.cells).map(|(spec, cell)| (spec.name.to_owned(), shown(spec, cell)));
                self.first.push((name, shown.collect()));
            }
            None => {}
        }
        Ok(())
    }

    /// The reports that stand for the fleet.
    fn stand_ins(&mut self) -> Result<(), DatasetError> {
        let Some((first, _)) = self.known else { return Ok(()) };
        self.admission.stand_ins(first).iter().try_for_each(|row| self.store(row))
    }

    fn finish(mut self, options: &ImportOptions, table: String) -> Result<ImportReport, DatasetError> {
        let at = options.quarantine.as_deref();
        let Ended { too_many_refused, quarantine, out } =
            end(&mut self.quarantine, at, self.writer, &options.out, self.rows, options.max_refused)?;
        let (from, to) = self.known.map(|(from, to)| (Timestamp::from_nanos(from), Timestamp::from_nanos(to))).unzip();
        Ok(ImportReport {
            table,
            rows: self.rows,
            refused: self.quarantine.refused,
            reasons: self.quarantine.reasons,
            quarantine,
            from,
            to,
            out,
            stored: self.stored,
            too_many_refused,
            first: self.first,
            first_refused: self.quarantine.first,
        })
    }
}

fn shown(spec: &crate::ColumnSpec, cell: &Stored) -> serde_json::Value {
    match cell {
        Stored::I64(nanos) if spec.kind == crate::Kind::Time => Timestamp::from_nanos(*nanos).to_string().into(),
        Stored::Null => serde_json::Value::Null,
        Stored::I64(value) => (*value).into(),
        Stored::F64(value) => (*value).into(),
        // By its own digits: as a 64-bit float 0.1 would be shown as 0.10000000149011612.
        Stored::F32(value) => value.to_string().parse::<f64>().unwrap_or(f64::NAN).into(),
        Stored::Bool(value) => (*value).into(),
        Stored::Text(text) => text.as_str().into(),
        Stored::Shards(shards) => shards.iter().map(|shard| serde_json::Value::from(shard.as_str())).collect(),
        Stored::Floats(values) => values.iter().map(|value| serde_json::Value::from(*value)).collect(),
    }
}
