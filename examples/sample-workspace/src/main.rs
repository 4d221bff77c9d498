//! A sample workspace: what a tenant's image looks like to docket, small enough to read.
//!
//! It answers `GET /health`, shows the files of its workspace as a page where one of them can be
//! edited, and ends in good order on SIGTERM. The end-to-end tests need tenants that misbehave,
//! so every kind of bad behaviour has a switch: the environment for what must be there from the
//! first moment, `POST` requests for the rest. `README.md` beside this package lists them.

mod files;
mod health;
mod http;
mod os;
mod page;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use files::Root;
use health::Health;
use http::{Query, Request, Response};

/// What every connection shares.
struct Tenant {
    root: Root,
    health: Health,
    writing: AtomicBool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = Root::from_environment();
    if let Some((first, rest)) = arguments.split_first() {
        return match first.as_str() {
            "do" => match files::act(&root, &Query::from_words(rest)) {
                Ok(said) => {
                    println!("{said}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("sample-workspace: {error}");
                    ExitCode::FAILURE
                }
            },
            "serve" => serve(root),
            other => {
                eprintln!("sample-workspace: `{other}`: say `serve` or `do op=... path=...`");
                ExitCode::from(2)
            }
        };
    }
    serve(root)
}

fn serve(root: Root) -> ExitCode {
    // Before the first thread: threads inherit the mask, and only this one waits for the signals.
    os::block_term();
    if let Some(after) = number("EXIT_AFTER_MS") {
        let code = exit_code();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(after));
            println!("EXIT_AFTER_MS: leaving with {code}");
            std::process::exit(code);
        });
    }
    let port = number("PORT").and_then(|n| u16::try_from(n).ok()).unwrap_or(3000);
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("sample-workspace: cannot listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("sample-workspace: serving {} on port {port}", root.shown());
    let tenant = Arc::new(Tenant {
        root,
        health: Health::from_environment(Instant::now()),
        writing: AtomicBool::new(false),
    });
    let answering = Arc::clone(&tenant);
    thread::spawn(move || answer_all(&answering, &listener));
    wait_for_the_end(&tenant.root)
}

/// Sleeps until SIGTERM or SIGINT, leaves the last words that `WRITE_ON_TERM` asks for, and ends.
fn wait_for_the_end(root: &Root) -> ExitCode {
    let deaf = std::env::var("IGNORE_TERM").is_ok_and(|value| value == "1");
    loop {
        let signal = os::wait_for_signal();
        if deaf {
            println!("signal {signal}: ignored");
            continue;
        }
        if let Some(wait) = number("TERM_DELAY_MS") {
            thread::sleep(Duration::from_millis(wait));
        }
        if let Some(path) = std::env::var_os("WRITE_ON_TERM") {
            let path = root.resolve(&PathBuf::from(path));
            let words = format!("written at the end, on signal {signal}\n");
            if let Err(error) = files::write(&path, words.as_bytes(), false) {
                eprintln!("sample-workspace: last words to {}: {error}", path.display());
            }
        }
        println!("signal {signal}: leaving");
        return u8::try_from(exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    }
}

fn answer_all(tenant: &Arc<Tenant>, listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let tenant = Arc::clone(tenant);
        thread::spawn(move || {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
            match http::read(&stream) {
                Ok(request) if request.path == "/health" => {
                    let _ = tenant.health.answer(&stream);
                }
                Ok(request) => {
                    let response = route(&tenant, &request);
                    let _ = response.send(&stream);
                }
                Err(error) => {
                    let _ = Response::text(400, format!("{error}\n")).send(&stream);
                }
            }
        });
    }
}

