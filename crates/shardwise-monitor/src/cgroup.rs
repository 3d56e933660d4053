//! The part of the machine that this process may use, as the kernel's control groups limit it (versions 2 and 1).

use std::fs;
use std::path::{Path, PathBuf};

/// What limits the process, and what its group uses of that.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cgroup {
    /// The tightest limit of CPU time.
    pub(crate) cpu: Option<CpuLimit>,
    /// The tightest limit of memory.
    pub(crate) memory: Option<MemoryLimit>,
    /// What the process' own group read and wrote, as version 2 counts it.
    pub(crate) disk: Option<DiskBytes>,
}

/// Bytes that were read from disks and written to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DiskBytes {
    pub(crate) read: u64,
    pub(crate) written: u64,
}

impl DiskBytes {
    /// Those of this process, where the system counts them.
    pub(crate) fn of_process(root: &Path) -> Option<Self> {
        let file = root.join("proc/self/io");
        Some(Self { read: entry(&file, "read_bytes:")?, written: entry(&file, "write_bytes:")? })
    }

    /// Those of a control group of version 2: a line for each disk, such as `8:0 rbytes=4096 wbytes=0 rios=1`.
    fn of_group(group: &Path) -> Option<Self> {
        let text = fs::read_to_string(group.join("io.stat")).ok()?;
        let total = |name: &str| {
            let fields = text.split_whitespace().filter_map(|field| field.split_once('='));
            fields.filter(|(found, _)| *found == name).filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum()
        };
        Some(Self { read: total("rbytes"), written: total("wbytes") })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CpuLimit {
    /// Cores' worth of time that may be used.
    pub(crate) cores: f64,
    /// CPU time that was used since the group was made, in seconds.
    pub(crate) used_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MemoryLimit {
    /// Bytes that may be used.
    pub(crate) bytes: u64,
    /// Bytes in use, but for file pages that the kernel can drop at once.
    pub(crate) used: u64,
}

impl Cgroup {
    /// Reads the limits under a root folder, which is `/` but for tests; nothing is limited where nothing can be read.
    pub(crate) fn read(root: &Path) -> Self {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let levels = |controller: &str, folders: &[&str]| levels(root, &groups, controller, folders);
        let cpu_v1 = levels("cpu", &["cpu", "cpu,cpuacct"]);
        let memory_v1 = levels("memory", &["memory"]);
        // The one group of version 2 has no controller's name.
        let unified = levels("", &[""]);
        Self {
            cpu: tightest(&cpu_v1, cpu_limit_v1, |limit| limit.cores)
                .or_else(|| tightest(&unified, cpu_limit_v2, |limit| limit.cores)),
            memory: tightest(&memory_v1, memory_limit_v1, |limit| limit.bytes as f64)
                .or_else(|| tightest(&unified, memory_limit_v2, |limit| limit.bytes as f64)),
            disk: unified.first().and_then(|own| DiskBytes::of_group(own)),
        }
    }
}

/// The folders of a controller, from the process' own group up to the mount; a container may see the mount only.
fn levels(root: &Path, groups: &str, controller: &str, folders: &[&str]) -> Vec<PathBuf> {
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        fields.next().filter(|_| names.split(',').any(|name| name == controller))
    });
    let Some(group) = group else { return Vec::new() };
    let mounts = root.join("sys/fs/cgroup");
    let Some(mount) = folders.iter().map(|folder| mounts.join(folder)).find(|mount| mount.is_dir()) else {
        return Vec::new();
    };
    let own = mount.join(group.trim_start_matches('/'));
    let ancestors = own.ancestors().take_while(|folder| folder.starts_with(&mount));
    ancestors.filter(|folder| folder.is_dir()).map(Path::to_path_buf).collect()
}

fn tightest<T: Copy>(levels: &[PathBuf], limit: fn(&Path) -> Option<T>, size: fn(&T) -> f64) -> Option<T> {
    levels.iter().filter_map(|level| limit(level)).min_by(|a, b| size(a).total_cmp(&size(b)))
}

fn cpu_limit_v2(group: &Path) -> Option<CpuLimit> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    let cores = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    let used_s = entry(&group.join("cpu.stat"), "usage_usec")? as f64 / 1e6;
    is_limit(cores).then_some(CpuLimit { cores, used_s })
}

fn cpu_limit_v1(group: &Path) -> Option<CpuLimit> {
    // -1 is no limit.
    let cores = number(&group.join("cpu.cfs_quota_us"))? as f64 / number(&group.join("cpu.cfs_period_us"))? as f64;
    let accounts = [group.to_path_buf(), sibling(group)?];
    let used_ns = accounts.iter().find_map(|folder| number(&folder.join("cpuacct.usage")))?;
    is_limit(cores).then_some(CpuLimit { cores, used_s: used_ns as f64 / 1e9 })
}

