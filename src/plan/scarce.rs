//! What there is only so much of: ports, places, starts at once. Counted once a pass, taken in
//! the order of names, so that two sessions never get the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{
    ClassName, ContainerState, DesiredState, Look, Resolved, SessionName, Uid, UserName,
};

use super::{Input, Policy};

/// What is taken so far.
#[derive(Clone, Debug, Default)]
pub struct Scarce {
    ports: BTreeMap<u16, Option<SessionName>>,
    sessions: u32,
    per_user: BTreeMap<UserName, u32>,
    starting: u32,
    updating: BTreeMap<ClassName, u32>,
    queue: u64,
}

/// A limit is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Full {
    limit: String,
    /// Place in the queue, from 1.
    pub(super) place: u64,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is reached: place {} in the queue", self.limit, self.place)
    }
}

/// No port could be leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPort {
    /// All of the range are leased, held by others, or in quarantine.
    Exhausted,
    /// The fixed port is leased to this session, or held by somebody else.
    InUse(Option<SessionName>),
}

impl Scarce {
    /// Counts what is taken before anything is planned.
    pub fn count(input: &Input<'_>) -> Scarce {
        let mut scarce = Scarce::default();
        for (port, until) in input.quarantine {
            if *until > input.now {
                scarce.ports.insert(*port, None);
            }
        }
        for (name, one) in &input.sessions {
            if let Look::Known(containers) = &one.containers {
                for detail in containers.iter().filter_map(|c| c.detail.as_ref()) {
                    if let Some(published) = detail.published {
                        scarce.ports.insert(published.port(), Some((*name).clone()));
                    }
                }
            }
            let Some(record) = &one.record else { continue };
            if let Some(port) = record.port {
                scarce.ports.insert(port, Some((*name).clone()));
            }
            let runs = record.wanted_state() == DesiredState::Running && record.retired.is_none();
            if runs || record.ending.is_some() {
                scarce.sessions += 1;
                *scarce.per_user.entry(record.user.clone()).or_default() += 1;
            }
            let alive = one.containers.known().is_some_and(|all| {
                all.iter()
                    .any(|c| matches!(c.state, ContainerState::Running | ContainerState::Created))
            });
            if runs && alive && record.ready_since.is_none() && record.ending.is_none() {
                scarce.starting += 1;
                if record.ready_generation > 0 {
                    let class = record.applied.resolved.class.clone();
                    *scarce.updating.entry(class).or_default() += 1;
                }
            }
        }
        scarce
    }

    /// A place among all sessions and among its user's.
    pub(super) fn take_place(&mut self, policy: &Policy, user: &UserName) -> Result<(), Full> {
        let of_user = self.per_user.get(user).copied().unwrap_or_default();
        if policy.max_sessions > 0 && self.sessions >= policy.max_sessions {
            return Err(self.queue(format!("limits.sessions ({})", policy.max_sessions)));
        }
        if policy.max_per_user > 0 && of_user >= policy.max_per_user {
            let limit = format!("limits.perUser ({}) of {user}", policy.max_per_user);
            return Err(self.queue(limit));
        }
        self.sessions += 1;
        *self.per_user.entry(user.clone()).or_default() += 1;
        Ok(())
    }

    /// Leave to start a container now.
    pub(super) fn take_start(&mut self, policy: &Policy) -> Result<(), Full> {
        if policy.max_starts > 0 && self.starting >= policy.max_starts {
            return Err(self.queue(format!("limits.concurrentStarts ({})", policy.max_starts)));
        }
        self.starting += 1;
        Ok(())
    }

    fn queue(&mut self, limit: String) -> Full {
        self.queue += 1;
        Full { limit, place: self.queue }
    }

    /// Leave to take a changed class into force now.
    pub(super) fn take_update(&mut self, class: &ClassName, most: u32) -> bool {
        let taken = self.updating.entry(class.clone()).or_default();
        let free = *taken < most.max(1);
        if free {
            *taken += 1;
        }
        free
    }

    /// A host port for a session: its fixed one, or the lowest free of the range.
    pub(super) fn take_port(
        &mut self,
        policy: &Policy,
        name: &SessionName,
        resolved: &Resolved,
        avoid: Option<u16>,
    ) -> Result<u16, NoPort> {
        let fixed = resolved.container.host_port;
        let port = if fixed == 0 {
            let (first, last) = policy.bounds.ports;
            (first..=last)
                .find(|port| !self.ports.contains_key(port) && Some(*port) != avoid)
                .ok_or(NoPort::Exhausted)?
        } else {
            match self.ports.get(&fixed) {
                Some(Some(owner)) if owner != name => {
                    return Err(NoPort::InUse(Some(owner.clone())));
                }
                Some(None) => return Err(NoPort::InUse(None)),
                _ if Some(fixed) == avoid => return Err(NoPort::InUse(None)),
                _ => fixed,
            }
        };
        self.ports.insert(port, Some(name.clone()));
        Ok(port)
    }

    /// Whether a port is leased or held by anyone but this session.
    pub(super) fn is_anothers(&self, port: u16, name: &SessionName) -> bool {
        matches!(self.ports.get(&port), Some(Some(owner)) if owner != name)
    }

    /// All ports taken.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.ports.keys().copied().collect()
    }

    /// Stands for the uid that the executor will mint.
    #[expect(clippy::unused_self, reason = "reads as what is handed out")]
    pub(super) fn no_uid(&self) -> Uid {
        Uid::from_bytes([0; 16])
    }
}
