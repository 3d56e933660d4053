//! What a mapping means: for every column of a table, where its value comes from.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::Format;
use super::fields::{Field, Otherwise, Target};
use super::mapping::{FieldWords, Mapping, PrometheusWords, TableWords, TimeKind, TimeWords};
use super::time::{Ambiguous, TimeFormat};
use super::units::{Factor, nanos_of};
use super::value::{Convert, Raw, Stored, check};
use crate::DatasetError;
use crate::schema::Table;

/// How the rows of one kind of source become rows of the history.
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// For each table, its columns in order.
    pub(crate) parts: Vec<(Table, Vec<Slot>)>,
    /// The columns, or queries, that the source must give.
    pub(crate) columns: Vec<String>,
    pub(crate) prometheus: Option<PrometheusWords>,
}

/// One column of a table.
pub(crate) struct Slot {
    pub(crate) field: Field,
    pub(crate) from: From,
    /// What it is when its column is empty.
    pub(crate) default: Option<Stored>,
}

/// Where a value comes from.
pub(crate) enum From {
    /// The source's column of this number.
    Column(usize, Convert),
    Constant(Stored),
    /// The mapping says nothing.
    Nothing,
}

/// The columns that a range query gives by itself.
pub(crate) const SHARD_COLUMN: &str = "(the shard's label)";
pub(crate) const TIME_COLUMN: &str = "(the sample's time)";

impl Plan {
    pub(crate) fn of(mapping: &Mapping, table: &TableWords, format: Format) -> Result<Self, DatasetError> {
        let target = table.fills;
        let fields = target.fields();
        let known: Vec<&str> = fields
            .iter()
            .filter(|field| field.otherwise != Otherwise::Shared)
            .map(|field| field.name.as_str())
            .collect();
        if let Some(stranger) = table.fields.keys().find(|name| !known.contains(&name.as_str())) {
            let (name, known) = (target.name(), known.join(", "));
            return Err(mapping.wrong(format!("'{stranger}' is no field of {name}; it has {known}")));
        }
        let is_prometheus = format == Format::Prometheus;
        match (&table.prometheus, is_prometheus) {
            (None, true) => {
                return Err(mapping.wrong("--from prometheus needs [tables.prometheus] with shard_label and step_s"));
            }
            (Some(_), false) => return Err(mapping.wrong(
                "[tables.prometheus] is for --from prometheus; remove it, or say from = \"prometheus\" in the table",
            )),
            (Some(_), true) if target != Target::ShardReports => {
                return Err(mapping.wrong(format!("Prometheus can fill shard_reports, not {}", target.name())));
            }
            _ => {}
        }
        let mut builder = Builder { mapping, target, is_prometheus, columns: Vec::new() };
        let mut parts: Vec<(Table, Vec<Slot>)> = target.tables().iter().map(|table| (*table, Vec::new())).collect();
        for field in fields {
            // What both halves of a wide row share is the decision's: its column says nothing of an outcome.
            let said = table.fields.get(&field.name).filter(|_| field.otherwise != Otherwise::Shared);
            let words = builder.words(&field, said)?;
            let slot = builder.slot(field, words)?;
            let part = parts.iter_mut().find(|(table, _)| *table == slot.field.table);
            part.expect("a field's table is among the target's").1.push(slot);
        }
        let plan = Self { target, parts, columns: builder.columns, prometheus: table.prometheus.clone() };
        plan.check(mapping)?;
        Ok(plan)
    }

    fn has(&self, field: &str) -> bool {
        let slots = self.parts.iter().flat_map(|(_, slots)| slots);
        slots.filter(|slot| slot.field.name == field).any(|slot| !matches!(slot.from, From::Nothing))
    }

    /// What follows from others can only follow from what is there.
    fn check(&self, mapping: &Mapping) -> Result<(), DatasetError> {
        if self.target == Target::Placements && !self.has("outcome_known_at") && !self.has("total_ms") {
            return Err(mapping.wrong(
                "placements need outcome_known_at (when the response came) or total_ms (how long that took); map one of them",
            ));
        }
        let shape = ["region", "cores", "clock_ghz", "shard_memory_mb", "hardware"];
        if self.target == Target::ShardReports && mapping.fleet.is_empty() {
            let missing: Vec<&str> = shape.into_iter().filter(|field| !self.has(field)).collect();
            if !missing.is_empty() {
                let missing = missing.join(", ");
                return Err(mapping
                    .wrong(format!("shard_reports need {missing}; map them, or describe the shards in [[fleet]]")));
            }
        }
        Ok(())
    }
}

struct Builder<'a> {
    mapping: &'a Mapping,
    target: Target,
    is_prometheus: bool,
    columns: Vec<String>,
}

