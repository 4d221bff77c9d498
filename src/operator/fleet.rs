//! The containers as they were last seen, by id and by session.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Container, ContainerId, SessionName};

/// All containers of this installation. What concerns one session costs as much as that session.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    all: BTreeMap<ContainerId, Container>,
    of: BTreeMap<SessionName, BTreeSet<ContainerId>>,
}

impl Fleet {
    pub(super) fn get(&self, id: &ContainerId) -> Option<&Container> {
        self.all.get(id)
    }

    /// What is known of each, for a look that asks only for what is new.
    pub(super) fn known(&self) -> BTreeMap<ContainerId, Container> {
        self.all.clone()
    }

    /// A session's containers, in the order of their ids.
    pub(super) fn of<'a>(&'a self, name: &SessionName) -> impl Iterator<Item = &'a Container> {
        self.of.get(name).into_iter().flatten().filter_map(|id| self.all.get(id))
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &SessionName> {
        self.of.keys()
    }

    pub(super) fn insert(&mut self, container: Container) {
        self.remove(&container.id);
        let ids = self.of.entry(container.session.clone()).or_default();
        ids.insert(container.id.clone());
        self.all.insert(container.id.clone(), container);
    }

    pub(super) fn remove(&mut self, id: &ContainerId) {
        let Some(gone) = self.all.remove(id) else { return };
        if let Some(ids) = self.of.get_mut(&gone.session) {
            ids.remove(id);
            if ids.is_empty() {
                self.of.remove(&gone.session);
            }
        }
    }

    /// What was seen of it is not to be relied on.
    pub(super) fn forget_detail(&mut self, id: &ContainerId) {
        if let Some(container) = self.all.get_mut(id) {
            container.detail = None;
        }
    }

    /// Takes a complete listing in, but for the containers of sessions that it does not tell of.
    /// Returns the sessions of which something is different now, and whether it told of one that
    /// was left out.
    pub(super) fn take_in(
        &mut self,
        listed: BTreeMap<ContainerId, Container>,
        untold: impl Fn(&SessionName) -> bool,
    ) -> (BTreeSet<SessionName>, bool) {
        let mut changed = BTreeSet::new();
        let mut left_out = false;
        let gone: Vec<ContainerId> =
            self.all.keys().filter(|id| !listed.contains_key(*id)).cloned().collect();
        for id in gone {
            let session = self.all.get(&id).map(|gone| gone.session.clone());
            if let Some(session) = session.filter(|session| !untold(session)) {
                self.remove(&id);
                changed.insert(session);
            }
        }
        for (id, container) in listed {
            let before = self.all.get(&id);
            if untold(&container.session) || before.is_some_and(|before| untold(&before.session)) {
                left_out = true;
            } else if before != Some(&container) {
                changed.extend(before.map(|before| before.session.clone()));
                changed.insert(container.session.clone());
                self.insert(container);
            }
        }
        (changed, left_out)
    }
}
