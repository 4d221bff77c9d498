//! What there is only so much of: ports, places, starts at once. Counted once a pass, taken in
//! the order of names, so that two sessions never get the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{
    Action, ClassName, ContainerState, DesiredState, Record, Resolved, SessionName, Timestamp, Uid,
    UserName,
};

use super::container::is_alive;
use super::{Input, Policy, Session};

/// What is taken so far.
#[derive(Clone, Debug, Default)]
pub struct Scarce {
    ports: BTreeMap<u16, Option<SessionName>>,
    sessions: u32,
    per_user: BTreeMap<UserName, u32>,
    starting: BTreeSet<SessionName>,
    updating: BTreeMap<ClassName, BTreeSet<SessionName>>,
    queue: u64,
    placeless: BTreeSet<SessionName>,
    expired: bool,
}

fn runs(record: &Record) -> bool {
    record.wanted_state() == DesiredState::Running && record.retired.is_none()
}

fn ends(record: &Record) -> bool {
    record.ending.is_some()
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
        scarce.count_ports(input);
        scarce.count_places(input);
        for (name, one) in &input.sessions {
            scarce.count_starts(name, one);
        }
        for (name, actions) in &input.underway {
            scarce.reserve(input, name, actions);
        }
        scarce
    }

    /// Counts the steps of a plan that is being carried out: what they take is not in the record
    /// yet, and nobody else may be given it.
    pub(super) fn reserve(&mut self, input: &Input<'_>, name: &SessionName, actions: &[Action]) {
        let recorded = input.sessions.get(name).is_some_and(|one| one.record.is_some());
        for action in actions {
            match action {
                Action::Admit { applied, .. } if !recorded => {
                    self.sessions += 1;
                    *self.per_user.entry(applied.object.user.clone()).or_default() += 1;
                }
                Action::Adopt { applied, .. } => {
                    let class = applied.resolved.class.clone();
                    self.updating.entry(class).or_default().insert(name.clone());
                }
                Action::LeasePort { port, .. } => {
                    self.ports.insert(*port, Some(name.clone()));
                }
                Action::StartContainer { .. } => {
                    self.starting.insert(name.clone());
                }
                _ => (),
            }
        }
    }

    /// A lease weighs more than what a container, perhaps an old one, is published on.
    fn count_ports(&mut self, input: &Input<'_>) {
        let held = input.quarantine.keys().filter(|port| input.quarantined(**port).is_some());
        self.ports.extend(held.map(|port| (*port, None)));
        for (name, one) in &input.sessions {
            for container in one.containers.known().into_iter().flatten() {
                let published = container.detail.as_ref().and_then(|detail| detail.published);
                if let Some(address) = published {
                    self.ports.insert(address.port(), Some((*name).clone()));
                }
            }
        }
        for (name, one) in &input.sessions {
            if let Some(port) = one.record.as_ref().and_then(|record| record.port) {
                self.ports.insert(port, Some((*name).clone()));
            }
        }
    }

    /// Places go first to what ends and to live containers, then by age: a session that was
    /// stopped and is started again queues behind those that took its place.
    fn count_places(&mut self, input: &Input<'_>) {
        let mut holders: Vec<(bool, Timestamp, &SessionName, &Record)> = input
            .sessions
            .iter()
            .filter_map(|(name, one)| {
                let live = one.containers.known().is_none_or(|all| all.iter().any(is_alive));
                let holds = |record: &&Record| runs(record) || ends(record) || live;
                let record = one.record.as_ref().filter(holds)?;
                let none = !live && !ends(record);
                let since = record.active_since.unwrap_or(record.created_at);
                Some((none, since, *name, record))
            })
            .collect();
        for one in input.sessions.values().filter(|one| one.record.is_none()) {
            let lost = one.containers.known().into_iter().flatten().next();
            if let Some(user) = lost.and_then(|container| UserName::parse(&container.user).ok()) {
                self.sessions += 1;
                *self.per_user.entry(user).or_default() += 1;
            }
        }
        holders.sort_by_key(|(none, since, name, _)| (*none, *since, *name));
        for (without, _, name, record) in holders {
            let user = &record.user;
            if without && self.limit(input.policy, user).is_some() {
                self.placeless.insert(name.clone());
            }
            self.sessions += 1;
            *self.per_user.entry(user.clone()).or_default() += 1;
        }
    }

    fn count_starts(&mut self, name: &SessionName, one: &Session) {
        let Some(record) = one.record.as_ref().filter(|r| runs(r) && !ends(r)) else { return };
        let alive = one
            .containers
            .known()
            .is_some_and(|all| all.iter().any(|c| c.state == ContainerState::Running));
        if alive && record.ready_since.is_none() {
            self.starting.insert(name.clone());
        }
        let updates = record.ready_generation > 0
            && (record.ready_since.is_none()
                || record.ready_generation < record.applied.generation);
        if updates {
            let class = record.applied.resolved.class.clone();
            self.updating.entry(class).or_default().insert(name.clone());
        }
    }

    /// Which limit leaves no place, if one does.
    fn limit(&self, policy: &Policy, user: &UserName) -> Option<String> {
        let of_user = self.per_user.get(user).copied().unwrap_or_default();
        if policy.max_sessions > 0 && self.sessions >= policy.max_sessions {
            return Some(format!("limits.sessions ({})", policy.max_sessions));
        }
        let full = policy.max_per_user > 0 && of_user >= policy.max_per_user;
        full.then(|| format!("limits.perUser ({}) of {user}", policy.max_per_user))
    }

    /// Whether a session that has a record and no live container may have one.
    pub(super) fn keep_place(&mut self, name: &SessionName) -> Result<(), Full> {
        if self.placeless.contains(name) {
            return Err(self.queue("the limit on sessions".to_owned()));
        }
        Ok(())
    }

    /// Leave to end one session by its lifetime: one a pass, so that a clock that jumps ends
    /// few before somebody looks.
    pub(super) fn take_expiry(&mut self) -> bool {
        !std::mem::replace(&mut self.expired, true)
    }

    /// A place for a new session, among all and among its user's.
    pub(super) fn take_place(&mut self, policy: &Policy, user: &UserName) -> Result<(), Full> {
        if let Some(limit) = self.limit(policy, user) {
            return Err(self.queue(limit));
        }
        self.sessions += 1;
        *self.per_user.entry(user.clone()).or_default() += 1;
        Ok(())
    }

    /// Leave to start a container now. What a session itself has under way does not count
    /// against it.
    pub(super) fn take_start(&mut self, policy: &Policy, name: &SessionName) -> Result<(), Full> {
        let most = usize::try_from(policy.max_starts).unwrap_or(usize::MAX);
        let others = self.starting.iter().filter(|other| *other != name).count();
        if most > 0 && others >= most {
            return Err(self.queue(format!("limits.concurrentStarts ({most})")));
        }
        self.starting.insert(name.clone());
        Ok(())
    }

    fn queue(&mut self, limit: String) -> Full {
        self.queue += 1;
        Full { limit, place: self.queue }
    }

    /// Leave to take a changed class into force now.
    pub(super) fn take_update(&mut self, class: &ClassName, most: u32, name: &SessionName) -> bool {
        let taken = self.updating.entry(class.clone()).or_default();
        let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        let free = taken.iter().filter(|other| *other != name).count() < most;
        if free {
            taken.insert(name.clone());
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
            // On from the contested one: from the lowest again, a run of ports that somebody else
            // holds would never be passed once their quarantines end faster than they are tried.
            let (first, last) = policy.bounds.ports;
            let from = avoid.filter(|port| (first..=last).contains(port)).unwrap_or(first);
            (from..=last)
                .chain(first..from)
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
        #[cfg(feature = "testing")]
        if super::planted::ports_race() {
            return Ok(port);
        }
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
