//! The git program: one call, a deadline, and nothing of the machine's own settings.
//!
//! Nobody is asked for a password, no hook, filter, submodule or helper of a repository runs, and
//! no other transport than the configured one is spoken. What a call started ends with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::Options;

/// Most that is kept of what git complains about.
const COMPLAINT_MAX: u64 = 4096;
/// What of docket's own environment git may see: where programs, keys and proxies are.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];
/// What it is told instead of what a person or a package set up.
const TOLD: &[(&str, &str)] = &[
    ("LC_ALL", "C"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20"),
    ("GIT_SSH_VARIANT", "ssh"),
];
/// Settings of every call.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=false",
    "credential.helper=",
    "transfer.fsckObjects=true",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.autoDetach=false",
    "maintenance.autoDetach=false",
    "gc.pruneExpire=now",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=30",
    "gpg.minTrustLevel=undefined",
];

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// It could not be started.
    #[error("the git program cannot be started: {0}: install git")]
    NotStarted(std::io::Error),
    /// Reading from or writing to it failed.
    #[error("git cannot be talked to: {0}")]
    Broken(std::io::Error),
    /// It said no.
    #[error("git {verb}: {told}")]
    Failed {
        /// Which call.
        verb: String,
        /// The end of its complaint, one line.
        told: String,
    },
    /// It did not end in time and was ended.
    #[error("git {verb}: no answer within {within:?}")]
    Late {
        /// Which call.
        verb: String,
        /// The time it had.
        within: Duration,
    },
    /// It said more than anybody wants to hear.
    #[error("git {verb}: more than {most} bytes")]
    TooMuch {
        /// Which call.
        verb: String,
        /// What it may say.
        most: u64,
    },
}

/// One call.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// The words after `git`.
    pub words: &'a [&'a str],
    /// What it reads.
    pub input: Vec<u8>,
    /// Most bytes that it may answer.
    pub most: u64,
    /// The time it has.
    pub within: Duration,
}

/// The git program with one repository of docket's own.
#[derive(Debug)]
pub(super) struct Git {
    repository: PathBuf,
    settings: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Git {
    pub(super) fn new(repository: &Path, options: &Options) -> Git {
        let mut settings: Vec<OsString> = SETTINGS.iter().map(Into::into).collect();
        if let Some(file) = &options.credentials {
            // Git reads this one as shell words: the quotes keep the path one.
            let path = file.display().to_string().replace('\'', "'\\''");
            settings.push(format!("credential.helper=store --file='{path}'").into());
        }
        let mut env: Vec<(OsString, OsString)> = KEPT
            .iter()
            .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
            .collect();
        env.extend(TOLD.iter().map(|(name, value)| (name.into(), value.into())));
        // Instead of every `protocol.*.allow`, also in what git itself starts.
        env.push(("GIT_ALLOW_PROTOCOL".into(), options.remote.transport.word().into()));
        Git { repository: repository.to_owned(), settings, env }
    }

    /// Adds what the verification of signatures needs. Only the configured kind can be verified:
    /// the programs of all others say no.
    pub(super) fn trusting(mut self, verify: Option<&Path>) -> Git {
        let Some(verify) = verify else { return self };
        let mut only = vec!["gpg.x509.program=false".into()];
        if verify.is_dir() {
            self.env.push(("GNUPGHOME".into(), verify.into()));
            only.push("gpg.ssh.program=false".into());
        } else {
            let mut signers = OsString::from("gpg.ssh.allowedSignersFile=");
            signers.push(verify);
            only.extend([signers, "gpg.program=false".into(), "gpg.openpgp.program=false".into()]);
        }
        self.settings.extend(only);
        self
    }

    /// Calls it and returns what it said.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Vec<u8>, CallError> {
        let verb = call.words.first().copied().unwrap_or_default().to_owned();
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.repository);
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        command
            .args(call.words)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(CallError::NotStarted)?;
        let mut group = Group::of(&child);
        let within = call.within;
        let ended = tokio::time::timeout(within, converse(child, call.input, call.most)).await;
        let Ok(ended) = ended else { return Err(CallError::Late { verb, within }) };
        let said = ended.map_err(CallError::Broken)?;
        group.ended();
        if said.answer.len() as u64 > call.most {
            return Err(CallError::TooMuch { verb, most: call.most });
        }
        if said.good { Ok(said.answer) } else { Err(CallError::Failed { verb, told: said.told }) }
    }
}

struct Said {
    good: bool,
    answer: Vec<u8>,
    told: String,
}

async fn converse(mut child: Child, input: Vec<u8>, most: u64) -> std::io::Result<Said> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // It may have heard enough: then its exit code says why.
            let _it_listens_no_more = stdin.write_all(&input).await;
        }
    };
    let answer = heard(stdout, most.saturating_add(1));
    let ((), answer, told) = tokio::join!(write, answer, heard(stderr, COMPLAINT_MAX));
    let (answer, told) = (answer?, told?);
    let status = child.wait().await?;
    Ok(Said { good: status.success(), answer, told: complaint(&told, status) })
}

/// Reads to the end, and keeps the beginning.
async fn heard(from: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut from) = from else { return Ok(kept) };
    (&mut from).take(most).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// What git complained about on one line, without its usual beginnings and advice.
fn complaint(told: &[u8], status: std::process::ExitStatus) -> String {
    let told = String::from_utf8_lossy(told);
    let lines = told.lines().map(str::trim).filter(|line| !line.is_empty());
    let bare = lines.filter(|line| !line.starts_with("hint:")).map(|line| {
        line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: ")).unwrap_or(line)
    });
    let text = bare.collect::<Vec<_>>().join("; ");
    if text.is_empty() { status.to_string() } else { text }
}

/// The processes of one call: they end when it is given up.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _they_ended_already = kill_process_group(pid, Signal::KILL);
        }
    }
}
