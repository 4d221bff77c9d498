//! What a container uses: from cgroup files and /proc where it runs here (0.1 ms), else from two
//! one-shot samples of the engine. Reckoned as `docker stats` does.

use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use super::failure::Op;
use super::local::{is_of, read};
use super::{Docker, READ, lock};
use crate::model::{ContainerDetail, ContainerId, Timestamp, Usage};
use crate::world::{EngineError, EngineErrorKind};

/// Least time between two samples that say something about cpu.
const APART_LOCAL: Duration = Duration::from_millis(100);
const APART_REMOTE: Duration = Duration::from_secs(1);
/// A sample that nobody came back for in this time is of no use any more.
const STALE: Duration = Duration::from_mins(10);
/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// One look at the counters.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Cpu time used so far, ns.
    cpu: u64,
    /// Time that passed meanwhile for one core, ns, by the clock that cpu is compared with.
    clock: u64,
    usage: Usage,
}

/// The last sample of a container's start, for the next difference.
#[derive(Clone, Debug)]
pub(super) struct Previous {
    started_at: Option<Timestamp>,
    is_local: bool,
    taken: Instant,
    sample: Sample,
    cpu_percent: f64,
}

impl Docker {
    pub(super) async fn measure(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
    ) -> Result<Usage, EngineError> {
        let is_local = detail.pid.is_some_and(|pid| is_of(pid, id)) && self.is_local();
        let (taken, sample) = self.sample(id, detail, is_local).await?;
        let apart = if is_local { APART_LOCAL } else { APART_REMOTE };
        let Some(previous) = self.previous(id, detail, is_local) else {
            sleep(apart).await;
            let (later, second) = self.sample(id, detail, is_local).await?;
            return Ok(self.keep(id, detail, is_local, later, second, percent(sample, second)));
        };
        if taken.duration_since(previous.taken) < apart {
            return Ok(Usage { cpu_percent: previous.cpu_percent, ..sample.usage });
        }
        let cpu = percent(previous.sample, sample);
        Ok(self.keep(id, detail, is_local, taken, sample, cpu))
    }

    fn previous(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
        is_local: bool,
    ) -> Option<Previous> {
        let known = lock(&self.shared.samples);
        let same =
            |one: &&Previous| (one.started_at, one.is_local) == (detail.started_at, is_local);
        known.get(&id.0).filter(same).cloned()
    }

    fn keep(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
        is_local: bool,
        taken: Instant,
        sample: Sample,
        cpu_percent: f64,
    ) -> Usage {
        let started_at = detail.started_at;
        let mut known = lock(&self.shared.samples);
        known.retain(|_, one| taken.saturating_duration_since(one.taken) < STALE);
        let previous = Previous { started_at, is_local, taken, sample, cpu_percent };
        known.insert(id.0.clone(), previous);
        Usage { cpu_percent, ..sample.usage }
    }

    async fn sample(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
        is_local: bool,
    ) -> Result<(Instant, Sample), EngineError> {
        let local = detail.pid.filter(|_| is_local).and_then(|pid| local_sample(pid, id, detail));
        if let Some(sample) = local {
            return Ok((Instant::now(), sample));
        }
        let client = self.client().await?;
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut answers = Box::pin(client.stats(&id.0, Some(options)));
        let answer = self.call(Op::Usage, READ, async { answers.next().await.transpose() }).await?;
        let sample = answer.as_ref().and_then(remote_sample).ok_or_else(|| {
            Op::Usage.error(EngineErrorKind::Conflict, "the container does not run")
        })?;
        Ok((Instant::now(), sample))
    }
}

/// 100 is one core.
fn percent(first: Sample, second: Sample) -> f64 {
    let cpu = second.cpu.saturating_sub(first.cpu) as f64;
    match second.clock.saturating_sub(first.clock) {
        0 => 0.0,
        clock => cpu / clock as f64 * 100.0,
    }
}

