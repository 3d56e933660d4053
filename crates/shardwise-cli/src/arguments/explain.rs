//! The options of looking at logged decisions again.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use shardwise_features::{FEATURES, position};
use shardwise_types::Timestamp;

#[derive(Args)]
pub(crate) struct ExplainArguments {
    /// The history.
    #[arg(long)]
    pub(crate) history: PathBuf,
    /// The decision, by its id in the history.
    #[arg(long, value_name = "ID", required_unless_present = "sample", conflicts_with = "sample")]
    pub(crate) decision: Option<u64>,
    /// Instead, compute so many decisions again, evenly spaced, and compare them with what was logged bit for bit.
    #[arg(long, value_name = "DECISIONS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sample: Option<u64>,
    /// The models that decided: a folder, or a URL such as file:///folder or s3://bucket/prefix; needed when a model placed.
    #[arg(long)]
    pub(crate) models: Option<PathBuf>,
    /// The models' name.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// When the routers were started that decided, if that was after the history begins: they know nothing from before.
    #[arg(long)]
    pub(crate) from: Option<Timestamp>,
    /// Only decisions before this instant, such as when the routers were started anew.
    #[arg(long)]
    pub(crate) to: Option<Timestamp>,
    /// What would the model have said if this feature had been another, as FEATURE=VALUE; `nan` for a missing one. Several
    /// change together.
    #[arg(long, value_name = "FEATURE=VALUE", conflicts_with = "sample")]
    pub(crate) what_if: Vec<Change>,
    /// Also write the decision as a page, one file that needs no network.
    #[arg(long, value_name = "FILE", conflicts_with = "sample")]
    pub(crate) html: Option<PathBuf>,
}

impl ExplainArguments {
    /// What explains the decision of this id again.
    pub(crate) fn command(&self, decision: u64) -> String {
        let mut text = command(&self.history, self.models.as_deref(), &self.name, &decision.to_string());
        text += &self.from.map_or_else(String::new, |from| format!(" --from {from}"));
        text += &self.to.map_or_else(String::new, |to| format!(" --to {to}"));
        for Change { feature, value } in &self.what_if {
            text += &format!(" --what-if {}={value}", FEATURES[*feature].name);
        }
        text + &self.html.as_ref().map_or_else(String::new, |html| format!(" --html {}", html.display()))
    }
}

/// The command that explains a decision of a history, given by its id.
fn command(history: &Path, models: Option<&Path>, name: &str, decision: &str) -> String {
    let models = models.map_or_else(String::new, |models| format!(" --models {} --name {name}", models.display()));
    format!("shardwise explain --history {}{models} --decision {decision}", history.display())
}

/// The same for a decision of any id, as a page.
pub(crate) fn page_command(history: &Path, models: &Path, name: &str) -> String {
    command(history, Some(models), name, "ID") + " --html decision-ID.html"
}

/// A feature with another value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Change {
    /// Its place in the vector.
    pub(crate) feature: usize,
    pub(crate) value: f32,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not written as FEATURE=VALUE"))?;
        let feature = position(name.trim()).ok_or_else(|| unknown(name.trim()))?;
        let value: f32 = value.trim().parse().map_err(|_| format!("'{value}' is not a number"))?;
        if value.is_infinite() {
            return Err(format!("{name} cannot be infinite; give a number, or nan for a missing one"));
        }
        Ok(Self { feature, value })
    }
}

/// Names features that share a word with what was asked for.
fn unknown(name: &str) -> String {
    let words: Vec<&str> = name.split(['_', ' ', '-']).filter(|word| word.len() > 2).collect();
    let alike =
        FEATURES.iter().map(|feature| feature.name).filter(|known| words.iter().any(|word| known.contains(word)));
    let alike: Vec<&str> = alike.take(6).collect();
    match alike.is_empty() {
        true => format!("there is no feature '{name}'; `cargo dev features` writes the page that lists them"),
        false => format!("there is no feature '{name}'; did you mean {}?", alike.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_a_feature_and_a_number() {
        let change: Change = "data_complexity=2.5".parse().unwrap();
        assert_eq!((FEATURES[change.feature].name, change.value), ("data_complexity", 2.5));
        assert!("data_complexity = nan".parse::<Change>().unwrap().value.is_nan());
        for wrong in ["data_complexity", "data_complexity=", "data_complexity=inf", "=1"] {
            assert!(wrong.parse::<Change>().is_err(), "{wrong}");
        }
        let error = "complexity=1".parse::<Change>().unwrap_err();
        assert!(error.contains("data_complexity"), "{error}");
    }
}
