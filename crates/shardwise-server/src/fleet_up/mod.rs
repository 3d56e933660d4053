//! A demo fleet (`shardwise fleet up`): reference shards as child processes, watched over, and gone when whoever
//! started them is.
//!
//! Children read standard input and end when it ends. The system closes it when the parent dies, however it dies.

mod plan;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use shardwise_types::{InvalidInput, Network, Region, ShardId, ShardShape};

pub use plan::{FleetOptions, FleetPlan};

use crate::shard::ShardOptions;
use crate::shard::clock::now;

/// The file that tells others of the fleet.
pub const FLEET_FILE: &str = "fleet.json";
/// How often children are looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a shard may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a shard may take to finish its work when the fleet ends; then it is killed.
const END_WITHIN: Duration = Duration::from_secs(15);
/// Wait before a shard that died is started again; doubled each time until it has lived long enough.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const MOST_WAIT: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(60);
/// How long a look at a shard's health may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a fleet cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// An option is out of range.
    #[error("fleet options: {0}")]
    Options(#[from] InvalidInput),
    /// There are no free ports.
    #[error("cannot find free ports: {0}")]
    Ports(io::Error),
    /// A file cannot be written.
    #[error("cannot write {path}: {problem}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: io::Error,
    },
    /// A process cannot be started.
    #[error("cannot start {shard}: {problem}")]
    Start {
        /// The shard.
        shard: ShardId,
        /// What the system says.
        problem: io::Error,
    },
    /// A shard ended before it was ready.
    #[error("{shard} ended before it was ready ({status}); it says why on standard error")]
    Ended {
        /// The shard.
        shard: ShardId,
        /// How it ended.
        status: ExitStatus,
    },
    /// A shard ended before it was ready, for somebody else listens where it was to.
    #[error("{shard} ended before it was ready: {address} is taken; name another first port, or none")]
    Taken {
        /// The shard.
        shard: ShardId,
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// A shard does not become ready.
    #[error("{shard} at {address} was not ready within {} s", READY_WITHIN.as_secs())]
    NotReady {
        /// The shard.
        shard: ShardId,
        /// Where it should answer.
        address: String,
    },
    /// The user stopped it.
    #[error("interrupted before the fleet was ready")]
    Interrupted,
}

/// Something that whoever runs a fleet wants to hear of.
#[derive(Debug, Clone, PartialEq)]
pub enum FleetEvent {
    /// All shards are ready, and the file is written.
    Ready(FleetFile),
    /// A shard ended by itself.
    Died {
        /// The shard.
        shard: ShardId,
        /// How it ended.
        status: ExitStatus,
        /// When it is started again; `None` when it is left as it is.
        again_in: Option<Duration>,
    },
    /// A shard was started again.
    Restarted {
        /// The shard.
        shard: ShardId,
        /// Its process.
        pid: u32,
    },
    /// A shard could not be started again; it is tried once more.
    NotRestarted {
        /// The shard.
        shard: ShardId,
        /// What the system says.
        problem: String,
    },
}

/// What others may know of a fleet that runs; written as `fleet.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetFile {
    /// The shards.
    pub shards: Vec<FleetShard>,
    /// Distances.
    pub network: Network,
    /// Where the router is meant to stand.
    pub router_region: Region,
}

/// A shard of a fleet that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetShard {
    /// Its name.
    pub id: ShardId,
    /// Where it takes requests, as `http://host:port`.
    pub address: String,
    /// What does not change about it.
    pub shape: ShardShape,
    /// Its process; `None` while it is dead.
    pub pid: Option<u32>,
}

/// How a fleet is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions<'a> {
    /// Where `fleet.json` and the options of the shards are written.
    pub directory: &'a Path,
    /// Whether shards that die are started again.
    pub restart: bool,
}

/// The command that starts a shard with the options in a file: this program with `shard --options FILE`.
///
/// # Errors
/// When the system does not say which program this is.
pub fn this_program(options: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["shard", "--options"]).arg(options);
    Ok(command)
}

