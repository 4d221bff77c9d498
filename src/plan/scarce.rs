//! What there is only so much of: ports, places, starts at once. Counted once a pass, taken in
//! the order of names, so that two sessions never get the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{Action, CaseName, ClassName, Record, Resolved, SessionName, Uid, UserName};

use super::tally::Tally;
use super::{Input, Policy, Session, Underway};

/// What is taken so far: by what is known of the sessions and what runners have under way for
/// them, and by what this pass hands out.
#[derive(Clone, Debug, Default)]
pub struct Scarce {
    tally: Tally,
    /// Ports that somebody else holds.
    quarantined: BTreeSet<u16>,
    ports: BTreeMap<u16, SessionName>,
    sessions: u32,
    per_user: BTreeMap<UserName, u32>,
    starting: BTreeSet<SessionName>,
    updating: BTreeMap<ClassName, BTreeSet<SessionName>>,
    queue: u64,
    /// Sessions that the limits leave no place; worked out when it is first asked for.
    placeless: Option<BTreeSet<SessionName>>,
    expired: bool,
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
    pub fn count(input: &Input<'_>, underway: &Underway<'_>) -> Scarce {
        let mut scarce = Scarce::default();
        for (name, one) in input.sessions.each() {
            scarce.heed(name, Some(one), underway.get(name).copied().unwrap_or_default());
        }
        scarce.begin(input);
        scarce
    }

    /// Takes in what is known of a session now, and the steps that a runner takes for it; `None`:
    /// nothing is left of it. What did not change is not counted again. Returns the class that a
    /// changed spec is no longer on its way from into this session: the next may have its turn.
    pub fn heed(
        &mut self,
        name: &SessionName,
        one: Option<&Session>,
        underway: &[Action],
    ) -> Option<ClassName> {
        self.tally.heed(name, one, underway)
    }

    /// A pass begins: what the last one handed out is in the records by now, or is under way, or
    /// was not taken.
    pub fn begin(&mut self, input: &Input<'_>) {
        *self = Scarce { tally: std::mem::take(&mut self.tally), ..Scarce::default() };
        let held = input.quarantine.keys().filter(|port| input.quarantined(**port).is_some());
        self.quarantined.extend(held);
    }

    /// Which limit leaves no place, if one does.
    fn limit(&self, policy: &Policy, user: &UserName) -> Option<String> {
        let more = self.per_user.get(user).copied().unwrap_or_default();
        let of_user = self.tally.of_user(user).saturating_add(more);
        let sessions = self.tally.sessions().saturating_add(self.sessions);
        if policy.max_sessions > 0 && sessions >= policy.max_sessions {
            return Some(format!("limits.sessions ({})", policy.max_sessions));
        }
        let full = policy.max_per_user > 0 && of_user >= policy.max_per_user;
        full.then(|| format!("limits.perUser ({}) of {user}", policy.max_per_user))
    }

    /// Whether a session that has a record and no live container may have one.
    pub(super) fn keep_place(&mut self, policy: &Policy, name: &SessionName) -> Result<(), Full> {
        if policy.max_sessions == 0 && policy.max_per_user == 0 {
            return Ok(());
        }
        let placeless = self.placeless.get_or_insert_with(|| self.tally.placeless(policy));
        if placeless.contains(name) {
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
        if most > 0 && others(Some(&self.tally.starting), Some(&self.starting), name) >= most {
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
        let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
        let free = others(self.tally.updating(class), self.updating.get(class), name) < most;
        if free {
            self.updating.entry(class.clone()).or_default().insert(name.clone());
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
            let also = |port: u16| {
                self.ports.contains_key(&port)
                    || self.quarantined.contains(&port)
                    || Some(port) == avoid
            };
            let below = || self.tally.first_free(first, from.checked_sub(1)?, also);
            let free = self.tally.first_free(from, last, also).or_else(below);
            free.ok_or(NoPort::Exhausted)?
        } else {
            match self.owner_of_port(fixed) {
                Some(owner) if owner != name => return Err(NoPort::InUse(Some(owner.clone()))),
                None if self.quarantined.contains(&fixed) => return Err(NoPort::InUse(None)),
                _ if Some(fixed) == avoid => return Err(NoPort::InUse(None)),
                _ => fixed,
            }
        };
        #[cfg(feature = "testing")]
        if super::planted::ports_race() {
            return Ok(port);
        }
        self.ports.insert(port, name.clone());
        Ok(port)
    }

    /// Which session has a port.
    fn owner_of_port(&self, port: u16) -> Option<&SessionName> {
        self.ports.get(&port).or_else(|| self.tally.owner_of_port(port))
    }

    /// Whether a port is leased or held by anyone but this session.
    pub(super) fn is_anothers(&self, port: u16, name: &SessionName) -> bool {
        self.owner_of_port(port).is_some_and(|owner| owner != name)
    }

    /// Another session whose record has the workspace of a user and case, or is about to: one
    /// that ends must be gone first.
    pub(super) fn owner_of_place(
        &self,
        user: &UserName,
        case: &CaseName,
        but: &SessionName,
    ) -> Option<&SessionName> {
        self.tally.owner_of_place(user, case, but)
    }

    /// All sessions whose records have workspaces of a record's user.
    pub(super) fn siblings(&self, record: &Record) -> impl Iterator<Item = &SessionName> {
        self.tally.sessions_of(&record.user)
    }

    /// All ports taken.
    pub fn ports(&self) -> BTreeSet<u16> {
        let ours = self.tally.ports().chain(self.ports.keys().copied());
        ours.chain(self.quarantined.iter().copied()).collect()
    }

    /// Stands for the uid that the executor will mint.
    #[expect(clippy::unused_self, reason = "reads as what is handed out")]
    pub(super) fn no_uid(&self) -> Uid {
        Uid::from_bytes([0; 16])
    }
}

/// How many sessions but this one are in either.
fn others(
    known: Option<&BTreeSet<SessionName>>,
    taken: Option<&BTreeSet<SessionName>>,
    name: &SessionName,
) -> usize {
    let both = |one: &SessionName| known.is_some_and(|known| known.contains(one));
    let more = taken.into_iter().flatten().filter(|one| *one != name && !both(one)).count();
    known.map_or(0, |known| known.len() - usize::from(known.contains(name))) + more
}
