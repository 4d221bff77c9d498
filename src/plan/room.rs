//! Room on the disk: whether contents may come from the store, and whether a container may go on
//! writing. Pure; whoever fetches asks before each file: a start, a sync, `docket hydrate`, the
//! prefetcher, an open.
//!
//! - Over its quota, a workspace gets nothing more from the store. What is in it goes on being
//!   synced.
//! - Below the floor (`minFree`) nobody gets anything and nothing new starts.
//! - A container is paused (`DiskPressure`) at twice its quota; below the floor if its workspace
//!   is over its quota or has none; and close to a full disk whoever it is, so that what is left
//!   is left to what saves: sync, ledger, engine. Above that a neighbour within its quota goes on:
//!   it is not its doing.

use std::fmt;

use crate::model::{Reason, Space};

/// One part in so many of the floor is for nobody's container.
const LAST_PART: u64 = 10;
/// At this multiple of its quota a workspace is frozen.
const FROZEN_AT: u64 = 2;

/// `minFree`: a share of the file system or bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinFree {
    /// Per cent of all space.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}

impl MinFree {
    /// Whether there is less than this.
    pub fn is_short(self, space: Space) -> bool {
        match self {
            MinFree::Bytes(bytes) => space.free < bytes,
            MinFree::Percent(percent) => {
                #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
                let free = space.free as f64 * 100.0;
                #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
                let floor = space.total as f64 * percent;
                free < floor
            }
        }
    }

    /// Whether hardly anything of it is left.
    pub fn is_used_up(self, space: Space) -> bool {
        self.is_short(Space { free: space.free.saturating_mul(LAST_PART), ..space })
    }
}

/// What bounds a workspace, and what is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// Bytes on disk of its files.
    pub used: u64,
    /// `workspace.quota`; 0: none.
    pub quota: u64,
    /// Of the workspaces' file system; `None`: it could not be told, and holds nobody up.
    pub space: Option<Space>,
    /// `minFree`.
    pub floor: MinFree,
}

/// Why nothing may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The workspace's own quota.
    Quota {
        /// Bytes used.
        used: u64,
        /// Of so many.
        quota: u64,
        /// Bytes that were to come.
        more: u64,
    },
    /// The host's floor.
    Floor {
        /// Bytes free.
        free: u64,
        /// Bytes that were to come.
        more: u64,
    },
}

impl NoRoom {
    /// For machines.
    pub fn reason(self) -> Reason {
        match self {
            NoRoom::Quota { .. } => Reason::QuotaExceeded,
            NoRoom::Floor { .. } => Reason::LowSpace,
        }
    }
}

impl NoRoom {
    /// The bound alone, whatever was to come.
    pub fn bound(self) -> String {
        match self {
            NoRoom::Quota { used, quota, .. } => format!(
                "nothing more comes from the store: {} of workspace.quota ({}) are used",
                bytes(used),
                bytes(quota)
            ),
            NoRoom::Floor { free, .. } => format!(
                "nothing more comes from the store: {} are free, below minFree",
                bytes(free)
            ),
        }
    }
}

impl std::error::Error for NoRoom {}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            NoRoom::Quota { used, quota, more } => write!(
                f,
                "{} of workspace.quota ({}) are used, and it has {}",
                bytes(used),
                bytes(quota),
                bytes(more)
            ),
            NoRoom::Floor { free, more } => {
                write!(
                    f,
                    "{} are free, and after its {} less than minFree",
                    bytes(free),
                    bytes(more)
                )
            }
        }
    }
}

impl Room {
    /// Whether `more` bytes may come from the store. Nothing always fits.
    ///
    /// # Errors
    /// [`NoRoom`] says which bound is in the way.
    pub fn admits(&self, more: u64) -> Result<(), NoRoom> {
        if more == 0 {
            return Ok(());
        }
        if self.quota > 0 && self.used.saturating_add(more) > self.quota {
            return Err(NoRoom::Quota { used: self.used, quota: self.quota, more });
        }
        if let Some(space) = self.space {
            let after = Space { free: space.free.saturating_sub(more), ..space };
            if self.floor.is_short(after) {
                return Err(NoRoom::Floor { free: space.free, more });
            }
        }
        Ok(())
    }

