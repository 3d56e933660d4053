//! The reference shard (`shardwise shard`): a small server that runs real pure functions on cores of its own, so that
//! placements can be compared on real processes.
//!
//! It measures execution and queue with the monotonic clock, on the threads that run requests. How slow its machine is,
//! how far away it stands and what goes wrong on it are options; what a function does follows from its name (see
//! [`FunctionBody`]). It places nothing.

mod agent;
pub(crate) mod clock;
mod faults;
mod functions;
mod http;
mod meter;
mod options;
mod publish;
#[cfg(test)]
mod tests;
mod warm;
mod workers;

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::serve::ListenerExt;
use shardwise_client::AccessError;
use shardwise_monitor::{BootId, Collector, CollectorConfig, CollectorError, LoadFormula, Scope};
use shardwise_types::{InvalidInput, ShardReport};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use faults::{Fault, FaultKind};
pub use functions::{FunctionBody, FunctionKind};
pub use options::ShardOptions;
pub use publish::{HttpPublisher, Publish};
pub use shardwise_monitor::Envelope;

use agent::BusPublisher;
use http::Server;
use publish::Reporter;
use workers::Workers;

/// How often a shard looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long answers may take to leave when the shard ends; a client that does not read is not waited for any longer.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// What a process ends with when it was told to crash, as after an abort.
const CRASHED: i32 = 134;

/// Why a shard cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// An option is out of range.
    #[error("shard options: {0}")]
    Options(#[from] InvalidInput),
    /// The address is taken or not ours.
    #[error("cannot listen at {address}: {problem}; choose another address, or port 0 for a free one")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The token or the authority's certificate cannot be used.
    #[error("shard options: {0}")]
    Access(#[from] AccessError),
    /// The bus, or what is kept of configuration changes.
    #[error("cannot start a shard: {0}")]
    Outside(String),
    /// The machine does not say what it is doing.
    #[error("cannot start a shard: {0}")]
    Collector(#[from] CollectorError),
    /// There are no threads or files left.
    #[error("cannot start a shard: {0}")]
    System(std::io::Error),
}

/// A shard that runs in this process. Dropping it ends it like [`stop`](Self::stop).
pub struct RunningShard {
    address: String,
    workers: Arc<Workers>,
    ending: watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    reports: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl RunningShard {
    /// Starts a shard; `publish` gets its reports. It takes requests when this returns.
    ///
    /// # Errors
    /// When an option is out of range or the address cannot be had.
    pub fn start(options: &ShardOptions, mut publish: impl Publish + 'static) -> Result<Self, ShardError> {
        options.check()?;
        let listen = |problem| ShardError::Listen { address: options.listen, problem };
        let listener = TcpListener::bind(options.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let local = listener.local_addr().map_err(listen)?;
        let address = options.address.clone().unwrap_or_else(|| format!("http://{local}"));
        let boot = BootId::new(clock::wall(), std::process::id());
        let workers = Workers::start(options);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ShardError::System)?;
        let outside = runtime.block_on(agent::reach_out(options, &workers))?;
        let mut bus = outside.bus.clone().map(|bus| BusPublisher { bus, runtime: runtime.handle().clone() });
        let (ending, watched) = watch::channel(false);
        let server = Server {
            options: options.clone(),
            address: address.clone(),
            boot_id: boot.to_string(),
            workers: Arc::clone(&workers),
            outside,
            ending: watched,
        };
        let server = serve(runtime, listener, server).map_err(ShardError::System)?;
        let collected = CollectorConfig {
            shard: options.id.clone(),
            boot,
            address: Some(address.clone()),
            shape: options.shape.clone(),
            formula: LoadFormula::default(),
            // Several shards share the machine of a demo.
            scope: Scope::Process,
            root: "/".into(),
            work_folder: ".".into(),
        };
        let reporter = Reporter {
            collector: Collector::new(collected, Arc::clone(&workers.recorder))?,
            cores: options.shape.cores,
            every: Duration::from_millis(options.report_every_ms),
        };
        let (end_reports, ended) = mpsc::channel();
        let reported = Arc::clone(&workers);
        let mut both = move |envelope: &Envelope| {
            publish.publish(envelope);
            if let Some(bus) = &mut bus {
                bus.publish(envelope);
            }
        };
        let reports = thread::spawn(move || reporter.run(&reported, &mut both, &ended));
        Ok(Self { address, workers, ending, server: Some(server), reports: Some((end_reports, reports)) })
    }

    /// Where it takes requests, as `http://host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it says of itself now, and over the time since its last published report.
    pub fn report(&self) -> ShardReport {
        self.workers.look(clock::now())
    }

    /// Refuses what is new, finishes what it has taken, publishes a last report that calls it unhealthy, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.workers.drain();
        // Nobody listens when the server has ended by itself.
        let _ = self.ending.send(true);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        if let Some((end, reports)) = self.reports.take() {
            drop(end);
            let _ = reports.join();
        }
    }
}

impl Drop for RunningShard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Answers on a thread of its own: one is enough for a few thousand requests a second, and the cores are others.
fn serve(runtime: Runtime, listener: TcpListener, server: Server) -> std::io::Result<JoinHandle<()>> {
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    // An answer is one small packet; waiting for a second one would only delay it. Where that cannot be said, it is
    // slower.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let (mut ending, mut ended) = (server.ending.clone(), server.ending.clone());
    let end = async move {
        let _ = ending.wait_for(|ending| *ending).await;
    };
    let serving = axum::serve(listener, http::routes(server)).with_graceful_shutdown(end);
    let all = async move {
        let overdue = async {
            let _ = ended.wait_for(|ending| *ending).await;
            tokio::time::sleep(LEAVE_WITHIN).await;
        };
        tokio::select! {
            _ = serving => {}
            () = overdue => {}
        }
    };
    Ok(thread::spawn(move || runtime.block_on(all)))
}

/// Runs a shard until `stop` is set, or until standard input ends if the options say so, and drains it. `started` gets
/// its address. Reports go to `publish` and are posted to the routers of the options.
///
/// # Errors
/// As [`RunningShard::start`], and when the token or the certificate for routers cannot be read.
pub fn run(
    options: &ShardOptions,
    mut publish: impl Publish + 'static,
    stop: &AtomicBool,
    started: impl FnOnce(&str),
) -> Result<(), ShardError> {
    let mut http = HttpPublisher::new(&options.report_to, options.access().open()?);
    let both = move |envelope: &Envelope| {
        publish.publish(envelope);
        http.publish(envelope);
    };
    let shard = RunningShard::start(options, both)?;
    started(shard.address());
    let input_ended = Arc::new(AtomicBool::new(false));
    if options.ends_with_stdin {
        let ended = Arc::clone(&input_ended);
        thread::spawn(move || {
            wait_for_end_of_input();
            ended.store(true, Relaxed);
        });
    }
    while !stop.load(Relaxed) && !input_ended.load(Relaxed) {
        if shard.workers.faults().has(FaultKind::Crash) {
            std::process::exit(CRASHED);
        }
        thread::sleep(LOOK_EVERY);
    }
    shard.stop();
    Ok(())
}

/// An input that cannot be read has ended, too.
fn wait_for_end_of_input() {
    let (mut input, mut ignored) = (std::io::stdin().lock(), [0; 256]);
    while input.read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
}
