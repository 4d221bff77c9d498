//! The routes. Every answer that is not data is [`ErrorBody`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::model::{ClassName, SessionName};
use crate::operator::handle::{Answer, Ask, Handle, Refusal, Selector, SourceView, Verb, Which};
use crate::status::SessionView;

use super::reader::Reader;
use super::{
    Collection, Confirmed, Deletion, Done, ErrorBody, EventList, Files, Paths, Restoration,
    SessionList, dashboard, metrics as numbers, openapi, parse_selector, selectable, streams,
};

/// Largest body: many spec files of 64 KiB.
const BODY_LIMIT: usize = 32 << 20;
/// Longest reason of a refusal that is passed on.
const TOLD_LIMIT: usize = 4 << 10;
/// How long a new operator may take to its first look before a name is said to be unknown.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// A pass that is older than this means that the operator cannot see the engine.
const STALE: chrono::TimeDelta = chrono::TimeDelta::seconds(90);

/// How long a scrape waits for what containers use.
const SCRAPE: Duration = Duration::from_secs(5);

type Params = Query<BTreeMap<String, String>>;
type Reply<T> = Result<T, Problem>;

/// What the routes need.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub handle: Handle,
    pub closing: CancellationToken,
}

/// All routes.
pub(super) fn router(handle: Handle, closing: CancellationToken) -> Router {
    let v1 = Router::new()
        .route("/sessions", get(sessions))
        .route("/sessions/{name}", get(session).delete(delete_one))
        .route("/sessions/{name}/files", get(files))
        .route("/sessions/{name}/history", get(history))
        .route("/sessions/{name}/logs", get(logs))
        .route("/sessions/{name}/{verb}", post(command))
        .route("/events", get(events))
        .route("/plan", get(plan).post(plan_with))
        .route("/diff", post(diff))
        .route("/apply", post(apply))
        .route("/delete", post(delete))
        .route("/confirm-prune", post(confirm_prune))
        .route("/rescan", post(rescan))
        .route("/gc", post(gc))
        .route("/trash", get(trash))
        .route("/top", get(top))
        .route("/sources", get(sources))
        .route("/doctor", get(doctor))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }));
    Router::new()
        .route("/", get(dashboard::page))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .nest("/api/v1", v1)
        .fallback(|| async { Problem::new(404, "NotFound", "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Problem::new(405, "Refused", "this method is not for this path")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::map_response(as_problem))
        .with_state(Served { handle, closing })
}

/// What is refused before a route of ours sees it is told in our words, too.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let plain = kind.is_some_and(|kind| kind.starts_with("text/plain"));
    if !status.is_client_error() || !plain {
        return response;
    }
    let told = axum::body::to_bytes(response.into_body(), TOLD_LIMIT).await.unwrap_or_default();
    Problem::new(status.as_u16(), "Invalid", String::from_utf8_lossy(&told)).into_response()
}

/// An error as an answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    body: ErrorBody,
}

impl Problem {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Problem {
        Problem { status, body: ErrorBody { code: code.to_owned(), message: message.into() } }
    }

