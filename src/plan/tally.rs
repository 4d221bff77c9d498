//! What each session takes of what there is only so much of, kept up one session at a time: a
//! pass costs what changed since the one before.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Action, CaseName, ClassName, Container, ContainerState, DesiredState, Record, SessionName,
    Timestamp, UserName,
};

use super::container::{is_alive, is_of_spec};
use super::{Policy, Session};

/// What one session takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Ports its containers are published on, and the one in its record.
    published: BTreeSet<u16>,
    leased: Option<u16>,
    /// Whose workspace its record has.
    place: Option<(UserName, CaseName)>,
    /// That it has a place among those that may run, and which in their order.
    holds: Option<Order>,
    /// Whose container it is that has no record.
    lost: Option<UserName>,
    starting: bool,
    updating: Option<ClassName>,
    under_way: UnderWay,
}

/// What the steps that a runner takes for a session take, whether or not it is in the record yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct UnderWay {
    ports: BTreeSet<u16>,
    /// It is being admitted, to this workspace.
    admitted: Option<(UserName, CaseName)>,
    starts: bool,
    updating: Option<ClassName>,
}

impl UnderWay {
    fn of(actions: &[Action], recorded: bool) -> UnderWay {
        let mut all = UnderWay::default();
        for action in actions {
            match action {
                Action::Admit { applied, .. } if !recorded => {
                    let object = &applied.object;
                    all.admitted = Some((object.user.clone(), object.case.clone()));
                }
                Action::Adopt { applied, .. } => {
                    all.updating = Some(applied.resolved.class.clone());
                }
                Action::LeasePort { port, .. } => drop(all.ports.insert(*port)),
                Action::StartContainer { .. } => all.starts = true,
                _ => (),
            }
        }
        all
    }
}

/// Places go first to what ends and to live containers, then by age: a session that was stopped
/// and is started again queues behind those that took its place.
type Order = (bool, Timestamp);

/// What all sessions take.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    shares: BTreeMap<SessionName, Share>,
    published: BTreeMap<u16, BTreeSet<SessionName>>,
    leased: BTreeMap<u16, BTreeSet<SessionName>>,
    /// Ports that are about to be leased, and workspaces of those whose admission is under way.
    leasing: BTreeMap<u16, BTreeSet<SessionName>>,
    admitted: BTreeMap<(UserName, CaseName), BTreeSet<SessionName>>,
    places: BTreeMap<UserName, BTreeMap<CaseName, BTreeSet<SessionName>>>,
    holders: BTreeMap<(Order, SessionName), UserName>,
    lost: u32,
    admissions: u32,
    per_user: BTreeMap<UserName, u32>,
    pub(super) starting: BTreeSet<SessionName>,
    updating: BTreeMap<ClassName, BTreeSet<SessionName>>,
}

fn runs(record: &Record) -> bool {
    record.wanted_state() == DesiredState::Running && record.retired.is_none()
}

fn ends(record: &Record) -> bool {
    record.ending.is_some()
}

impl Share {
    fn of(one: &Session, underway: &[Action]) -> Share {
        let mut share =
            Share { under_way: UnderWay::of(underway, one.record.is_some()), ..Share::default() };
        let containers = one.containers.known().into_iter().flatten();
        for container in containers.clone() {
            let published = container.detail.as_ref().and_then(|detail| detail.published);
            share.published.extend(published.map(|address| address.port()));
        }
        let Some(record) = &one.record else {
            let lost = containers.clone().next();
            share.lost = lost.and_then(|container| UserName::parse(&container.user).ok());
            return share;
        };
        share.leased = record.port;
        share.place = Some((record.user.clone(), record.case.clone()));
        let live = one.containers.known().is_none_or(|all| all.iter().any(is_alive));
        if runs(record) || ends(record) || live {
            let since = record.active_since.unwrap_or(record.created_at);
            share.holds = Some((!live && !ends(record), since));
        }
        if runs(record) && !ends(record) {
            // One that cannot become ready is not starting: it waits for its own start, and two that
            // count each other would wait for ever.
            let starts = |all: &Vec<Container>| {
                let mut running = all.iter().filter(|c| c.state == ContainerState::Running);
                running.any(|container| is_of_spec(record, container))
            };
            let unready = record.ready_since.is_none();
            share.starting = unready && one.containers.known().is_some_and(starts);
            let updates = record.ready_generation > 0
                && (record.ready_since.is_none()
                    || record.ready_generation < record.applied.generation);
            share.updating = updates.then(|| record.applied.resolved.class.clone());
        }
        share
    }

