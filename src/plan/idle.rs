//! What counts as use of a session. Pure: two sights of its container and workspace, some time
//! apart.
//!
//! Used is one that sends for more than docket's own probes, that computes, or whose files change.
//! A look that failed is no proof of idleness: whoever looks takes it for use.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{FilesSeen, HealthSpec, Usage};

/// Most bytes that one probe of docket's sends to a container, connection and all.
const OF_A_PROBE: u64 = 1024;
/// Bytes a second that arrive on a bridge where nothing happens: neighbours being looked for.
const OF_A_SECOND: u64 = 64;
/// Per cent of a core that a server takes that only waits.
const AT_REST: f64 = 5.0;

/// What was seen of a session at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// Bytes its container has received so far.
    received: u64,
    /// Cpu since the sight before; 100 is one core.
    cpu_percent: f64,
    /// Files, their bytes, and how many are not stored.
    files: (u64, u64, u64),
}

impl Sight {
    /// A sight from what was measured.
    pub fn of(usage: &Usage, files: &FilesSeen) -> Sight {
        Sight {
            received: usage.network_rx_bytes,
            cpu_percent: usage.cpu_percent,
            files: (files.total, files.bytes, files.unsynced),
        }
    }
}

/// What showed that a session is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Use {
    /// Its container was first looked at: what was before is not known.
    FirstLook,
    /// It received more than docket's own probes.
    Network,
    /// It computed.
    Cpu,
    /// Its files changed.
    Files,
    /// A look failed: unknown is not idle.
    Unknown,
}

/// How somebody or something used it between two sights, if they did. `health`: what it is probed
/// with, if it is.
pub fn use_between(
    before: Sight,
    after: Sight,
    apart: Duration,
    health: Option<&HealthSpec>,
) -> Option<Use> {
    let probes = health.map_or(0, |health| {
        let interval = health.interval.as_millis().max(10);
        u64::try_from(apart.as_millis() / interval).unwrap_or(u64::MAX).saturating_add(2)
    });
    let own = probes.saturating_mul(OF_A_PROBE).saturating_add(apart.as_secs() * OF_A_SECOND);
    if after.files != before.files {
        Some(Use::Files)
    } else if after.received.saturating_sub(before.received) > own {
        Some(Use::Network)
    } else if after.cpu_percent >= AT_REST {
        Some(Use::Cpu)
    } else {
        None
    }
}

/// Time between two sights: idleness is found out within a quarter of its time-out.
pub fn look_every(idle_timeout: Duration) -> Duration {
    (idle_timeout / 4).clamp(Duration::from_secs(1), Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(received: u64, cpu_percent: f64, files: (u64, u64, u64)) -> Sight {
        Sight { received, cpu_percent, files }
    }

    fn probed() -> HealthSpec {
        HealthSpec {
            path: "/health".to_owned(),
            startup: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            failures: 3,
        }
    }

    #[test]
    fn probes_alone_are_no_use_and_anything_beyond_is() {
        let rest = sight(0, 0.4, (8, 0, 0));
        let later = |received, cpu, files| {
            use_between(rest, sight(received, cpu, files), Duration::from_secs(30), Some(&probed()))
        };
        assert_eq!(later(0, 0.0, (8, 0, 0)), None);
        // Three probes of half a KiB, and what a bridge says by itself.
        assert_eq!(later(1800, 0.4, (8, 0, 0)), None);
        assert_eq!(later(16 << 10, 0.4, (8, 0, 0)), Some(Use::Network), "a page was asked for");
        assert_eq!(later(0, 6.0, (8, 0, 0)), Some(Use::Cpu), "it computes");
        assert_eq!(later(0, 0.0, (9, 0, 0)), Some(Use::Files), "a new file");
        assert_eq!(later(0, 0.0, (8, 10, 0)), Some(Use::Files), "a file grew");
        assert_eq!(later(0, 0.0, (8, 0, 1)), Some(Use::Files), "a file was edited");
    }

    #[test]
    fn without_probes_every_byte_beyond_the_bridge_s_own_counts() {
        let rest = sight(100, 0.0, (0, 0, 0));
        let later = |received| {
            use_between(rest, sight(received, 0.0, (0, 0, 0)), Duration::from_secs(10), None)
        };
        assert_eq!(later(100 + 640), None);
        assert_eq!(later(100 + 641), Some(Use::Network));
        // A container that was started again counts from nothing.
        assert_eq!(later(0), None);
    }

    #[test]
    fn it_is_looked_at_four_times_in_its_time_and_not_too_often() {
        assert_eq!(look_every(Duration::from_secs(2)), Duration::from_secs(1));
        assert_eq!(look_every(Duration::from_secs(60)), Duration::from_secs(15));
        assert_eq!(look_every(Duration::from_hours(2)), Duration::from_secs(30));
    }
}
