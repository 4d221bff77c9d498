//! `GET /health`, honest or hostile: the switches of a tenant that wants to hurt whoever probes it.
//!
//! | variable | what it does |
//! |---|---|
//! | `HEALTH_STATUS` | the status to answer, 200 if left out |
//! | `HEALTH_DELAY_MS` | 503 until this long after the start |
//! | `HEALTH_LATENCY_MS` | wait this long before each answer |
//! | `HEALTH_MODE` | `endless`: a 200 whose body never ends; `slow`: a 200, then one byte each half second; `drip`: the status line itself, one byte each half second; `hang`: no answer at all; `redirect`: a 302 to `HEALTH_LOCATION`; `bigheaders`: a 200 with 8 MiB of headers |

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Response, reason};

/// How `/health` answers.
pub struct Health {
    status: u16,
    good_from: Instant,
    latency: Duration,
    mode: String,
    well: AtomicBool,
}

impl Health {
    pub fn from_environment(started: Instant) -> Self {
        let milliseconds = |name| Duration::from_millis(crate::number(name).unwrap_or(0));
        Self {
            status: crate::number("HEALTH_STATUS")
                .and_then(|n| u16::try_from(n).ok())
                .unwrap_or(200),
            good_from: started + milliseconds("HEALTH_DELAY_MS"),
            latency: milliseconds("HEALTH_LATENCY_MS"),
            mode: std::env::var("HEALTH_MODE").unwrap_or_default(),
            well: AtomicBool::new(true),
        }
    }

    /// Answers well, or with 503, from now on.
    pub fn set(&self, well: bool) -> Response {
        self.well.store(well, Ordering::SeqCst);
        Response::text(200, format!("well: {well}\n"))
    }

    pub fn answer(&self, mut stream: &TcpStream) -> io::Result<()> {
        thread::sleep(self.latency);
        match self.mode.as_str() {
            "endless" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                let chunk = [b'x'; 16 << 10];
                loop {
                    stream.write_all(&chunk)?;
                }
            }
            "slow" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
                drip(stream, std::iter::repeat_n(b'.', 100_000))
            }
            "drip" => drip(stream, *b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            "hang" => {
                thread::sleep(Duration::from_hours(1));
                Ok(())
            }
            "redirect" => {
                let to = std::env::var("HEALTH_LOCATION")
                    .unwrap_or_else(|_| "http://169.254.169.254/".to_owned());
                write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
            }
            "bigheaders" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                let header = format!("X-Padding: {}\r\n", "p".repeat(8 << 10));
                for _ in 0..1024 {
                    stream.write_all(header.as_bytes())?;
                }
                stream.write_all(b"Content-Length: 0\r\n\r\n")
            }
            _ => {
                let status = self.status();
                Response::text(status, format!("{}\n", reason(status))).send(stream)
            }
        }
    }

    fn status(&self) -> u16 {
        if !self.well.load(Ordering::SeqCst) || Instant::now() < self.good_from {
            503
        } else {
            self.status
        }
    }
}

fn drip(mut stream: &TcpStream, bytes: impl IntoIterator<Item = u8>) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[byte])?;
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}
