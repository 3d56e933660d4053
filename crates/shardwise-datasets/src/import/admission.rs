//! From a source's row to rows of the history: fills what follows from others, and lets in what can stand together.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::mapping::FleetShard;
use super::plan::{From, Plan, Slot};
use super::value::{Raw, Refusal, Stored, check};
use crate::schema::Table;

const NANOS_PER_MS: f64 = 1e6;

/// A row of a table, its cells in the order of the columns.
pub(crate) struct Admitted {
    pub(crate) table: Table,
    pub(crate) cells: Vec<Stored>,
    pub(crate) known_at: i64,
}

/// What was let in so far, as far as later rows depend on it.
pub(crate) struct Admission<'a> {
    fleet: &'a [FleetShard],
    /// Whether reports come with the import; otherwise the fleet stands for them.
    has_reports: bool,
    has_decisions: bool,
    /// The place in the order of each shard's first report.
    reported: BTreeMap<String, (i64, i64)>,
    /// The place in the order of each decision that has no outcome yet; `None` once it has one.
    decisions: FxHashMap<i64, Option<(i64, i64)>>,
    /// Digests of reports and minutes, which have no id.
    others: FxHashSet<u64>,
    sequence: i64,
    /// Rows that were numbered, because the mapping knows no ids.
    numbered: i64,
}

impl<'a> Admission<'a> {
    pub(crate) fn new(fleet: &'a [FleetShard], has_reports: bool, has_decisions: bool) -> Self {
        Self {
            fleet,
            has_reports,
            has_decisions,
            reported: BTreeMap::new(),
            decisions: FxHashMap::default(),
            others: FxHashSet::default(),
            sequence: 0,
            numbered: 0,
        }
    }

    /// Turns one row of a source into rows of the history: none of them is let in when one is refused.
    pub(crate) fn admit(&mut self, plan: &Plan, row: &[Raw]) -> Result<Vec<Admitted>, Refusal> {
        let mut admitted: Vec<Admitted> = Vec::with_capacity(plan.parts.len());
        for (table, slots) in &plan.parts {
            let decision = admitted.first().map(|decision| decision.cells.as_slice());
            if decision.is_some() && is_open(slots, row) {
                break;
            }
            let filled = self.fill(*table, slots, row, decision)?;
            admitted.push(filled);
        }
        // Checked first and noted afterwards, so that a refused outcome leaves no decision behind.
        let closed_at = admitted.get(1).map(|outcome| (outcome.known_at, sequence_of(outcome)));
        for (n, part) in admitted.iter().enumerate() {
            if n == 0 {
                self.check(part)?;
            } else {
                let decided = (admitted[0].known_at, sequence_of(&admitted[0]));
                in_order(decided, (part.known_at, sequence_of(part)))?;
            }
        }
        if let Some(first) = admitted.first() {
            self.note(first, closed_at);
        }
        Ok(admitted)
    }

    fn fill(
        &mut self,
        table: Table,
        slots: &[Slot],
        row: &[Raw],
        decision: Option<&[Stored]>,
    ) -> Result<Admitted, Refusal> {
        let mut cells: Vec<Option<Stored>> = slots.iter().map(|slot| given(slot, row)).collect::<Result<_, _>>()?;
        let at = |column: &str| position(slots, column);
        let nanos = |cell: &Option<Stored>| if let Some(Stored::I64(nanos)) = cell { Some(*nanos) } else { None };
        if let Some(decision) = decision {
            // Decisions hold event_at, known_at, sequence, decision_id and router in this order.
            cells[at("decision_id")] = Some(decision[3].clone());
            cells[at("router")] = Some(decision[4].clone());
            let Stored::I64(decided) = decision[1] else { unreachable!("known_at is a time") };
            let total = at("total_ms");
            if let Some(known) = nanos(&cells[at("known_at")]) {
                in_order((decided, 0), (known, 0))?;
            }
            match (nanos(&cells[at("known_at")]), &cells[total]) {
                (Some(known), None) => {
                    cells[total] = Some(Stored::F32(((known - decided) as f64 / NANOS_PER_MS) as f32));
                }
                (None, Some(Stored::F32(total_ms))) => {
                    let after = (f64::from(*total_ms) * NANOS_PER_MS).round() as i64;
                    cells[at("known_at")] = Some(Stored::I64(decided.saturating_add(after)));
                }
                _ => {}
            }
        }
        let (event, known) = (at("event_at"), at("known_at"));
        match (nanos(&cells[event]), nanos(&cells[known])) {
            (Some(nanos), None) => cells[known] = Some(Stored::I64(nanos)),
            (None, Some(nanos)) => cells[event] = Some(Stored::I64(nanos)),
            _ => {}
        }
        if table == Table::ShardReports {
            self.describe(slots, &mut cells)?;
        }
        if table == Table::Decisions && cells[at("eligible")].is_none() {
            let shards = if self.has_reports { self.reported.len() } else { self.fleet.len() };
            cells[at("eligible")] = Some(Stored::I64(shards as i64));
        }
        // A column that is empty in some rows numbers nothing: their numbers could be ids of others.
        if table == Table::Decisions && matches!(slots[at("decision_id")].from, From::Nothing) {
            self.numbered += 1;
            cells[at("decision_id")] = Some(Stored::I64(self.numbered));
        }
        if cells[at("sequence")].is_none() {
            self.sequence += 1;
            // Behind its decision, also where the mapping numbers decisions and not outcomes.
            if let Some([_, _, Stored::I64(decided), ..]) = decision {
                self.sequence = self.sequence.max(decided.saturating_add(1));
            }
            cells[at("sequence")] = Some(Stored::I64(self.sequence));
        }
        let mut filled = Vec::with_capacity(cells.len());
        for (slot, cell) in slots.iter().zip(cells) {
            let name = &slot.field.name;
            let cell = cell.ok_or_else(|| empty(slot))?;
            check(&slot.field.spec, &cell).map_err(|refusal| {
                Refusal::of(format!("{name} {}", refusal.reason), format!("{name}: {}", refusal.detail))
            })?;
            filled.push(cell);
        }
        let Stored::I64(known_at) = filled[known] else { unreachable!("known_at is a time") };
        Ok(Admitted { table, cells: filled, known_at })
    }