    /// The class that comes into it, or is about to.
    fn updates(&self) -> Option<&ClassName> {
        self.updating.as_ref().or(self.under_way.updating.as_ref())
    }
}

impl Tally {
    /// Takes in what is known of a session now, and the steps that a runner takes for it; `None`:
    /// nothing is left of it. Returns the class that it was the update of and is not any more.
    pub(super) fn heed(
        &mut self,
        name: &SessionName,
        one: Option<&Session>,
        underway: &[Action],
    ) -> Option<ClassName> {
        let share = one.map(|one| Share::of(one, underway)).unwrap_or_default();
        if self.shares.get(name) == Some(&share) {
            return None;
        }
        #[cfg(feature = "testing")]
        if share.leased.is_none() && super::planted::counts_stale() {
            return None;
        }
        let mut updated = None;
        if let Some(before) = self.shares.remove(name) {
            updated = before.updates().filter(|class| Some(*class) != share.updates()).cloned();
            self.forget(name, before);
        }
        if share != Share::default() {
            self.add(name, &share);
            self.shares.insert(name.clone(), share);
        }
        updated
    }

    fn add(&mut self, name: &SessionName, share: &Share) {
        for port in &share.published {
            self.published.entry(*port).or_default().insert(name.clone());
        }
        if let Some(port) = share.leased {
            self.leased.entry(port).or_default().insert(name.clone());
        }
        if let (Some(order), Some((user, _))) = (share.holds, &share.place) {
            self.holders.insert((order, name.clone()), user.clone());
            *self.per_user.entry(user.clone()).or_default() += 1;
        }
        if let Some((user, case)) = &share.place {
            let cases = self.places.entry(user.clone()).or_default();
            cases.entry(case.clone()).or_default().insert(name.clone());
        }
        if let Some(user) = &share.lost {
            self.lost += 1;
            *self.per_user.entry(user.clone()).or_default() += 1;
        }
        let UnderWay { ports, admitted, starts, updating } = &share.under_way;
        for port in ports {
            self.leasing.entry(*port).or_default().insert(name.clone());
        }
        if let Some(place) = admitted {
            self.admissions += 1;
            *self.per_user.entry(place.0.clone()).or_default() += 1;
            self.admitted.entry(place.clone()).or_default().insert(name.clone());
        }
        if share.starting || *starts {
            self.starting.insert(name.clone());
        }
        for class in share.updating.iter().chain(updating) {
            self.updating.entry(class.clone()).or_default().insert(name.clone());
        }
    }

    fn forget(&mut self, name: &SessionName, share: Share) {
        for port in &share.published {
            take_out(&mut self.published, port, name);
        }
        if let Some(port) = share.leased {
            take_out(&mut self.leased, &port, name);
        }
        if let (Some(order), Some((user, _))) = (share.holds, &share.place) {
            self.holders.remove(&(order, name.clone()));
            self.one_less(user);
        }
        if let Some((user, case)) = &share.place
            && let Some(cases) = self.places.get_mut(user)
        {
            take_out(cases, case, name);
            if cases.is_empty() {
                self.places.remove(user);
            }
        }
        if let Some(user) = &share.lost {
            self.lost = self.lost.saturating_sub(1);
            self.one_less(user);
        }
        let UnderWay { ports, admitted, starts: _, updating } = &share.under_way;
        for port in ports {
            take_out(&mut self.leasing, port, name);
        }
        if let Some(place) = admitted {
            self.admissions = self.admissions.saturating_sub(1);
            self.one_less(&place.0);
            take_out(&mut self.admitted, place, name);
        }
        self.starting.remove(name);
        for class in share.updating.iter().chain(updating) {
            take_out(&mut self.updating, class, name);
        }
    }

