//! Journals of routers into a history: every decision, outcome and report once, however often it was delivered or written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;
use shardwise_types::{HistoryRecord, Network, RouterId, Timestamp, combine_keys};

use super::quarantine::{Ended, Quarantine, end};
use super::run::ROWS_PER_LOOK;
use super::{ImportProgress, ImportReport, RefusedRow};
use crate::DatasetError;
use crate::history::{HistoryWriter, TOPOLOGY_FILE};
use crate::schema::Table;

/// Journals, and where their history goes.
#[derive(Debug, Clone)]
pub struct JournalImport {
    /// Folders of journals; those of several routers make one history.
    pub journals: Vec<PathBuf>,
    /// Where the history will stand; must not exist or be empty.
    pub out: PathBuf,
    /// Where refused lines go; `OUT.refused.ndjson` when left out.
    pub quarantine: Option<PathBuf>,
    /// The largest share of lines that may be refused, 0 to 1; above it nothing but the quarantine is written.
    pub max_refused: f64,
}

/// Makes a history of journals, those included that are still written to. A line that is there twice is taken once; one that
/// cannot be read, or speaks of a decision that no journal has, is refused. The last line of a file may be cut short.
///
/// # Errors
/// A folder without a journal, journals of different networks, a disk that fails, or the wish to stop; nothing is left behind.
pub fn import_journal(
    options: &JournalImport,
    progress: &mut dyn FnMut(&ImportProgress) -> bool,
) -> Result<ImportReport, DatasetError> {
    let mut files = Vec::new();
    let mut network: Option<Network> = None;
    for journal in &options.journals {
        files.extend(files_of(journal)?);
        let own = topology(journal)?;
        if network.as_ref().is_some_and(|network| *network != own) {
            let problem = "is of another network than the journals before it; import it by itself";
            return Err(super::source::bad(journal, problem));
        }
        network = Some(own);
    }
    let Some(network) = network.filter(|_| !files.is_empty()) else {
        let names = options.journals.iter().map(|journal| journal.to_string_lossy()).collect::<Vec<_>>().join(", ");
        return Err(super::source::bad(
            names,
            "holds no journal (*.ndjson); name the folder `journal` of a router's data",
        ));
    };
    let writer = HistoryWriter::create(&options.out, &network, None)?;
    let quarantine = Quarantine::new(Some(writer.scratch().join("refused.ndjson")));
    let mut run = Run {
        writer,
        quarantine,
        seen: Seen::default(),
        orphans: Vec::new(),
        rows: 0,
        stored: BTreeMap::new(),
        known: None,
    };
    for file in &files {
        run.read(file, progress)?;
    }
    run.take_orphans()?;
    run.finish(options)
}

