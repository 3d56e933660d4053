//! MLflow's REST interface, as far as a night needs it: one request after the other, each bounded in time and size, and all
//! of them together.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::typestate::WithBody;
use ureq::{Agent, Body, RequestBuilder};
use url::Url;

use super::Target;
use crate::output;

/// A request that carries no file takes this long at most.
const REQUEST: Duration = Duration::from_secs(15);
/// The largest answer that is taken, in bytes.
const LARGEST_ANSWER: u64 = 16 << 20;
/// What is shown of an answer that makes no sense, in characters.
const SHOWN: usize = 200;
/// What MLflow calls a thing that is not there, and one that is.
pub(super) const NOT_THERE: &str = "RESOURCE_DOES_NOT_EXIST";
pub(super) const IS_THERE: &str = "RESOURCE_ALREADY_EXISTS";

/// Why MLflow could not be told.
#[derive(Debug)]
pub(super) struct Problem {
    /// MLflow's own word for it; empty when it is not MLflow's.
    pub(super) code: String,
    /// What happened, after the server's address.
    pub(super) words: String,
    /// What to do.
    pub(super) help: String,
}

impl Problem {
    pub(super) fn new(words: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: String::new(), words: words.into(), help: help.into() }
    }
}

pub(super) struct Client {
    agent: Agent,
    base: String,
    authorization: Option<String>,
    timeout: Duration,
    started_ns: u64,
}

impl Client {
    /// A client whose time runs from now on.
    pub(super) fn new(target: &Target) -> Result<Self, Problem> {
        let url = Url::parse(&target.url).ok().filter(Url::has_host);
        match url.as_ref().map(Url::scheme) {
            Some("http") => {}
            Some("https") => {
                return Err(Problem::new(
                    "needs TLS, which this program does not speak",
                    "forward the server's port and name http://localhost:PORT",
                ));
            }
            _ => return Err(Problem::new("is no address of a tracking server", "write it as http://host:port")),
        }
        // A status that is no success comes with a reason in its body.
        let agent = Agent::config_builder().http_status_as_error(false).build().new_agent();
        Ok(Self {
            agent,
            base: target.url.trim_end_matches('/').to_owned(),
            authorization: authorization(),
            timeout: target.timeout,
            started_ns: output::clock_ns(),
        })
    }

    /// Asks `api/2.0/mlflow/PATH`.
    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Problem> {
        let mut request = self.agent.get(format!("{}/api/2.0/mlflow/{path}", self.base));
        for (name, value) in query {
            request = request.query(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let within = self.left()?.min(REQUEST);
        let answer = request.config().timeout_global(Some(within)).build().call();
        let (status, body) = receive(path, within, answer)?;
        object(path, status, &body)
    }

    /// Tells `api/2.0/mlflow/PATH`.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Problem> {
        let request = self.agent.post(format!("{}/api/2.0/mlflow/{path}", self.base));
        let within = self.left()?.min(REQUEST);
        let (status, body) = self.send(path, request, "application/json", body.to_string().as_bytes(), within)?;
        object(path, status, &body)
    }

    /// Sends a file to the server's store of artefacts; it may take all the time that is left.
    pub(super) fn put(&self, path: &str, content_type: &str, content: &[u8]) -> Result<(), Problem> {
        let request = self.agent.put(format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.base));
        let within = self.left()?;
        let (status, body) = self.send(path, request, content_type, content, within)?;
        // It has nothing to say when all is well.
        if status.is_success() && body.is_empty() { Ok(()) } else { object(path, status, &body).map(drop) }
    }

    fn send(
        &self,
        path: &str,
        mut request: RequestBuilder<WithBody>,
        content_type: &str,
        content: &[u8],
        within: Duration,
    ) -> Result<(StatusCode, Vec<u8>), Problem> {
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.content_type(content_type).config().timeout_global(Some(within)).build();
        receive(path, within, request.send(content))
    }

