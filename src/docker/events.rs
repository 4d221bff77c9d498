//! The engine's events, by one reader task that never blocks: a reader that stalls loses events
//! without any error and slows every call of the engine.
//!
//! Nothing depends on an event. When some may be missing, the word is [`EngineEvent::Relist`].

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptions, EventsOptionsBuilder};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};

use super::failure::Op;
use super::transport::HeadSeen;
use super::{Docker, READ};
use crate::model::{ContainerId, SessionName};
use crate::world::{
    EngineError, EngineErrorKind, EngineEvent, EventStream, LABEL_INSTALLATION, LABEL_SESSION,
};

/// Events that may wait for the consumer; beyond it they become one `Relist`.
const WAITING_MAX: usize = 1024;
/// First and longest wait between two tries to subscribe.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What changes a container. Not `exec_*`, which a prober inside could make a flood of.
const ACTIONS: [&str; 12] = [
    "create", "start", "die", "oom", "kill", "stop", "restart", "pause", "unpause", "update",
    "rename", "destroy",
];

/// Begins to read. The task ends when the stream is dropped.
pub(super) fn stream(docker: Docker) -> EventStream {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::spawn(read(docker, Outlet { sender, lost: false }));
    Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (event, receiver))
    }))
}

/// The way out to the consumer; what does not fit is remembered as lost.
struct Outlet {
    sender: mpsc::Sender<EngineEvent>,
    lost: bool,
}

impl Outlet {
    fn offer(&mut self, event: EngineEvent) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(event) {
            self.lost = true;
        }
    }

    /// Waits for room to say that events were lost. Safe to drop halfway.
    async fn own_up(&mut self) {
        if let Ok(room) = self.sender.reserve().await {
            room.send(EngineEvent::Relist);
            self.lost = false;
        }
    }
}

async fn read(docker: Docker, mut outlet: Outlet) {
    let mut wait = RETRY.0;
    let mut told = false;
    while !outlet.sender.is_closed() {
        let mut was_up = false;
        let begun = Instant::now();
        let error = subscribe(&docker, &mut outlet, &mut was_up).await;
        told &= !was_up;
        // One that ends again and again is not asked ten times a second.
        if was_up && begun.elapsed() > RETRY.1 {
            wait = RETRY.0;
        }
        if !told {
            outlet.offer(EngineEvent::Gone(error.to_string()));
            told = true;
        }
        let next = Instant::now() + wait;
        let closed = outlet.sender.clone();
        while Instant::now() < next {
            tokio::select! {
                () = sleep_until(next) => {}
                () = closed.closed() => return,
                () = outlet.own_up(), if outlet.lost => {}
            }
        }
        wait = (wait * 2).min(RETRY.1);
    }
}

/// Reads one stream to its end and says why it ended.
async fn subscribe(docker: &Docker, outlet: &mut Outlet, was_up: &mut bool) -> EngineError {
    let client = match docker.client().await {
        Ok(client) => client,
        Err(error) => return error,
    };
    let head = HeadSeen::default();
    let seen = head.clone();
    let client = client.with_request_modifier(move |mut request| {
        request.extensions_mut().insert(head.clone());
        request
    });
    let mut stream = pin!(client.events(Some(options(docker))));
    let given_up = Instant::now() + READ;
    let closed = outlet.sender.clone();
    loop {
        tokio::select! {
            () = closed.closed() => return Op::Events.error(EngineErrorKind::Broken, "not read"),
            () = seen.0.notified(), if !*was_up => {
                *was_up = true;
                outlet.offer(EngineEvent::Relist);
            }
            () = sleep_until(given_up), if !*was_up => {
                return Op::Events.error(EngineErrorKind::Timeout, "no answer in time");
            }
            () = outlet.own_up(), if outlet.lost => {}
            item = stream.next() => {
                // Head and end may come in one piece.
                if !*was_up && seen.0.notified().now_or_never().is_some() {
                    *was_up = true;
                    outlet.offer(EngineEvent::Relist);
                }
                if let Some(end) = hear(docker, outlet, item) {
                    return end;
                }
            }
        }
    }
}

/// Passes an event on, or says why there are no more.
fn hear(
    docker: &Docker,
    outlet: &mut Outlet,
    item: Option<Result<EventMessage, Error>>,
) -> Option<EngineError> {
    match item {
        Some(Ok(message)) => {
            if let Some(event) = event_of(message) {
                outlet.offer(event);
            }
            None
        }
        Some(Err(error)) => Some(docker.note(Op::Events.failed(&error))),
        None => {
            let ended = Op::Events.error(EngineErrorKind::Unreachable, "the stream ended");
            Some(docker.note(ended))
        }
    }
}

fn options(docker: &Docker) -> EventsOptions {
    let label = format!("{LABEL_INSTALLATION}={}", docker.identity.installation);
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![label]),
        ("event", ACTIONS.map(str::to_owned).to_vec()),
    ]);
    EventsOptionsBuilder::default().filters(&filters).build()
}

fn event_of(message: EventMessage) -> Option<EngineEvent> {
    let actor = message.actor?;
    let id = ContainerId(actor.id?);
    let labels = actor.attributes.unwrap_or_default();
    let session = labels.get(LABEL_SESSION).and_then(|name| SessionName::parse(name).ok());
    Some(EngineEvent::Container { id, session, action: message.action? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> EngineEvent {
        let id = ContainerId("1".to_owned());
        EngineEvent::Container { id, session: None, action: action.to_owned() }
    }

    #[tokio::test]
    async fn what_does_not_fit_becomes_one_relist_as_soon_as_there_is_room() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut outlet = Outlet { sender, lost: false };
        for action in ["create", "start", "die", "destroy"] {
            outlet.offer(event(action));
        }
        assert!(outlet.lost);
        assert_eq!(receiver.recv().await, Some(event("create")));
        outlet.own_up().await;
        assert!(!outlet.lost);
        assert_eq!(receiver.recv().await, Some(event("start")));
        assert_eq!(receiver.recv().await, Some(EngineEvent::Relist));
    }
}