impl Builder<'_> {
    fn wrong(&self, field: &str, problem: impl std::fmt::Display) -> DatasetError {
        self.mapping.wrong(format!("field {field} of {}: {problem}", self.target.name()))
    }

    fn words(&self, field: &Field, value: Option<&toml::Value>) -> Result<Option<FieldWords>, DatasetError> {
        let by_itself = self.is_prometheus && matches!(field.name.as_str(), "shard" | "event_at");
        if by_itself {
            if value.is_some() {
                return Err(self.wrong(&field.name, "Prometheus gives it by itself; remove it"));
            }
            let column = if field.name == "shard" { SHARD_COLUMN } else { TIME_COLUMN };
            return Ok(Some(FieldWords { column: Some(column.to_owned()), ..FieldWords::default() }));
        }
        let words = match value {
            None => return Ok(None),
            Some(toml::Value::String(name)) if self.is_prometheus => {
                FieldWords { query: Some(name.clone()), ..FieldWords::default() }
            }
            Some(toml::Value::String(name)) => FieldWords { column: Some(name.clone()), ..FieldWords::default() },
            Some(value @ toml::Value::Table(_)) => {
                value.clone().try_into().map_err(|error| self.wrong(&field.name, error.to_string().trim()))?
            }
            Some(_) => {
                let form = "give a column's name as text, or a table such as { column = \"name\", unit = \"ms\" } or { constant = 1 }";
                return Err(self.wrong(&field.name, form));
            }
        };
        let source = if self.is_prometheus { "query" } else { "column" };
        let (taken, other) =
            if self.is_prometheus { (&words.query, &words.column) } else { (&words.column, &words.query) };
        if other.is_some() || taken.is_some() == words.constant.is_some() {
            return Err(self.wrong(&field.name, format!("needs either {source} or constant, one of the two")));
        }
        Ok(Some(words))
    }

    fn slot(&mut self, field: Field, words: Option<FieldWords>) -> Result<Slot, DatasetError> {
        let own = match &field.otherwise {
            Otherwise::Is(value) => Some(value.clone()),
            _ => None,
        };
        let Some(words) = words else {
            if field.otherwise == Otherwise::Needed {
                let doc = field.spec.doc;
                return Err(self.wrong(
                    &field.name,
                    format!("is needed ({doc}) and the mapping says nothing of it; name its column, or give a constant if you know it"),
                ));
            }
            return Ok(Slot { field, from: From::Nothing, default: own });
        };
        let given = words.default.as_ref().map(|value| self.literal(&field, value)).transpose()?;
        let default = given.or(own);
        if let Some(value) = &words.constant {
            let constant = self.literal(&field, value)?;
            return Ok(Slot { field, from: From::Constant(constant), default });
        }
        let column = words.column.clone().or_else(|| words.query.clone()).expect("checked: a column or a query");
        let convert = self.convert(&field, &column, words)?;
        let number = self.columns.iter().position(|known| *known == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        });
        Ok(Slot { field, from: From::Column(number, convert), default })
    }

    /// A constant or a default: in the history's own unit, times in RFC 3339.
    fn literal(&self, field: &Field, value: &toml::Value) -> Result<Stored, DatasetError> {
        let raw = match value {
            toml::Value::String(text) => Raw::Text(text.clone()),
            toml::Value::Integer(value) => Raw::Int(i128::from(*value)),
            toml::Value::Float(value) => Raw::Float(*value),
            toml::Value::Boolean(value) => Raw::Bool(*value),
            toml::Value::Datetime(at) => Raw::Text(at.to_string()),
            other => return Err(self.wrong(&field.name, format!("a constant or default cannot be {other}"))),
        };
        let plain = self.plain(field, "constant or default");
        let stored = plain.read(&raw).map_err(|refusal| self.wrong(&field.name, refusal.detail))?;
        check(&field.spec, &stored).map_err(|refusal| self.wrong(&field.name, refusal.detail))?;
        Ok(stored)
    }

    fn plain(&self, field: &Field, column: &str) -> Convert {
        Convert {
            field: field.name.clone(),
            column: column.to_owned(),
            spec: field.spec,
            factor: Factor::ONE,
            time: TimeFormat::Rfc3339,
            words: BTreeMap::new(),
            other: None,
            hash: false,
            round: false,
            decimal_comma: false,
        }
    }

    fn convert(&self, field: &Field, column: &str, words: FieldWords) -> Result<Convert, DatasetError> {
        let is_time = field.spec.kind == crate::Kind::Time;
        let says_time =
            words.format.is_some() || words.zone.is_some() || words.pattern.is_some() || words.ambiguous.is_some();
        if says_time && !is_time {
            return Err(
                self.wrong(&field.name, "is no time, so format, zone, pattern and ambiguous do not apply; remove them")
            );
        }
        if words.hash && !matches!(field.name.as_str(), "decision_id") {
            return Err(self.wrong(&field.name, "hash makes numbers of ids that are texts; it is for decision_id only"));
        }
        let time = if is_time { self.time(field, &words)? } else { TimeFormat::Rfc3339 };
        let factor = if is_time { Factor::ONE } else { self.factor(field, words.unit.as_deref(), words.scale)? };
        Ok(Convert {
            factor,
            time,
            words: words.words,
            other: words.other,
            hash: words.hash,
            round: words.round,
            decimal_comma: self.mapping.csv.decimal_comma,
            ..self.plain(field, column)
        })
    }

    fn factor(&self, field: &Field, unit: Option<&str>, scale: Option<f64>) -> Result<Factor, DatasetError> {
        match (unit, scale) {
            (None, None) => Ok(Factor::ONE),
            (Some(_), Some(_)) => Err(self.wrong(&field.name, "has both unit and scale; keep one")),
            (None, Some(scale)) if !(scale.is_finite() && scale != 0.0) => {
                Err(self.wrong(&field.name, format!("scale {scale} is no number to multiply by")))
            }
            (None, Some(_)) if !matches!(field.spec.kind, crate::Kind::F32 | crate::Kind::F64) => {
                Err(self.wrong(&field.name, "takes no scale; remove it"))
            }
            (None, Some(scale)) => Ok(Factor { times: scale, by: 1.0 }),
            (Some(unit), None) => field.dimension.factor(unit).ok_or_else(|| {
                let known = field.dimension.names().join(", ");
                let problem = match known.is_empty() {
                    true => format!("has no unit, so '{unit}' does not apply; remove it"),
                    false => format!("cannot be in '{unit}'; its unit is one of {known}"),
                };
                self.wrong(&field.name, problem)
            }),
        }
    }

    fn time(&self, field: &Field, words: &FieldWords) -> Result<TimeFormat, DatasetError> {
        // What a field says of its format stands alone; the parts of the general one would belong to another.
        let own = TimeWords {
            format: words.format,
            unit: words.unit.clone(),
            zone: words.zone.clone(),
            pattern: words.pattern.clone(),
            ambiguous: words.ambiguous,
        };
        let said = if own.format.is_some() { own } else { merged(&own, &self.mapping.time) };
        let wrong = |problem: String| self.wrong(&field.name, problem);
        match said.format.unwrap_or(TimeKind::Rfc3339) {
            TimeKind::Rfc3339 | TimeKind::Local if said.unit.is_some() => {
                Err(wrong("a unit is for format = \"epoch\"; remove it or say that format".to_owned()))
            }
            TimeKind::Rfc3339 | TimeKind::Epoch
                if said.zone.is_some() || said.pattern.is_some() || said.ambiguous.is_some() =>
            {
                Err(wrong(
                    "zone, pattern and ambiguous are for format = \"local\"; remove them or say that format".to_owned(),
                ))
            }
            TimeKind::Rfc3339 => Ok(TimeFormat::Rfc3339),
            TimeKind::Epoch => {
                let unit = said.unit.unwrap_or_default();
                let nanos = nanos_of(&unit);
                nanos.map(TimeFormat::Epoch).ok_or_else(|| {
                    wrong(format!("format = \"epoch\" needs unit = \"ns\", \"us\", \"ms\" or \"s\", not '{unit}'"))
                })
            }
            TimeKind::Local => {
                let name = said
                    .zone
                    .ok_or_else(|| wrong("format = \"local\" needs a zone, such as \"Europe/Berlin\"".to_owned()))?;
                let zone = TimeZone::get(&name).map_err(|_| {
                    wrong(format!(
                        "'{name}' is no time zone of the IANA list; write one such as \"Europe/Berlin\" or \"UTC\""
                    ))
                })?;
                Ok(TimeFormat::Local {
                    zone,
                    pattern: said.pattern,
                    ambiguous: said.ambiguous.unwrap_or(Ambiguous::Refuse),
                })
            }
        }
    }
}

fn merged(own: &TimeWords, general: &TimeWords) -> TimeWords {
    TimeWords {
        format: general.format,
        unit: own.unit.clone().or_else(|| general.unit.clone()),
        zone: own.zone.clone().or_else(|| general.zone.clone()),
        pattern: own.pattern.clone().or_else(|| general.pattern.clone()),
        ambiguous: own.ambiguous.or(general.ambiguous),
    }
}
