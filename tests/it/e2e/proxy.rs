//! The engine's socket with a fault in between: a proxy that passes, hangs, lies or cuts.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All goes through.
    None,
    /// Closed as soon as it is opened.
    Closed,
    /// Taken and never answered.
    Hangs,
    /// Answered with no HTTP at all.
    Garbage,
    /// Each request is answered with this status and the engine's kind of message.
    Status(u16),
    /// An answer that promises much and comes byte by byte.
    Slow,
    /// Half a list, then the end.
    Truncated,
    /// Events are cut at once; all else goes through.
    NoEvents,
}

struct Shared {
    fault: Fault,
    open: Vec<UnixStream>,
}

/// A socket that leads to the engine, or not.
pub struct Proxy {
    pub socket: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    pub fn new(socket: PathBuf) -> Proxy {
        let listener = UnixListener::bind(&socket).unwrap();
        let shared = Arc::new(Mutex::new(Shared { fault: Fault::None, open: Vec::new() }));
        let its = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let mut shared = its.lock().unwrap();
                shared.open.push(client.try_clone().unwrap());
                let fault = shared.fault;
                drop(shared);
                let its = Arc::clone(&its);
                std::thread::spawn(move || {
                    let _the_other_side_may_go = serve(&client, fault, &its);
                    let _closed_already = client.shutdown(Shutdown::Both);
                });
            }
        });
        Proxy { socket, shared }
    }

    /// From now on; what is open is cut, so that nobody lives on an earlier connection.
    pub fn set(&self, fault: Fault) {
        let mut shared = self.shared.lock().unwrap();
        shared.fault = fault;
        for stream in shared.open.drain(..) {
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

fn serve(mut client: &UnixStream, fault: Fault, shared: &Mutex<Shared>) -> std::io::Result<()> {
    if matches!(fault, Fault::None | Fault::NoEvents) {
        return pass(client, fault, shared);
    }
    if fault == Fault::Closed {
        return Ok(());
    }
    let mut asked = vec![0; 64 * 1024];
    while client.read(&mut asked)? > 0 {
        match fault {
            Fault::Garbage => return client.write_all(b"\x00\xff no engine \r\n\r\n\x15"),
            Fault::Status(status) => {
                let body = r#"{"message":"it cannot be said"}"#;
                write!(
                    client,
                    "HTTP/1.1 {status} Odd\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                )?;
            }
            Fault::Slow => {
                client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[")?;
                loop {
                    client.write_all(b" ")?;
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            Fault::Truncated => {
                return client.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                      Content-Length: 5000\r\n\r\n[{\"Id\":\"0",
                );
            }
            _ => (),
        }
    }
    Ok(())
}

fn pass(mut client: &UnixStream, fault: Fault, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let real = host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock");
    let mut engine = UnixStream::connect(Path::new(real))?;
    shared.lock().unwrap().open.push(engine.try_clone()?);
    let (mut from, mut to) = (engine.try_clone()?, client.try_clone()?);
    let back = std::thread::spawn(move || {
        let _either_may_go = std::io::copy(&mut from, &mut to);
        let _closed_already = to.shutdown(Shutdown::Both);
    });
    let mut asked = vec![0; 64 * 1024];
    loop {
        let count = client.read(&mut asked)?;
        let bytes = &asked[..count];
        let events = bytes.windows(8).any(|word| word == b"/events?" || word == b"/events ");
        if count == 0 || fault == Fault::NoEvents && events {
            break;
        }
        engine.write_all(bytes)?;
    }
    let _closed_already = engine.shutdown(Shutdown::Both);
    let _it_ended = back.join();
    Ok(())
}
