//! The mapping file: what it may say, read strictly. What it means is worked out in `plan`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shardwise_types::{Network, Timestamp};

use super::Format;
use super::fields::Target;
use super::time::Ambiguous;
use crate::DatasetError;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    #[serde(skip)]
    pub(crate) path: PathBuf,
    /// How times are written where a field does not say so.
    #[serde(default)]
    pub(crate) time: TimeWords,
    #[serde(default)]
    pub(crate) csv: CsvWords,
    /// What the shards are.
    #[serde(default)]
    pub(crate) fleet: Vec<FleetShard>,
    pub(crate) topology: Option<Topology>,
    pub(crate) tables: Vec<TableWords>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeWords {
    pub(crate) format: Option<TimeKind>,
    pub(crate) unit: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) pattern: Option<String>,
    pub(crate) ambiguous: Option<Ambiguous>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TimeKind {
    Rfc3339,
    Epoch,
    Local,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CsvWords {
    pub(crate) delimiter: char,
    pub(crate) decimal_comma: bool,
    /// Texts that say that there is no value.
    pub(crate) nulls: Vec<String>,
}

impl Default for CsvWords {
    fn default() -> Self {
        Self { delimiter: ',', decimal_comma: false, nulls: vec![String::new()] }
    }
}

/// A shard that does not change while the history lasts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetShard {
    pub(crate) shard: String,
    pub(crate) region: String,
    pub(crate) cores: f32,
    pub(crate) clock_ghz: f32,
    pub(crate) memory_mb: f32,
    #[serde(default = "general")]
    pub(crate) hardware: String,
    pub(crate) max_amount_usd: Option<f64>,
}

fn general() -> String {
    "general".to_owned()
}

/// Distances: in a file of the history's own form, or as links.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topology {
    file: Option<PathBuf>,
    default_region: Option<String>,
    #[serde(default)]
    same_region_ms: f32,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    exchanges: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    between: (String, String),
    rtt_ms: f32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableWords {
    pub(crate) fills: Target,
    /// Files in the folder that `--input` names, or a server; without it, what `--input` names.
    pub(crate) input: Option<OneOrMany>,
    /// Instead of the command line's `--from`.
    pub(crate) from: Option<Format>,
    pub(crate) prometheus: Option<PrometheusWords>,
    pub(crate) fields: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrometheusWords {
    /// The label whose value is the shard's name.
    pub(crate) shard_label: String,
    /// Seconds from one report to the next.
    pub(crate) step_s: f64,
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
}

/// A field that says more than its column's name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldWords {
    pub(crate) column: Option<String>,
    /// The query whose values these are; of Prometheus only.
    pub(crate) query: Option<String>,
    pub(crate) constant: Option<toml::Value>,
    pub(crate) default: Option<toml::Value>,
    pub(crate) unit: Option<String>,
    pub(crate) scale: Option<f64>,
    #[serde(default)]
    pub(crate) words: BTreeMap<String, String>,
    pub(crate) other: Option<String>,
    #[serde(default)]
    pub(crate) hash: bool,
    #[serde(default)]
    pub(crate) round: bool,
    pub(crate) format: Option<TimeKind>,
    pub(crate) zone: Option<String>,
    pub(crate) pattern: Option<String>,
    pub(crate) ambiguous: Option<Ambiguous>,
}

impl Mapping {
    /// Reads a mapping file; what it says that nobody knows is refused by name.
    pub(crate) fn read(path: &Path) -> Result<Self, DatasetError> {
        if path.is_dir() {
            return Err(wrong(path, "is a folder; name the TOML file that says which column is which field"));
        }
        let bytes = crate::files::read(path)?;
        let text = String::from_utf8(bytes).map_err(|_| wrong(path, "is not UTF-8 text; save it as UTF-8"))?;
        let mut mapping: Self = toml::from_str(&text).map_err(|error| wrong(path, error.to_string().trim()))?;
        mapping.path = path.to_owned();
        if mapping.tables.is_empty() {
            return Err(mapping.wrong("has no [[tables]]; add one that says what it fills and from which columns"));
        }
        if !mapping.csv.delimiter.is_ascii() {
            return Err(mapping.wrong("csv.delimiter must be one ASCII character, such as \",\", \";\" or \"\\t\""));
        }
        mapping.check_fleet()?;
        Ok(mapping)
    }

    pub(crate) fn wrong(&self, problem: impl std::fmt::Display) -> DatasetError {
        wrong(&self.path, problem)
    }

