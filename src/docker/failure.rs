//! What an engine's refusal means: by operation, status and class of message, never by code
//! alone. 404 is an image or a container; 409 has at least seven meanings.

use bollard::errors::Error;

use crate::world::{EngineError, EngineErrorKind};

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Connect,
    List,
    Inspect,
    InspectImage,
    Pull,
    InspectNetwork,
    CreateNetwork,
    Create,
    Start,
    Stop,
    Remove,
    Update,
    Pause,
    Unpause,
    Usage,
    Logs,
    Events,
    Info,
}

impl Op {
    /// The call's name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Op::Connect => "connect",
            Op::List => "list containers",
            Op::Inspect => "inspect container",
            Op::InspectImage => "inspect image",
            Op::Pull => "pull image",
            Op::InspectNetwork => "inspect network",
            Op::CreateNetwork => "create network",
            Op::Create => "create container",
            Op::Start => "start container",
            Op::Stop => "stop container",
            Op::Remove => "remove container",
            Op::Update => "update container",
            Op::Pause => "pause container",
            Op::Unpause => "unpause container",
            Op::Usage => "read usage",
            Op::Logs => "read logs",
            Op::Events => "read events",
            Op::Info => "ask for the version",
        }
    }

    /// An error of this call.
    pub(super) fn error(self, kind: EngineErrorKind, message: impl AsRef<str>) -> EngineError {
        EngineError { kind, operation: self.name(), message: one_line(message.as_ref()) }
    }

    /// The error that bollard's stands for.
    pub(super) fn failed(self, error: &Error) -> EngineError {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                self.error(classify(self, *status_code, message), message)
            }
            Error::DockerStreamError { error } if self == Op::Pull => {
                self.error(EngineErrorKind::PullFailed, error)
            }
            // Only connecting does I/O outside of hyper.
            Error::IOError { err } => self.error(EngineErrorKind::Unreachable, err.to_string()),
            Error::RequestTimeoutError => self.error(EngineErrorKind::Timeout, "no answer in time"),
            other => self.error(EngineErrorKind::Broken, chain(other)),
        }
    }
}

/// What a refusal means. Source: DOCKER, "Answers of single calls"; texts of 20.10 and of 26,
/// where they differ.
pub(super) fn classify(op: Op, status: u16, message: &str) -> EngineErrorKind {
    let text = message.to_ascii_lowercase();
    let says = |part: &str| text.contains(part);
    match (op, status) {
        (Op::Create | Op::Start, _) if network_is_missing(&text) => EngineErrorKind::Broken,
        (Op::Create | Op::InspectImage | Op::Pull, 404) => EngineErrorKind::ImageMissing,
        (Op::Create, 409) if says("already in use") => EngineErrorKind::NameTaken,
        (Op::Start, _) if says("port is already allocated") || says("address already in use") => {
            EngineErrorKind::PortTaken
        }
        (Op::Create | Op::Start, _) if says("bind source path does not exist") => {
            EngineErrorKind::MountMissing
        }
        (Op::Create, 400) if says("no command specified") => EngineErrorKind::CommandInvalid,
        (Op::Start, 400) if command_cannot_run(&text) => EngineErrorKind::CommandInvalid,
        (Op::Start, 500) if never_starts_like_this(&text) => EngineErrorKind::InvalidSpec,
        (Op::Update, 500) if says("device or resource busy") => EngineErrorKind::Conflict,
        (Op::Pull, 400) => EngineErrorKind::InvalidSpec,
        (Op::Pull, _) => EngineErrorKind::PullFailed,
        (_, 400) => EngineErrorKind::InvalidSpec,
        (_, 404) => EngineErrorKind::NotFound,
        (_, 409) => EngineErrorKind::Conflict,
        _ => EngineErrorKind::Broken,
    }
}

/// The installation's bridge was removed from under a container: made anew and tried again.
pub(super) fn network_is_missing(message: &str) -> bool {
    let text = message.to_ascii_lowercase();
    text.contains("network ") && text.contains(" not found")
}