    /// What the fleet says of a shard, where a report does not say it.
    fn describe(&self, slots: &[Slot], cells: &mut [Option<Stored>]) -> Result<(), Refusal> {
        let shard_at = position(slots, "shard");
        let Some(Stored::Text(name)) = cells[shard_at].clone() else { return Ok(()) };
        let shape = self.fleet.iter().find(|shard| shard.shard == name);
        for (slot, cell) in slots.iter().zip(cells.iter_mut()).filter(|(_, cell)| cell.is_none()) {
            if let Some(shape) = shape
                && let Some(value) = shape_of(shape, slot.field.spec.name)
            {
                *cell = Some(value);
            } else if slot.field.spec.name == "max_amount_usd" {
                *cell = Some(Stored::Null);
            } else if is_shape(slot.field.spec.name) && shape.is_none() && !self.fleet.is_empty() {
                return Err(Refusal::of(
                    "shard is not in [[fleet]]",
                    format!("shard '{name}' is not in [[fleet]]; describe it there"),
                ));
            }
        }
        Ok(())
    }

    fn check(&self, row: &Admitted) -> Result<(), Refusal> {
        let order = (row.known_at, sequence_of(row));
        match row.table {
            Table::Decisions => {
                let id = id_of(row);
                if self.decisions.contains_key(&id) {
                    return Err(Refusal::of(
                        "decision_id is there twice",
                        format!("decision {id} is there already; each needs an id of its own"),
                    ));
                }
                self.check_shard(row, order)
            }
            Table::Outcomes if self.has_decisions => match self.decisions.get(&id_of(row)) {
                Some(Some(decided)) => in_order(*decided, order),
                Some(None) => Err(Refusal::of(
                    "decision has an outcome already",
                    format!("decision {} has an outcome already", id_of(row)),
                )),
                None => Err(Refusal::of(
                    "decision is not there",
                    format!("decision {} is not among the decisions of this import", id_of(row)),
                )),
            },
            Table::ShardReports | Table::Market if self.others.contains(&digest(row)) => {
                Err(Refusal::of("row is there twice", "another row has the same name, times and sequence"))
            }
            _ => Ok(()),
        }
    }

    fn check_shard(&self, row: &Admitted, order: (i64, i64)) -> Result<(), Refusal> {
        let Some(Stored::Text(shard)) = row.table.column("shard").map(|n| &row.cells[n]) else { return Ok(()) };
        let is_known = match self.has_reports {
            true => self.reported.get(shard).is_some_and(|first| *first < order),
            false => self.fleet.iter().any(|known| known.shard == *shard),
        };
        match (is_known, self.has_reports) {
            (true, _) => Ok(()),
            (false, true) => Err(Refusal::of(
                "shard has not reported by then",
                format!("shard '{shard}' has not reported before this decision"),
            )),
            (false, false) => Err(Refusal::of(
                "shard is not in [[fleet]]",
                format!("shard '{shard}' is not in [[fleet]]; describe it there"),
            )),
        }
    }

