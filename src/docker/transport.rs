//! The one way to the engine: an allow-list of endpoints, then a fresh connection a request.
//!
//! Everything that bollard sends comes through here, so what is not on [`ALLOWED`] cannot be
//! called at all, whatever a later edit asks of bollard. `docker cp`, `exec`, `commit` and their
//! kin read or run what a tenant controls (CVE-2026-41567, CVE-2026-41568) and are never needed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bollard::BollardRequest;
use bollard::errors::Error;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

/// Endpoints that docket may call: method, path. `*` is one component, `**` one or more.
pub(super) const ALLOWED: &[(&str, &str)] = &[
    ("GET", "/version"),
    ("GET", "/events"),
    ("GET", "/containers/json"),
    ("POST", "/containers/create"),
    ("GET", "/containers/*/json"),
    ("GET", "/containers/*/logs"),
    ("GET", "/containers/*/stats"),
    ("POST", "/containers/*/start"),
    ("POST", "/containers/*/stop"),
    ("POST", "/containers/*/update"),
    ("POST", "/containers/*/pause"),
    ("POST", "/containers/*/unpause"),
    ("DELETE", "/containers/*"),
    ("POST", "/images/create"),
    ("GET", "/images/**/json"),
    ("POST", "/networks/create"),
    ("GET", "/networks"),
    ("GET", "/networks/*"),
    ("DELETE", "/networks/*"),
];

/// Whether docket may call this endpoint.
pub(super) fn is_allowed(method: &str, path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    // A component that steers elsewhere, in a name or an image reference, is none of ours.
    let steers = |part: &&str| matches!(*part, "." | "..") || part.contains('%');
    !parts.iter().any(steers)
        && ALLOWED.iter().any(|(verb, pattern)| {
            *verb == method && matches_path(&pattern.split('/').collect::<Vec<_>>(), &parts)
        })
}

fn matches_path(pattern: &[&str], parts: &[&str]) -> bool {
    match (pattern.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), Some((part, others))) => {
            !part.is_empty() && (matches_path(rest, others) || matches_path(pattern, others))
        }
        (Some((&"*", rest)), Some((part, others))) => {
            !part.is_empty() && matches_path(rest, others)
        }
        (Some((wanted, rest)), Some((part, others))) => {
            wanted == part && matches_path(rest, others)
        }
        _ => false,
    }
}

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// `host:port`, plain.
    Tcp(String),
}

impl Address {
    /// Parses what `DOCKER_HOST` may say: `unix://PATH`, `PATH`, `tcp://HOST:PORT`,
    /// `http://HOST:PORT`.
    pub(super) fn parse(host: &str) -> Result<Address, String> {
        let host = host.trim();
        if let Some(path) = host.strip_prefix("unix://") {
            return Address::unix(path, host);
        }
        let tcp = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://"));
        if let Some(address) = tcp {
            let address = address.trim_end_matches('/');
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            return match port {
                Some(_) => Ok(Address::Tcp(address.to_owned())),
                None => Err(format!("`{host}`: expected tcp://HOST:PORT")),
            };
        }
        if host.contains("://") {
            return Err(format!("`{host}`: only unix://PATH and tcp://HOST:PORT are supported"));
        }
        Address::unix(host, host)
    }

    fn unix(path: &str, host: &str) -> Result<Address, String> {
        if path.starts_with('/') {
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        Err(format!("`{host}`: expected unix:// and an absolute path"))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Put into a request's extensions: told when the head of a good answer is there. A stream of
/// events says nothing else when it begins.
#[derive(Clone, Default)]
pub(super) struct HeadSeen(pub(super) Arc<Notify>);

/// Carries one of bollard's requests to the engine, if it is allowed.
pub(super) async fn carry(
    address: Arc<Address>,
    request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    if !is_allowed(request.method().as_str(), request.uri().path()) {
        let what = format!("{} {} is not allowed", request.method(), request.uri().path());
        return Err(Error::DockerResponseServerError { status_code: 403, message: what });
    }
    match &*address {
        Address::Unix(path) => send(UnixStream::connect(path).await?, request).await,
        Address::Tcp(address) => send(TcpStream::connect(address).await?, request).await,
    }
}

/// One request on a fresh connection, which ends with the answer's body.
async fn send<S>(stream: S, mut request: BollardRequest) -> Result<Response<Incoming>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let origin = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::try_from(origin).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
    let head = request.extensions_mut().remove::<HeadSeen>();
    let response = sender.send_request(request).await?;
    if let Some(HeadSeen(notify)) = head.filter(|_| response.status().is_success()) {
        notify.notify_one();
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t16_no_endpoint_that_reads_or_runs_what_a_tenant_controls_is_allowed() {
        for path in [
            "/containers/abc/archive",
            "/containers/abc/exec",
            "/containers/abc/export",
            "/containers/abc/attach",
            "/containers/abc/copy",
            "/containers/abc/kill",
            "/containers/prune",
            "/commit",
            "/exec/abc/start",
            "/build",
            "/images/load",
            "/volumes/create",
            "/plugins/pull",
            "/swarm/init",
            "/auth",
        ] {
            for method in ["GET", "PUT", "POST", "HEAD"] {
                assert!(!is_allowed(method, path), "{method} {path}");
            }
        }
        assert!(!is_allowed("POST", "/networks/prune"));
        assert!(
            ALLOWED.iter().all(|(_, path)| !path.contains("archive") && !path.contains("exec"))
        );
    }

    #[test]
    fn t16_a_name_cannot_steer_a_call_to_another_endpoint() {
        assert!(is_allowed("GET", "/containers/abc/json"));
        assert!(is_allowed("GET", "/images/reg.example:5000/a/b:1/json"));
        assert!(!is_allowed("GET", "/images/../containers/abc/archive/json"));
        assert!(!is_allowed("GET", "/images/..%2f..%2fexec/json"));
        assert!(!is_allowed("GET", "/containers//json"));
        assert!(!is_allowed("DELETE", "/containers/abc/json"));
        assert!(!is_allowed("DELETE", "/containers/"));
    }

    /// The folder's own text: nobody may write around the list either.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test reads the sources")]
    fn t16_no_archive_or_exec_call_is_written_anywhere_in_this_folder() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docker");
        let mut files = vec![folder.with_extension("rs")];
        files.extend(std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()));
        files.retain(|file| file.is_file());
        assert!(files.len() > 5);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for call in [
                concat!(".create_", "exec("),
                concat!(".start_", "exec("),
                concat!("download_from_", "container("),
                concat!("upload_to_", "container"),
                concat!("get_container_", "archive"),
                concat!("attach_", "container("),
                concat!("export_", "container("),
                concat!("connect_with_", "unix("),
            ] {
                assert!(!text.contains(call), "{}: {call}", file.display());
            }
        }
    }

    #[test]
    fn hosts_are_read_as_docker_reads_them_and_others_are_refused() {
        let unix = Address::Unix(PathBuf::from("/run/d.sock"));
        assert_eq!(Address::parse("unix:///run/d.sock"), Ok(unix.clone()));
        assert_eq!(Address::parse("/run/d.sock"), Ok(unix));
        assert_eq!(Address::parse("tcp://h:2375"), Ok(Address::Tcp("h:2375".into())));
        for bad in ["ssh://h", "tcp://h", "d.sock", "", "unix://d.sock", "https://h:2376"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