    fn invalid(message: impl Into<String>) -> Problem {
        Problem::new(422, "Invalid", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let (status, body) = ErrorBody::of(&refusal);
        Problem { status, body }
    }
}

impl Served {
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<Answer<T>>) -> Ask) -> Reply<T> {
        match self.handle.ask(question).await {
            Ok(answer) => Ok(answer),
            Err(refusal) if self.handle.asks.is_closed() => {
                Err(Problem::new(503, "Stopping", refusal.to_string()))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The session of a path. A new operator has not looked yet: its silence proves nothing.
    async fn view(&self, name: &SessionName) -> Reply<Arc<SessionView>> {
        let find = || self.handle.sessions.borrow().get(name).cloned();
        if let Some(view) = find() {
            return Ok(view);
        }
        let mut passed = self.handle.last_pass.clone();
        let looked = tokio::time::timeout(FIRST_LOOK, passed.wait_for(Option::is_some)).await;
        match (find(), looked) {
            (Some(view), _) => Ok(view),
            (None, Ok(Ok(_))) => Err(unknown(name.as_str())),
            (None, _) => Err(Problem::new(
                503,
                "Starting",
                "the operator has not seen the engine yet: nothing is known of this name",
            )),
        }
    }
}

fn unknown(name: &str) -> Problem {
    let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    Problem::new(404, "NotFound", format!("there is no session `{name}`"))
}

fn name_of(text: &str) -> Reply<SessionName> {
    SessionName::parse(text).map_err(|_| unknown(text))
}

/// `?follow`, `?follow=true`, `?follow=1`.
pub(super) fn flag(params: &BTreeMap<String, String>, name: &str) -> Reply<bool> {
    match params.get(name).map(String::as_str) {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(Problem::invalid(format!("{name}: expected true or false"))),
    }
}

/// Whether the client names this content type among those that it reads.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|text| text.contains(kind))
}

/// Whether the client reads server-sent events.
fn wants_events(headers: &HeaderMap) -> bool {
    accepts(headers, "text/event-stream")
}

fn number(params: &BTreeMap<String, String>, name: &str) -> Reply<Option<u64>> {
    params
        .get(name)
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| Problem::invalid(format!("{name}: expected a whole number")))
}

fn body<T: DeserializeOwned + Default>(bytes: &Bytes) -> Reply<T> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes).map_err(|error| Problem::invalid(format!("body: {error}")))
}

fn files_in(bytes: &Bytes) -> Reply<Vec<(String, String)>> {
    let files: Files = body(bytes)?;
    Ok(files.files.into_iter().map(|file| (file.name, file.text)).collect())
}

async fn metrics(State(served): State<Served>, reader: Reader, headers: HeaderMap) -> Response {
    let top = tokio::time::timeout(SCRAPE, served.ask(|reply| Ask::Top(None, reply))).await;
    let standing = tokio::time::timeout(SCRAPE, served.ask(Ask::Numbers)).await;
    let seen = numbers::Seen {
        sessions: Arc::clone(&served.handle.sessions.borrow()),
        // What cannot be measured now is left out; the rest is told.
        top: top.ok().and_then(Result::ok).unwrap_or_default(),
        last_pass: *served.handle.last_pass.borrow(),
        origin: served.handle.origin.borrow().clone(),
        events: served.handle.events_after(0).last().map_or(0, |event| event.seq),
        numbers: standing.ok().and_then(Result::ok),
        meter: Arc::clone(&served.handle.meter),
    };
    let form = if accepts(&headers, "application/openmetrics-text") {
        numbers::Form::OpenMetrics
    } else {
        numbers::Form::Classic
    };
    ([(header::CONTENT_TYPE, form.content_type())], numbers::text(&seen, reader, form))
        .into_response()
}

async fn livez(State(served): State<Served>) -> Response {
    if served.handle.asks.is_closed() {
        (StatusCode::SERVICE_UNAVAILABLE, "the loop has ended\n").into_response()
    } else {
        "ok\n".into_response()
    }
}

async fn readyz(State(served): State<Served>) -> Response {
    #[expect(clippy::disallowed_methods, reason = "the shell: a probe is about this moment")]
    let now = chrono::Utc::now();
    let last = *served.handle.last_pass.borrow();
    match last {
        Some(at) if now.signed_duration_since(at) < STALE => "ok\n".into_response(),
        Some(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the last complete pass is too old\n").into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "no complete pass yet\n").into_response(),
    }
}

/// Which sessions a listing is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    name: Option<String>,
    selector: Selector,
}

impl Filter {
    fn of(params: &BTreeMap<String, String>) -> Reply<Filter> {
        let text = params.get("selector").or_else(|| params.get("labelSelector"));
        let selector = parse_selector(text.map_or("", String::as_str))
            .map_err(|error| Problem::invalid(error.to_string()))?;
        Ok(Filter { name: params.get("name").cloned(), selector })
    }

