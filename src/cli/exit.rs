//! How commands end: the exit code, and what is said about a failure.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use crate::config::ConfigError;

/// The exit codes of INTERFACE, section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// Done.
    Done,
    /// Failed or refused.
    Failed,
    /// Bad input or usage.
    Input,
    /// `plan` and `diff`: there is something to do.
    Changes,
    /// The operator is not reachable.
    Unreachable,
    /// There is no such session.
    NotFound,
    /// Timed out.
    TimedOut,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(match code {
            Code::Done => 0,
            Code::Failed => 1,
            Code::Input | Code::Changes => 2,
            Code::Unreachable => 3,
            Code::NotFound => 4,
            Code::TimedOut => 5,
        })
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: Code,
    /// What and where; may have several lines. Empty: it was told already.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), hint: String::new() }
    }

    pub(super) fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Code::Failed, message)
    }

    pub(super) fn input(message: impl Into<String>) -> Failure {
        Failure::new(Code::Input, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }

    /// Whoever read our output has gone: nothing is left to be said.
    fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// Says it on stderr. `plans`: exit code 2 means something else for this command.
    pub(super) fn tell(self, plans: bool) -> Code {
        if !self.is_silent() {
            let mut text = String::new();
            for (at, line) in self.message.lines().enumerate() {
                let before = if at == 0 { "error: " } else { "" };
                let _ = writeln!(text, "{before}{}", super::output::clean(line)); // To a String.
            }
            if !self.hint.is_empty() {
                let _ = writeln!(text, "hint: {}", super::output::clean(&self.hint));
            }
            let _nobody_reads = std::io::stderr().write_all(text.as_bytes());
        }
        match self.code {
            Code::Input if plans => Code::Failed,
            code => code,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::input(chain(&error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::new(Code::Done, ""),
            _ => Failure::failed(format!("the output cannot be written: {error}")),
        }
    }
}

/// An error with its sources, once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}