    /// The same room when `more` bytes have come or are certain to.
    #[must_use]
    pub fn after(&self, more: u64) -> Room {
        let left = |space: Space| Space { free: space.free.saturating_sub(more), ..space };
        Room { used: self.used.saturating_add(more), space: self.space.map(left), ..*self }
    }

    /// Why not even one byte may come, if so.
    pub fn fetches_nothing(&self) -> Option<NoRoom> {
        self.admits(1).err()
    }

    /// Whether more is used than the quota allows.
    pub fn is_over_quota(&self) -> bool {
        self.quota > 0 && self.used > self.quota
    }

    /// Why its container must not go on writing, if so.
    pub fn pressure(&self) -> Option<String> {
        if self.quota > 0 && self.used > self.quota.saturating_mul(FROZEN_AT) {
            let (used, quota) = (bytes(self.used), bytes(self.quota));
            return Some(format!("its workspace has {used}, over twice its quota of {quota}"));
        }
        let space = self.space.filter(|space| self.floor.is_short(*space))?;
        let free = bytes(space.free);
        if self.quota == 0 || self.is_over_quota() {
            let whose = if self.quota == 0 { "has no quota" } else { "is over its quota" };
            return Some(format!("{free} are free, below minFree, and its workspace {whose}"));
        }
        self.floor
            .is_used_up(space)
            .then(|| format!("{free} are free, less than a tenth of minFree"))
    }
}

/// Bytes for people: exact below a KiB, else with one decimal.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut shift = 10;
    while bytes >> (shift + 10) > 0 && unit + 1 < UNITS.len() {
        unit += 1;
        shift += 10;
    }
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn room(used: u64, quota: u64, free: u64) -> Room {
        let space = Some(Space { total: 100 * GIB, free: free * GIB });
        Room { used: used * GIB, quota: quota * GIB, space, floor: MinFree::Percent(5.0) }
    }

    #[test]
    fn what_fits_comes_and_what_does_not_is_told_with_its_bound() {
        assert_eq!(room(4, 10, 50).admits(6 * GIB), Ok(()));
        let over = room(4, 10, 50).admits(6 * GIB + 1).unwrap_err();
        assert_eq!(over.reason(), Reason::QuotaExceeded);
        assert_eq!(
            over.to_string(),
            "4.0 GiB of workspace.quota (10.0 GiB) are used, and it has 6.0 GiB"
        );
        assert_eq!(room(4, 0, 50).admits(45 * GIB), Ok(()), "no quota");
        let low = room(4, 0, 50).admits(45 * GIB + 1).unwrap_err();
        assert_eq!(low.reason(), Reason::LowSpace);
        let said = "50.0 GiB are free, and after its 45.0 GiB less than minFree";
        assert_eq!(low.to_string(), said);
        assert_eq!(room(40, 10, 1).admits(0), Ok(()), "nothing always fits");
        assert!(room(0, 10, 50).after(10 * GIB).admits(1).is_err());
        assert!(Room { space: None, ..room(0, 0, 0) }.admits(GIB).is_ok(), "unknown is not short");
    }

    #[test]
    fn t12_who_writes_too_much_is_frozen_and_its_neighbours_only_at_the_very_end() {
        let frozen = |used, quota, free| room(used, quota, free).pressure().is_some();
        assert!(!frozen(20, 10, 50), "a quota is soft");
        assert!(frozen(21, 10, 50), "over twice of it");
        assert!(!frozen(9, 10, 4), "below the floor, but within its quota");
        assert!(frozen(11, 10, 4), "below the floor and over its quota");
        assert!(frozen(1, 0, 4), "below the floor and without a quota");
        assert!(frozen(1, 10, 0), "hardly anything is left");
        assert!(!frozen(1000, 0, 50));
        let nothing_known = Room { space: None, ..room(11, 10, 0) };
        assert_eq!(nothing_known.pressure(), None);
    }

    #[test]
    fn bytes_are_said_as_people_do() {
        let said: Vec<_> = [0, 1023, 1024, 1536, 10 * GIB, u64::MAX].map(bytes).to_vec();
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 GiB", "16383.9 PiB"];
        assert_eq!(said, expected);
    }
}