    fn one_less(&mut self, user: &UserName) {
        if let Some(count) = self.per_user.get_mut(user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_user.remove(user);
            }
        }
    }

    /// Whether a session is about to lease a port, or its record has it, or a container is
    /// published on it, and whose: a lease weighs more than what a container, perhaps an old one,
    /// is published on.
    pub(super) fn owner_of_port<'a>(&'a self, port: u16) -> Option<&'a SessionName> {
        let of = |all: &'a BTreeMap<u16, BTreeSet<SessionName>>| all.get(&port)?.last();
        of(&self.leasing).or_else(|| of(&self.leased)).or_else(|| of(&self.published))
    }

    /// Ports that are leased, about to be, or published; some come twice.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.leased.keys().chain(self.published.keys()).chain(self.leasing.keys()).copied()
    }

    /// The first port of a range that nobody leases nor is about to, nor is published on, nor
    /// among `also`.
    pub(super) fn first_free(
        &self,
        first: u16,
        last: u16,
        also: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        if first > last {
            return None;
        }
        let ports = first..=last;
        // All in step: what is taken is mostly one run from the beginning.
        let all = [&self.leased, &self.published, &self.leasing];
        let mut all = all.map(|all| all.range(ports.clone()).map(|(port, _)| *port).peekable());
        ports.into_iter().find(|port| {
            let mut taken = false;
            for known in &mut all {
                while known.next_if(|taken| taken < port).is_some() {}
                taken |= known.peek() == Some(port);
            }
            !taken && !also(*port)
        })
    }

    /// Sessions that have a place, or are just being given one.
    pub(super) fn sessions(&self) -> u32 {
        let holders = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        holders.saturating_add(self.lost).saturating_add(self.admissions)
    }

    /// Of those, a user's.
    pub(super) fn of_user(&self, user: &UserName) -> u32 {
        self.per_user.get(user).copied().unwrap_or_default()
    }

    /// Another session whose record has a workspace, or is about to.
    pub(super) fn owner_of_place<'a>(
        &'a self,
        user: &UserName,
        case: &CaseName,
        but: &SessionName,
    ) -> Option<&'a SessionName> {
        let other = |all: &'a BTreeSet<SessionName>| all.iter().find(|name| *name != but);
        let recorded = self.places.get(user).and_then(|cases| cases.get(case)).and_then(other);
        let admitted = || self.admitted.get(&(user.clone(), case.clone())).and_then(other);
        recorded.or_else(admitted)
    }

    /// All sessions whose records have workspaces of a user.
    pub(super) fn sessions_of(&self, user: &UserName) -> impl Iterator<Item = &SessionName> {
        self.places.get(user).into_iter().flat_map(BTreeMap::values).flatten()
    }

    /// Sessions of a class that a changed spec is on its way into.
    pub(super) fn updating(&self, class: &ClassName) -> Option<&BTreeSet<SessionName>> {
        self.updating.get(class)
    }

    /// Sessions without a live container for which the limits leave no place.
    pub(super) fn placeless(&self, policy: &Policy) -> BTreeSet<SessionName> {
        let mut placeless = BTreeSet::new();
        let mut per_user: BTreeMap<&UserName, u32> = BTreeMap::new();
        for share in self.shares.values() {
            if let Some(user) = &share.lost {
                *per_user.entry(user).or_default() += 1;
            }
        }
        for (sessions, (((without, _), name), user)) in (self.lost..).zip(&self.holders) {
            let of_user = per_user.entry(user).or_default();
            let full = |most: u32, taken: u32| most > 0 && taken >= most;
            if *without
                && (full(policy.max_sessions, sessions) || full(policy.max_per_user, *of_user))
            {
                placeless.insert(name.clone());
            }
            *of_user += 1;
        }
        placeless
    }
}

fn take_out<K: Ord>(all: &mut BTreeMap<K, BTreeSet<SessionName>>, key: &K, name: &SessionName) {
    if let Some(names) = all.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            all.remove(key);
        }
    }
}
