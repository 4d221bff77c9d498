//! HTTP over the operator's socket: one connection a request.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, BodyStream, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::ErrorBody;

use super::exit::{Code, Failure};

/// Time for an answer that needs nothing from outside.
const QUICK: Duration = Duration::from_mins(1);

/// The way to an operator.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    /// Reads one value.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.quick(self.call(Method::GET, path, &())).await
    }

    /// Asks for something to be recorded.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.quick(self.call(Method::POST, path, body)).await
    }

    /// Reads one value that may take its time.
    pub(super) async fn get_and_wait<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, &()).await
    }

    /// Asks for something to be done and waits as long as it takes.
    pub(super) async fn post_and_wait<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, body).await
    }

    async fn quick<T>(&self, call: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = |_| {
            Failure::new(Code::TimedOut, "the operator gave no answer within 60 s")
                .hint("look at its log")
        };
        tokio::time::timeout(QUICK, call).await.map_err(late)?
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let response = self.send(method, path, body).await?;
        let bytes = response.into_body().collect().await.map_err(|error| self.lost(&error))?;
        serde_json::from_slice(&bytes.to_bytes()).map_err(|error| {
            Failure::failed(format!("the operator's answer cannot be read: {error}"))
                .hint("is the operator of the same version? `docket --version`")
        })
    }

    /// Opens an answer that goes on.
    pub(super) async fn stream(&self, path: &str) -> Result<Flow, Failure> {
        let response = self.send(Method::GET, path, &()).await?;
        Ok(Flow {
            body: BodyStream::new(response.into_body()),
            rest: Vec::new(),
            socket: self.socket.clone(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            Failure::new(
                Code::Unreachable,
                format!("no operator answers at {}: {error}", self.socket.display()),
            )
            .hint("start one with `docket run`, or name its state directory with --state DIR")
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.lost(&error))?;
        tokio::spawn(connection);
        let bytes = match method {
            Method::GET => Bytes::new(),
            _ => serde_json::to_vec(body).map_err(|e| Failure::failed(e.to_string()))?.into(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))
            .map_err(|error| Failure::failed(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| self.lost(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    fn lost(&self, error: &hyper::Error) -> Failure {
        lost(&self.socket, error)
    }
}

fn lost(socket: &std::path::Path, error: &hyper::Error) -> Failure {
    let message = format!("the operator at {} went away: {error}", socket.display());
    Failure::new(Code::Unreachable, message).hint("look at its log")
}

async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let bytes = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let message = match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => body.message,
        Err(_) => format!("the operator answered {status}"),
    };
    let code = match status.as_u16() {
        404 => Code::NotFound,
        400 | 413 | 422 => Code::Input,
        503 => Code::Unreachable,
        _ => Code::Failed,
    };
    Failure::new(code, message)
}

/// An answer that goes on.
#[derive(Debug)]
pub(super) struct Flow {
    body: BodyStream<Incoming>,
    rest: Vec<u8>,
    socket: PathBuf,
}

impl Flow {
    /// The next piece; `None`: the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.body.next().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(lost(&self.socket, &error)),
            }
        }
    }

    /// The next line without its end; `None`: the end. May be dropped while it waits.
    pub(super) async fn line(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.rest.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            match self.piece().await? {
                Some(data) => self.rest.extend_from_slice(&data),
                None => return Ok(None),
            }
        }
    }

    /// The next line as a value.
    pub(super) async fn value<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let value = serde_json::from_slice(&line).map_err(|error| {
            Failure::failed(format!("the operator's answer cannot be read: {error}"))
        })?;
        Ok(Some(value))
    }
}

/// Text as one part of a path or query.
pub(super) fn part(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// `session/NAME`, as `-o name` prints it, is NAME.
#[expect(clippy::unnecessary_wraps, reason = "what clap asks for")]
pub(super) fn bare(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.strip_prefix("session/").unwrap_or(text).to_owned())
}

/// A session's name, checked before it travels.
pub(super) fn session(text: &str) -> Result<&str, Failure> {
    match crate::model::SessionName::parse(text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::input(error.to_string())),
    }
}
