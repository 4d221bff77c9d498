//! For the simulation: after each pass all is counted again from nothing. What is kept up one
//! session at a time must be what counting everything gives, nothing may have changed unheeded,
//! and what is at rest must be what deciding on it would leave at rest.

use crate::model::{Look, SessionName};
use crate::plan::Scarce;
use crate::world::{Clock, Engine, Ledger, Objects, Probe, Workspaces};

use super::{Live, Operator, index::Index};

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// Compares what a pass left with what one over everything would have.
    ///
    /// # Panics
    /// If they differ.
    pub(super) fn recount(&self) {
        if !crate::plan::planted::recounts() {
            return;
        }
        let mut index = Index::default();
        for (name, live) in &self.live {
            index.heed(name, Some(live));
        }
        assert_eq!(format!("{:?}", self.index), format!("{index:?}"), "the index is another");
        let lent = self.lent();
        let input = self.input(&lent, &self.live);
        let mut kept = self.scarce.clone();
        kept.begin(&input);
        let mut all = Scarce::count(&input, &self.underway());
        assert_eq!(format!("{kept:?}"), format!("{all:?}"), "what is scarce is counted wrongly");
        let at_work = |name: &SessionName, live: &Live| {
            live.main.is_some() || live.files || self.dirty.contains(name)
        };
        for (name, live) in self.live.iter().filter(|(name, live)| !at_work(name, live)) {
            self.is_as_seen(name, live);
            if !self.index.unsettled.contains(name) {
                let plan = crate::plan::session(&input, &mut all, name, &live.session);
                assert_eq!(plan.actions, live.plan.actions, "{name} is not at rest");
            }
        }
    }

    /// Whether a session that nothing is about to decide on is what it was decided on.
    fn is_as_seen(&self, name: &SessionName, live: &Live) {
        let record = self.doors.book.by_session(name);
        assert_eq!(live.session.record.as_ref(), record.as_deref(), "the record of {name}");
        let want = self.wants.of(name, record.as_deref());
        assert_eq!(live.session.want, *want, "what is wanted of {name}");
        if let (Look::Known(seen), Look::Known(()), 0) =
            (&live.session.containers, &self.containers_look, live.trusted_from)
        {
            let listed: Vec<_> = self.containers.of(name).cloned().collect();
            assert_eq!(*seen, listed, "the containers of {name}");
        }
    }
}