    pub(super) fn takes(&self, view: &SessionView) -> bool {
        self.name.as_ref().is_none_or(|name| *name == view.metadata.name)
            && self.selector.matches(&selectable(view))
    }
}

async fn sessions(
    State(served): State<Served>,
    reader: Reader,
    headers: HeaderMap,
    Query(params): Params,
) -> Reply<Response> {
    let filter = Filter::of(&params)?;
    if wants_events(&headers) {
        return Ok(streams::sessions_as_events(&served, reader, filter));
    }
    if flag(&params, "watch")? {
        return Ok(streams::sessions(&served, reader, filter));
    }
    let snapshot = Arc::clone(&served.handle.sessions.borrow());
    let items = snapshot.values().filter(|view| filter.takes(view));
    let items = items.map(|view| reader.session(view)).collect();
    Ok(Json(SessionList::of(items)).into_response())
}

async fn session(
    State(served): State<Served>,
    reader: Reader,
    Path(name): Path<String>,
) -> Reply<Json<Arc<SessionView>>> {
    let view = served.view(&name_of(&name)?).await?;
    Ok(Json(reader.session(&view)))
}

async fn files(State(served): State<Served>, Path(name): Path<String>) -> Reply<Response> {
    let name = name_of(&name)?;
    Ok(Json(served.ask(|reply| Ask::Files(name, reply)).await?).into_response())
}

async fn history(
    State(served): State<Served>,
    Path(name): Path<String>,
    Query(params): Params,
) -> Reply<Response> {
    let name = name_of(&name)?;
    let most = usize::try_from(number(&params, "limit")?.unwrap_or(0)).unwrap_or(usize::MAX);
    Ok(Json(served.ask(|reply| Ask::History(name, most, reply)).await?).into_response())
}

async fn gc(State(served): State<Served>, bytes: Bytes) -> Reply<Response> {
    let Collection { older_than_seconds, dry_run: dry } = body(&bytes)?;
    let older_than = Duration::from_secs(older_than_seconds);
    Ok(Json(served.ask(|reply| Ask::Gc { older_than, dry, reply }).await?).into_response())
}

async fn trash(State(served): State<Served>) -> Reply<Response> {
    Ok(Json(served.ask(Ask::Trash).await?).into_response())
}

async fn logs(
    State(served): State<Served>,
    Path(name): Path<String>,
    Query(params): Params,
) -> Reply<Response> {
    let name = name_of(&name)?;
    let (follow, tail) = (flag(&params, "follow")?, number(&params, "tail")?);
    let stream = served.ask(|reply| Ask::Logs { name, follow, tail, reply }).await?;
    Ok(streams::logs(&served, stream))
}

async fn events(
    State(served): State<Served>,
    reader: Reader,
    headers: HeaderMap,
    Query(params): Params,
) -> Reply<Response> {
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = number(&params, "after")?.or(resumed).unwrap_or(0);
    let session = params.get("session").map(|name| name_of(name)).transpose()?;
    if flag(&params, "follow")? || wants_events(&headers) {
        return Ok(streams::events(&served, reader, after, session));
    }
    let mut items = served.handle.events_after(after);
    items.retain(|event| session.is_none() || event.session == session);
    let items = items.into_iter().map(|event| reader.event(event)).collect();
    let list =
        EventList { api_version: "docket.dev/v1".to_owned(), kind: "EventList".to_owned(), items };
    Ok(Json(list).into_response())
}

async fn plan(State(served): State<Served>, reader: Reader) -> Reply<Response> {
    let plan = served.ask(|reply| Ask::Plan(Vec::new(), reply)).await?;
    Ok(Json(reader.plan(plan)).into_response())
}

async fn plan_with(State(served): State<Served>, bytes: Bytes) -> Reply<Response> {
    let files = files_in(&bytes)?;
    Ok(Json(served.ask(|reply| Ask::Plan(files, reply)).await?).into_response())
}

async fn diff(State(served): State<Served>, bytes: Bytes) -> Reply<Response> {
    let files = files_in(&bytes)?;
    Ok(Json(served.ask(|reply| Ask::Diff(files, reply)).await?).into_response())
}

