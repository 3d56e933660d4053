//! `shardwise validate`: where a load test's events went against where they were expected.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use miette::{IntoDiagnostic, miette};
use serde::Deserialize;
use shardwise_simulator::{Severity, Validation, Verdict, validate};
use shardwise_types::ShardId;

use super::files;
use crate::arguments::ValidateArguments;
use crate::output;

/// Exit code when the events are too few; 2 is that of wrong arguments.
const INSUFFICIENT: u8 = 3;

pub(crate) fn run(options: &ValidateArguments, json: bool) -> miette::Result<ExitCode> {
    let (requests, expected) = (read(&options.result)?, read(&options.expected)?);
    let validation = validate(&requests, &expected).into_diagnostic()?;
    if json {
        output::print_json(&validation)?;
    } else {
        print(&validation);
    }
    Ok(match validation.verdict {
        Verdict::Valid => ExitCode::SUCCESS,
        Verdict::Invalid => ExitCode::FAILURE,
        Verdict::Insufficient => ExitCode::from(INSUFFICIENT),
    })
}

/// A load test's result, or the distribution alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    #[serde(rename_all = "camelCase")]
    Result {
        shard_distribution: Distribution,
    },
    Distribution(Distribution),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Distribution {
    by_shard_id: BTreeMap<ShardId, Load>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Load {
    Number(f64),
    Shard { requests: f64 },
}

fn read(path: &Path) -> miette::Result<BTreeMap<ShardId, f64>> {
    let text = files::read(path)?;
    let input: Input = serde_json::from_str(&text).map_err(|_| {
        miette!(
            help = "write {\"byShardId\": {\"shard-a\": 120, …}}, or take the file of `shardwise loadtest --out`",
            "{} holds no distribution over shards",
            path.display()
        )
    })?;
    let (Input::Result { shard_distribution: distribution } | Input::Distribution(distribution)) = input;
    let number = |load| match load {
        Load::Number(number) | Load::Shard { requests: number } => number,
    };
    Ok(distribution.by_shard_id.into_iter().map(|(shard, load)| (shard, number(load))).collect())
}

/// The validation for people.
fn print(validation: &Validation) {
    let verdict = match validation.verdict {
        Verdict::Valid => "as expected".to_owned(),
        Verdict::Invalid => "not as expected".to_owned(),
        Verdict::Insufficient => format!("no verdict: {} events would be enough", validation.events_needed),
    };
    let p_value = validation.chi_square_p_value.map_or("–".to_owned(), |p| format!("{p:.3}"));
    println!("{verdict}");
    println!(
        "{} events, distribution score {:.3} (1 is as expected), chi-square p {p_value}\n",
        validation.events, validation.overall_distribution_score
    );
    if !validation.deviations.is_empty() {
        println!("{:<30}{:>10}{:>10}{:>9}{:>10}  severity", "shard", "expected", "actual", "off by", "p");
    }
    for deviation in &validation.deviations {
        let off = deviation.deviation.map_or("–".to_owned(), |share| format!("{:.0}%", share * 100.0));
        let (expected, actual) = (deviation.expected_load * 100.0, deviation.actual_load * 100.0);
        let severity = match deviation.severity {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        };
        println!(
            "{:<30}{expected:>9.2}%{actual:>9.2}%{off:>9}{:>10.1e}  {severity}",
            deviation.shard_id, deviation.p_value
        );
    }
    if !validation.unproven.is_empty() {
        let names: Vec<&str> = validation.unproven.iter().map(ShardId::as_str).collect();
        println!("off by more than 20 %, but that may be chance: {}", names.join(", "));
    }
    validation.recommendations.iter().for_each(|advice| println!("→ {advice}"));
}
