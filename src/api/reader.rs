//! What somebody without a token may read where reading is open: no logs, no file names. Texts
//! for people may quote a file's name, so those are left out as a whole.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::model::Event;
use crate::operator::handle::{PlanView, PlannedSession};
use crate::status::SessionView;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Somebody with the token, or at the socket.
    Known,
    /// Anybody who can connect.
    Anybody,
}

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Reader, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Reader::Known))
    }
}

impl Reader {
    /// A session as this reader may see it.
    pub(super) fn session(self, view: &Arc<SessionView>) -> Arc<SessionView> {
        if self == Reader::Known {
            return Arc::clone(view);
        }
        let mut view = SessionView::clone(view);
        view.status.conditions.iter_mut().for_each(|condition| condition.message.clear());
        view.status.retry.last_error.clear();
        view.status.plan.clear();
        Arc::new(view)
    }

    /// An event as this reader may see it.
    pub(super) fn event(self, mut event: Event) -> Event {
        if self == Reader::Anybody {
            event.message.clear();
        }
        event
    }

    /// A plan as this reader may see it: phases, and the first word of each step.
    pub(super) fn plan(self, mut plan: PlanView) -> PlanView {
        if self == Reader::Anybody {
            plan.text.clear();
            for (name, PlannedSession { phase, cause, actions }) in &mut plan.sessions {
                cause.clear();
                let _ = writeln!(plan.text, "{name} is {phase}"); // To a String.
                for action in actions {
                    *action = action.split(' ').next().unwrap_or("").to_owned();
                    let _ = writeln!(plan.text, "  {action}");
                }
            }
        }
        plan
    }
}