    fn left(&self) -> Result<Duration, Problem> {
        if output::is_interrupted() {
            return Err(Problem::new("was not told all, because the night was asked to stop", ""));
        }
        let spent = Duration::from_nanos(output::clock_ns() - self.started_ns);
        let seconds = self.timeout.as_secs();
        self.timeout.checked_sub(spent).filter(|left| !left.is_zero()).ok_or_else(|| {
            let words = format!("did not take all within {seconds} s");
            Problem::new(words, "look at the server, or allow more with --mlflow-timeout")
        })
    }
}

/// The status and body of an answer.
fn receive(
    path: &str,
    within: Duration,
    answer: Result<Response<Body>, ureq::Error>,
) -> Result<(StatusCode, Vec<u8>), Problem> {
    let failed = |error: ureq::Error| match error {
        ureq::Error::Timeout(_) => Problem::new(
            format!("did not answer {path} within {:.1} s", within.as_secs_f64()),
            "look at the server, or allow more with --mlflow-timeout",
        ),
        ureq::Error::HostNotFound => Problem::new("is a host that is not known", "check the address"),
        error => Problem::new(
            format!("cannot be asked for {path}: {error}"),
            "check the address, and that MLflow runs there",
        ),
    };
    let mut answer = answer.map_err(failed)?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec().map_err(failed)?;
    Ok((status, body))
}

/// The object that a server answered with.
fn object(path: &str, status: StatusCode, body: &[u8]) -> Result<Value, Problem> {
    let object = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    let code = object.as_ref().and_then(|object| object["error_code"].as_str()).unwrap_or_default().to_owned();
    let said = match object {
        Some(object) if status.is_success() && code.is_empty() => return Ok(object),
        Some(object) if !code.is_empty() => object["message"].as_str().unwrap_or(&code).to_owned(),
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let (status, said) = (status.as_u16(), in_short(&said));
    let help = match status {
        401 | 403 => "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN".to_owned(),
        429 | 500.. => "look at the server's log".to_owned(),
        _ if code.is_empty() => "check that it is the address of an MLflow server".to_owned(),
        _ => "mend what it says".to_owned(),
    };
    let words = if code.is_empty() {
        format!("answered {path} with {status} and not as MLflow does (\"{said}\")")
    } else {
        format!("refused {path} ({status} {code}): {said}")
    };
    Err(Problem { code, words, help })
}

/// One line of what a server said, which may be anything.
fn in_short(said: &str) -> String {
    let said: String = said.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect()
}

/// The text at a place of an answer.
pub(super) fn text(answer: &Value, pointer: &str) -> Result<String, Problem> {
    let found = answer.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    found.map(str::to_owned).ok_or_else(|| {
        let words = format!("answered without {pointer} (\"{}\")", in_short(&answer.to_string()));
        Problem::new(words, "check that it is the address of an MLflow server")
    })
}

/// As MLflow's own clients take it from the environment; the user's name goes before a token.
fn authorization() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(user) = variable("MLFLOW_TRACKING_USERNAME") {
        let password = variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default();
        return Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
    }
    variable("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_said_is_one_short_line() {
        assert_eq!(in_short("<html>\n\t\u{1b}[31mno  such\u{7}"), "<html> [31mno such");
        assert_eq!(in_short(&"ä".repeat(1_000)).chars().count(), SHOWN);
    }

    #[test]
    fn other_addresses_than_http_are_told_apart() {
        for (url, words) in [
            ("https://mlflow", "TLS"),
            ("databricks", "no address"),
            ("sqlite:///mlflow.db", "no address"),
            ("file:///mlruns", "no address"),
            ("http://", "no address"),
        ] {
            let target = Target { url: url.to_owned(), experiment: String::new(), timeout: REQUEST };
            let problem = Client::new(&target).map(drop).expect_err(url);
            assert!(problem.words.contains(words) && !problem.help.is_empty(), "{url}: {problem:?}");
        }
    }
}
