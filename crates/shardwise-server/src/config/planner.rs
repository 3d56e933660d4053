//! The planner's settings as a table of the configuration. The planner writes its fields as JSON does; a configuration file has
//! underscores, and variables of the environment know no capitals.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shardwise_planner::PlannerSettings;
use shardwise_policies::Runtime;
use toml::{Table, Value};

use super::ConfigError;

/// The planner's own, but that functions stay warm as long as the reference runtime keeps them.
pub(super) fn usual() -> PlannerSettings {
    let mut settings = PlannerSettings::default();
    settings.warm.time_to_live_minutes = Runtime::default().warm_ttl_ms / 60_000.0;
    settings
}

pub(super) fn serialize<S: Serializer>(settings: &PlannerSettings, serializer: S) -> Result<S::Ok, S::Error> {
    table(settings).serialize(serializer)
}

/// What the table does not say is as usual.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PlannerSettings, D::Error> {
    let mut all = table(&usual());
    merge(&mut all, Table::deserialize(deserializer)?, "planner").map_err(D::Error::custom)?;
    renamed(all, &camel).try_into().map_err(D::Error::custom)
}

pub(super) fn check(settings: &PlannerSettings) -> Result<(), ConfigError> {
    settings.check().map_err(|error| ConfigError::new(format!("planner.{}", snake(&error.field)), error.problem))
}

fn table(settings: &PlannerSettings) -> Table {
    renamed(Table::try_from(settings).expect("settings are plain data"), &snake)
}

/// Puts what is said over what is there.
fn merge(all: &mut Table, said: Table, place: &str) -> Result<(), String> {
    for (name, value) in said {
        let Some(known) = all.get_mut(&name) else {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            return Err(format!("there is no {place}.{name}; there are {}", names.join(", ")));
        };
        match (known, value) {
            (Value::Table(known), Value::Table(said)) => merge(known, said, &format!("{place}.{name}"))?,
            (Value::Table(_), _) => return Err(format!("{place}.{name} is a table; write its fields")),
            (known, value) => *known = value,
        }
    }
    Ok(())
}

fn renamed(table: Table, rename: &dyn Fn(&str) -> String) -> Table {
    let field = |(name, value): (String, Value)| match value {
        Value::Table(table) => (rename(&name), Value::Table(renamed(table, rename))),
        value => (rename(&name), value),
    };
    table.into_iter().map(field).collect()
}

fn snake(name: &str) -> String {
    let letters = |letter: char| {
        let before = letter.is_ascii_uppercase().then_some('_');
        before.into_iter().chain([letter.to_ascii_lowercase()])
    };
    name.chars().flat_map(letters).collect()
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        name + &head.to_ascii_uppercase() + tail
    })
}