/// The same group where CPU time is accounted, should that be mounted apart.
fn sibling(group: &Path) -> Option<PathBuf> {
    let text = group.to_str()?;
    Some(text.replacen("/cgroup/cpu/", "/cgroup/cpuacct/", 1).into())
}

fn memory_limit_v2(group: &Path) -> Option<MemoryLimit> {
    let bytes = number(&group.join("memory.max"))?;
    let used = number(&group.join("memory.current"))?;
    Some(memory_limit(bytes, used, entry(&group.join("memory.stat"), "inactive_file")))
}

fn memory_limit_v1(group: &Path) -> Option<MemoryLimit> {
    let bytes = number(&group.join("memory.limit_in_bytes"))?;
    let used = number(&group.join("memory.usage_in_bytes"))?;
    Some(memory_limit(bytes, used, entry(&group.join("memory.stat"), "total_inactive_file")))
}

fn memory_limit(bytes: u64, used: u64, droppable: Option<u64>) -> MemoryLimit {
    MemoryLimit { bytes, used: used.saturating_sub(droppable.unwrap_or(0)) }
}

fn is_limit(cores: f64) -> bool {
    cores.is_finite() && cores > 0.0
}

/// The number that is all there is in a file; none for `max` and -1.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a name, in a file with one name and number a line.
fn entry(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.split_once(' ').filter(|(found, _)| *found == name)?.1.trim().parse().ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A machine's files, under a folder of its own.
    pub(crate) fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn read(files: &[(&str, &str)]) -> Cgroup {
        Cgroup::read(machine(files).path())
    }

    #[test]
    fn version_2_takes_the_tightest_level() {
        let cgroup = read(&[
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/pod/cpu.stat", "usage_usec 3000000\nuser_usec 1\n"),
            ("sys/fs/cgroup/pod/container/cpu.max", "200000 100000\n"),
            ("sys/fs/cgroup/pod/container/cpu.stat", "usage_usec 1000000\n"),
            ("sys/fs/cgroup/pod/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.current", "900\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "1000\n"),
            ("sys/fs/cgroup/pod/container/memory.current", "700\n"),
            ("sys/fs/cgroup/pod/container/memory.stat", "anon 500\ninactive_file 150\n"),
        ]);
        assert_eq!(cgroup.cpu, Some(CpuLimit { cores: 0.5, used_s: 3.0 }));
        assert_eq!(cgroup.memory, Some(MemoryLimit { bytes: 1000, used: 550 }));
    }

    #[test]
    fn what_disks_did_is_summed_over_them_for_the_own_group() {
        let stat = "8:0 rbytes=4096 wbytes=100 rios=1 wios=1 dbytes=0 dios=0\n259:1 rbytes=4 wbytes=7 rios=1 wios=2\n";
        let cgroup = read(&[
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/io.stat", "8:0 rbytes=9999999 wbytes=9999999\n"),
            ("sys/fs/cgroup/pod/container/io.stat", stat),
        ]);
        assert_eq!(cgroup.disk, Some(DiskBytes { read: 4100, written: 107 }));
        let idle = [("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/io.stat", "")];
        assert_eq!(read(&idle).disk, Some(DiskBytes::default()));
    }

    #[test]
    fn version_1_has_a_tree_for_each_controller() {
        let files = [
            ("proc/self/cgroup", "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n1:name=systemd:/docker/a\n0::/\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "150000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/a/cpuacct.usage", "2500000000\n"),
            ("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "4096\n"),
            ("sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes", "2048\n"),
            ("sys/fs/cgroup/memory/docker/a/memory.stat", "inactive_file 1\ntotal_inactive_file 48\n"),
        ];
        let cgroup = read(&files);
        assert_eq!(cgroup.cpu, Some(CpuLimit { cores: 1.5, used_s: 2.5 }));
        assert_eq!(cgroup.memory, Some(MemoryLimit { bytes: 4096, used: 2000 }));
    }

    #[test]
    fn version_1_within_a_container_sees_the_mount_only() {
        let cgroup = read(&[
            ("proc/self/cgroup", "3:cpu:/docker/a\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/cpuacct.usage", "1000000000\n"),
        ]);
        assert_eq!(cgroup.cpu, Some(CpuLimit { cores: 0.5, used_s: 1.0 }));
    }

    #[test]
    fn no_limit_is_no_limit() {
        for files in [
            &[][..],
            &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "max 100000\n")],
            &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")],
            &[
                ("proc/self/cgroup", "3:cpu:/\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/cpu/cpuacct.usage", "1\n"),
            ],
            &[("proc/self/cgroup", "nonsense\n0::\n"), ("sys/fs/cgroup/cpu.max", "0 0\n")],
        ] {
            assert_eq!(read(files), Cgroup::default(), "{files:?}");
        }
    }
}