fn route(tenant: &Arc<Tenant>, request: &Request) -> Response {
    let query = &request.query;
    let answer = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => page::list(&tenant.root),
        ("GET", "/edit") => page::form(&tenant.root, query),
        ("POST", "/edit") => page::save(&tenant.root, request),
        ("GET", "/env") => Ok(Response::text(200, environment())),
        ("GET", "/info") => Ok(Response::text(200, os::who_am_i())),
        ("GET", "/list") => {
            files::list(&tenant.root.base).map(|all| Response::text(200, all.join("\n") + "\n"))
        }
        ("GET", "/read") => {
            files::read(&tenant.root, query).map(|bytes| Response::bytes(200, bytes))
        }
        ("GET", "/check") => {
            files::check(&tenant.root, query).map(|said| Response::text(200, said))
        }
        ("POST", "/write") => write(tenant, request),
        ("POST", "/do") => {
            files::act(&tenant.root, query).map(|said| Response::text(200, said + "\n"))
        }
        ("POST", "/healthy") => Ok(tenant.health.set(true)),
        ("POST", "/unhealthy") => Ok(tenant.health.set(false)),
        ("POST", "/exit") => leave(query),
        ("POST", "/eat") => eat(query),
        ("POST", "/spin") => spin(query),
        ("POST", "/fork") => fork(query),
        ("POST", "/writer") => start_writer(tenant, query),
        ("POST", "/writer/stop") => {
            tenant.writing.store(false, Ordering::SeqCst);
            Ok(Response::text(200, "the writer stops".to_owned()))
        }
        _ => Ok(Response::text(404, "no such page\n".to_owned())),
    };
    answer.unwrap_or_else(|error| {
        let status = if error.kind() == io::ErrorKind::NotFound { 404 } else { 500 };
        Response::text(status, format!("{error}\n"))
    })
}

fn write(tenant: &Tenant, request: &Request) -> io::Result<Response> {
    let path = tenant.root.resolve(&request.query.path("path")?);
    files::write(&path, &request.body, request.query.get("append").is_some())?;
    Ok(Response::text(200, format!("wrote {} bytes\n", request.body.len())))
}

fn leave(query: &Query) -> io::Result<Response> {
    let code = i32::try_from(query.number("code", 0)?).unwrap_or(1);
    thread::spawn(move || {
        // The answer leaves first.
        thread::sleep(Duration::from_millis(50));
        println!("POST /exit: leaving with {code}");
        std::process::exit(code);
    });
    Ok(Response::text(200, format!("leaving with {code}\n")))
}

/// Takes memory and touches every page of it, so that it counts; it is never given back.
fn eat(query: &Query) -> io::Result<Response> {
    let mb = query.number("mb", 1)?;
    let bytes = usize::try_from(mb << 20).map_err(io::Error::other)?;
    let eaten = vec![0xA5_u8; bytes];
    std::mem::forget(eaten);
    Ok(Response::text(200, format!("ate {mb} MiB\n")))
}

fn spin(query: &Query) -> io::Result<Response> {
    let end = Instant::now() + Duration::from_millis(query.number("ms", 1000)?);
    thread::spawn(move || {
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    });
    Ok(Response::text(200, "spinning\n".to_owned()))
}

/// Starts threads that sleep for ever: what a pids limit counts. Says how many there were room for.
fn fork(query: &Query) -> io::Result<Response> {
    let wanted = query.number("n", 1)?;
    let started = (0..wanted)
        .take_while(|_| {
            thread::Builder::new()
                .stack_size(16 << 10)
                .spawn(|| {
                    loop {
                        thread::park();
                    }
                })
                .is_ok()
        })
        .count();
    Ok(Response::text(200, format!("{started}\n")))
}

/// Rewrites a file in place without end. Every state of it is `bytes` times one letter, so a
/// stored copy with two different letters is a torn one.
fn start_writer(tenant: &Arc<Tenant>, query: &Query) -> io::Result<Response> {
    let path = tenant.root.resolve(&query.path("path")?);
    let pause = Duration::from_millis(query.number("ms", 10)?);
    let bytes = usize::try_from(query.number("bytes", 1 << 20)?).map_err(io::Error::other)?;
    files::write(&path, &vec![b'a'; bytes], false)?;
    tenant.writing.store(true, Ordering::SeqCst);
    let tenant = Arc::clone(tenant);
    thread::spawn(move || {
        for letter in (b'a'..=b'z').cycle() {
            if !tenant.writing.load(Ordering::SeqCst) {
                break;
            }
            if let Err(error) = files::overwrite_in_place(&path, &vec![letter; bytes]) {
                eprintln!("sample-workspace: writer: {error}");
                break;
            }
            thread::sleep(pause);
        }
    });
    Ok(Response::text(200, "writing\n".to_owned()))
}

fn environment() -> String {
    let mut lines: Vec<String> = std::env::vars_os()
        .map(|(name, value)| format!("{}={}\n", name.to_string_lossy(), value.to_string_lossy()))
        .collect();
    lines.sort();
    lines.concat()
}

fn exit_code() -> i32 {
    number("EXIT_CODE").and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}