/// Files in the order in which they were begun, which their names tell.
fn files_of(journal: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(journal).map_err(DatasetError::io("read", journal))? {
        let path = entry.map_err(DatasetError::io("read", journal))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".ndjson") || name.ends_with(".ndjson.open") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn topology(journal: &Path) -> Result<Network, DatasetError> {
    let path = journal.join(TOPOLOGY_FILE);
    let text = std::fs::read_to_string(&path).map_err(DatasetError::io("read", &path))?;
    serde_json::from_str(&text).map_err(|error| super::source::bad(&path, error))
}

/// How lines begin of what came too late for the router to learn from it, and why they are refused.
const LATE: &[u8] = br#"{"table":"late_"#;
const CAME_LATE: &str = "came too late for the router to learn from it";
const NOT_LEARNED: &str = "played again, it would have happened to the router";

/// Why a line is refused whose decision is nowhere, in general and in particular.
const ORPHAN: &str = "speaks of a decision that is not there";
const LOST: &str = "the decision was lost with the process that made it, or is in a journal that was not named";

/// What was taken already.
#[derive(Default)]
struct Seen {
    decisions: FxHashSet<u64>,
    outcomes: FxHashSet<u64>,
    shadows: FxHashSet<u64>,
    /// Keys of names and times, of each router apart: each has its own time of hearing.
    reports: FxHashSet<u64>,
    minutes: FxHashSet<u64>,
    /// Keys of routers' names and places in their order.
    directives: FxHashSet<u64>,
}

enum Taken {
    New,
    Again,
    Orphan,
}

impl Seen {
    fn take(&mut self, record: &HistoryRecord) -> Taken {
        let of_decision = |ids: &mut FxHashSet<u64>, decisions: &FxHashSet<u64>, id: u64| match decisions.contains(&id)
        {
            false => Taken::Orphan,
            true if ids.insert(id) => Taken::New,
            true => Taken::Again,
        };
        let once = |is_new: bool| if is_new { Taken::New } else { Taken::Again };
        let at = |name: u64, event_at: Timestamp| combine_keys(name, event_at.nanos().cast_unsigned());
        let heard_by = |router: Option<&RouterId>| router.map_or(0, RouterId::key);
        match record {
            HistoryRecord::Decision(decision) => once(self.decisions.insert(decision.decision_id)),
            HistoryRecord::Outcome(outcome) => of_decision(&mut self.outcomes, &self.decisions, outcome.decision_id),
            HistoryRecord::Shadow(shadow) => {
                let key = combine_keys(shadow.decision_id, shardwise_types::key_of(&shadow.model_version));
                match self.decisions.contains(&shadow.decision_id) {
                    true => once(self.shadows.insert(key)),
                    false => Taken::Orphan,
                }
            }
            HistoryRecord::Report(report) => {
                let name = combine_keys(heard_by(report.router.as_ref()), report.shard.key());
                once(self.reports.insert(at(name, report.report.event_at)))
            }
            HistoryRecord::Market(minute) => {
                let name = combine_keys(heard_by(minute.router.as_ref()), shardwise_types::key_of(&minute.instrument));
                once(self.minutes.insert(at(name, minute.event_at)))
            }
            HistoryRecord::Directive(directive) => {
                let key = combine_keys(at(directive.router.key(), directive.known_at), directive.sequence);
                once(self.directives.insert(key))
            }
        }
    }
}

struct Run {
    writer: HistoryWriter,
    quarantine: Quarantine,
    seen: Seen,
    /// Lines that speak of a decision that was not there yet: it may be in a later file.
    orphans: Vec<(HistoryRecord, RefusedRow)>,
    rows: u64,
    stored: BTreeMap<&'static str, u64>,
    known: Option<(Timestamp, Timestamp)>,
}

impl Run {
    fn read(&mut self, path: &Path, progress: &mut dyn FnMut(&ImportProgress) -> bool) -> Result<(), DatasetError> {
        let input = path.display().to_string();
        let mut reader = BufReader::new(File::open(path).map_err(DatasetError::io("open", path))?);
        let (mut line, mut row) = (Vec::new(), 0);
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(DatasetError::io("read", path))? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                // It is being written, or was when its writer was killed; that one counts it.
                return Ok(());
            }
            row += 1;
            let refused = |(reason, detail): (&str, String)| {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                RefusedRow { source: input.clone(), row, reason: reason.to_owned(), detail, text }
            };
            match serde_json::from_slice::<HistoryRecord>(&line) {
                Err(_) if line.starts_with(LATE) => {
                    self.quarantine.add(refused((CAME_LATE, NOT_LEARNED.to_owned())))?;
                }
                Err(error) => self.quarantine.add(refused(("is no record", error.to_string())))?,
                Ok(record) => match self.seen.take(&record) {
                    Taken::Again => {}
                    Taken::Orphan => self.orphans.push((record, refused((ORPHAN, LOST.to_owned())))),
                    Taken::New => {
                        if let Some(why) = self.store(record)? {
                            self.quarantine.add(refused(why))?;
                        }
                    }
                },
            }
            if row % ROWS_PER_LOOK == 0 {
                let refused = self.quarantine.refused;
                if !progress(&ImportProgress { input: input.clone(), rows: self.rows, refused }) {
                    return Err(DatasetError::ImportStopped);
                }
            }
        }
    }

    /// The decisions of all files are known: what still speaks of one that is not there is refused.
    fn take_orphans(&mut self) -> Result<(), DatasetError> {
        for (record, row) in std::mem::take(&mut self.orphans) {
            let refused = match self.seen.take(&record) {
                Taken::Again => None,
                Taken::Orphan => Some(row),
                Taken::New => {
                    let why = self.store(record)?;
                    why.map(|(reason, detail)| RefusedRow { reason: reason.to_owned(), detail, ..row })
                }
            };
            refused.map_or(Ok(()), |row| self.quarantine.add(row))?;
        }
        Ok(())
    }

    /// Stores a record, or says why not.
    fn store(&mut self, record: HistoryRecord) -> Result<Option<(&'static str, String)>, DatasetError> {
        let (known_at, name) = (record.order().0, Table::of(&record).name());
        match self.writer.record(record) {
            Ok(()) => {}
            Err(DatasetError::BadValue { column, value, rule, .. }) => {
                return Ok(Some(("holds a value that is not allowed", format!("{column} holds {value}: {rule}"))));
            }
            Err(error) => return Err(error),
        }
        self.rows += 1;
        *self.stored.entry(name).or_default() += 1;
        let (first, last) = self.known.unwrap_or((known_at, known_at));
        self.known = Some((first.min(known_at), last.max(known_at)));
        Ok(None)
    }

    fn finish(mut self, options: &JournalImport) -> Result<ImportReport, DatasetError> {
        let at = options.quarantine.as_deref();
        let Ended { too_many_refused, quarantine, out } =
            end(&mut self.quarantine, at, Some(self.writer), &options.out, self.rows, options.max_refused)?;
        let (from, to) = self.known.unzip();
        Ok(ImportReport {
            table: "journal".to_owned(),
            rows: self.rows,
            refused: self.quarantine.refused,
            reasons: self.quarantine.reasons,
            quarantine,
            from,
            to,
            out,
            stored: self.stored,
            too_many_refused,
            first: Vec::new(),
            first_refused: self.quarantine.first,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::History;
    use crate::sample::{assert_same, history, network};

    fn journal(dir: &Path, name: &str, lines: &[String]) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(TOPOLOGY_FILE), serde_json::to_string(&network()).unwrap()).unwrap();
        std::fs::write(dir.join(name), lines.concat()).unwrap();
    }

    fn lines(records: &[HistoryRecord]) -> Vec<String> {
        records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect()
    }

    fn run(journals: &[PathBuf], out: &Path, max_refused: f64) -> Result<ImportReport, DatasetError> {
        let options = JournalImport { journals: journals.to_vec(), out: out.to_owned(), quarantine: None, max_refused };
        import_journal(&options, &mut |_| true)
    }

    #[test]
    fn a_journal_becomes_the_history_that_it_tells_of_with_every_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, out) = (folder.path().join("journal"), folder.path().join("history"));
        let records = history("2026-01-05T23:57:00Z", 6.0, 500.0);
        let all = lines(&records);
        let half = all.len() / 2;
        // Delivered again after a restart, in files whose order the clock has turned round, and cut short in the end.
        journal(&dir, "1-000000.ndjson", &all[half - 20..]);
        journal(&dir, "2-000000.ndjson.open", &all[..half]);
        let mut open = std::fs::read(dir.join("2-000000.ndjson.open")).unwrap();
        open.extend_from_slice(all[0].as_bytes()[..30].as_ref());
        std::fs::write(dir.join("2-000000.ndjson.open"), open).unwrap();
        let report = run(&[dir], &out, 0.0).unwrap();
        assert_eq!((report.rows, report.refused), (records.len() as u64, 0));
        let read: Result<Vec<HistoryRecord>, _> = History::open(&out).unwrap().records(None, None).unwrap().collect();
        assert_same(&read.unwrap(), &records);
    }

    #[test]
    fn what_cannot_be_used_is_in_the_quarantine_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, out) = (folder.path().join("journal"), folder.path().join("history"));
        let records = history("2026-01-05T12:00:00Z", 2.0, 500.0);
        let mut all = lines(&records);
        let lost = records.iter().position(|record| matches!(record, HistoryRecord::Decision(_))).unwrap();
        let HistoryRecord::Decision(decision) = &records[lost] else { unreachable!() };
        let of_it = records.iter().filter(|record| match record {
            HistoryRecord::Outcome(outcome) => outcome.decision_id == decision.decision_id,
            HistoryRecord::Shadow(shadow) => shadow.decision_id == decision.decision_id,
            _ => false,
        });
        let orphans = of_it.count() as u64;
        assert!(orphans > 0);
        all.remove(lost);
        all.push("no JSON\n".to_owned());
        let late = records.iter().find(|record| matches!(record, HistoryRecord::Report(_))).unwrap();
        all.push(lines(std::slice::from_ref(late))[0].replacen("\"report\"", "\"late_report\"", 1));
        journal(&dir, "1-000000.ndjson", &all);
        let report = run(std::slice::from_ref(&dir), &out, 0.5).unwrap();
        let counted: Vec<_> = report.reasons.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        let expected = [(CAME_LATE, 1), ("is no record", 1), ("speaks of a decision that is not there", orphans)];
        assert_eq!(counted, expected);
        let quarantine = std::fs::read_to_string(report.quarantine.unwrap()).unwrap();
        assert_eq!(quarantine.lines().count() as u64, orphans + 2);
        let refused = run(&[dir], &folder.path().join("other"), 0.0).unwrap();
        assert!(refused.too_many_refused && refused.out.is_none());
    }

    #[test]
    fn folders_without_a_journal_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        journal(&dir, "notes.txt", &[]);
        let error = run(&[dir], &folder.path().join("out"), 0.0).unwrap_err().to_string();
        assert!(error.contains("journal") && error.contains("*.ndjson"), "{error}");
        let error = run(&[folder.path().join("nowhere")], &folder.path().join("out"), 0.0).unwrap_err().to_string();
        assert!(error.contains("nowhere"), "{error}");
    }
}
