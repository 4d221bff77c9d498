//! As much of HTTP/1.1 as a sample needs: one request a connection, bodies by Content-Length.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Longest head that is read; the sample is a tenant, not a server for the world.
const HEAD_MAX: u64 = 64 << 10;

pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Query,
    pub body: Vec<u8>,
}

/// The pairs of a query string or a form. Values are bytes: file names need not be UTF-8.
#[derive(Default)]
pub struct Query(Vec<(String, Vec<u8>)>);

pub struct Response {
    status: u16,
    kind: &'static str,
    location: Option<String>,
    body: Vec<u8>,
}

/// Reads one request.
pub fn read(stream: &TcpStream) -> io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut head = reader.by_ref().take(HEAD_MAX);
    let mut first = String::new();
    head.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("this is no HTTP request"));
    };
    let mut length = 0_u64;
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: Query::parse(query),
        body,
    })
}

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (String::from_utf8_lossy(&decode(name)).into_owned(), decode(value))
        });
        Self(pairs.collect())
    }

    /// From words of a command line: `op=mkfifo path=exhibits/pipe`.
    pub fn from_words(words: &[String]) -> Self {
        Self::parse(&words.join("&"))
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    pub fn text(&self, name: &str) -> io::Result<String> {
        let value =
            self.get(name).ok_or_else(|| io::Error::other(format!("{name}= is missing")))?;
        Ok(String::from_utf8_lossy(value).into_owned())
    }

    pub fn path(&self, name: &str) -> io::Result<PathBuf> {
        let value =
            self.get(name).ok_or_else(|| io::Error::other(format!("{name}= is missing")))?;
        Ok(OsString::from_vec(value.to_vec()).into())
    }

    pub fn number(&self, name: &str, otherwise: u64) -> io::Result<u64> {
        match self.get(name) {
            None => Ok(otherwise),
            Some(value) => String::from_utf8_lossy(value)
                .parse()
                .map_err(|error| io::Error::other(format!("{name}=: {error}"))),
        }
    }
}

impl Response {
    pub fn text(status: u16, body: String) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into_bytes())
    }

    pub fn html(body: String) -> Self {
        Self::new(200, "text/html; charset=utf-8", body.into_bytes())
    }

    pub fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, "application/octet-stream", body)
    }

    pub fn see(location: String) -> Self {
        Self { location: Some(location), ..Self::text(303, String::new()) }
    }

    fn new(status: u16, kind: &'static str, body: Vec<u8>) -> Self {
        Self { status, kind, location: None, body }
    }

    pub fn send(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.status,
            reason(self.status),
            self.kind,
            self.body.len()
        );
        if let Some(location) = &self.location {
            head = head + "Location: " + location + "\r\n";
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        stream.write_all(&self.body)?;
        stream.flush()
    }
}

/// The words that belong to a status; only for people.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        303 => "See Other",
        400 => "Bad Request",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// Percent-decoding of a query string or form value, to bytes.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (other, _) => {
                out.push(other);
                at += 1;
            }
        }
    }
    out
}

/// Percent-encoding of everything but letters, digits and `-._~/`.
pub fn encode(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let mut out = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_bytes_survives_the_query() {
        let name: Vec<u8> = (1..=255).collect();
        let query = Query::parse(&format!("op=touch&path={}", encode(&name)));
        assert_eq!(query.get("path"), Some(name.as_slice()));
    }

    #[test]
    fn a_lone_percent_sign_stays() {
        assert_eq!(decode("100%+sure%zz"), b"100% sure%zz");
    }
}