    fn check_fleet(&self) -> Result<(), DatasetError> {
        let mut names: Vec<&str> = self.fleet.iter().map(|shard| shard.shard.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.wrong(format!("[[fleet]] names shard '{}' twice; keep one", pair[0])));
        }
        for shard in &self.fleet {
            for (what, value) in
                [("cores", shard.cores), ("clock_ghz", shard.clock_ghz), ("memory_mb", shard.memory_mb)]
            {
                if !(value.is_finite() && value > 0.0) {
                    let name = &shard.shard;
                    return Err(self.wrong(format!("[[fleet]] says {what} = {value} of '{name}'; it must be above 0")));
                }
            }
            if shard.shard.is_empty() || shard.region.is_empty() {
                return Err(self.wrong("[[fleet]] has a shard without a name or a region; both must not be empty"));
            }
            let classes = shardwise_types::HardwareClass::ALL.map(shardwise_types::HardwareClass::as_str);
            if !classes.contains(&shard.hardware.as_str()) {
                let (hardware, known) = (&shard.hardware, classes.join(", "));
                return Err(self.wrong(format!("[[fleet]] says hardware = \"{hardware}\"; it must be one of {known}")));
            }
            if let Some(amount) = shard.max_amount_usd.filter(|amount| !(amount.is_finite() && *amount >= 0.0)) {
                return Err(self.wrong(format!("[[fleet]] says max_amount_usd = {amount}; it must be 0 or more")));
            }
        }
        Ok(())
    }

    /// The distances of the history.
    pub(crate) fn network(&self) -> Result<Network, DatasetError> {
        let Some(topology) = &self.topology else { return self.one_region() };
        if let Some(file) = &topology.file {
            let path = self.path.parent().unwrap_or(Path::new(".")).join(file);
            let network: Network = serde_json::from_slice(&crate::files::read(&path)?).map_err(|error| {
                DatasetError::Unreadable { path: path.clone(), problem: format!("not a topology: {error}") }
            })?;
            if network.rtt_ms.len() != network.regions.len().pow(2) || !network.rtt_ms.iter().all(|rtt| is_rtt(*rtt)) {
                let (regions, path) = (network.regions.len(), path.display());
                return Err(
                    self.wrong(format!("{path} must hold {regions} × {regions} times in rttMs, each 0 or more"))
                );
            }
            return Ok(network);
        }
        self.linked(topology)
    }

    fn one_region(&self) -> Result<Network, DatasetError> {
        let regions: std::collections::BTreeSet<&str> = self.fleet.iter().map(|shard| shard.region.as_str()).collect();
        match regions.first() {
            Some(region) if regions.len() == 1 => Ok(Network {
                regions: vec![(*region).into()],
                rtt_ms: vec![0.0],
                exchanges: Vec::new(),
                default_region: (*region).into(),
            }),
            _ => Err(self.wrong(
                "has no [topology]; say how far regions are apart, with file = \"topology.json\" or with [[topology.links]]",
            )),
        }
    }

    fn linked(&self, topology: &Topology) -> Result<Network, DatasetError> {
        let Some(default_region) = &topology.default_region else {
            return Err(
                self.wrong("[topology] needs file, or default_region (where exchanges that are not listed stand)")
            );
        };
        let ends = topology.links.iter().flat_map(|link| [&link.between.0, &link.between.1]);
        let mut regions: Vec<&String> = ends.chain(self.fleet.iter().map(|shard| &shard.region)).collect();
        regions.push(default_region);
        regions.extend(topology.exchanges.values());
        regions.sort();
        regions.dedup();
        let mut rtt_ms = Vec::with_capacity(regions.len().pow(2));
        for from in &regions {
            for to in &regions {
                let link = topology.links.iter().find(|link| {
                    let (a, b) = (&link.between.0, &link.between.1);
                    (a, b) == (from, to) || (b, a) == (from, to)
                });
                rtt_ms.push(match link {
                    Some(link) => link.rtt_ms,
                    None if from == to => topology.same_region_ms,
                    None => {
                        return Err(self.wrong(format!(
                            "[topology] does not say how far '{from}' and '{to}' are apart; add [[topology.links]] with between = [\"{from}\", \"{to}\"] and rtt_ms"
                        )));
                    }
                });
            }
        }
        if let Some(rtt) = rtt_ms.iter().find(|rtt| !is_rtt(**rtt)) {
            return Err(self.wrong(format!("[topology] holds a round-trip time of {rtt} ms; it must be 0 or more")));
        }
        Ok(Network {
            regions: regions.iter().map(|region| region.as_str().into()).collect(),
            rtt_ms,
            exchanges: topology
                .exchanges
                .iter()
                .map(|(name, region)| (name.as_str().into(), region.as_str().into()))
                .collect(),
            default_region: default_region.as_str().into(),
        })
    }
}

fn is_rtt(ms: f32) -> bool {
    ms.is_finite() && ms >= 0.0
}

fn wrong(path: &Path, problem: impl std::fmt::Display) -> DatasetError {
    DatasetError::Mapping { path: path.to_owned(), problem: problem.to_string() }
}
