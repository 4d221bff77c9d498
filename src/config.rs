//! The operator's configuration: `docket.yaml`, variables and flags, in one typed value.
//!
//! 1. `keys` is the list of keys: each is a line of the file, a flag and a variable.
//! 2. `file` reads the file with the place of every complaint.
//! 3. `flags` makes the flags.
//! 4. `value` turns one raw value into one field.
//!
//! Layers are put on each other in their order: defaults, file, environment, flags.
#![expect(clippy::disallowed_methods, reason = "the shell: it reads the configuration file")]

mod file;
mod flags;
mod keys;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::git::Remote;
use crate::model::{Bounds, ContainerPrefix, Identity, Installation};
use crate::operator::PruneGuard;
use crate::plan::{MinFree, Policy};

pub use flags::{Flags, joined};
pub use keys::{KEYS, Key, Kind, variables};

/// Name of the file that is looked for where docket is started.
pub const FILE_NAME: &str = "docket.yaml";
/// Where the package has it.
const INSTALLED: &str = "/etc/docket/docket.yaml";
/// The engine's socket, if nothing else is said.
pub const LOCAL_ENGINE: &str = "unix:///var/run/docker.sock";

/// Everything the operator may be told. INTERFACE, section 2, in types; paths are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from, if there is one.
    pub file: Option<PathBuf>,
    /// The watched directory; with a repository, where its revision in force is.
    pub specs: PathBuf,
    /// The repository that specs come from, if they do.
    pub git: Git,
    /// Where the ledger and the socket are.
    pub state: PathBuf,
    /// Root of all workspaces.
    pub workspaces: PathBuf,
    /// Where files are stored.
    pub store: Store,
    /// How S3 is reached.
    pub s3: S3,
    /// Address of the engine: `docker`, else `DOCKER_HOST`, else the local socket.
    pub docker: String,
    /// Which docket on this engine.
    pub installation: Installation,
    /// First and last leasable host port.
    pub ports: (u16, u16),
    /// Address host ports are published on.
    pub bind: IpAddr,
    /// What container names begin with.
    pub container_prefix: ContainerPrefix,
    /// Longest time between two passes.
    pub tick: Duration,
    /// How much at a time.
    pub limits: Limits,
    /// What classes and sessions may ask for.
    pub allow: Allow,
    /// When a wave of vanished files is held.
    pub prune_guard: PruneGuard,
    /// Free space below which nothing is hydrated or started.
    pub min_free: MinFree,
    /// How long the trash is kept.
    pub trash_keep: Duration,
    /// Where HTTP is served beside the socket; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Who may read there.
    pub http_read: HttpRead,
    /// What is logged.
    pub log: Log,
}

/// `store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// `file:/path`: a directory.
    Directory(PathBuf),
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// `git`, and `specs` if that is a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// The repository; `None`: specs are in a directory.
    pub remote: Option<Remote>,
    /// The time between two looks.
    pub interval: Duration,
    /// Who may sign commits; `None`: nobody has to.
    pub verify: Option<PathBuf>,
    /// User names and passwords.
    pub credentials: Option<PathBuf>,
    /// `git.sshKey`.
    pub ssh_key: Option<PathBuf>,
    /// `git.knownHosts`.
    pub known_hosts: Option<PathBuf>,
}

/// `s3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// URL of another server than AWS; empty: AWS.
    pub endpoint: String,
    /// Region.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// PEM file of further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Bytes a second, each way; 0: no limit.
    pub max_bandwidth: u64,
    /// Requests at once; 0: as many as the server likes.
    pub max_concurrent: u32,
}

/// `limits`; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Limits {
    /// Most sessions at a time.
    pub sessions: u32,
    /// Most sessions of one user.
    pub per_user: u32,
    /// Most sessions starting at once.
    pub concurrent_starts: u32,
}

/// `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// The engine's socket in a container: root on the host.
    pub docker_socket: bool,
    /// Directories whose insides may be mounted.
    pub host_paths: Vec<PathBuf>,
    /// `seccomp: Unconfined`.
    pub unconfined_seccomp: bool,
    /// Seccomp profiles that may be named.
    pub seccomp_profiles: Vec<PathBuf>,
    /// Directories whose files may become secrets.
    pub secret_files: Vec<PathBuf>,
    /// Networks that may be joined.
    pub networks: Vec<String>,
    /// Capabilities that may be added; upper case without `CAP_`.
    pub capabilities: Vec<String>,
    /// Fewer capDrops, `noNewPrivileges: false`.
    pub loosen_hardening: bool,
    /// Specs that others can write.
    pub writable_specs: bool,
}

/// `http.read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpRead {
    /// With the token only.
    Token,
    /// Without it, but without logs and file names; on loopback only.
    Open,
}

