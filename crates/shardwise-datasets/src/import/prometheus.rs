//! Shard reports out of Prometheus: range queries, joined by shard and instant, a few thousand steps at a time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Deserialize;
use shardwise_types::Timestamp;

use super::mapping::Mapping;
use super::plan::{Plan, SHARD_COLUMN, TIME_COLUMN};
use super::source::{Next, Source, bad};
use super::value::Raw;
use crate::DatasetError;

/// The server gives 11,000 points of a series at most; fewer keep an answer for many shards small.
const STEPS_PER_REQUEST: i64 = 2_000;
/// How long an answer may take; Ctrl-C is heard between two of them.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is taken, in bytes.
const LARGEST_ANSWER: u64 = 512 << 20;
const NANOS_PER_MS: i64 = 1_000_000;

pub(crate) struct PrometheusSource<'a> {
    agent: ureq::Agent,
    base: String,
    columns: &'a [String],
    label: String,
    step_ms: i64,
    /// The first step that was not asked for yet, and where the range ends, in ms since 1970.
    next_ms: i64,
    end_ms: i64,
    rows: VecDeque<Vec<Raw>>,
    last: Vec<Raw>,
    row: u64,
    /// Whether a query gave anything in the whole range.
    answered: Vec<bool>,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// Of one shard at one instant: a value for each query that has one.
type Samples = BTreeMap<(i64, String), Vec<Raw>>;

impl<'a> PrometheusSource<'a> {
    pub(crate) fn open(input: &str, plan: &'a Plan, mapping: &Mapping) -> Result<Self, DatasetError> {
        if input.starts_with("https://") {
            return Err(bad(
                input,
                "needs TLS, which this program does not speak; forward the server's port and name http://localhost:PORT",
            ));
        }
        if !input.starts_with("http://") {
            return Err(bad(input, "is no address of a Prometheus; write it as http://host:port"));
        }
        let words = plan.prometheus.as_ref().expect("a plan for Prometheus was checked to have these words");
        let step_ms = (words.step_s * 1e3).round();
        if !(1.0..=86_400_000.0).contains(&step_ms) {
            return Err(mapping.wrong(format!(
                "step_s {} is out of range; it must lie between 0.001 and 86400 seconds",
                words.step_s
            )));
        }
        let (Some(from), Some(to)) = (words.from, words.to) else {
            return Err(mapping.wrong(
                "[tables.prometheus] needs from and to, such as \"2026-01-05T12:00:00Z\" (or --since and --until)",
            ));
        };
        if to <= from {
            return Err(mapping.wrong(format!("[tables.prometheus] ends at {to}, not after {from} where it begins; give a range that begins before it ends")));
        }
        // A status that is no success comes with a reason in its body.
        let agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build().new_agent();
        let ms = |at: Timestamp| at.nanos().div_euclid(NANOS_PER_MS);
        Ok(Self {
            agent,
            base: input.trim_end_matches('/').to_owned(),
            columns: &plan.columns,
            label: words.shard_label.clone(),
            step_ms: step_ms as i64,
            next_ms: ms(from),
            end_ms: ms(to),
            rows: VecDeque::new(),
            last: Vec::new(),
            row: 0,
            answered: vec![false; plan.columns.len()],
        })
    }

    fn is_query(column: &str) -> bool {
        column != SHARD_COLUMN && column != TIME_COLUMN
    }

    /// Asks all queries for the next steps, before `end_ms`.
    fn fetch(&mut self) -> Result<(), DatasetError> {
        let last_ms = (self.next_ms + (STEPS_PER_REQUEST - 1) * self.step_ms).min(self.end_ms - 1);
        let mut samples = Samples::new();
        for n in 0..self.columns.len() {
            if Self::is_query(&self.columns[n]) {
                let series = self.ask(&self.columns[n], self.next_ms, last_ms)?;
                self.answered[n] |= !series.is_empty();
                self.join(n, series, &mut samples)?;
            }
        }
        self.rows.extend(samples.into_iter().map(|((at_ms, shard), mut values)| {
            for (column, value) in self.columns.iter().zip(&mut values) {
                match column.as_str() {
                    SHARD_COLUMN => *value = Raw::Text(shard.clone()),
                    TIME_COLUMN => *value = Raw::Instant(i128::from(at_ms) * i128::from(NANOS_PER_MS)),
                    _ => {}
                }
            }
            values
        }));
        self.next_ms += STEPS_PER_REQUEST * self.step_ms;
        Ok(())
    }

