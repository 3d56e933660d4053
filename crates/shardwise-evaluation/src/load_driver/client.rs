//! HTTP from many threads, with pools of connections.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

/// A connection that nobody used for so long is not used any more: servers close them, some after five seconds.
const LONGEST_IDLE: Duration = Duration::from_secs(2);

/// What sends.
pub(super) struct Client {
    agent: ureq::Agent,
    access: Access,
}

/// Clients of one server with a connection each, for as many threads as there are: a pool that all share is looked through for
/// every request, under a lock.
pub(super) struct Connections<'a> {
    options: &'a HttpOptions,
    access: Access,
    /// Those that nobody uses, the one that was used last at the end: it is taken first, and the others may age.
    idle: Mutex<Vec<Client>>,
}

impl<'a> Connections<'a> {
    /// As the options say.
    ///
    /// # Errors
    /// The token or the certificate cannot be read.
    pub(super) fn new(options: &'a HttpOptions) -> Result<Self, LoadDriverError> {
        Ok(Self { options, access: options.access.open()?, idle: Mutex::default() })
    }

    /// The answer of a router, or why there is none.
    pub(super) fn tell(&self, url: &str, body: &str) -> Result<Reply, String> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let client = taken.unwrap_or_else(|| Client::with(self.access.clone(), self.options, 1));
        let answer = client.tell(url, body);
        idle().push(client);
        answer
    }
}

impl Client {
    /// As the options say.
    ///
    /// # Errors
    /// The token or the certificate cannot be read.
    pub(super) fn new(options: &HttpOptions) -> Result<Self, LoadDriverError> {
        Ok(Self::with(options.access.open()?, options, options.concurrency))
    }

    fn with(access: Access, options: &HttpOptions, connections: usize) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(connections * 16)
            .max_idle_connections_per_host(connections)
            .max_idle_age(LONGEST_IDLE)
            // What is measured is the server, not what the environment puts in between.
            .proxy(None)
            .timeout_global(Some(options.timeout()))
            .build();
        Self { agent: access.agent(config), access }
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
