//! Answers that go on: watched sessions, events, logs. Each ends when its reader is gone or the
//! operator stops.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::model::{Event, SessionName};
use crate::operator::handle::{LogStreamBox, Snapshot};
use crate::status::SessionView;

use super::Watched;
use super::reader::Reader;
use super::routes::{Filter, Served};

/// How far a stream may be ahead of its reader.
const AHEAD: usize = 64;

/// Sessions as they change, one JSON object a line.
pub(super) fn sessions(served: &Served, reader: Reader, filter: Filter) -> Response {
    let lines = watched(served, reader, filter).map(|change| Ok::<_, Infallible>(line(&change)));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// The same as server-sent events: `added`, `modified` and `deleted` with the object, `bookmark`.
pub(super) fn sessions_as_events(served: &Served, reader: Reader, filter: Filter) -> Response {
    let events = watched(served, reader, filter).map(|change| {
        let (name, object) = match &change {
            Watched::Added(view) => ("added", Some(view)),
            Watched::Modified(view) => ("modified", Some(view)),
            Watched::Deleted(view) => ("deleted", Some(view)),
            Watched::Bookmark => ("bookmark", None),
        };
        let data = serde_json::to_string(&object).unwrap_or_default();
        Ok::<_, Infallible>(sse::Event::default().event(name).data(data))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

fn watched(
    served: &Served,
    reader: Reader,
    filter: Filter,
) -> impl Stream<Item = Watched> + Send + use<> {
    let (changes, read) = mpsc::channel(AHEAD);
    let served = served.clone();
    tokio::spawn(async move {
        let closing = served.closing.clone();
        tokio::select! {
            _the_reader_is_gone = tell_sessions(&served, reader, &filter, &changes) => (),
            () = closing.cancelled() => (),
            () = changes.closed() => (),
        }
    });
    received(read)
}

/// Tells all there is, a bookmark once that is known to be all, and then each change.
async fn tell_sessions(
    served: &Served,
    reader: Reader,
    filter: &Filter,
    told_to: &mpsc::Sender<Watched>,
) -> Option<()> {
    let mut snapshots = served.handle.sessions.clone();
    let mut passes = served.handle.last_pass.clone();
    let mut told = BTreeMap::new();
    let mut complete = false;
    loop {
        // In this order: what a complete pass saw is in the snapshot that is read after it.
        let looked = passes.borrow_and_update().is_some();
        // It is let go at once: the operator would copy it for its next change.
        let found = {
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            changes(&mut told, &snapshot, filter)
        };
        for change in found {
            told_to.send(seen_by(reader, change)).await.ok()?;
        }
        if looked && !complete {
            complete = true;
            told_to.send(Watched::Bookmark).await.ok()?;
        }
        tokio::select! {
            changed = snapshots.changed() => changed.ok()?,
            changed = passes.changed(), if !complete => changed.ok()?,
        }
    }
}

fn seen_by(reader: Reader, change: Watched) -> Watched {
    match change {
        Watched::Added(view) => Watched::Added(reader.session(&view)),
        Watched::Modified(view) => Watched::Modified(reader.session(&view)),
        Watched::Deleted(view) => Watched::Deleted(reader.session(&view)),
        Watched::Bookmark => Watched::Bookmark,
    }
}

fn line(change: &Watched) -> Bytes {
    let mut text = serde_json::to_vec(change).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// What changed since the last time; `told` becomes what is there now.
fn changes(
    told: &mut BTreeMap<SessionName, Arc<SessionView>>,
    snapshot: &Snapshot,
    filter: &Filter,
) -> Vec<Watched> {
    let mut found = Vec::new();
    // What was told as it is now is not looked into: most are, at each change.
    told.retain(|name, before| {
        let here = snapshot.get(name);
        let stays = here.is_some_and(|view| Arc::ptr_eq(before, view) || filter.takes(view));
        if !stays {
            found.push(Watched::Deleted(Arc::clone(before)));
        }
        stays
    });
    for (name, view) in snapshot.iter() {
        let known = told.get(name).is_some_and(|before| Arc::ptr_eq(before, view));
        if known || !filter.takes(view) {
            continue;
        }
        match told.insert(name.clone(), Arc::clone(view)) {
            None => found.push(Watched::Added(Arc::clone(view))),
            Some(before) if before == *view => (),
            Some(before)
                if before.metadata.uid != view.metadata.uid && !before.metadata.uid.is_empty() =>
            {
                found.push(Watched::Deleted(before));
                found.push(Watched::Added(Arc::clone(view)));
            }
            Some(_) => found.push(Watched::Modified(Arc::clone(view))),
        }
    }
    found
}

/// Events after a number, and on as they happen, as server-sent events: `id` is the number to
/// resume from.
pub(super) fn events(
    served: &Served,
    who: Reader,
    after: u64,
    session: Option<SessionName>,
) -> Response {
    let (events, reader) = mpsc::channel(AHEAD);
    let served = served.clone();
    tokio::spawn(async move {
        let closing = served.closing.clone();
        tokio::select! {
            _the_reader_is_gone = tell_events(&served, after, session.as_ref(), &events) => (),
            () = closing.cancelled() => (),
            () = events.closed() => (),
        }
    });
    let stream = received(reader).map(move |event: Event| {
        let event = who.event(event);
        let data = serde_json::to_string(&event).unwrap_or_default();
        Ok::<_, Infallible>(sse::Event::default().id(event.seq.to_string()).data(data))
    });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

async fn tell_events(
    served: &Served,
    mut after: u64,
    session: Option<&SessionName>,
    events: &mpsc::Sender<Event>,
) -> Option<()> {
    // Subscribed before the past is read: nothing falls between the two.
    let mut live = served.handle.events.subscribe();
    loop {
        for event in served.handle.events_after(after) {
            after = event.seq;
            if session.is_none() || event.session.as_ref() == session {
                events.send(event).await.ok()?;
            }
        }
        // What comes is only a sign to look: a slow reader loses none of the ring that way.
        match live.recv().await {
            Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => (),
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// A container's log as it is.
pub(super) fn logs(served: &Served, log: LogStreamBox) -> Response {
    let closing = served.closing.clone();
    let stream = log.0.take_until(async move { closing.cancelled().await });
    let headers = [(header::CONTENT_TYPE, "application/octet-stream")];
    (headers, Body::from_stream(stream)).into_response()
}

fn received<T: Send + 'static>(reader: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(
        reader,
        |mut reader| async move { reader.recv().await.map(|item| (item, reader)) },
    )
}
