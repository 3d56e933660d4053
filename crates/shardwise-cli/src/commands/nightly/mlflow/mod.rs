//! Tells an MLflow tracking server what a night did. Whatever goes wrong is one warning and an event in the run's folder; the
//! night is what it is without. How far it came stands in `mlflow.json`, so that the next start of the same night goes on
//! there, with the same MLflow run.

mod client;
mod record;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shardwise_models::{CHALLENGER, CHAMPION};
use url::Url;

use self::client::{Client, IS_THERE, NOT_THERE, Problem, text};
use self::record::{FILES, RUN_TAG, Record, name_of};
use super::Night;
use super::run_folder::{RunState, read_json};
use crate::arguments::MlflowArguments;
use crate::output::{self, Stage, progress};

const FILE: &str = "mlflow.json";
/// Where the bundle lies among the artefacts.
const MODEL_FOLDER: &str = "model";

/// Whom to tell.
struct Target {
    url: String,
    experiment: String,
    /// The most that all of it may take.
    timeout: Duration,
}

impl Target {
    /// From the options, else from the environment as MLflow's own clients do; `None` when nobody asks for MLflow.
    fn of(options: &MlflowArguments) -> Option<Self> {
        let or_variable = |given: &Option<String>, name: &str| {
            given.clone().or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
        };
        Some(Self {
            url: or_variable(&options.mlflow, "MLFLOW_TRACKING_URI")?,
            experiment: or_variable(&options.mlflow_experiment, "MLFLOW_EXPERIMENT_NAME")
                .unwrap_or_else(|| "shardwise".to_owned()),
            timeout: Duration::from_secs(options.mlflow_timeout),
        })
    }

    /// The address without what must not be read.
    fn shown(&self) -> String {
        let Ok(mut url) = Url::parse(&self.url) else { return self.url.clone() };
        // Both fail only where there is nothing to hide.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.as_str().trim_end_matches('/').to_owned()
    }
}

/// `mlflow.json`: what the server knows of the run.
#[derive(Default, Serialize, Deserialize)]
struct Told {
    server: String,
    experiment: String,
    /// Whether it knows all of `attempt`.
    complete: bool,
    attempt: u32,
    run_id: Option<String>,
    /// Whether it has the parameters, metrics and tags.
    figures: bool,
    artifacts: BTreeSet<String>,
    /// The version in its registry of models.
    model_version: Option<String>,
    /// Why it does not know all.
    problem: Option<String>,
}

