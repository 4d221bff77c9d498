//! The health probe: one GET by hand, and only the status of what comes back.
//!
//! The other side is a tenant's and may be hostile: it never gets more than `timeout`, is never
//! heard beyond 4 KiB, and cannot send the probe anywhere else. So there is no HTTP client here
//! that could follow, keep, decode or grow anything.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::crash::{self, Effect};
use crate::world::{Probe, ProbeOutcome};

/// Most bytes of an answer that are looked at.
const HEARD_MAX: usize = 4096;

/// Probes over plain HTTP/1.1, a connection a probe.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpProbe;

impl Probe for HttpProbe {
    async fn probe(&self, address: SocketAddr, path: &str, timeout: Duration) -> ProbeOutcome {
        let asked = tokio::time::timeout(timeout, ask(address, path));
        let answer = match crash::around(Effect::Probe, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Late(timeout)),
        };
        match answer {
            Ok(200) => ProbeOutcome::Healthy,
            Ok(status @ 300..=399) => {
                ProbeOutcome::Unhealthy(format!("status {status}: redirects are not followed"))
            }
            Ok(status) => ProbeOutcome::Unhealthy(format!("status {status}")),
            Err(failure) => ProbeOutcome::Unhealthy(failure.to_string()),
        }
    }
}

/// Why a probe has no status.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the path must begin with `/` and hold only printable ASCII")]
    BadPath,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    #[error("the connection broke: {0}")]
    Broken(io::ErrorKind),
    #[error("the connection ended before the answer's headers did")]
    Short,
    #[error("the answer's headers are longer than {HEARD_MAX} bytes")]
    Long,
    #[error("the answer is not HTTP")]
    NotHttp,
}

/// The final status of one GET.
async fn ask(address: SocketAddr, path: &str) -> Result<u16, Failure> {
    let request = request(address, path)?;
    let stream = TcpStream::connect(address).await;
    let mut stream = stream.map_err(|error| Failure::Connect(error.kind()))?;
    let broken = |error: io::Error| Failure::Broken(error.kind());
    stream.set_nodelay(true).map_err(broken)?;
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut heard = [0_u8; HEARD_MAX];
    let mut length = 0;
    loop {
        if let Some(status) = final_status(&heard[..length])? {
            return Ok(status);
        }
        if length == HEARD_MAX {
            return Err(Failure::Long);
        }
        match stream.read(&mut heard[length..]).await.map_err(broken)? {
            0 => return Err(Failure::Short),
            more => length += more,
        }
    }
}

fn request(address: SocketAddr, path: &str) -> Result<String, Failure> {
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::BadPath);
    }
    Ok(format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: docket/{}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    ))
}

/// The status of the first answer that is not merely informational (1xx), once its headers are
/// whole; `None`: more must come.
fn final_status(mut heard: &[u8]) -> Result<Option<u16>, Failure> {
    loop {
        let looks_like_http = heard.iter().zip(b"HTTP/1.").all(|(one, other)| one == other);
        if !looks_like_http {
            return Err(Failure::NotHttp);
        }
        let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let status = status_of(&heard[..end]).ok_or(Failure::NotHttp)?;
        if status >= 200 {
            return Ok(Some(status));
        }
        heard = &heard[end + 4..];
    }
}

/// `HTTP/1.x NNN` and then a blank or the line's end.
fn status_of(head: &[u8]) -> Option<u16> {
    let digits = head.get(9..12)?;
    let is_line = matches!(head.get(7)?, b'0' | b'1')
        && head.get(8) == Some(&b' ')
        && matches!(head.get(12), None | Some(b' ' | b'\r'));
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (is_line && (100..=599).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests;
