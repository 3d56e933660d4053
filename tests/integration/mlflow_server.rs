//! A small MLflow tracking server that holds its clients to the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::http::{Answer, Request, serve};

/// What goes wrong with the n-th request, from 0; whether the server does what it was asked before is the first of the two.
type Fault = Box<dyn Fn(usize) -> Option<(bool, Answer)> + Send>;

/// What the server knows.
#[derive(Default)]
pub(crate) struct Known {
    /// Method and path of each request.
    pub(crate) asked: Vec<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) experiments: Vec<String>,
    pub(crate) runs: Vec<Run>,
    /// By the run's place and their path.
    pub(crate) artifacts: BTreeMap<String, Vec<u8>>,
    models: BTreeSet<String>,
    /// Model, run and source; the first is version 1.
    pub(crate) versions: Vec<[String; 3]>,
    /// By model and alias.
    pub(crate) aliases: BTreeMap<(String, String), String>,
    fault: Option<Fault>,
}

#[derive(Default)]
pub(crate) struct Run {
    pub(crate) deleted: bool,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) times_ms: [i64; 2],
    pub(crate) params: BTreeMap<String, String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) metrics: BTreeMap<String, f64>,
    /// Requests with parameters, tags or metrics.
    pub(crate) batches: usize,
}

#[derive(Clone)]
pub(crate) struct Server {
    known: Arc<Mutex<Known>>,
    port: u16,
}

impl Server {
    pub(crate) fn start() -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let own = Arc::clone(&known);
        let port = serve(move |request| {
            let mut known = own.lock().expect("no holder panics");
            let number = known.asked.len();
            known.asked.push(format!("{} {}", request.method, request.path));
            known.authorization = request.header("Authorization").map(str::to_owned);
            let (is_done, answer) = match known.fault.as_ref().and_then(|fault| fault(number)) {
                Some((is_done, answer)) => (is_done, Some(answer)),
                None => (true, None),
            };
            let done = is_done.then(|| known.answer(request));
            answer.or(done).expect("it is one or the other")
        });
        Self { known, port }
    }

    /// One that fails.
    pub(crate) fn with(fault: impl Fn(usize) -> Option<(bool, Answer)> + Send + 'static) -> Self {
        let server = Self::start();
        server.known().fault = Some(Box::new(fault));
        server
    }

    /// Nothing fails any more.
    pub(crate) fn recover(&self) {
        self.known().fault = None;
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }

    /// Its address with something before the host, such as a user.
    pub(crate) fn url_with(&self, before: &str) -> String {
        format!("http://{before}127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        self.url_with("")
    }
}

fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {body}")).to_owned()
}

fn refusal(status: u16, code: &str) -> Answer {
    Answer::Reply(status, json!({ "error_code": code, "message": format!("it is {code}") }).to_string())
}

/// What stands in quotes, one after the other.
fn quoted(filter: &str) -> Vec<&str> {
    filter.split('\'').skip(1).step_by(2).collect()
}

/// A value of a query, decoded as far as these tests need it.
fn query(path: &str, name: &str) -> String {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
    let value = value.unwrap_or_else(|| panic!("no {name} in {path}"));
    value.replace("%20", " ").replace('+', " ").replace("%3D", "=").replace("%27", "'")
}

