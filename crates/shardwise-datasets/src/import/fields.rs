//! What a mapping can fill: the fields of each target, where they are stored, and what they are when nothing is said.

use serde::Deserialize;

use super::units::Dimension;
use super::value::Stored;
use crate::ColumnSpec;
use crate::schema::Table;

/// What the rows of a source are. In this order they are read: what a decision needs is known before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Reports of shards.
    ShardReports,
    /// Minutes of the market.
    Market,
    /// Decisions, each with its outcome in the same row.
    Placements,
    /// Decisions alone.
    Decisions,
    /// Outcomes alone.
    Outcomes,
}

impl Target {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 5] =
        [Self::Placements, Self::Decisions, Self::Outcomes, Self::ShardReports, Self::Market];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ShardReports => "shard_reports",
            Self::Market => "market",
            Self::Placements => "placements",
            Self::Decisions => "decisions",
            Self::Outcomes => "outcomes",
        }
    }

    pub(crate) fn tables(self) -> &'static [Table] {
        match self {
            Self::ShardReports => &[Table::ShardReports],
            Self::Market => &[Table::Market],
            Self::Placements => &[Table::Decisions, Table::Outcomes],
            Self::Decisions => &[Table::Decisions],
            Self::Outcomes => &[Table::Outcomes],
        }
    }

    pub(crate) fn decides(self) -> bool {
        self.tables().contains(&Table::Decisions)
    }

    /// The fields, in the order of the tables' columns.
    pub(crate) fn fields(self) -> Vec<Field> {
        let of_table = |table: &Table| {
            let table = *table;
            table.specs().into_iter().map(move |spec| self.field(table, spec)).collect::<Vec<_>>()
        };
        self.tables().iter().flat_map(of_table).collect()
    }

    fn field(self, table: Table, spec: ColumnSpec) -> Field {
        // Both halves of a wide row have clocks and a place in the order; those of the outcome say so.
        let is_second = self == Self::Placements && table == Table::Outcomes;
        let name = match spec.name {
            "event_at" | "known_at" | "sequence" if is_second => format!("outcome_{}", spec.name),
            other => other.to_owned(),
        };
        let otherwise = self.otherwise(&name, table, &spec);
        Field { name, table, spec, dimension: Dimension::of(spec.name), otherwise }
    }

    fn otherwise(self, name: &str, table: Table, spec: &ColumnSpec) -> Otherwise {
        let word = |text: &str| Otherwise::Is(Stored::Text(text.to_owned()));
        match (table, name) {
            (Table::Outcomes, "decision_id" | "router") if self == Self::Placements => Otherwise::Shared,
            (Table::Decisions, "decision_id") if self == Self::Placements => {
                Otherwise::Computed("the number of the row in the import")
            }
            (_, "sequence" | "outcome_sequence") => Otherwise::Computed("the number of the row in the import"),
            (Table::Decisions, "event_at") => Otherwise::Computed("known_at"),
            (Table::ShardReports | Table::Market, "known_at") => Otherwise::Computed("event_at"),
            (Table::Outcomes, "event_at" | "outcome_event_at") => Otherwise::Computed("when the outcome was known"),
            (_, "outcome_known_at") => Otherwise::Computed("known_at plus total_ms"),
            (_, "total_ms") if self == Self::Placements => Otherwise::Computed("outcome_known_at less known_at"),
            (_, "eligible") => Otherwise::Computed("the number of shards that are known"),
            (
                Table::ShardReports,
                "region" | "cores" | "clock_ghz" | "shard_memory_mb" | "hardware" | "max_amount_usd",
            ) => Otherwise::Computed("what [[fleet]] says of the shard"),
            (_, "event_type" | "protocol" | "trading_pair" | "exchange") => word(""),
            (_, "risk_level" | "urgency") => word("medium"),
            (_, "priority") => word("normal"),
            (_, "policy") => word("imported"),
            (_, "decided_by") => word("policy"),
            (Table::Decisions, "data_complexity") => Otherwise::Is(Stored::F32(1.0)),
            (Table::Decisions, "exchange_calls") => Otherwise::Is(Stored::I64(0)),
            (Table::Decisions, "memory_mb") => Otherwise::Is(Stored::F32(0.0)),
            (_, "propensity") => Otherwise::Is(Stored::F64(1.0)),
            (_, "healthy") => Otherwise::Is(Stored::Bool(true)),
            _ if spec.nullable => Otherwise::Is(Stored::Null),
            _ => Otherwise::Needed,
        }
    }
}

/// What a field is when the mapping says nothing of it, or its column is empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Otherwise {
    /// The mapping must say it.
    Needed,
    /// A value.
    Is(Stored),
    /// It follows from others, as the words say.
    Computed(&'static str),
    /// In a wide row, both halves have it from the decision; it is no field of its own.
    Shared,
}

/// A field that a mapping can fill.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) table: Table,
    pub(crate) spec: ColumnSpec,
    pub(crate) dimension: Dimension,
    pub(crate) otherwise: Otherwise,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    impl Field {
        fn row(&self) -> String {
            let units = match self.spec.kind {
                Kind::Time => "time".to_owned(),
                _ => self.dimension.names().join(", "),
            };
            let otherwise = match &self.otherwise {
                Otherwise::Needed => "**needed**".to_owned(),
                Otherwise::Is(Stored::Null) => "null".to_owned(),
                Otherwise::Is(Stored::Text(text)) => format!("\"{text}\""),
                Otherwise::Is(value) => value.cell().to_string(),
                Otherwise::Computed(words) => (*words).to_owned(),
                Otherwise::Shared => unreachable!("shared fields are not listed"),
            };
            format!("| `{}` | {} | {units} | {otherwise} |\n", self.name, self.spec.kind.name())
        }
    }

    /// The tables of fields as IMPORT.md shows them.
    fn fields_in_words() -> String {
        let mut page = String::new();
        for target in Target::ALL {
            page += &format!(
                "\n### {}\n\n| field | type | units | when nothing is said |\n|---|---|---|---|\n",
                target.name()
            );
            let listed = target.fields().into_iter().filter(|field| field.otherwise != Otherwise::Shared);
            listed.for_each(|field| page += &field.row());
        }
        page
    }

    const BEGIN: &str = "<!-- fields: written by a test, do not edit -->\n";

    #[test]
    fn the_committed_page_lists_the_fields() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/IMPORT.md");
        let committed = std::fs::read_to_string(path).expect("IMPORT.md is committed");
        let (before, _) = committed.split_once(BEGIN).expect("IMPORT.md says where the fields begin");
        let page = format!("{before}{BEGIN}{}", fields_in_words());
        if std::env::var_os("SHARDWISE_WRITE_PAGES").is_some() {
            std::fs::write(path, &page).expect("the page can be written");
        }
        let committed = std::fs::read_to_string(path).expect("IMPORT.md is committed");
        assert_eq!(committed, page, "run this test with SHARDWISE_WRITE_PAGES=1 and commit IMPORT.md");
    }

    #[test]
    fn what_is_not_said_is_allowed_in_its_column() {
        for field in Target::ALL.into_iter().flat_map(Target::fields) {
            if let Otherwise::Is(value) = &field.otherwise {
                assert_eq!(field.spec.problem(&value.cell()), None, "{}", field.name);
            }
        }
    }
}
