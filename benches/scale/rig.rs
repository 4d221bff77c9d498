//! An operator of our own in a directory of its own, and what it tells of its sessions.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// The binary that is measured.
fn docket() -> String {
    std::env::var("DOCKET").unwrap_or_else(|_| env!("CARGO_BIN_EXE_docket").to_owned())
}

/// A directory with an operator; gone at the end with all that is in it.
pub struct Rig {
    dir: tempfile::TempDir,
    operator: Option<Child>,
}

impl Rig {
    /// `class`: the body of the class `bench`; `config`: lines for docket.yaml.
    pub fn new(class: &str, config: &str) -> Rig {
        let dir = tempfile::Builder::new().prefix("docket-bench-").tempdir().unwrap();
        for part in ["specs", "staged"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        let class = format!(
            "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {{name: bench}}\nspec:\n{class}"
        );
        std::fs::write(dir.path().join("specs/class.yaml"), class).unwrap();
        let config = format!(
            "specs: specs\nstate: state\nworkspaces: workspaces\nstore: file:{}\nminFree: 64Mi\n\
             pruneGuard: {{atLeast: 1000000, percent: 100}}\n{config}",
            dir.path().join("objects").display()
        );
        std::fs::write(dir.path().join("docket.yaml"), config).unwrap();
        let mut rig = Rig { dir, operator: None };
        rig.start();
        drop(rig.watch());
        rig
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn start(&mut self) {
        let operator = Command::new(docket())
            .args(["run", "--config"])
            .arg(self.dir().join("docket.yaml"))
            .env("DOCKET_LOG_LEVEL", "error")
            .spawn()
            .unwrap();
        self.operator = Some(operator);
    }

    pub fn kill(&mut self) {
        let Some(mut operator) = self.operator.take() else { return };
        operator.kill().unwrap();
        operator.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.operator.as_ref().unwrap().id()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir().join("specs").join(format!("{name}.yaml"))
    }

    /// Writes the files of these sessions where nobody looks.
    pub fn stage(&self, names: &[String]) {
        for name in names {
            let text = format!(
                "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: {name}}}\nspec: \
                 {{user: u-{name}, case: c, class: bench}}\n"
            );
            std::fs::write(self.dir().join("staged").join(name), text).unwrap();
        }
    }

    /// Drops staged files into the watched directory.
    pub fn drop_in(&self, names: &[String]) {
        for name in names {
            std::fs::rename(self.dir().join("staged").join(name), self.file(name)).unwrap();
        }
    }

    pub fn take_away(&self, names: &[String]) {
        for name in names {
            std::fs::remove_file(self.file(name)).unwrap();
        }
    }

    /// All that the operator tells from now on. Waits until it answers.
    pub fn watch(&self) -> Watch {
        let socket = self.dir().join("state/docket.sock");
        loop {
            if let Ok(mut stream) = UnixStream::connect(&socket) {
                let ask = "GET /api/v1/sessions?watch=true HTTP/1.1\r\nHost: docket\r\n\r\n";
                stream.write_all(ask.as_bytes()).unwrap();
                return Watch { lines: BufReader::new(stream), sessions: BTreeMap::new() };
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What is known of a session: whether it is Ready, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ready: bool,
    pub port: u16,
}

/// The sessions as the operator tells of them.
pub struct Watch {
    lines: BufReader<UnixStream>,
    pub sessions: BTreeMap<String, Seen>,
}

impl Watch {
    /// Reads on until it is so.
    ///
    /// # Panics
    /// If the operator is gone, or says nothing for two minutes.
    pub fn until(&mut self, is_so: impl Fn(&BTreeMap<String, Seen>) -> bool) {
        self.lines.get_ref().set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        while !is_so(&self.sessions) {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the operator is gone");
            // Between them stand the lengths of HTTP's chunks.
            if line.starts_with('{') {
                self.take_in(&serde_json::from_str(&line).unwrap());
            }
        }
    }

    /// Reads on until all of these are Ready.
    pub fn until_ready(&mut self, names: &[String]) {
        self.until(|all| names.iter().all(|name| all.get(name).is_some_and(|seen| seen.ready)));
    }

    fn take_in(&mut self, change: &serde_json::Value) {
        let object = &change["object"];
        let Some(name) = object["metadata"]["name"].as_str() else { return };
        if change["type"] == "DELETED" {
            self.sessions.remove(name);
            return;
        }
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        let port = object["status"]["port"].as_u64().unwrap_or_default() as u16;
        self.sessions.insert(name.to_owned(), Seen { ready, port });
    }
}
