//! One operator in a directory of its own: its specs, state, workspaces, store, ports and
//! installation are nobody else's, and nothing of it is left behind.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take to become true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
const PORTS_EACH: u16 = 20;
static NEXT_PORT: AtomicU16 = AtomicU16::new(21_000);

pub struct Rig {
    dir: tempfile::TempDir,
    pub installation: String,
    pub ports: (u16, u16),
    /// What the operator is started by, for one in another network.
    pub through: Vec<String>,
    /// What the operator finds in its environment.
    pub env: Vec<(String, String)>,
    extra: String,
    operator: Option<Child>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Rig {
    /// A rig with the class `legal` in place and no operator yet.
    pub fn new(name: &str) -> Rig {
        Rig::with(name, "")
    }

    /// The same with more lines in its configuration.
    pub fn with(name: &str, extra: &str) -> Rig {
        let dir = tempfile::Builder::new().prefix("docket-it-").tempdir().unwrap();
        let first = NEXT_PORT.fetch_add(PORTS_EACH, Ordering::Relaxed);
        let rig = Rig {
            installation: format!("it-{name}-{}", std::process::id()),
            ports: (first, first + PORTS_EACH - 1),
            through: Vec::new(),
            env: Vec::new(),
            extra: extra.to_owned(),
            operator: None,
            dir,
        };
        std::fs::create_dir(rig.path("specs")).unwrap();
        rig.configure("");
        rig.write("legal.yaml", &class("legal", ""));
        rig
    }

    /// Writes the configuration anew, with more lines.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "specs: specs\nstate: state\nworkspaces: workspaces\nstore: file:{}\n\
             installation: {}\ncontainerPrefix: {}\nports: {}-{}\ntick: 1s\n\
             minFree: 64Mi\n{}\n{more}\n",
            self.path("objects").display(),
            self.installation,
            self.installation,
            self.ports.0,
            self.ports.1,
            self.extra,
        );
        std::fs::write(self.path("docket.yaml"), text).unwrap();
    }

    /// Another value for a key that is in the configuration.
    pub fn set(&self, key: &str, value: &str) {
        let at = self.path("docket.yaml");
        let before = std::fs::read_to_string(&at).unwrap();
        let is_it = |line: &&str| line.starts_with(&format!("{key}:"));
        let line = before.lines().find(is_it).expect("the key is there");
        std::fs::write(&at, before.replace(line, &format!("{key}: {value}"))).unwrap();
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join(inside)
    }

    pub fn workspace(&self, user: &str, case: &str) -> PathBuf {
        self.path("workspaces").join(user).join("active").join(case)
    }

    /// Drops a file into the watched directory, by rename as editors and git do.
    pub fn write(&self, file: &str, text: &str) {
        let staged = self.path("staged");
        std::fs::write(&staged, text).unwrap();
        let target = self.path("specs").join(file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::rename(&staged, target).unwrap();
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.path("specs").join(file)).unwrap();
    }

    /// Starts the operator and waits until it answers.
    pub fn start(&mut self) {
        self.spawn(&[]);
        self.answers();
    }

    pub fn answers(&mut self) {
        self.until("the operator answers", |rig| rig.docket(&["get"]).code == 0);
    }

    /// Starts the operator without waiting.
    pub fn spawn(&mut self, env: &[(&str, &str)]) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("operator.log"))
            .unwrap();
        let mut words = self.through.clone();
        words.push(env!("CARGO_BIN_EXE_docket").to_owned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["run", "--config"])
            .arg(self.path("docket.yaml"))
            .env("DOCKET_LOG_LEVEL", "info")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.operator = Some(child);
    }

    /// The operator's process.
    pub fn pid(&self) -> u32 {
        self.operator.as_ref().expect("it was started").id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.operator.take() {
            let _it_may_have_ended = child.kill();
            child.wait().unwrap();
        }
    }

    /// How the operator ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.operator.as_mut()?.try_wait().unwrap()?;
        self.operator = None;
        Some(status)
    }

    /// Sends the operator a signal, by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.operator.as_ref().unwrap().id().to_string();
        run("kill", &[&format!("-{name}"), &pid]);
    }

    /// SIGTERM; the exit code and how long it took.
    pub fn term(&mut self) -> (Option<i32>, Duration) {
        let mut child = self.operator.take().unwrap();
        let began = Instant::now();
        run("kill", &["-TERM", &child.id().to_string()]);
        (child.wait().unwrap().code(), began.elapsed())
    }

    /// The operator's exit code once it ended by itself.
    pub fn wait_exit(&mut self) -> Option<i32> {
        self.operator.take().unwrap().wait().unwrap().code()
    }

    /// Runs a docket command against this operator.
    pub fn docket(&self, args: &[&str]) -> Said {
        let out = Command::new(env!("CARGO_BIN_EXE_docket"))
            .args(args)
            .arg("--state")
            .arg(self.path("state"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Runs a docket command that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.docket(args);
        assert_eq!(said.code, 0, "docket {args:?}: {}{}", said.stderr, self.tail());
        said.stdout
    }

    /// `docket get NAME -o json`, if there is such a session.
    pub fn get(&self, name: &str) -> Option<Value> {
        let said = self.docket(&["get", name, "-o", "json"]);
        (said.code == 0).then(|| serde_json::from_str(&said.stdout).unwrap())
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Rig) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            if let Some(child) = &mut self.operator
                && let Some(status) = child.try_wait().unwrap()
            {
                panic!("the operator ended ({status}) while waiting until {what}{}", self.tail());
            }
            assert!(began.elapsed() < PATIENCE, "not in time: {what}{}", self.tail());
            std::thread::sleep(Duration::from_millis(40));
        }
    }

    /// Waits until a session is as wanted, and returns it.
    #[track_caller]
    pub fn see(&mut self, what: &str, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut seen = None;
        self.until(&format!("{name} {what}"), |rig| {
            let view = rig.get(name);
            let holds = view.as_ref().is_some_and(&is);
            if holds {
                seen = view;
            }
            holds
        });
        seen.unwrap()
    }

    #[track_caller]
    pub fn ready(&mut self, name: &str) -> Value {
        self.see("is ready", name, |view| condition(view, "Ready").0 == "True")
    }

    /// Waits until the operator has read a file of the watched directory.
    #[track_caller]
    pub fn seen(&mut self, file: &str) {
        self.until(&format!("{file} is read"), |rig| {
            let sources = rig.docket(&["get", "sources"]).stdout;
            sources.lines().any(|line| line.starts_with(file) && line.contains(" Ok "))
        });
    }

    #[track_caller]
    pub fn gone(&mut self, name: &str) {
        let name = name.to_owned();
        self.until(&format!("{name} is gone"), move |rig| rig.docket(&["get", &name]).code == 4);
    }

    /// Containers of this installation: (id, name, state).
    pub fn containers(&self) -> Vec<(String, String, String)> {
        let filter = format!("label=docket.dev/installation={}", self.installation);
        let format = "{{.ID}} {{.Names}} {{.State}}";
        run("docker", &["ps", "-a", "--no-trunc", "--filter", &filter, "--format", format])
            .lines()
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                let mut next = || words.next().unwrap_or_default();
                (next(), next(), next())
            })
            .collect()
    }

    /// The operator's last words, for failures.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(self.path("operator.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!(
            "\n--- operator.log\n{}\n--- get\n{}",
            lines[from..].join("\n"),
            self.docket(&["get"]).stdout
        )
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
        crate::support::forget(&self.installation, "");
    }
}

