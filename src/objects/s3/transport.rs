//! HTTP for everything that talks to the store and to those who give credentials: hyper 1 and
//! rustls, no redirects, no proxies. A connection that does not come about, a request that is not
//! taken and an answer that does not arrive end in a bounded time; one that moves, however slowly,
//! goes on.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::{Instant, Sleep};

use crate::objects::s3::pace::Turn;
use crate::objects::s3::resolve::Resolver;
use crate::objects::s3::throttle::Throttle;

/// What hyper takes at once: small enough that progress is seen.
const FRAME: usize = 64 * 1024;
/// What a connection may buffer.
const BUFFER: usize = 128 * 1024;
/// Servers close idle connections after 20 s and more; a pooled one must not be older than that.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// A request that got no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TransportError {
    #[error("nothing moved for {} s", .0.as_secs_f32())]
    Stalled(Duration),
    #[error("{0}")]
    Broken(String),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("{0}")]
    Setup(String),
}

/// The one HTTP client of a store.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Outgoing>,
    idle: Duration,
    outward: Arc<Throttle>,
    inward: Arc<Throttle>,
}

impl Transport {
    /// A client that trusts the machine's authorities and those of `ca_file`. `plain`: only http is
    /// going to be used, a machine without any authority will do.
    pub(super) fn new(
        ca_file: Option<&Path>,
        plain: bool,
        connect: Duration,
        idle: Duration,
    ) -> Result<Transport, TransportError> {
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::Setup(error.to_string()))?
        .with_root_certificates(roots(ca_file, plain)?)
        .with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new());
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .http1_max_buf_size(BUFFER)
            .build(https.wrap_connector(tcp));
        let (outward, inward) = (Arc::new(Throttle::new(0)), Arc::new(Throttle::new(0)));
        Ok(Transport { client, idle, outward, inward })
    }

    /// With so many bytes a second each way; 0: no limit.
    #[must_use]
    pub(super) fn throttled(self, rate: u64) -> Transport {
        let (outward, inward) = (Arc::new(Throttle::new(rate)), Arc::new(Throttle::new(rate)));
        Transport { outward, inward, ..self }
    }

    /// Sends a request and waits for the head of the answer, as long as anything moves.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Incoming>, TransportError> {
        let moved = Moved::now();
        let throttle = &self.outward;
        let request = request.map(|bytes| Outgoing {
            bytes,
            moved: moved.clone(),
            throttle: Arc::clone(throttle),
            pause: None,
        });
        let mut sending = std::pin::pin!(self.client.request(request));
        loop {
            let seen = moved.last();
            tokio::select! {
                answer = &mut sending => return answer.map_err(|error| broken(&error)),
                () = tokio::time::sleep_until(seen + self.idle) => {
                    if moved.last() == seen {
                        return Err(TransportError::Stalled(self.idle));
                    }
                }
            }
        }
    }

    /// An answer's body as a stream that ends in an error if it stalls or is cut. The turn goes
    /// back at its end.
    pub(super) fn stream(
        &self,
        body: Incoming,
        turn: Option<Turn>,
    ) -> impl Stream<Item = Result<Bytes, TransportError>> + Send + use<> {
        let coming = Coming { body, turn, idle: self.idle, throttle: Arc::clone(&self.inward) };
        futures_util::stream::try_unfold(coming, |mut coming| async move {
            let bytes = coming.next().await?;
            Ok(bytes.map(|bytes| (bytes, coming)))
        })
    }

    /// A whole small body.
    pub(super) async fn whole(&self, body: Incoming, max: usize) -> Result<Bytes, TransportError> {
        use futures_util::TryStreamExt as _;
        let mut stream = std::pin::pin!(self.stream(body, None));
        let mut whole = BytesMut::new();
        while let Some(bytes) = stream.try_next().await? {
            if whole.len() + bytes.len() > max {
                return Err(TransportError::TooLong(max));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }
}

fn roots(ca_file: Option<&Path>, plain: bool) -> Result<rustls::RootCertStore, TransportError> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let bad =
            |why: String| TransportError::Setup(format!("s3.caFile {}: {why}", path.display()));
        let mut found = 0;
        for der in CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))? {
            let der = der.map_err(|error| bad(error.to_string()))?;
            roots.add(der).map_err(|error| bad(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(bad("no certificate in it (PEM wanted)".to_owned()));
        }
    }
    if roots.is_empty() && !plain {
        let text = "no certificate authority on this machine: install ca-certificates or set \
                    s3.caFile";
        return Err(TransportError::Setup(text.to_owned()));
    }
    Ok(roots)
}

/// hyper's errors say `client error (Connect)` and hide why in their sources.
fn broken(error: &(dyn std::error::Error + 'static)) -> TransportError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    TransportError::Broken(text)
}

/// A body on its way in.
struct Coming {
    body: Incoming,
    turn: Option<Turn>,
    idle: Duration,
    throttle: Arc<Throttle>,
}

impl Coming {
    async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            let Ok(frame) = tokio::time::timeout(self.idle, self.body.frame()).await else {
                return Err(TransportError::Stalled(self.idle));
            };
            let Some(frame) = frame else { return Ok(None) };
            let Ok(bytes) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            if let Some(turn) = &mut self.turn {
                turn.moved(bytes.len());
            }
            if let Some(until) = self.throttle.count(bytes.len()) {
                tokio::time::sleep_until(until).await;
            }
            return Ok(Some(bytes));
        }
    }
}

/// When a request's body was last taken from.
#[derive(Clone, Debug)]
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn now() -> Moved {
        Moved(Arc::new(Mutex::new(Instant::now())))
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamp(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// A body of known length, handed out in frames.
#[derive(Debug)]
struct Outgoing {
    bytes: Bytes,
    moved: Moved,
    throttle: Arc<Throttle>,
    /// Until the line is free again.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        self.moved.stamp(Instant::now());
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.bytes.len().min(FRAME);
        if let Some(until) = self.throttle.count(length) {
            // Waiting by our own will is not standing still.
            self.moved.stamp(until);
            self.pause = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
