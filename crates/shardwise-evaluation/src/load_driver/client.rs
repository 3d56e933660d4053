//! HTTP from many threads, with one pool of connections.

use std::net::{TcpStream, ToSocketAddrs};

use serde::Deserialize;
use shardwise_client::Access;

use super::{HttpOptions, LoadDriverError};

/// Where servers take requests to place.
pub(super) const PREDICT: &str = "/v1/predict-optimal-shard";

/// Fails when nobody listens at the address, before anything is measured.
pub(super) fn reach(target: &str, options: &HttpOptions) -> Result<(), LoadDriverError> {
    let no_address = || LoadDriverError::Address(target.to_owned());
    let unreachable = |problem| LoadDriverError::Unreachable { target: target.to_owned(), problem };
    let authority = rest_of(target).ok_or_else(no_address)?.trim_end_matches('/');
    if target.starts_with("https://") && options.access.ca_file.is_none() {
        let problem = "is asked over TLS: name the certificate of the authority to trust, with --ca-file";
        return Err(LoadDriverError::Plan(format!("target '{target}' {problem}")));
    }
    if authority.contains('/') || !authority.contains(':') {
        return Err(no_address());
    }
    let address = authority.to_socket_addrs().map_err(unreachable)?.next().ok_or_else(no_address)?;
    TcpStream::connect_timeout(&address, options.timeout()).map(drop).map_err(unreachable)
}

/// What follows the scheme of an address; none when there is none.
pub(super) fn rest_of(address: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| address.strip_prefix(scheme))
}

/// An answer that came: its status and its body.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Reply {
    /// The body of a success, otherwise the status as a reason.
    pub(super) fn success(self) -> Result<String, String> {
        match self.status {
            200..300 => Ok(self.body),
            // There are several, and to be turned away in time is something else than to be lost.
            503 => Err(self.problem().map_or_else(|| "http 503".to_owned(), |reason| format!("http 503 {reason}"))),
            status => Err(format!("http {status}")),
        }
    }

    /// The reason that the server names for programs.
    fn problem(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Problem {
            reason: String,
        }
        serde_json::from_str::<Problem>(&self.body).ok().map(|problem| problem.reason)
    }
}

/// What sends.
pub(super) struct Client {
    agent: ureq::Agent,
    access: Access,
}

impl Client {
    /// As the options say.
    ///
    /// # Errors
    /// The token or the certificate cannot be read.
    pub(super) fn new(options: &HttpOptions) -> Result<Self, LoadDriverError> {
        let concurrency = options.concurrency;
        let access = options.access.open()?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(concurrency * 16)
            .max_idle_connections_per_host(concurrency)
            // What is measured is the server, not what the environment puts in between.
            .proxy(None)
            .timeout_global(Some(options.timeout()))
            .build();
        Ok(Self { agent: access.agent(config), access })
    }

    /// The answer of a shard, or why there is none.
    pub(super) fn post(&self, url: &str, body: &str) -> Result<Reply, String> {
        read(self.agent.post(url).content_type("application/json").send(body))
    }

    /// The answer of a router, which may ask for a token, or why there is none.
    pub(super) fn tell(&self, url: &str, body: &str) -> Result<Reply, String> {
        read(self.access.sign(self.agent.post(url)).content_type("application/json").send(body))
    }

    /// The answer of a router, or why there is none.
    pub(super) fn get(&self, url: &str) -> Result<Reply, String> {
        read(self.access.sign(self.agent.get(url)).call())
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Reply, String> {
    let mut answer = answer.map_err(|error| reason(&error))?;
    let body = answer.body_mut().read_to_string().map_err(|error| reason(&error))?;
    Ok(Reply { status: answer.status().as_u16(), body })
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => TIMEOUT,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => TIMEOUT,
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed => "connection lost",
        _ => "no valid http",
    }
    .to_owned()
}

/// Why there is no answer when it took too long.
pub(super) const TIMEOUT: &str = "timeout";