    fn join(&self, query: usize, series: Vec<Series>, samples: &mut Samples) -> Result<(), DatasetError> {
        let text = &self.columns[query];
        for one in series {
            let Some(shard) = one.metric.get(&self.label) else {
                let labels: Vec<&str> = one.metric.keys().map(String::as_str).collect();
                let (label, labels) = (&self.label, labels.join(", "));
                return Err(bad(
                    &self.base,
                    format!(
                        "gives for '{text}' a series without the label '{label}' (it has: {labels}); correct shard_label or the query"
                    ),
                ));
            };
            for (at_s, value) in one.values {
                let at_ms = (at_s * 1e3).round() as i64;
                let row = samples.entry((at_ms, shard.clone())).or_insert_with(|| vec![Raw::Null; self.columns.len()]);
                if row[query] != Raw::Null {
                    let label = &self.label;
                    return Err(bad(
                        &self.base,
                        format!(
                            "gives for '{text}' several series of shard '{shard}'; aggregate them, such as by sum by ({label}) ({text})"
                        ),
                    ));
                }
                row[query] = Raw::Text(value);
            }
        }
        Ok(())
    }

    fn ask(&self, query: &str, from_ms: i64, to_ms: i64) -> Result<Vec<Series>, DatasetError> {
        let wrong = |problem: String| bad(&self.base, problem);
        let request = self
            .agent
            .get(format!("{}/api/v1/query_range", self.base))
            .query("query", query)
            .query("start", seconds(from_ms))
            .query("end", seconds(to_ms))
            .query("step", seconds(self.step_ms));
        let failed = |error: ureq::Error| match error {
            ureq::Error::Timeout(_) => wrong(format!(
                "did not answer '{query}' within {} s; ask for less, or look at the server",
                TIMEOUT.as_secs()
            )),
            ureq::Error::HostNotFound => wrong("is a host that is not known; check the address".to_owned()),
            ureq::Error::BodyExceedsLimit(_) => {
                wrong(format!("answers '{query}' with more than 512 MiB; aggregate it by shard"))
            }
            error => wrong(format!("cannot be asked: {error}; is Prometheus running there?")),
        };
        let mut response = request.call().map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec().map_err(failed)?;
        let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
            let start: String = String::from_utf8_lossy(&body).trim().chars().take(80).collect();
            return Err(wrong(format!(
                "answered {status} and not as Prometheus does (\"{start}\"); is it a Prometheus?"
            )));
        };
        if answer.status != "success" {
            let error = answer.error.unwrap_or_else(|| "no reason given".to_owned());
            return Err(wrong(format!("refused '{query}' ({status}): {error}")));
        }
        match answer.data {
            Some(data) if data.result_type == "matrix" => Ok(data.result),
            _ => Err(wrong(format!(
                "gives no series for '{query}'; is it a query whose value is a number for each shard?"
            ))),
        }
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000))
}

impl Source for PrometheusSource<'_> {
    fn next(&mut self) -> Result<Next, DatasetError> {
        if let Some(values) = self.rows.pop_front() {
            self.row += 1;
            self.last.clone_from(&values);
            return Ok(Next::Row(values));
        }
        if self.next_ms >= self.end_ms {
            return Ok(Next::End);
        }
        self.fetch()?;
        Ok(Next::Pause)
    }

    fn row(&self) -> u64 {
        self.row
    }

    fn text(&self) -> String {
        let object: serde_json::Map<String, serde_json::Value> =
            self.columns.iter().cloned().zip(self.last.iter().map(Raw::to_json)).collect();
        serde_json::Value::Object(object).to_string()
    }

    fn finish(&self) -> Result<(), DatasetError> {
        let silent =
            self.columns.iter().zip(&self.answered).find(|(column, answered)| Self::is_query(column) && !**answered);
        match silent {
            Some((query, _)) => Err(bad(
                &self.base,
                format!("has nothing for '{query}' in the whole range; check the query, from and to"),
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn seconds_are_written_to_the_millisecond() {
        assert_eq!(seconds(1_767_614_400_005), "1767614400.005");
        assert_eq!(seconds(250), "0.250");
    }
}