/// Not there, not executable, or no program: runc's words in a 400 of start.
fn command_cannot_run(text: &str) -> bool {
    ["executable file not found", "no such file or directory", "permission denied", "exec format"]
        .iter()
        .any(|part| text.contains(part))
}

/// 500 on start for what only another spec can heal.
fn never_starts_like_this(text: &str) -> bool {
    ["unable to find user", "unable to find group", "no matching entries in passwd", "seccomp"]
        .iter()
        .any(|part| text.contains(part))
}

/// A pause of what is paused and an unpause of what is not have done their work: 409 or 500 by
/// engine version.
pub(super) fn is_already_so(op: Op, message: &str) -> bool {
    match op {
        Op::Pause => message.contains("already paused"),
        Op::Unpause => message.contains("is not paused"),
        _ => false,
    }
}

/// `text` on one line: control characters are blanks, cut at 500 characters.
pub(super) fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let words: Vec<String> =
        plain.collect::<String>().split_whitespace().map(str::to_owned).collect();
    let line = words.join(" ");
    match line.char_indices().nth(500) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// An error and its sources, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use EngineErrorKind as Kind;

    #[test]
    fn a_refusal_is_read_by_operation_status_and_words() {
        let bind = "invalid mount config for type \"bind\": bind source path does not exist: /x";
        let nope = "OCI runtime create failed: container_linux.go:380: starting container process \
                    caused: exec: \"/nope\": stat /nope: no such file or directory: unknown";
        let cases = [
            (Op::Create, 404, "No such image: nope:latest", Kind::ImageMissing),
            (Op::Create, 404, "network docket-x not found", Kind::Broken),
            (
                Op::Create,
                409,
                "Conflict. The container name \"/a\" is already in use by container \"1\".",
                Kind::NameTaken,
            ),
            (Op::Create, 400, bind, Kind::MountMissing),
            (Op::Create, 400, "No command specified", Kind::CommandInvalid),
            (Op::Create, 400, "Minimum memory limit allowed is 6MB", Kind::InvalidSpec),
            (Op::Start, 404, "No such container: 1", Kind::NotFound),
            (Op::Start, 404, "network docket-x not found", Kind::Broken),
            (
                Op::Start,
                500,
                "driver failed programming external connectivity on endpoint a (b): Bind for \
                 127.0.0.1:8001 failed: port is already allocated",
                Kind::PortTaken,
            ),
            (
                Op::Start,
                500,
                "driver failed programming external connectivity on endpoint a (b): Error \
                 starting userland proxy: listen tcp4 127.0.0.1:8001: bind: address already in use",
                Kind::PortTaken,
            ),
            (Op::Start, 400, nope, Kind::CommandInvalid),
            (Op::Start, 400, bind, Kind::MountMissing),
            (
                Op::Start,
                409,
                "cannot start a paused container, try unpause instead",
                Kind::Conflict,
            ),
            (
                Op::Start,
                500,
                "unable to find user bob: no matching entries in passwd file",
                Kind::InvalidSpec,
            ),
            (Op::Start, 500, "context deadline exceeded", Kind::Broken),
            (Op::Remove, 409, "removal of container 1 is already in progress", Kind::Conflict),
            (Op::Update, 400, "Minimum memory limit allowed is 6MB", Kind::InvalidSpec),
            (Op::Update, 404, "No such container: 1", Kind::NotFound),
            (Op::Pull, 500, "Get \"https://registry-1.docker.io/v2/\": dial", Kind::PullFailed),
            (Op::Pull, 404, "pull access denied for nope", Kind::ImageMissing),
            (Op::InspectImage, 404, "No such image: nope", Kind::ImageMissing),
            (Op::List, 500, "oops", Kind::Broken),
        ];
        for (op, status, message, expected) in cases {
            assert_eq!(classify(op, status, message), expected, "{op:?} {status} {message}");
        }
    }

    #[test]
    fn a_message_is_one_short_line_without_control_characters() {
        assert_eq!(one_line("a\n\u{1b}[31m b\tc "), "a [31m b c");
        assert_eq!(one_line(&"é".repeat(600)).chars().count(), 503);
    }
}