/// `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level (`info`), or directives (`info,docket::plan=debug`).
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wrong with the configuration; exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something in the file is not acceptable.
    #[error("{file}:{line}:{column}: {message}")]
    InFile {
        /// Which.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong and what is expected.
        message: String,
    },
    /// A flag is not acceptable.
    #[error("--{key}: {message}")]
    InFlag {
        /// Which.
        key: &'static str,
        /// What is wrong and what is expected.
        message: String,
    },
    /// A variable is not acceptable.
    #[error("{variable}: {message}")]
    InVariable {
        /// Which.
        variable: String,
        /// What is wrong and what is expected.
        message: String,
    },
    /// Two keys do not go together.
    #[error("{0}")]
    Together(String),
}

/// What the configuration is made from, apart from the file.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `--config`, else `DOCKET_CONFIG`.
    pub file: Option<PathBuf>,
    /// Flags, key to text.
    pub flags: BTreeMap<&'static str, String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Where docket was started.
    pub cwd: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process(file: Option<&Path>, flags: &Flags) -> Surroundings {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("DOCKET_") || name == "DOCKER_HOST")
            .collect();
        let named = env.get("DOCKET_CONFIG").filter(|text| !text.is_empty()).map(PathBuf::from);
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Surroundings { file: file.map(Path::to_owned).or(named), flags: flags.0.clone(), env, cwd }
    }

    /// For a command that asks an operator: where nothing here names one, it is that of the
    /// package, if it is installed.
    #[must_use]
    pub fn or_installed(self) -> Surroundings {
        self.or(Path::new(INSTALLED))
    }

    fn or(mut self, installed: &Path) -> Surroundings {
        let named = self.file.is_some()
            || self.flags.contains_key("state")
            || self.env.get("DOCKET_STATE").is_some_and(|text| !text.is_empty());
        // What cannot be looked at is there: it is complained about where it is read.
        let is_there = |path: PathBuf| path.try_exists().unwrap_or(true);
        let here = is_there(self.cwd.join(FILE_NAME)) || is_there(self.cwd.join("state"));
        if !named && !here && is_there(installed.to_owned()) {
            self.file = Some(installed.to_owned());
        }
        self
    }
}

/// One value before it has a type.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Raw {
    /// From a flag or variable: lists are separated by commas.
    Line(String),
    /// A scalar of the file.
    Scalar(String),
    /// A sequence of the file.
    List(Vec<String>),
}

impl Config {
    /// The defaults, relative paths relative to a directory.
    fn defaults(base: &Path) -> Config {
        Config {
            file: None,
            specs: base.join("specs"),
            git: Git {
                remote: None,
                interval: Duration::from_secs(30),
                verify: None,
                credentials: None,
                ssh_key: None,
                known_hosts: None,
            },
            state: base.join("state"),
            workspaces: PathBuf::from("/var/lib/docket/workspaces"),
            store: Store::Directory(PathBuf::from("/var/lib/docket/objects")),
            s3: S3 {
                endpoint: String::new(),
                region: "us-east-1".to_owned(),
                path_style: true,
                ca_file: None,
                max_bandwidth: 0,
                max_concurrent: 0,
            },
            docker: String::new(),
            installation: fixed("default", Installation::parse),
            ports: (8001, 8999),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            container_prefix: fixed("docket", ContainerPrefix::parse),
            tick: Duration::from_secs(5),
            limits: Limits::default(),
            allow: Allow {
                docker_socket: false,
                host_paths: Vec::new(),
                unconfined_seccomp: false,
                seccomp_profiles: Vec::new(),
                secret_files: Vec::new(),
                networks: Vec::new(),
                capabilities: ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
                    .map(str::to_owned)
                    .to_vec(),
                loosen_hardening: false,
                writable_specs: false,
            },
            prune_guard: PruneGuard { at_least: 10, percent: 50 },
            min_free: MinFree::Percent(5.0),
            trash_keep: Duration::from_hours(7 * 24),
            listen: None,
            http_read: HttpRead::Token,
            log: Log { level: "info".to_owned(), format: LogFormat::Text },
        }
    }

