//! A sidecar that runs as long as a test looks at it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use shardwise_client::{Access, AccessFiles};
use shardwise_server::{Disk, Limits, ServeConfig, StartError, Started, Summary, serve, serve_on};
use tempfile::TempDir;

pub(crate) struct Sidecar {
    pub(crate) started: Started,
    pub(crate) url: String,
    agent: ureq::Agent,
    access: Access,
    stop: &'static AtomicBool,
    thread: Option<JoinHandle<Result<Summary, StartError>>>,
}

pub(crate) fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A configuration with the sample's fleet and no model, whose data lie in `folder`.
pub(crate) fn config(folder: &TempDir) -> ServeConfig {
    ServeConfig {
        listen: "127.0.0.1:0".to_owned(),
        fleet: root("data/sample-fleet.json"),
        data: folder.path().join("data"),
        watch_s: 0.05,
        // Other tests have the machine, too: what waits is no sign of load here.
        limits: Limits { shed_above_ms: 1e5, ..Limits::default() },
        ..ServeConfig::default()
    }
}

fn settings() -> ureq::config::Config {
    let builder = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    builder.timeout_global(Some(Duration::from_secs(20))).build()
}

impl Sidecar {
    pub(crate) fn start(config: ServeConfig) -> Self {
        Self::try_start(config).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_start(config: ServeConfig) -> Result<Self, StartError> {
        Self::run(|stop, started| serve(config, stop, started))
    }

    /// A sidecar whose journal is on a disk of its own.
    pub(crate) fn start_on(disk: Box<dyn Disk>, config: ServeConfig) -> Self {
        Self::run(|stop, started| serve_on(disk, config, stop, started)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn run(
        serve: impl FnOnce(&'static AtomicBool, &mut dyn FnMut(&Started)) -> Result<Summary, StartError> + Send + 'static,
    ) -> Result<Self, StartError> {
        // It lives as long as the process, as the flag of a signal does.
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let (sender, started) = channel();
        let thread = std::thread::spawn(move || serve(stop, &mut |started| sender.send(started.clone()).unwrap()));
        let Ok(started) = started.recv() else {
            return Err(thread.join().unwrap().expect_err("it never started"));
        };
        let access = Access::default();
        let (agent, url) = (access.agent(settings()), format!("http://{}", started.listen));
        Ok(Self { started, url, agent, access, stop, thread: Some(thread) })
    }

    /// The same, asked with a token or over TLS.
    pub(crate) fn asked_with(mut self, scheme: &str, files: &AccessFiles) -> Self {
        let access = files.open().unwrap();
        let port = self.started.listen.rsplit_once(':').unwrap().1;
        (self.agent, self.url) = (access.agent(settings()), format!("{scheme}://localhost:{port}"));
        self.access = access;
        self
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut response = self.access.sign(self.agent.get(format!("{}{path}", self.url))).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    pub(crate) fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn post_text(&self, path: &str, kind: &str, text: &str) -> (u16, Value) {
        let request = self.access.sign(self.agent.post(format!("{}{path}", self.url)));
        let mut response = request.content_type(kind).send(text).unwrap();
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    pub(crate) fn post(&self, path: &str, value: &Value) -> (u16, Value) {
        self.post_text(path, "application/json", &value.to_string())
    }

    /// Places a request of the sample and returns the answer.
    pub(crate) fn place(&self) -> Value {
        let (status, answer) = self.post("/v1/predict-optimal-shard", &request());
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Tells that a decision went well.
    pub(crate) fn settle(&self, answer: &Value) -> (u16, Value) {
        self.post("/v1/outcomes", &outcome(answer))
    }

    /// Looks again and again until something is so.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..400 {
            let status = self.json("/v1/status");
            if is_so(&status) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("{what}: {}", self.json("/v1/status"));
    }

    pub(crate) fn stop(mut self) -> Summary {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

pub(crate) fn request() -> Value {
    json!({
        "function": "arbitrage-function-047", "type": "PriceUpdated", "protocol": "arbitrage", "riskLevel": "low",
        "eventAt": "2026-01-05T12:00:00Z",
    })
}

pub(crate) fn outcome(answer: &Value) -> Value {
    json!({
        "decisionId": answer["decisionId"], "totalMs": 41.0, "execMs": 23.0, "queueMs": 2.0, "queueLen": 1, "cold": false,
        "error": null,
    })
}

/// The files of a journal in the order in which they were begun, which their names tell.
pub(crate) fn journal_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_string_lossy().contains(".ndjson"));
    files.sort();
    files
}

/// The lines of a journal, by table.
pub(crate) fn journal(folder: &TempDir, table: &str) -> Vec<Value> {
    let files = journal_files(&folder.path().join("data/journal"));
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    let lines: Vec<Value> = texts
        .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
        .collect();
    lines.into_iter().filter(|line| line["table"] == table).collect()
}