impl Known {
    fn answer(&mut self, request: &Request) -> Answer {
        if let Some(artifact) = request.path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/") {
            assert_eq!(request.method, "PUT", "{artifact}");
            let place = artifact.split("/artifacts/").next().unwrap_or_default();
            assert!((0..self.runs.len()).any(|run| place == format!("1/{run}")), "{artifact} is not of a run");
            self.artifacts.insert(artifact.to_owned(), request.body.clone());
            // As a real one does.
            return Answer::Reply(200, String::new());
        }
        let path = request.path.strip_prefix("/api/2.0/mlflow/").unwrap_or_else(|| panic!("{}", request.path));
        let asked = format!("{} {}", request.method, path.split('?').next().unwrap_or_default());
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        if request.method == "POST" {
            assert_eq!(request.header("Content-Type"), Some("application/json"), "{asked}");
            assert!(body.is_object() && request.body.len() < 1_000_000, "{asked}");
        }
        let answer = match asked.as_str() {
            "GET experiments/get-by-name" => {
                let name = query(path, "experiment_name");
                let Some(place) = self.experiments.iter().position(|known| *known == name) else {
                    return refusal(404, "RESOURCE_DOES_NOT_EXIST");
                };
                json!({ "experiment": { "experiment_id": (place + 1).to_string(), "lifecycle_stage": "active" } })
            }
            "POST experiments/create" => {
                let name = text(&body, "name");
                if self.experiments.contains(&name) {
                    return refusal(400, "RESOURCE_ALREADY_EXISTS");
                }
                self.experiments.push(name);
                json!({ "experiment_id": self.experiments.len().to_string() })
            }
            "POST runs/search" => {
                let filter = text(&body, "filter");
                assert!(filter.starts_with("tags.`shardwise.run` = '"), "{filter}");
                let is_it = |run: &&(usize, &Run)| !run.1.deleted && run.1.tags["shardwise.run"] == quoted(&filter)[0];
                let runs = self.runs.iter().enumerate().collect::<Vec<_>>();
                let found: Vec<Value> = runs.iter().filter(is_it).map(|(id, run)| shown(*id, run)).collect();
                // A real one leaves out what is empty.
                if found.is_empty() { json!({}) } else { json!({ "runs": found }) }
            }
            "POST runs/create" => {
                assert!(!self.experiments.is_empty() && body["experiment_id"] == "1", "{body}");
                let start_ms = body["start_time"].as_i64().expect("a time");
                let mut run = Run { name: text(&body, "run_name"), times_ms: [start_ms, 0], ..Run::default() };
                run.take("tags", &body, |_, _, _| true);
                self.runs.push(run);
                let id = self.runs.len() - 1;
                json!({ "run": shown(id, &self.runs[id]) })
            }
            "GET runs/get" => match self.run(&query(path, "run_id")) {
                Some((id, run)) => json!({ "run": shown(id, run) }),
                None => return refusal(404, "RESOURCE_DOES_NOT_EXIST"),
            },
            "POST runs/log-batch" => {
                let Some((_, run)) = self.run(&text(&body, "run_id")) else {
                    return refusal(404, "RESOURCE_DOES_NOT_EXIST");
                };
                let is_new = run.take("params", &body, |run, name, value| {
                    run.params.insert(name.to_owned(), value.to_owned()).is_none_or(|before| before == value)
                });
                if !is_new {
                    return refusal(400, "INVALID_PARAMETER_VALUE");
                }
                run.take("tags", &body, |_, _, _| true);
                for metric in body["metrics"].as_array().into_iter().flatten() {
                    assert!(metric["timestamp"].is_i64() && metric["step"] == 0, "{metric}");
                    run.metrics.insert(text(metric, "key"), metric["value"].as_f64().expect("a number"));
                }
                run.batches += 1;
                json!({})
            }
            "POST runs/update" => {
                let Some((id, run)) = self.run(&text(&body, "run_id")) else {
                    return refusal(404, "RESOURCE_DOES_NOT_EXIST");
                };
                run.status = text(&body, "status");
                run.times_ms[1] = body["end_time"].as_i64().expect("a time");
                json!({ "run_info": shown(id, run)["info"] })
            }
            "POST registered-models/create" => {
                if !self.models.insert(text(&body, "name")) {
                    return refusal(400, "RESOURCE_ALREADY_EXISTS");
                }
                json!({ "registered_model": { "name": body["name"] } })
            }
            "GET model-versions/search" => {
                let filter = query(path, "filter");
                let [name, run] = quoted(&filter)[..] else { panic!("{filter}") };
                let is_it = |version: &[String; 3]| version[0] == name && version[1] == run;
                match self.versions.iter().position(is_it) {
                    Some(place) => json!({ "model_versions": [{ "version": (place + 1).to_string() }] }),
                    None => json!({}),
                }
            }
            "POST model-versions/create" => {
                let version = ["name", "run_id", "source"].map(|field| text(&body, field));
                assert!(self.models.contains(&version[0]), "{version:?}");
                let own = format!("mlflow-artifacts:/1/{}/artifacts/", version[1]);
                assert!(version[2].starts_with(&own), "{version:?}");
                self.versions.push(version);
                json!({ "model_version": { "version": self.versions.len().to_string() } })
            }
            "POST registered-models/alias" => {
                let [name, alias, version] = ["name", "alias", "version"].map(|field| text(&body, field));
                let known = self
                    .versions
                    .iter()
                    .enumerate()
                    .any(|(place, known)| known[0] == name && (place + 1).to_string() == version);
                assert!(known, "{body}");
                self.aliases.insert((name, alias), version);
                json!({})
            }
            _ => return refusal(404, "ENDPOINT_NOT_FOUND"),
        };
        Answer::Reply(200, answer.to_string())
    }

    fn run(&mut self, id: &str) -> Option<(usize, &mut Run)> {
        let id: usize = id.parse().ok()?;
        self.runs.get_mut(id).map(|run| (id, run))
    }
}

impl Run {
    /// Takes the pairs of a batch, which must keep to the limits; whether all of them were new or the same.
    fn take(&mut self, field: &str, body: &Value, keep: impl Fn(&mut Self, &str, &str) -> bool) -> bool {
        let (most, longest) = if field == "params" { (100, 6_000) } else { (100, 8_000) };
        let pairs = body[field].as_array().map(Vec::as_slice).unwrap_or_default();
        assert!(pairs.len() <= most, "{field}");
        let mut are_kept = true;
        for pair in pairs {
            let (name, value) = (text(pair, "key"), text(pair, "value"));
            assert!(name.len() <= 250 && value.chars().count() <= longest && !value.is_empty(), "{pair}");
            are_kept &= keep(self, &name, &value);
            if field == "tags" {
                self.tags.insert(name, value);
            }
        }
        are_kept
    }
}

fn shown(id: usize, run: &Run) -> Value {
    let pairs = |pairs: &BTreeMap<String, String>| -> Vec<Value> {
        pairs.iter().map(|(name, value)| json!({ "key": name, "value": value })).collect()
    };
    let stage = if run.deleted { "deleted" } else { "active" };
    json!({
        "info": {
            "run_id": id.to_string(), "artifact_uri": format!("mlflow-artifacts:/1/{id}/artifacts"),
            "lifecycle_stage": stage,
        },
        "data": { "params": pairs(&run.params), "tags": pairs(&run.tags) },
    })
}
