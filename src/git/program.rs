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
            // The shell reads this one: the quotes keep the path one.
            let path = file.display().to_string().replace('\'', "'\\''");
            // It only ever reads: git's own would take out of the file what a server once refused.
            let get = format!("git credential-store --file='{path}' get");
            let helper = format!("!f() {{ test \"$1\" != get || {get}; }}; f");
            settings.push(format!("credential.helper={helper}").into());
        }
        let mut env: Vec<(OsString, OsString)> = KEPT
            .iter()
            .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
            .collect();
        env.extend(TOLD.iter().map(|(name, value)| (name.into(), value.into())));
        env.push(("GIT_SSH_COMMAND".into(), ssh(options).into()));
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

/// How ssh is called: nobody is asked, and with a key and known hosts of its own only those count.
fn ssh(options: &Options) -> String {
    let mut command = "ssh -oBatchMode=yes -oConnectTimeout=20".to_owned();
    // Git gives this to a shell, and ssh reads each value as words with its own signs.
    let mut option = |name: &str, file: &Path| {
        let file = file
            .display()
            .to_string()
            .replace('%', "%%")
            .replace('\\', r"\\")
            .replace('"', r#"\""#);
        let value = format!("-o{name}=\"{file}\"").replace('\'', "'\\''");
        command.push_str(&format!(" '{value}'"));
    };
    if let Some(file) = &options.ssh_key {
        option("IdentityFile", file);
    }
    if let Some(file) = &options.known_hosts {
        option("UserKnownHostsFile", file);
    }
    if options.ssh_key.is_some() {
        command.push_str(" -oIdentitiesOnly=yes -oIdentityAgent=none");
    }
    if options.known_hosts.is_some() {
        command.push_str(" -oGlobalKnownHostsFile=/dev/null -oStrictHostKeyChecking=yes");
    }
    command
}

/// What ssh makes many lines of, and a person should not skip: it does not believe the server.
fn disbelieved(told: &str) -> Option<String> {
    let line = |part: &str| told.lines().map(str::trim).find(|line| line.contains(part));
    line("Host key verification failed")?;
    let changed = line("REMOTE HOST IDENTIFICATION HAS CHANGED").is_some();
    Some(if changed {
        let shown = line("SHA256:").unwrap_or("its fingerprint is not told").trim_end_matches('.');
        let known = line("Offending").unwrap_or("see the known hosts");
        format!(
            "the server shows another host key than the known one, so somebody may stand in between: it shows {shown}; \
             {known}; if its owner says that it changed, put the new one there (git.knownHosts)"
        )
    } else {
        "the server's host key is not known: put it into the known hosts (git.knownHosts), as its owner tells it or \
         ssh-keyscan shows it"
            .to_owned()
    })
}

/// What git complained about on one line, without its usual beginnings and advice.
fn complaint(told: &[u8], status: std::process::ExitStatus) -> String {
    let told = String::from_utf8_lossy(told);
    if let Some(text) = disbelieved(&told) {
        return text;
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use expect_test::{Expect, expect};

    use super::{Options, complaint, ssh};
    use crate::git::Remote;

    #[expect(clippy::needless_pass_by_value, reason = "as expect_test is used")]
    fn check(told: &str, expected: Expect) {
        let status = std::process::ExitStatus::from_raw(128 << 8);
        expected.assert_eq(&complaint(told.as_bytes(), status));
    }

    #[test]
    fn a_server_that_is_not_believed_is_told_in_words_of_our_own() {
        check(
            "@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@\n\
             IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\n\
             The fingerprint for the ED25519 key sent by the remote host is\nSHA256:abc.\n\
             Offending ED25519 key in /etc/docket/hosts:1\n\
             Host key verification failed.\nfatal: Could not read from remote repository.\n",
            expect![
                "the server shows another host key than the known one, so somebody may stand in between: it shows SHA256:abc; Offending ED25519 key in /etc/docket/hosts:1; if its owner says that it changed, put the new one there (git.knownHosts)"
            ],
        );
        check(
            "No ED25519 host key is known for [x]:22 and you have requested strict checking.\n\
             Host key verification failed.\nfatal: Could not read from remote repository.\n",
            expect![
                "the server's host key is not known: put it into the known hosts (git.knownHosts), as its owner tells it or ssh-keyscan shows it"
            ],
        );
        check("fatal: a\nhint: b\n\nerror: c\n", expect!["a; c"]);
    }

    #[test]
    fn ssh_gets_its_files_as_one_word_each() {
        let file = |name: &str| Some(std::path::PathBuf::from(name));
        let options = Options {
            remote: Remote::parse("git+ssh://git@host/r.git").unwrap(),
            cache: "c".into(),
            interval: std::time::Duration::from_secs(1),
            verify: None,
            credentials: None,
            ssh_key: file("/etc/it's 5% \"k\""),
            known_hosts: file("/etc/hosts"),
        };
        expect![[r#"ssh -oBatchMode=yes -oConnectTimeout=20 '-oIdentityFile="/etc/it'\''s 5%% \"k\""' '-oUserKnownHostsFile="/etc/hosts"' -oIdentitiesOnly=yes -oIdentityAgent=none -oGlobalKnownHostsFile=/dev/null -oStrictHostKeyChecking=yes"#]].assert_eq(&ssh(&options));
        let options = Options { ssh_key: None, known_hosts: None, ..options };
        expect!["ssh -oBatchMode=yes -oConnectTimeout=20"].assert_eq(&ssh(&options));
    }
}
