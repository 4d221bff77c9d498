//! What can be seen of the engine from its own machine: whether this is it, and since when its
//! daemon runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use super::request::PROFILE_MAX;
use super::transport::Address;
use super::{Docker, lock};
use crate::model::{Container, ContainerId, Timestamp};

/// Where a daemon that systemd listens for says its pid.
const PID_FILE: &str = "/var/run/docker.pid";
/// Clock ticks a second in /proc. USER_HZ is part of Linux's ABI, and 100.
const TICKS: u64 = 100;

/// One run of the daemon: its pid, the tick it began at, and that as wall time as first seen.
pub(super) type EngineRun = (i32, u64, Timestamp);

impl Docker {
    /// A pid means something only here: it is kept if /proc says that it is this container's.
    pub(super) fn forget_remote_pid(&self, container: &mut Container) {
        let Some(detail) = &mut container.detail else { return };
        detail.pid = detail.pid.filter(|pid| self.is_local() && is_of(*pid, &container.id));
    }

    pub(super) fn is_local(&self) -> bool {
        matches!(*self.address, Address::Unix(_))
    }

    /// When the daemon began, if it runs here. The same run gives the same value.
    pub(super) async fn started_at(&self) -> Option<Timestamp> {
        let pid = self.daemon().await?;
        let ticks = start_ticks(&read(format!("/proc/{pid}/stat"))?)?;
        let mut known = lock(&self.shared.run);
        if let Some((known_pid, known_ticks, at)) = *known
            && (known_pid, known_ticks) == (pid, ticks)
        {
            return Some(at);
        }
        let booted = boot_time(&read("/proc/stat")?)?;
        let millis = booted.checked_mul(1000)?.checked_add(ticks.checked_mul(1000)? / TICKS)?;
        let at = Timestamp::from_timestamp_millis(i64::try_from(millis).ok()?)?;
        *known = Some((pid, ticks, at));
        Some(at)
    }

    /// The daemon's pid: who listens at the socket, or what its pid file says.
    async fn daemon(&self) -> Option<i32> {
        let Address::Unix(path) = &*self.address else { return None };
        let peer = UnixStream::connect(path).await.ok()?.peer_cred().ok()?.pid();
        let is_daemon =
            |pid: &i32| read(format!("/proc/{pid}/comm")).is_some_and(|name| name == "dockerd\n");
        peer.filter(is_daemon).or_else(|| read(PID_FILE)?.trim().parse().ok().filter(is_daemon))
    }
}

/// Whether a process of this machine belongs to a container: its cgroup carries the id.
pub(super) fn is_of(pid: i32, id: &ContainerId) -> bool {
    id.0.len() >= 12 && read(format!("/proc/{pid}/cgroup")).is_some_and(|text| text.contains(&id.0))
}

/// A file of /proc or /sys: short, and never waits.
#[expect(clippy::disallowed_methods, reason = "the shell reads /proc and /sys, which is memory")]
pub(super) fn read(path: impl Into<PathBuf>) -> Option<String> {
    std::fs::read_to_string(path.into()).ok()
}

/// A seccomp profile's bytes, at most one more than may be sent.
#[expect(clippy::disallowed_methods, reason = "a file that the operator's `allow` names")]
pub(super) fn read_profile(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(PROFILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Field 22 of /proc/PID/stat. The name before it may hold blanks and brackets.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// `btime` of /proc/stat, seconds since the epoch.
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_read_past_any_process_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 9 0 4711 1 2";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(boot_time("cpu 1 2\nbtime 1764000000\nprocesses 1\n"), Some(1_764_000_000));
    }
}