/// A class of the sample image with quick probes, and more lines of `spec`.
pub fn class(name: &str, more: &str) -> String {
    format!(
        "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {{name: {name}}}\nspec:\n  \
         container: {{image: docket-sample:latest, pullPolicy: Never, resources: {{cpus: \"1\", \
         memory: 64Mi, pids: 64}}, stopGracePeriod: 3s}}\n  \
         health: {{startup: 20s, interval: 1s, timeout: 1s, failures: 3}}\n  \
         workspace: {{sync: {{interval: 1s}}}}\n{more}\n"
    )
}

/// A session of the class `legal`, and more lines of `spec`.
pub fn session(name: &str, user: &str, case: &str, more: &str) -> String {
    format!(
        "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: {name}}}\nspec:\n  \
         user: {user}\n  case: {case}\n  class: legal\n{more}\n"
    )
}

/// A condition's status, reason and message.
pub fn condition(view: &Value, kind: &str) -> (String, String, String) {
    let all = view["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Runs a program that must succeed; its output.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// One HTTP exchange with a session's container: status and body.
pub fn http(view: &Value, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = view["status"]["address"].as_str().expect("an address");
    exchange(address, method, path, body).expect("an answer")
}

pub fn exchange(
    address: &str,
    method: &str,
    path: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok((status, body))
}

/// What the default store holds of a file, through its manifest.
pub fn stored(rig: &Rig, user: &str, case: &str, path: &str) -> Option<String> {
    let prefix = rig.path("objects").join(user).join(case);
    let manifest = std::fs::read_to_string(prefix.join("manifest.json")).ok()?;
    let rows: Vec<Value> = serde_json::from_str(&manifest).ok()?;
    let row = rows.iter().find(|row| row["logical_path"] == path)?;
    let key = row["storage_key"].as_str()?;
    std::fs::read_to_string(prefix.join(key)).ok()
}

pub fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
