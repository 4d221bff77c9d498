//! What users see, drawn anew after each pass for the sessions it touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::apply::place;
use crate::model::{LazyMode, Reason, SessionName};
use crate::plan::{Session, Want};
use crate::status::{Facts, Transitions, view};
use crate::world::{Clock, Engine, Ledger, Objects, Probe, Workspaces};

use super::Operator;

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// Draws the sessions a pass touched and shows them.
    pub(super) fn publish(&mut self, dirty: &BTreeSet<SessionName>) {
        let drawn = self.draw(dirty);
        if drawn.is_empty() {
            return;
        }
        for (name, viewed) in &drawn {
            let Some(live) = self.live.get_mut(name) else { continue };
            live.transitions.clone_from(&viewed.1);
            live.view = Some(Arc::clone(&viewed.0));
        }
        self.sessions.send_modify(|snapshot| {
            let all = Arc::make_mut(snapshot);
            for (name, (view, _)) in drawn {
                all.insert(name, view);
            }
        });
    }

    /// The changed views of these sessions.
    fn draw(
        &self,
        dirty: &BTreeSet<SessionName>,
    ) -> BTreeMap<SessionName, (Arc<crate::status::SessionView>, Transitions)> {
        let lent = self.lent();
        let input = self.input(&lent, &self.live);
        let stubs = match self.doors.workspaces.lazy() {
            LazyMode::OnAccess => None,
            LazyMode::Stub { reason } => Some(reason),
        };
        let mut drawn = BTreeMap::new();
        for name in dirty {
            let Some(live) = self.live.get(name) else { continue };
            let unknown = live.plan.reason == Some(Reason::SourceUnknown);
            let gone = matches!(live.session.want, Want::Gone { .. }) && !unknown;
            if live.session.record.is_none() && gone {
                continue;
            }
            let workspace = self.host_path(&live.session);
            let step = live.step.load(std::sync::atomic::Ordering::Relaxed);
            let busy = live.main.as_ref().and_then(|_| live.plan.actions.get(step));
            let busy = busy.map(ToString::to_string);
            let facts = Facts {
                bind: self.doors.identity.bind,
                prefix: &self.doors.identity.prefix,
                workspace: &workspace,
                busy: busy.as_deref(),
                stubs: stubs.as_deref(),
                revision: self.sources.as_ref().map_or("", |sources| &sources.revision),
                broken: live.broken.as_deref(),
                unkept: live.unkept.as_deref(),
                next_pass: None,
                progress: live
                    .session
                    .record
                    .as_ref()
                    .and_then(|record| self.doors.lanes.progress(record)),
                remembered: &live.transitions,
            };
            let viewed = view(&input, name, &live.session, &live.plan, &facts);
            if live.view.as_deref() != Some(&viewed.view) {
                drawn.insert(name.clone(), (Arc::new(viewed.view), viewed.transitions));
            }
        }
        drawn
    }

    /// Since when each condition holds is kept once, at the end: it is for people.
    pub(super) async fn keep_transitions(&self) {
        for live in self.live.values() {
            let Some(record) = &live.session.record else { continue };
            if live.main.is_some() || record.transitions == live.transitions {
                continue;
            }
            let transitions = live.transitions.clone();
            let kept = self.doors.book.update(&record.uid, |r| r.transitions = transitions).await;
            if let Err(error) = kept {
                tracing::warn!(%error, "the transitions of conditions were not kept");
                return;
            }
        }
    }

    fn host_path(&self, session: &Session) -> String {
        match (&session.record, &session.want) {
            (Some(record), _) => {
                self.doors.workspaces.host_path(&place(record), false).display().to_string()
            }
            (None, Want::Present { object, .. }) => self
                .settings
                .workspaces
                .join(object.user.as_str())
                .join("active")
                .join(object.case.as_str())
                .display()
                .to_string(),
            (None, _) => String::new(),
        }
    }
}