    fn note(&mut self, row: &Admitted, closed_at: Option<(i64, i64)>) {
        let order = (row.known_at, sequence_of(row));
        match row.table {
            Table::Decisions => {
                self.decisions.insert(id_of(row), if closed_at.is_some() { None } else { Some(order) });
            }
            Table::Outcomes if self.has_decisions => {
                self.decisions.insert(id_of(row), None);
            }
            Table::ShardReports => {
                self.others.insert(digest(row));
                if let Some(Stored::Text(shard)) = row.table.column("shard").map(|n| &row.cells[n]) {
                    let first = self.reported.entry(shard.clone()).or_insert(order);
                    *first = order.min(*first);
                }
            }
            Table::Market => {
                self.others.insert(digest(row));
            }
            Table::Outcomes | Table::Shadow | Table::Directives => {}
        }
    }

    /// One report for each shard of the fleet, known a millisecond before the first decision: healthy, and idle as far as is
    /// known. Only where the import has no reports.
    pub(crate) fn stand_ins(&self, first_decision: i64) -> Vec<Admitted> {
        let known_at = first_decision - NANOS_PER_MS as i64;
        let report = |shard: &FleetShard| {
            let value = |spec: &crate::ColumnSpec| match spec.name {
                "event_at" | "known_at" => Stored::I64(known_at),
                "sequence" | "queue_len" | "running" => Stored::I64(0),
                "shard" => Stored::Text(shard.shard.clone()),
                "healthy" => Stored::Bool(true),
                name => shape_of(shard, name).unwrap_or(if spec.nullable { Stored::Null } else { Stored::F32(0.0) }),
            };
            let cells = Table::ShardReports.specs().iter().map(value).collect();
            Admitted { table: Table::ShardReports, cells, known_at }
        };
        self.fleet.iter().map(report).collect()
    }
}

/// What the mapping gives for a column; `None` where it must follow from others.
fn given(slot: &Slot, row: &[Raw]) -> Result<Option<Stored>, Refusal> {
    let value = match &slot.from {
        From::Column(number, convert) => convert.read(&row[*number])?,
        From::Constant(value) => return Ok(Some(value.clone())),
        From::Nothing => Stored::Null,
    };
    Ok(if value == Stored::Null { slot.default.clone() } else { Some(value) })
}

/// Whether a wide row says nothing of an outcome: every column that the source gives for it is empty.
fn is_open(slots: &[Slot], row: &[Raw]) -> bool {
    let mut columns = slots
        .iter()
        .filter_map(|slot| if let From::Column(number, _) = &slot.from { Some(&row[*number]) } else { None });
    columns.all(|value| *value == Raw::Null)
}

fn empty(slot: &Slot) -> Refusal {
    let name = &slot.field.name;
    let from = match &slot.from {
        From::Column(_, convert) => format!("column '{}' is empty", convert.column),
        _ => "nothing that it follows from is there".to_owned(),
    };
    Refusal::of(format!("{name} is empty"), format!("{name} is needed, and {from}"))
}

fn in_order(decided: (i64, i64), answered: (i64, i64)) -> Result<(), Refusal> {
    if answered >= decided {
        return Ok(());
    }
    Err(Refusal::of(
        "outcome was known before its decision",
        "the outcome was known before its decision; are the clocks, units and zones right?",
    ))
}

fn position(slots: &[Slot], column: &str) -> usize {
    slots.iter().position(|slot| slot.field.spec.name == column).expect("a table has this column")
}

fn sequence_of(row: &Admitted) -> i64 {
    // The third column of every table, which a test of the schema keeps.
    if let Stored::I64(sequence) = row.cells[2] { sequence } else { 0 }
}

fn id_of(row: &Admitted) -> i64 {
    match row.table.column("decision_id").map(|n| &row.cells[n]) {
        Some(Stored::I64(id)) => *id,
        _ => unreachable!("only decisions and outcomes are asked for their id"),
    }
}

fn digest(row: &Admitted) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(row.table.name().as_bytes());
    // The clocks, the sequence, and what is named: they stand first in both tables.
    for cell in &row.cells[..4] {
        hasher.update(cell.cell().to_string().as_bytes());
        hasher.update(&[0]);
    }
    let digest = hasher.finalize();
    u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
}

fn is_shape(column: &str) -> bool {
    ["region", "cores", "clock_ghz", "shard_memory_mb", "hardware"].contains(&column)
}

fn shape_of(shard: &FleetShard, column: &str) -> Option<Stored> {
    Some(match column {
        "region" => Stored::Text(shard.region.clone()),
        "cores" => Stored::F32(shard.cores),
        "clock_ghz" => Stored::F32(shard.clock_ghz),
        "shard_memory_mb" => Stored::F32(shard.memory_mb),
        "hardware" => Stored::Text(shard.hardware.clone()),
        "max_amount_usd" => shard.max_amount_usd.map_or(Stored::Null, Stored::F64),
        _ => return None,
    })
}