async fn apply(State(served): State<Served>, bytes: Bytes) -> Reply<Response> {
    let files = files_in(&bytes)?;
    Ok(Json(served.ask(|reply| Ask::Apply(files, reply)).await?).into_response())
}

async fn delete(State(served): State<Served>, bytes: Bytes) -> Reply<Response> {
    let asked: Deletion = body(&bytes)?;
    let which = match (asked.name, asked.selector, asked.all) {
        (Some(name), None, false) => match name.strip_prefix("sessionclass/") {
            Some(class) => Which::Class(
                ClassName::parse(class).map_err(|bad| Problem::invalid(bad.to_string()))?,
            ),
            None => Which::Name(name_of(&name)?),
        },
        (None, Some(text), false) => match parse_selector(&text) {
            Ok(selector) if selector.0.is_empty() => {
                return Err(Problem::invalid("an empty selector would delete everything: use all"));
            }
            Ok(selector) => Which::Selector(selector),
            Err(error) => return Err(Problem::invalid(error.to_string())),
        },
        (None, None, true) => Which::All,
        _ => return Err(Problem::invalid("expected exactly one of name, selector and all")),
    };
    end(&served, which, asked.discard).await
}

async fn delete_one(
    State(served): State<Served>,
    Path(name): Path<String>,
    Query(params): Params,
) -> Reply<Response> {
    end(&served, Which::Name(name_of(&name)?), flag(&params, "discard")?).await
}

async fn end(served: &Served, which: Which, discard: bool) -> Reply<Response> {
    let outcomes = served.ask(|reply| Ask::Delete { which, discard, reply }).await?;
    Ok(Json(outcomes).into_response())
}

async fn command(
    State(served): State<Served>,
    Path((name, verb)): Path<(String, String)>,
    bytes: Bytes,
) -> Reply<Json<Done>> {
    let name = name_of(&name)?;
    let message = match verb.as_str() {
        "sync" => served.ask(|reply| Ask::Sync(name, reply)).await?,
        "hydrate" => {
            let Paths { paths } = body(&bytes)?;
            served.ask(|reply| Ask::Hydrate(name, paths, reply)).await?
        }
        "restore" => {
            let Restoration { at, path } = body(&bytes)?;
            if at.is_empty() {
                return Err(Problem::invalid("at: expected the id of a state"));
            }
            served.ask(|reply| Ask::Restore { name, at, path, reply }).await?
        }
        word => {
            let verb: Verb = serde_json::from_value(word.into())
                .map_err(|_| Problem::new(404, "NotFound", "there is no such command"))?;
            let said = format!("session/{name}: {word} recorded");
            served.ask(|reply| Ask::Verb(name, verb, reply)).await.map(|()| said)?
        }
    };
    Ok(Json(Done { message }))
}

async fn confirm_prune(State(served): State<Served>) -> Reply<Json<Confirmed>> {
    let confirmed = served.ask(Ask::ConfirmPrune).await?;
    Ok(Json(Confirmed { confirmed }))
}

async fn rescan(State(served): State<Served>) -> Reply<Json<Done>> {
    let sent = served.handle.asks.send(Ask::Rescan).await;
    sent.map_err(|_| Problem::new(503, "Stopping", "the operator is shutting down"))?;
    Ok(Json(Done { message: "the sources are read again".to_owned() }))
}

async fn top(State(served): State<Served>, Query(params): Params) -> Reply<Response> {
    let name = params.get("session").map(|name| name_of(name)).transpose()?;
    Ok(Json(served.ask(|reply| Ask::Top(name, reply)).await?).into_response())
}

async fn sources(State(served): State<Served>) -> Reply<Response> {
    let mut rows = served.ask(Ask::Sources).await?;
    let origin = served.handle.origin.borrow().clone();
    rows.splice(0..0, origin.map(SourceView::of_origin));
    Ok(Json(rows).into_response())
}

async fn doctor(State(served): State<Served>) -> Reply<Response> {
    Ok(Json(served.ask(Ask::Doctor).await?).into_response())
}