    /// Reads the file, if there is one, and puts variables and flags over it.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is not acceptable.
    pub fn load(around: &Surroundings) -> Result<Config, ConfigError> {
        let (path, required) = match &around.file {
            Some(path) => (around.cwd.join(path), true),
            None => (around.cwd.join(FILE_NAME), false),
        };
        let shown = around.file.as_ref().map_or(FILE_NAME.into(), |p| p.display().to_string());
        let layer = match read_capped(&path) {
            Ok(text) => Some(file::parse(&shown, &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => None,
            Err(source) => return Err(ConfigError::Unreadable { file: shown, source }),
        };
        let base = match (&layer, path.parent()) {
            (Some(_), Some(parent)) => parent.to_owned(),
            _ => around.cwd.clone(),
        };
        let mut config = Config::defaults(&base);
        for (key, raw) in layer.iter().flatten() {
            // They were all found acceptable, each at its place.
            let told = |message| ConfigError::Together(format!("{shown}: {}: {message}", key.path));
            config.assign(key, raw, &base).map_err(told)?;
        }
        config.file = layer.map(|_| path);
        config.overlay(around, &base)?;
        config.check(around)
    }

    fn overlay(&mut self, around: &Surroundings, base: &Path) -> Result<(), ConfigError> {
        for key in KEYS {
            for variable in variables(key.path) {
                let Some(text) = around.env.get(&variable) else { continue };
                self.assign(key, &Raw::Line(text.clone()), base)
                    .map_err(|message| ConfigError::InVariable { variable, message })?;
                break;
            }
        }
        for key in KEYS {
            let Some(text) = around.flags.get(key.path) else { continue };
            self.assign(key, &Raw::Line(text.clone()), base)
                .map_err(|message| ConfigError::InFlag { key: key.path, message })?;
        }
        Ok(())
    }

    /// What no key can tell alone.
    fn check(mut self, around: &Surroundings) -> Result<Config, ConfigError> {
        if self.docker.is_empty() {
            let host = around.env.get("DOCKER_HOST").filter(|host| !host.is_empty());
            self.docker = host.map_or_else(|| LOCAL_ENGINE.to_owned(), Clone::clone);
        }
        if self.git.remote.is_some() {
            self.specs = crate::git::Options::watched(&self.revisions());
        }
        let beyond = self.listen.filter(|listen| !listen.ip().is_loopback());
        match beyond {
            Some(listen) if self.http_read == HttpRead::Open => {
                Err(ConfigError::Together(format!(
                    "http.read: open is for loopback only, and listen is {listen}: \
                 use http.read: token, or listen on 127.0.0.1"
                )))
            }
            _ => Ok(self),
        }
    }

    /// The socket of the operator.
    pub fn socket(&self) -> PathBuf {
        self.state.join("docket.sock")
    }

    /// Where revisions of a repository are kept.
    pub fn revisions(&self) -> PathBuf {
        self.state.join("git")
    }

    /// What bounds specs.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            docker_socket: self.allow.docker_socket,
            host_paths: self.allow.host_paths.clone(),
            unconfined_seccomp: self.allow.unconfined_seccomp,
            seccomp_profiles: self.allow.seccomp_profiles.clone(),
            secret_files: self.allow.secret_files.clone(),
            networks: self.allow.networks.clone(),
            capabilities: self.allow.capabilities.clone(),
            loosen_hardening: self.allow.loosen_hardening,
            ports: self.ports,
        }
    }

    /// What every container of this operator shares.
    pub fn identity(&self) -> Identity {
        Identity {
            installation: self.installation.clone(),
            prefix: self.container_prefix.clone(),
            bind: self.bind,
        }
    }

    /// The numbers of the loop.
    pub fn settings(&self) -> crate::operator::Settings {
        crate::operator::Settings {
            policy: Policy {
                bounds: self.bounds(),
                max_sessions: self.limits.sessions,
                max_per_user: self.limits.per_user,
                max_starts: self.limits.concurrent_starts,
                min_free: self.min_free,
            },
            tick: self.tick,
            prune: self.prune_guard,
            workspaces: self.workspaces.clone(),
            trash_keep: self.trash_keep,
        }
    }

    /// Keys that differ from a newer configuration and that only a restart can change.
    pub fn fixed_differences(&self, newer: &Config) -> Vec<&'static str> {
        let pairs = [
            ("specs", self.specs == newer.specs),
            ("git", self.git == newer.git),
            ("state", self.state == newer.state),
            ("workspaces", self.workspaces == newer.workspaces),
            ("store", self.store == newer.store),
            ("s3", self.s3 == newer.s3),
            ("docker", self.docker == newer.docker),
            ("installation", self.installation == newer.installation),
            ("bind", self.bind == newer.bind),
            ("containerPrefix", self.container_prefix == newer.container_prefix),
            ("listen", self.listen == newer.listen),
            ("http.read", self.http_read == newer.http_read),
            ("log", self.log == newer.log),
            ("allow.secretFiles", self.allow.secret_files == newer.allow.secret_files),
            ("allow.writableSpecs", self.allow.writable_specs == newer.allow.writable_specs),
        ];
        pairs.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}

/// A default that is known to parse.
fn fixed<T, E: std::fmt::Debug>(text: &str, parse: fn(&str) -> Result<T, E>) -> T {
    #[expect(clippy::expect_used, reason = "the defaults are constants, and a test parses them")]
    parse(text).expect("a default parses")
}

/// Nobody needs more than this; a wrong `--config` may be anything.
const LARGEST: u64 = 1 << 20;

fn read_capped(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}
