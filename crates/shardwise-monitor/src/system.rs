//! What the machine is doing, or the part of it that this process may use.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sysinfo::{DiskRefreshKind, Disks, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::cgroup::{Cgroup, DiskBytes};
use crate::details::SystemMetrics;

/// The system does not tell what it is doing.
#[derive(Debug, thiserror::Error)]
#[error("the system cannot be measured: {0}")]
pub struct SystemError(#[from] sysinfo::Error);

/// What this process may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usable {
    /// Cores' worth of CPU time, above 0.
    pub cores: f32,
    /// Memory in MB.
    pub memory_mb: f32,
    /// Clock of the first core in GHz; none when the system does not tell.
    pub clock_ghz: Option<f32>,
}

impl Usable {
    /// Looks at the machine, and at the control groups under a root folder, which is `/` but for tests.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn of(root: &Path) -> Result<Self, SystemError> {
        let mut system = System::new()?;
        system.refresh_cpu_all();
        system.refresh_memory();
        let cgroup = Cgroup::read(root);
        let cores = system.cpus().len().max(1) as f64;
        let memory = system.total_memory();
        let mhz = system.cpus().first().map_or(0, sysinfo::Cpu::frequency);
        Ok(Self {
            cores: cgroup.cpu.map_or(cores, |limit| limit.cores.min(cores)) as f32,
            memory_mb: (cgroup.memory.map_or(memory, |limit| limit.bytes.min(memory)) as f64 / 1e6) as f32,
            clock_ghz: (mhz > 0).then_some(mhz as f32 / 1e3),
        })
    }
}

/// Whose CPU time and memory a shard reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Those of the machine, or of the control group that limits the process: the shard has them to itself.
    #[default]
    Machine,
    /// Those of the process, as shares of the cores and the memory of its shape: several shards are on one machine.
    Process,
}

/// What belongs to one shard among several on a machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Allotment {
    pub(crate) cores: f32,
    pub(crate) memory_mb: f32,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    /// Share of the usable CPU time in use, in [0, 1]; 0 in the first measurement.
    pub(crate) cpu: f32,
    /// Share of the usable memory in use, in [0, 1].
    pub(crate) memory: f32,
    pub(crate) system: SystemMetrics,
}

/// Measures again and again.
pub(crate) struct SystemProbe {
    root: PathBuf,
    work_folder: PathBuf,
    /// None when the machine is the shard's.
    allotment: Option<Allotment>,
    system: System,
    disks: Disks,
    networks: Networks,
    before: Option<Totals>,
}

/// What only grows, at the time of a measurement.
#[derive(Clone, Copy)]
struct Totals {
    at: Duration,
    /// CPU time of the group that is limited, or of the process; none when neither counts.
    cpu_s: Option<f64>,
    disk: Option<DiskBytes>,
    received: u64,
    sent: u64,
}

