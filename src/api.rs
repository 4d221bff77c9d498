//! What a running operator answers: the same routes on its socket and, guarded, on a TCP port.
//!
//! 1. `routes` turns requests into questions to the loop and reads its last snapshot.
//! 2. `streams` is what goes on: watched sessions, events, logs.
//! 3. `guard` stands before the TCP port: token, Host, Origin.
//! 4. `reader` leaves out what only a known reader may see.
//! 5. `metrics`, `openapi` and `dashboard` are what else is served.
//! 6. `wire` has the shapes of requests and answers; the client uses them too.
//!
//! Nothing here decides anything or touches an engine, a store or a workspace.
#![expect(clippy::disallowed_methods, reason = "the shell: it makes the socket and the token")]

mod dashboard;
mod guard;
mod metrics;
mod openapi;
mod reader;
mod routes;
mod selector;
mod streams;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::operator::handle::Handle;

pub use guard::{Guard, Reading, Token, TokenError};
pub use selector::{BadSelector, parse_selector, selectable};
pub use wire::*;

/// How long open connections may take to end.
const LINGER: Duration = Duration::from_secs(2);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers at the socket already.
    #[error("another operator answers at {}", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else than a socket is in its place.
    #[error("{} is not a socket: move it away", path.display())]
    Foreign {
        /// What is there.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen at {place}")]
    Bind {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// Serving ended by itself.
    #[error("serving at {place} failed")]
    Serve {
        /// Where.
        place: String,
        /// Why.
        source: io::Error,
    },
}

/// A socket that is bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the operator's socket, mode 0600. A stale one is replaced in one step, and only if
/// nobody answers at it.
///
/// # Errors
/// [`ServeError`].
pub async fn bind_unix(path: &Path) -> Result<Bound, ServeError> {
    let fail = |source| ServeError::Bind { place: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::Foreign { path: path.to_owned() });
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(ServeError::Taken { path: path.to_owned() });
        }
        Ok(_) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.map_err(fail)?;
            }
        }
        Err(error) => return Err(fail(error)),
    }
    // Made beside it and renamed: nobody can connect before its mode is right.
    let new = path.with_file_name(".docket.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => (),
    }
    let listener = UnixListener::bind(&new).map_err(fail)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    std::fs::rename(&new, path).map_err(fail)?;
    Ok(Bound { listener, path: path.to_owned() })
}

/// Serves the API on the operator's socket until `shutdown`, then takes the socket away.
///
/// # Errors
/// [`ServeError::Serve`].
pub async fn serve_unix(
    bound: Bound,
    handle: Handle,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let router = routes::router(handle, shutdown.clone());
    let closing = shutdown.clone();
    let serving = axum::serve(bound.listener, router)
        .with_graceful_shutdown(async move { closing.cancelled().await });
    let ended = within_linger(serving.into_future(), &shutdown).await;
    let _it_is_gone_already = std::fs::remove_file(&bound.path);
    ended.map_err(|source| ServeError::Serve { place: bound.path.display().to_string(), source })
}

/// Serves the API on a TCP address behind a guard until `shutdown`.
///
/// # Errors
/// [`ServeError`].
pub async fn serve_tcp(
    address: SocketAddr,
    guard: Guard,
    handle: Handle,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { place: address.to_string(), source })?;
    serve_tcp_on(listener, guard, handle, shutdown).await
}

/// As [`serve_tcp`], on a listener that is bound already.
///
/// # Errors
/// [`ServeError`].
pub async fn serve_tcp_on(
    listener: TcpListener,
    guard: Guard,
    handle: Handle,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let place = listener.local_addr().map_or_else(|_| "tcp".to_owned(), |at| at.to_string());
    let router = guard::guarded(routes::router(handle, shutdown.clone()), guard);
    let closing = shutdown.clone();
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { closing.cancelled().await });
    within_linger(serving.into_future(), &shutdown)
        .await
        .map_err(|source| ServeError::Serve { place, source })
}

/// Waits for serving to end, and no longer than [`LINGER`] after the shutdown began.
async fn within_linger(
    serving: impl Future<Output = io::Result<()>>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = patience => Ok(()),
    }
}