impl Night<'_> {
    /// Tells the server of this finished run what it does not know yet.
    pub(super) fn tell_mlflow(&self) {
        let Some(target) = Target::of(&self.options.mlflow) else { return };
        let mut told: Told = read_json(&self.run.path.join(FILE)).unwrap_or_default();
        let (server, attempt) = (target.shown(), self.run.state().attempts);
        if told.server != server || told.experiment != target.experiment {
            told = Told { server: server.clone(), experiment: target.experiment.clone(), ..Told::default() };
        }
        if told.attempt != attempt {
            // Judged anew: other figures of the same run.
            told = Told { attempt, complete: false, figures: false, artifacts: BTreeSet::new(), ..told };
        }
        if told.complete {
            return;
        }
        progress::enter("mlflow");
        let stage = Stage::start(format!("telling MLflow at {server}"));
        let started_ns = output::clock_ns();
        let outcome = Client::new(&target).and_then(|client| self.tell(&client, &target, &mut told));
        let seconds = (output::clock_ns() - started_ns) as f64 / 1e9;
        told.complete = outcome.is_ok();
        told.problem = outcome.as_ref().err().map(|problem| problem.words.clone());
        let saved = self.save(&told);
        let (event, message) = match outcome.and(saved) {
            Ok(()) => {
                stage.done(format!("run {}", told.run_id.as_deref().unwrap_or_default()));
                ("finished", None)
            }
            Err(Problem { words, help, .. }) => {
                let help = if help.is_empty() { help } else { format!("{help}; ") };
                let message = format!(
                    "MLflow at {server} {words}; {help}the night is done all the same, and the same command with --date {} \
                     tells the rest",
                    self.date
                );
                progress::warn(&message);
                ("failed", Some(message))
            }
        };
        if let Err(failure) = self.run.event("mlflow", event, Some(seconds), message.as_deref()) {
            progress::warn(format!("the run's folder does not say so: {}", failure.message()));
        }
    }

    fn save(&self, told: &Told) -> Result<(), Problem> {
        self.run.write_json(FILE, told).map_err(|failure| {
            let words = format!("was told, but what it knows cannot be noted: {}", failure.message());
            Problem::new(words, "free some space")
        })
    }

    fn tell(&self, client: &Client, target: &Target, told: &mut Told) -> Result<(), Problem> {
        let state = self.run.state();
        let record = Record::of(&self.run.path, &state);
        let run = self.mlflow_run(client, target, &record, told)?;
        let run_id = text(&run, "/info/run_id")?;
        if !told.figures {
            let params = run["data"]["params"].as_array().map(Vec::as_slice).unwrap_or_default();
            let has_param = |name: &str| params.iter().any(|param| param["key"] == name);
            for batch in record.batches(&run_id, has_param) {
                client.post("runs/log-batch", &batch)?;
            }
            let ended = json!({ "run_id": run_id, "status": "FINISHED", "end_time": record.end_ms });
            client.post("runs/update", &ended)?;
            told.figures = true;
            self.save(told)?;
        }
        let artifacts = text(&run, "/info/artifact_uri")?;
        self.send_artifacts(client, &artifacts, &state, told)?;
        self.register(client, &run_id, &artifacts, &record, told)?;
        self.point_alias(client, &state, told)
    }

    /// The MLflow run of this run: the one that was noted, else one that says it is, else a new one.
    fn mlflow_run(&self, client: &Client, target: &Target, record: &Record, told: &mut Told) -> Result<Value, Problem> {
        if let Some(run_id) = &told.run_id {
            match client.get("runs/get", &[("run_id", run_id)]) {
                Ok(answer) if answer["run"]["info"]["lifecycle_stage"] != "deleted" => return Ok(answer["run"].clone()),
                Err(problem) if problem.code != NOT_THERE => return Err(problem),
                // Somebody removed it, or the server lost it.
                Ok(_) | Err(_) => {
                    (told.run_id, told.model_version, told.figures) = (None, None, false);
                    told.artifacts.clear();
                }
            }
        }
        let experiment = experiment(client, &target.experiment)?;
        // The answer to its creation may have been lost.
        let name = name_of(&self.run.state());
        let search = json!({
            "experiment_ids": [experiment], "filter": format!("tags.`{RUN_TAG}` = '{name}'"), "max_results": 1,
            "run_view_type": "ACTIVE_ONLY",
        });
        let found = client.post("runs/search", &search)?["runs"][0].clone();
        let run = if found.is_object() {
            found
        } else {
            let new = json!({
                "experiment_id": experiment, "run_name": name, "start_time": record.start_ms,
                "tags": record.run_tags(),
            });
            client.post("runs/create", &new)?["run"].clone()
        };
        told.run_id = Some(text(&run, "/info/run_id")?);
        self.save(told)?;
        Ok(run)
    }

    /// Sends the files of the run, and the model as the file that `shardwise models import` takes.
    fn send_artifacts(&self, client: &Client, uri: &str, state: &RunState, told: &mut Told) -> Result<(), Problem> {
        let Some(root) = Url::parse(uri).ok().filter(|url| url.scheme() == "mlflow-artifacts") else {
            return Err(Problem::new(
                format!("keeps the artefacts of this experiment at {uri}, which only the server can write"),
                "start it with --artifacts-destination in the place of --default-artifact-root, and name another \
                 --mlflow-experiment",
            ));
        };
        let sent = told.artifacts.clone();
        let mut send = |name: &str, content_type: &str, content: &[u8]| {
            client.put(&format!("{}/{name}", root.path().trim_matches('/')), content_type, content)?;
            told.artifacts.insert(name.to_owned());
            self.save(told)
        };
        for (name, content_type) in FILES.iter().filter(|(name, _)| !sent.contains(*name)) {
            // A night that was not judged has no report.
            if let Ok(content) = fs::read(self.run.path.join(name)) {
                send(name, content_type, &content)?;
            }
        }
        let version = state.version.as_deref().unwrap_or_default();
        let name = format!("{MODEL_FOLDER}/{}-{version}.tar", self.options.name);
        if !sent.contains(&name) {
            let unreadable = |problem: String| Problem::new(format!("was not told the model: {problem}"), "");
            let package = self.registry.package(version).map_err(|error| unreadable(error.to_string()))?;
            let tar = package.to_tar().map_err(|error| unreadable(error.to_string()))?;
            send(&name, "application/x-tar", &tar)?;
        }
        Ok(())
    }

    /// Makes the model a version in the server's registry, once for each run.
    fn register(
        &self,
        client: &Client,
        run_id: &str,
        artifacts: &str,
        record: &Record,
        told: &mut Told,
    ) -> Result<(), Problem> {
        if told.model_version.is_some() {
            return Ok(());
        }
        let name = self.registered_name();
        match client.post("registered-models/create", &json!({ "name": name })) {
            Err(problem) if problem.code != IS_THERE => return Err(problem),
            Ok(_) | Err(_) => {}
        }
        // The answer to its creation may have been lost.
        let filter = format!("name = '{name}' and run_id = '{run_id}'");
        let found = client.get("model-versions/search", &[("filter", &filter), ("max_results", "1")])?;
        let found = found.pointer("/model_versions/0/version").and_then(Value::as_str).map(str::to_owned);
        let version = match found {
            Some(version) => version,
            None => {
                let new = json!({
                    "name": name, "source": format!("{artifacts}/{MODEL_FOLDER}"), "run_id": run_id,
                    "tags": record.model_tags(),
                });
                text(&client.post("model-versions/create", &new)?, "/model_version/version")?
            }
        };
        told.model_version = Some(version);
        self.save(told)
    }

    /// Points `champion` to what is champion, `challenger` to what the newest run made and is not. A run that is told late
    /// moves neither back.
    fn point_alias(&self, client: &Client, state: &RunState, told: &Told) -> Result<(), Problem> {
        let champion = self.registry.alias(CHAMPION);
        let champion = champion.map_err(|error| Problem::new(format!("was not told the alias: {error}"), ""))?;
        let alias = match state.outcome {
            Some(outcome) if outcome.is_live() => (champion == state.version).then_some(CHAMPION),
            _ => self.run.is_latest().then_some(CHALLENGER),
        };
        let Some(alias) = alias else { return Ok(()) };
        let move_to = json!({ "name": self.registered_name(), "alias": alias, "version": told.model_version });
        client.post("registered-models/alias", &move_to).map(drop)
    }

    fn registered_name(&self) -> String {
        format!("shardwise-{}", self.options.name)
    }
}

/// The experiment's number; makes it when it is not there.
fn experiment(client: &Client, name: &str) -> Result<String, Problem> {
    let find = || client.get("experiments/get-by-name", &[("experiment_name", name)]);
    let found = match find() {
        Err(problem) if problem.code == NOT_THERE => {
            match client.post("experiments/create", &json!({ "name": name })) {
                Ok(made) => return text(&made, "/experiment_id"),
                // Another night made it a moment ago.
                Err(problem) if problem.code == IS_THERE => find()?,
                Err(problem) => return Err(problem),
            }
        }
        found => found?,
    };
    if found["experiment"]["lifecycle_stage"] == "deleted" {
        let help = "restore it with `mlflow experiments restore`, or name another --mlflow-experiment";
        return Err(Problem::new(format!("has deleted the experiment {name}"), help));
    }
    text(&found, "/experiment/experiment_id")
}