/// Starts a fleet, waits until all of it is ready, and looks after it until `stop` is set; then all of it is stopped.
///
/// `command` gives the command that runs a shard with the options in a file, such as [`this_program`]. Standard input
/// and output of the children are the fleet's; what they say on standard error comes through.
///
/// # Errors
/// When a shard cannot be started or does not become ready; none is left running then.
pub fn run(
    plan: &FleetPlan,
    options: &RunOptions<'_>,
    command: &dyn Fn(&Path) -> io::Result<Command>,
    stop: &AtomicBool,
    event: &mut dyn FnMut(&FleetEvent),
) -> Result<(), FleetError> {
    let mut fleet = Fleet::start(plan, options, command)?;
    fleet.wait_until_ready(stop)?;
    event(&FleetEvent::Ready(fleet.write_file()?));
    while !stop.load(Relaxed) {
        fleet.look_after(event)?;
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The children; dropping it ends them.
struct Fleet<'a> {
    plan: &'a FleetPlan,
    options: &'a RunOptions<'a>,
    command: &'a dyn Fn(&Path) -> io::Result<Command>,
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    shard: &'a ShardOptions,
    options_file: PathBuf,
    child: Option<Child>,
    started: Instant,
    /// When it is to be started again.
    due: Option<Instant>,
    wait: Duration,
}

impl<'a> Fleet<'a> {
    fn start(
        plan: &'a FleetPlan,
        options: &'a RunOptions<'a>,
        command: &'a dyn Fn(&Path) -> io::Result<Command>,
    ) -> Result<Self, FleetError> {
        let directory = options.directory.join("shards");
        fs::create_dir_all(&directory).map_err(|problem| FleetError::Write { path: directory.clone(), problem })?;
        let mut fleet = Self { plan, options, command, members: Vec::new() };
        for shard in &plan.shards {
            let options_file = directory.join(format!("{}.json", shard.id));
            let with_state = ShardOptions { state: Some(options.directory.join("state")), ..shard.clone() };
            write_json(&options_file, &with_state)?;
            let child = spawn(command, &options_file);
            let child = child.map_err(|problem| FleetError::Start { shard: shard.id.clone(), problem })?;
            let (child, started) = (Some(child), now());
            fleet.members.push(Member { shard, options_file, child, started, due: None, wait: FIRST_WAIT });
        }
        Ok(fleet)
    }

    fn wait_until_ready(&mut self, stop: &AtomicBool) -> Result<(), FleetError> {
        let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(PROBE_TIMEOUT)).build();
        let (agent, deadline) = (config.new_agent(), now() + READY_WITHIN);
        for member in &mut self.members {
            let (shard, address) = (&member.shard.id, address_of(member.shard));
            while !is_ready(&agent, &address, shard) {
                if let Some(status) = member.ended() {
                    let (shard, address) = (shard.clone(), member.shard.listen);
                    let is_taken = TcpListener::bind(address).is_err_and(|it| it.kind() == io::ErrorKind::AddrInUse);
                    return Err(match is_taken {
                        true => FleetError::Taken { shard, address },
                        false => FleetError::Ended { shard, status },
                    });
                }
                if stop.load(Relaxed) {
                    return Err(FleetError::Interrupted);
                }
                if now() > deadline {
                    return Err(FleetError::NotReady { shard: shard.clone(), address });
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Hears of children that died, and starts those again whose time has come.
    fn look_after(&mut self, event: &mut dyn FnMut(&FleetEvent)) -> Result<(), FleetError> {
        let mut changed = false;
        for member in &mut self.members {
            if let Some(status) = member.ended() {
                let again_in = self.options.restart.then(|| member.next_wait());
                member.due = again_in.map(|wait| now() + wait);
                event(&FleetEvent::Died { shard: member.shard.id.clone(), status, again_in });
                changed = true;
            }
            if member.due.is_some_and(|due| now() >= due) {
                event(&member.restart(self.command));
                changed = true;
            }
        }
        if changed {
            self.write_file()?;
        }
        Ok(())
    }

    fn write_file(&self) -> Result<FleetFile, FleetError> {
        let shard = |member: &Member<'_>| FleetShard {
            id: member.shard.id.clone(),
            address: address_of(member.shard),
            shape: member.shard.shape.clone(),
            pid: member.child.as_ref().map(Child::id),
        };
        let file = FleetFile {
            shards: self.members.iter().map(shard).collect(),
            network: self.plan.network.clone(),
            router_region: self.plan.router_region.clone(),
        };
        write_json(&self.options.directory.join(FLEET_FILE), &file)?;
        Ok(file)
    }
}

impl Member<'_> {
    /// How the child ended, once.
    fn ended(&mut self) -> Option<ExitStatus> {
        // A child that cannot be asked is taken for alive; the next look asks again.
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    fn next_wait(&mut self) -> Duration {
        if now().saturating_duration_since(self.started) >= LONG_LIFE {
            self.wait = FIRST_WAIT;
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(MOST_WAIT);
        wait
    }

    fn restart(&mut self, command: &dyn Fn(&Path) -> io::Result<Command>) -> FleetEvent {
        self.started = now();
        match spawn(command, &self.options_file) {
            Ok(child) => {
                let (shard, pid) = (self.shard.id.clone(), child.id());
                (self.child, self.due) = (Some(child), None);
                FleetEvent::Restarted { shard, pid }
            }
            Err(problem) => {
                self.due = Some(now() + self.next_wait());
                FleetEvent::NotRestarted { shard: self.shard.id.clone(), problem: problem.to_string() }
            }
        }
    }
}

impl Drop for Fleet<'_> {
    /// Lets all children finish their work at once, and kills those that do not.
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(child) = &mut member.child {
                drop(child.stdin.take());
            }
        }
        let deadline = now() + END_WITHIN;
        for member in &mut self.members {
            while member.child.is_some() && member.ended().is_none() && now() < deadline {
                thread::sleep(LOOK_EVERY);
            }
            if let Some(mut child) = member.child.take() {
                // It may have ended in between: then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn spawn(command: &dyn Fn(&Path) -> io::Result<Command>, options_file: &Path) -> io::Result<Child> {
    command(options_file)?.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
}

fn address_of(shard: &ShardOptions) -> String {
    shard.address.clone().unwrap_or_else(|| format!("http://{}", shard.listen))
}

/// Whether this shard answers there, and not another process that has its port.
fn is_ready(agent: &ureq::Agent, address: &str, shard: &ShardId) -> bool {
    #[derive(Deserialize)]
    struct Ready {
        shard: ShardId,
    }
    let body =
        agent.get(format!("{address}/health/ready")).call().and_then(|mut answer| answer.body_mut().read_to_string());
    body.is_ok_and(|body| serde_json::from_str::<Ready>(&body).is_ok_and(|ready| ready.shard == *shard))
}

/// Writes a file as a whole: readers see the one before or this one.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), FleetError> {
    let failed = |problem| FleetError::Write { path: path.to_owned(), problem };
    let mut text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?;
    text.push('\n');
    let partial = path.with_extension("json.partial");
    fs::write(&partial, text).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)
}