/// The engine's one-shot answer; `None` if nothing runs.
fn remote_sample(stats: &ContainerStatsResponse) -> Option<Sample> {
    let cpu = stats.cpu_stats.as_ref()?;
    let used = cpu.cpu_usage.as_ref()?.total_usage.unwrap_or_default();
    let system = cpu.system_cpu_usage?;
    let cores = u64::from(cpu.online_cpus.unwrap_or(1).max(1));
    let memory = stats.memory_stats.as_ref()?;
    let counters = memory.stats.as_ref();
    let of = |key: &str| counters.and_then(|counters| counters.get(key).copied());
    let cache = of("total_inactive_file").or_else(|| of("inactive_file")).unwrap_or_default();
    let networks = stats.networks.as_ref();
    let sum = |pick: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
        networks.into_iter().flatten().filter_map(|(_, one)| pick(one)).sum()
    };
    let usage = Usage {
        cpu_percent: 0.0,
        memory_bytes: without_cache(memory.usage?, cache),
        memory_limit_bytes: memory.limit.unwrap_or_default(),
        network_rx_bytes: sum(|one| one.rx_bytes),
        network_tx_bytes: sum(|one| one.tx_bytes),
    };
    Some(Sample { cpu: used, clock: system / cores, usage })
}

fn without_cache(usage: u64, cache: u64) -> u64 {
    if cache < usage { usage - cache } else { usage }
}

fn local_sample(pid: i32, id: &ContainerId, detail: &ContainerDetail) -> Option<Sample> {
    let groups = Groups::parse(&read(format!("/proc/{pid}/cgroup"))?, id)?;
    let (rx, tx) = network_bytes(&read(format!("/proc/{pid}/net/dev"))?);
    let (cpu, memory, limit) = groups.read()?;
    // The machine's whole uptime is the clock: monotonic, and the same for every process.
    let uptime = read("/proc/uptime")?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let memory_limit_bytes = match detail.resources.memory {
        0 => limit,
        asked => asked,
    };
    let usage = Usage {
        cpu_percent: 0.0,
        memory_bytes: memory,
        memory_limit_bytes,
        network_rx_bytes: rx,
        network_tx_bytes: tx,
    };
    Some(Sample { cpu, clock: (seconds * 1e9) as u64, usage })
}

/// Where a container's counters are.
#[derive(Debug, PartialEq, Eq)]
enum Groups {
    /// cgroup v1: memory's folder and cpuacct's.
    One { memory: PathBuf, cpu: PathBuf },
    /// cgroup v2.
    Two(PathBuf),
}

impl Groups {
    /// Reads /proc/PID/cgroup. Paths are cut at the container's own group: a process inside may
    /// have moved further down.
    fn parse(text: &str, id: &ContainerId) -> Option<Groups> {
        let path_of = |controller: &str| {
            text.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
                let is_it = names.split(',').any(|name| name == controller);
                is_it.then(|| group(names, path, id)).flatten()
            })
        };
        match (path_of("memory"), path_of("cpuacct")) {
            (Some(memory), Some(cpu)) => Some(Groups::One { memory, cpu }),
            _ => path_of("").map(Groups::Two),
        }
    }

    /// Cpu time in ns, memory without droppable cache, and its limit.
    fn read(&self) -> Option<(u64, u64, u64)> {
        let number = |path: PathBuf| read(path)?.trim().parse::<u64>().ok();
        match self {
            Groups::One { memory, cpu } => {
                let cache = field(&read(memory.join("memory.stat"))?, "total_inactive_file");
                let used = number(memory.join("memory.usage_in_bytes"))?;
                let limit = number(memory.join("memory.limit_in_bytes"))?;
                let cpu = number(cpu.join("cpuacct.usage"))?;
                Some((cpu, without_cache(used, cache.unwrap_or_default()), limit))
            }
            Groups::Two(path) => {
                let cache = field(&read(path.join("memory.stat"))?, "inactive_file");
                let used = number(path.join("memory.current"))?;
                let limit = number(path.join("memory.max")).unwrap_or_default();
                let micros = field(&read(path.join("cpu.stat"))?, "usage_usec")?;
                Some((micros * 1000, without_cache(used, cache.unwrap_or_default()), limit))
            }
        }
    }
}