impl SystemProbe {
    pub(crate) fn new(root: PathBuf, work_folder: PathBuf, allotment: Option<Allotment>) -> Result<Self, SystemError> {
        let work_folder = work_folder.canonicalize().unwrap_or(work_folder);
        let mut system = System::new()?;
        system.refresh_cpu_usage();
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage())?;
        let networks = Networks::new_with_refreshed_list()?;
        Ok(Self { root, work_folder, allotment, system, disks, networks, before: None })
    }

    /// Measures; `at` is the time since the boot.
    pub(crate) fn measure(&mut self, at: Duration) -> Measured {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.disks.refresh_specifics(false, DiskRefreshKind::nothing().with_storage());
        self.networks.refresh(true);
        if self.allotment.is_some() {
            let what = ProcessRefreshKind::nothing().with_cpu().with_memory();
            self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[this_process()]), false, what);
        }
        let cgroup = Cgroup::read(&self.root);
        let totals = self.totals(&cgroup, at);
        let before = self.before.replace(totals);
        let since = before.map(|before| (before, at.saturating_sub(before.at).as_secs_f64()));
        let since = since.filter(|(_, seconds)| *seconds > 0.0);
        let rate = |of: fn(&Totals) -> Option<u64>| {
            let (before, seconds) = since?;
            Some(of(&totals)?.saturating_sub(of(&before)?) as f64 / seconds)
        };
        Measured {
            cpu: self.cpu(&cgroup, totals, since),
            memory: self.memory(&cgroup),
            system: SystemMetrics {
                disk: self.disk(),
                disk_read_bytes_per_s: rate(|totals| totals.disk.map(|disk| disk.read)),
                disk_written_bytes_per_s: rate(|totals| totals.disk.map(|disk| disk.written)),
                received_bytes_per_s: rate(|totals| Some(totals.received)),
                sent_bytes_per_s: rate(|totals| Some(totals.sent)),
                connections: connections(&self.root),
            },
        }
    }

    fn totals(&self, cgroup: &Cgroup, at: Duration) -> Totals {
        let networks = || self.networks.iter().filter(|(name, _)| *name != "lo").map(|(_, network)| network);
        Totals {
            at,
            cpu_s: match self.allotment {
                Some(_) => self.process().map(|process| process.accumulated_cpu_time() as f64 / 1e3),
                None => cgroup.cpu.map(|limit| limit.used_s),
            },
            disk: cgroup.disk.filter(|_| self.allotment.is_none()).or_else(|| DiskBytes::of_process(&self.root)),
            received: networks().map(sysinfo::NetworkData::total_received).sum(),
            sent: networks().map(sysinfo::NetworkData::total_transmitted).sum(),
        }
    }

    fn cpu(&self, cgroup: &Cgroup, now: Totals, since: Option<(Totals, f64)>) -> f32 {
        let Some((before, seconds)) = since else { return 0.0 };
        let used_cores = now.cpu_s.zip(before.cpu_s).map_or(0.0, |(now_s, before_s)| (now_s - before_s) / seconds);
        let share = match (self.allotment, cgroup.cpu) {
            (Some(allotment), _) => used_cores / f64::from(allotment.cores),
            // The quota may be large while the machine is full.
            (None, Some(limit)) => (used_cores / limit.cores).max(self.machine_cpu()),
            (None, None) => self.machine_cpu(),
        };
        share.clamp(0.0, 1.0) as f32
    }

    fn machine_cpu(&self) -> f64 {
        f64::from(self.system.global_cpu_usage()) / 100.0
    }

    fn process(&self) -> Option<&sysinfo::Process> {
        self.system.process(this_process())
    }

    fn memory(&self, cgroup: &Cgroup) -> f32 {
        if let Some(allotment) = self.allotment {
            let used = self.process().map_or(0, sysinfo::Process::memory);
            return share(used, (f64::from(allotment.memory_mb) * 1e6) as u64);
        }
        let total = self.system.total_memory();
        match cgroup.memory.filter(|limit| limit.bytes < total) {
            Some(limit) => share(limit.used, limit.bytes),
            None => share(total.saturating_sub(self.system.available_memory()), total),
        }
    }

    fn disk(&self) -> Option<f32> {
        let holding = self.disks.iter().filter(|disk| self.work_folder.starts_with(disk.mount_point()));
        let disk = holding.max_by_key(|disk| disk.mount_point().components().count())?;
        Some(share(disk.total_space().saturating_sub(disk.available_space()), disk.total_space()))
    }
}

fn this_process() -> Pid {
    Pid::from_u32(std::process::id())
}

fn share(part: u64, all: u64) -> f32 {
    if all == 0 { 0.0 } else { (part as f64 / all as f64).clamp(0.0, 1.0) as f32 }
}

