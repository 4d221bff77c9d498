//! What stands before the TCP port: Host and Origin first (403), then the token (401).
//!
//! Host must be an address or `localhost`, so a name that an attacker points here (DNS
//! rebinding) is refused; Origin, if a browser sends one, must be that very host, so no other
//! page can ask.

use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};

use super::reader::Reader;
use super::routes::Problem;

/// Who may read without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nobody.
    Token,
    /// Everybody who can connect; not logs and file names.
    Open,
}

/// The guard of a TCP port.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What changes anything, and reads if [`Reading::Token`].
    pub token: Token,
    /// Who may read.
    pub reading: Reading,
}

/// The bearer token of an installation.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("the token file {} cannot be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no token, or others can read it.
    #[error("the token file {} {why}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Token {
    /// Reads the token of a state directory.
    ///
    /// # Errors
    /// [`TokenError`]; also if others than its owner can read it.
    pub fn read(state: &Path) -> Result<Token, TokenError> {
        let path = state.join("token");
        let fail = |source| TokenError::File { path: path.clone(), source };
        let file = std::fs::File::open(&path).map_err(fail)?;
        if file.metadata().map_err(fail)?.mode() & 0o077 != 0 {
            return Err(TokenError::Unfit { path, why: "can be read by others: chmod 600 it" });
        }
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text).map_err(fail)?;
        let text = text.trim();
        let fit = text.len() >= 32 && text.bytes().all(|b| b.is_ascii_graphic());
        if fit {
            Ok(Token(text.to_owned()))
        } else {
            Err(TokenError::Unfit { path, why: "holds no token: remove it" })
        }
    }

    /// Reads the token, or makes one where there is none.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn ensure(state: &Path) -> Result<Token, TokenError> {
        let path = state.join("token");
        let fail = |source| TokenError::File { path: path.clone(), source };
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let mut bytes = [0; 32];
                rand::rngs::OsRng
                    .try_fill_bytes(&mut bytes)
                    .map_err(|error| fail(io::Error::other(error)))?;
                let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(fail)?;
                Ok(Token(text))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Token::read(state),
            Err(error) => Err(fail(error)),
        }
    }

    /// The token itself, for `docket token` alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether this is it; how long the comparison takes tells nothing.
    fn is(&self, given: &str) -> bool {
        Sha256::digest(self.0.as_bytes()) == Sha256::digest(given.as_bytes())
    }
}

/// Puts the guard before every route.
pub(super) fn guarded(router: Router, guard: Guard) -> Router {
    router.layer(from_fn_with_state(guard, check))
}

async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match admitted(&guard, &request) {
        Ok(reader) => {
            request.extensions_mut().insert(reader);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn admitted(guard: &Guard, request: &Request) -> Result<Reader, Problem> {
    same_place(request)?;
    let path = request.uri().path();
    if bearer(request.headers()).is_some_and(|given| guard.token.is(given)) {
        return Ok(Reader::Known);
    }
    if !path.starts_with("/api/") {
        return Ok(Reader::Anybody);
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads && guard.reading == Reading::Open && !is_private(path) {
        return Ok(Reader::Anybody);
    }
    Err(Problem::new(
        401,
        "Unauthorized",
        "send `Authorization: Bearer TOKEN`; `docket token` prints it",
    ))
}

/// Logs and file names, and what is not for everybody at all.
fn is_private(path: &str) -> bool {
    let open =
        ["sessions", "plan", "events", "top", "openapi.json"].map(|end| format!("/api/v1/{end}"));
    let of_one = path.strip_prefix("/api/v1/sessions/").is_some_and(|name| !name.contains('/'));
    !of_one && !open.iter().any(|open| open == path)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn same_place(request: &Request) -> Result<(), Problem> {
    let forbidden = |what| Problem::new(403, "Forbidden", format!("a foreign {what}"));
    let one = |name| {
        let mut values = request.headers().get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap_or("\u{fffd}"));
        if values.next().is_some() { Some("\u{fffd}") } else { first }
    };
    let host = request
        .uri()
        .authority()
        .map(axum::http::uri::Authority::as_str)
        .or_else(|| one(header::HOST))
        .unwrap_or("");
    if !is_own_host(host) {
        return Err(forbidden("Host"));
    }
    match one(header::ORIGIN) {
        Some(origin) if origin.split_once("://").is_none_or(|(_, from)| from != host) => {
            Err(forbidden("Origin"))
        }
        _ => Ok(()),
    }
}

/// An address or `localhost`, with or without a port.
fn is_own_host(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => bare,
        _ => host,
    };
    let address = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
    bare.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::{is_own_host, is_private};

    #[test]
    fn n1_only_addresses_and_localhost_are_own_hosts() {
        for own in ["127.0.0.1:7070", "localhost", "LOCALHOST:1", "[::1]:7070", "10.0.0.5"] {
            assert!(is_own_host(own), "{own}");
        }
        for foreign in
            ["", "evil.example", "evil.example:7070", "localhost.evil:80", "::1:x", "\u{fffd}"]
        {
            assert!(!is_own_host(foreign), "{foreign}");
        }
    }

    #[test]
    fn logs_and_files_are_private() {
        for open in ["/api/v1/sessions", "/api/v1/sessions/a", "/api/v1/plan", "/api/v1/top"] {
            assert!(!is_private(open), "{open}");
        }
        for private in [
            "/api/v1/sessions/a/logs",
            "/api/v1/sessions/a/files",
            "/api/v1/sources",
            "/api/v1/doctor",
        ] {
            assert!(is_private(private), "{private}");
        }
    }
}