fn group(names: &str, path: &str, id: &ContainerId) -> Option<PathBuf> {
    let mut folder = PathBuf::from(CGROUPS).join(names);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        // Seen from within another cgroup namespace: not to be found below the mount.
        if part == ".." {
            return None;
        }
        folder.push(part);
        if part.contains(&id.0) {
            return Some(folder);
        }
    }
    None
}

/// `key value` of a file with one of them a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Received and sent bytes of /proc/PID/net/dev, over all interfaces but lo.
fn network_bytes(text: &str) -> (u64, u64) {
    let rows = text.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (name.trim() != "lo").then_some((*counters.first()?, *counters.get(8)?))
    });
    rows.fold((0, 0), |(rx, tx), (more_rx, more_tx)| (rx + more_rx, tx + more_tx))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        ContainerId("ab".repeat(32))
    }

    #[test]
    fn counters_of_cgroup_v1_are_found_and_processes_below_are_counted() {
        let text = format!(
            "9:name=systemd:/docker/{0}\n4:memory:/docker/{0}/inner\n2:cpu,cpuacct:/docker/{0}\n",
            id().0
        );
        let expected = Groups::One {
            memory: PathBuf::from(format!("/sys/fs/cgroup/memory/docker/{}", id().0)),
            cpu: PathBuf::from(format!("/sys/fs/cgroup/cpu,cpuacct/docker/{}", id().0)),
        };
        assert_eq!(Groups::parse(&text, &id()), Some(expected));
    }

    #[test]
    fn counters_of_cgroup_v2_are_found_and_odd_paths_are_not_followed() {
        let scope = format!("docker-{}.scope", id().0);
        let text = format!("0::/system.slice/{scope}/init\n");
        let expected = PathBuf::from(format!("/sys/fs/cgroup/system.slice/{scope}"));
        assert_eq!(Groups::parse(&text, &id()), Some(Groups::Two(expected)));
        assert_eq!(Groups::parse(&format!("0::/../{scope}\n"), &id()), None);
        assert_eq!(Groups::parse("0::/elsewhere\n", &id()), None);
    }

    #[test]
    fn network_bytes_leave_out_loopback() {
        let text = "Inter-|   Receive                            |  Transmit\n\
             face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n\
                lo:     100       1    0    0    0     0          0         0      100       1 0\n\
              eth0:  4096      10    0    0    0     0          0         0     1024       8 0\n\
              eth1:     1       1    0    0    0     0          0         0        2       1 0\n";
        assert_eq!(network_bytes(text), (4097, 1026));
    }

    #[test]
    fn one_busy_core_is_a_hundred_per_cent_and_a_stopped_clock_is_none() {
        let usage = Usage {
            cpu_percent: 0.0,
            memory_bytes: 0,
            memory_limit_bytes: 0,
            network_rx_bytes: 0,
            network_tx_bytes: 0,
        };
        let at = |cpu, clock| Sample { cpu, clock, usage };
        assert!((percent(at(5, 10), at(1005, 1010)) - 100.0).abs() < 1e-9);
        assert!((percent(at(0, 0), at(4000, 1000)) - 400.0).abs() < 1e-9);
        assert!(percent(at(0, 7), at(9, 7)).abs() < 1e-9);
        assert_eq!(
            field("inactive_file 7\ntotal_inactive_file 9\n", "total_inactive_file"),
            Some(9)
        );
        assert_eq!(without_cache(10, 4), 6);
        assert_eq!(without_cache(4, 10), 4);
    }
}