/// Established TCP connections; none when the system does not tell.
fn connections(root: &Path) -> Option<u32> {
    const ESTABLISHED: &str = "01";
    let tables = ["proc/net/tcp", "proc/net/tcp6"].map(|table| fs::read_to_string(root.join(table)).ok());
    let tables: Vec<String> = tables.into_iter().flatten().collect();
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    let established = rows.filter(|row| row.split_whitespace().nth(3) == Some(ESTABLISHED)).count();
    (!tables.is_empty()).then_some(established as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::tests::machine;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:0050 00000000:0000 0A 0\n   \
        1: 0100007F:0050 0100007F:9999 01 0\n   2: 0100007F:0050 0100007F:9998 01 0\n";

    fn files(usage_usec: &str) -> Vec<(&'static str, String)> {
        vec![
            ("proc/self/cgroup", "0::/\n".to_owned()),
            ("proc/net/tcp", TCP.to_owned()),
            ("proc/self/io", "rchar: 9\nread_bytes: 1000\nwrite_bytes: 2000\ncancelled_write_bytes: 0\n".to_owned()),
            ("sys/fs/cgroup/io.stat", "8:0 rbytes=4000 wbytes=100\n".to_owned()),
            ("sys/fs/cgroup/cpu.max", "25000 100000\n".to_owned()),
            ("sys/fs/cgroup/cpu.stat", format!("usage_usec {usage_usec}\n")),
            ("sys/fs/cgroup/memory.max", "1000000\n".to_owned()),
            ("sys/fs/cgroup/memory.current", "750000\n".to_owned()),
        ]
    }

    #[test]
    fn shares_are_those_of_what_may_be_used() {
        let files = files("1000000");
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let root = machine(&files);
        let mut probe = SystemProbe::new(root.path().into(), root.path().into(), None).unwrap();
        let first = probe.measure(Duration::from_secs(1));
        assert_eq!((first.cpu, first.memory, first.system.connections), (0.0, 0.75, Some(2)));
        assert_eq!((first.system.received_bytes_per_s, first.system.disk_read_bytes_per_s), (None, None));
        // A quarter of a core for 4 s is the whole quota.
        fs::write(root.path().join("sys/fs/cgroup/cpu.stat"), "usage_usec 2000000\n").unwrap();
        fs::write(root.path().join("sys/fs/cgroup/io.stat"), "8:0 rbytes=12000 wbytes=50\n").unwrap();
        let second = probe.measure(Duration::from_secs(5));
        assert_eq!(second.cpu, 1.0);
        // A count that falls, as when a disk goes, is no rate below 0.
        let SystemMetrics { disk_read_bytes_per_s: read, disk_written_bytes_per_s: written, .. } = second.system;
        assert_eq!((read, written), (Some(2000.0), Some(0.0)));
        assert!(second.system.received_bytes_per_s.is_some_and(|rate| rate >= 0.0));
        let usable = Usable::of(root.path()).unwrap();
        assert_eq!((usable.cores, usable.memory_mb), (0.25, 1.0));
    }

    #[test]
    fn a_clock_that_stands_still_makes_no_nonsense() {
        let root = machine(&[]);
        let mut probe = SystemProbe::new(root.path().into(), "/no/such/folder".into(), None).unwrap();
        for _ in 0..2 {
            let measured = probe.measure(Duration::from_secs(1));
            assert_eq!((measured.cpu, measured.system.sent_bytes_per_s), (0.0, None));
            assert_eq!(measured.system.connections, None);
        }
    }

    #[test]
    fn this_machine_can_be_measured() {
        let mut probe = SystemProbe::new("/".into(), std::env::temp_dir(), None).unwrap();
        probe.measure(Duration::ZERO);
        let measured = probe.measure(Duration::from_secs(1));
        assert!((0.0..=1.0).contains(&measured.cpu) && measured.memory > 0.0 && measured.memory <= 1.0);
        assert!(measured.system.disk.is_none_or(|disk| (0.0..=1.0).contains(&disk)));
        assert!(Usable::of(Path::new("/")).unwrap().cores > 0.0);
    }

    #[test]
    fn one_shard_among_several_sees_itself_only() {
        let disk = |bytes: u64| format!("read_bytes: {bytes}\nwrite_bytes: {}\n", 3 * bytes);
        let (group, io) = ("8:0 rbytes=77 wbytes=77\n", disk(500));
        let root = machine(&[("proc/self/cgroup", "0::/\n"), ("proc/self/io", &io), ("sys/fs/cgroup/io.stat", group)]);
        let allotment = Allotment { cores: 0.001, memory_mb: 1e6 };
        let mut probe = SystemProbe::new(root.path().into(), root.path().into(), Some(allotment)).unwrap();
        let first = probe.measure(Duration::ZERO);
        assert!(first.memory > 0.0 && first.memory < 0.1, "{first:?}");
        fs::write(root.path().join("proc/self/io"), disk(600)).unwrap();
        let second = probe.measure(Duration::from_millis(500)).system;
        assert_eq!((second.disk_read_bytes_per_s, second.disk_written_bytes_per_s), (Some(200.0), Some(600.0)));
        // CPU time is counted in hundredths of a second.
        let is_busy = (1..10_000).any(|second| {
            std::hint::black_box((0..100_000u64).fold(0, |sum, number| sum ^ std::hint::black_box(number)));
            probe.measure(Duration::from_secs(second)).cpu > 0.0
        });
        assert!(is_busy);
    }
}
