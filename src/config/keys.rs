//! Every key of the configuration, once: the file's readers, the flags and the variables are
//! made from this list.

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value; the word stands for it in the help.
    One(&'static str),
    /// true or false; the flag alone is true.
    Switch,
    /// Several; separated by commas on flags and in variables.
    Many(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it is written: `s3.endpoint`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// One line for the help.
    pub help: &'static str,
}

const fn one(path: &'static str, word: &'static str, help: &'static str) -> Key {
    Key { path, kind: Kind::One(word), help }
}

const fn switch(path: &'static str, help: &'static str) -> Key {
    Key { path, kind: Kind::Switch, help }
}

const fn many(path: &'static str, word: &'static str, help: &'static str) -> Key {
    Key { path, kind: Kind::Many(word), help }
}

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    one("specs", "DIR", "Watched directory, or git+https://host/repo#branch:path [default: specs]"),
    one("git.interval", "TIME", "Between two looks at the repository [default: 30s]"),
    one("git.verify", "FILE", "Who may sign commits: allowed signers of ssh, or a GnuPG home"),
    one("git.credentials", "FILE", "User and password, as git-credential-store has it"),
    one("git.sshKey", "FILE", "Private key for git+ssh [default: those of docket's user]"),
    one("git.knownHosts", "FILE", "Host keys for git+ssh [default: those of docket's user]"),
    one("state", "DIR", "Ledger and socket [default: state]"),
    one("workspaces", "DIR", "Root of all workspaces [default: /var/lib/docket/workspaces]"),
    one("store", "URL", "file:/path or s3://bucket/prefix [default: file:/var/lib/docket/objects]"),
    one("s3.endpoint", "URL", "S3 server other than AWS"),
    one("s3.region", "REGION", "S3 region [default: us-east-1]"),
    switch("s3.pathStyle", "Bucket in the path instead of the host name [default: true]"),
    one("s3.caFile", "FILE", "Further certificate authorities, PEM"),
    one("s3.maxBandwidth", "BYTES", "Bytes a second each way, e.g. 20Mi; 0: no limit [default: 0]"),
    one("s3.maxConcurrent", "N", "Requests at once; 0: as many as the server likes [default: 0]"),
    one("docker", "HOST", "Engine [default: DOCKER_HOST, else the local socket]"),
    one("installation", "NAME", "Which docket on this engine [default: default]"),
    one("ports", "FIRST-LAST", "Host ports that are leased [default: 8001-8999]"),
    one("bind", "ADDRESS", "Address that host ports are published on [default: 127.0.0.1]"),
    one("containerPrefix", "PREFIX", "What container names begin with [default: docket]"),
    one("tick", "TIME", "Longest time between two passes [default: 5s]"),
    one("limits.sessions", "N", "Most sessions at a time; 0: no limit"),
    one("limits.perUser", "N", "Most sessions of one user; 0: no limit"),
    one("limits.concurrentStarts", "N", "Most sessions starting at once; 0: no limit"),
    switch("allow.dockerSocket", "Classes may mount the engine's socket: root on the host"),
    many("allow.hostPaths", "DIR", "Directories whose insides classes may mount"),
    switch("allow.unconfinedSeccomp", "Classes may switch the system-call filter off"),
    many("allow.seccompProfiles", "FILE", "Seccomp profiles that classes may name"),
    many("allow.secretFiles", "DIR", "Directories whose files classes may make secrets"),
    many("allow.networks", "NAME", "Networks that classes may join"),
    many("allow.capabilities", "CAP", "Capabilities that may be added"),
    switch("allow.loosenHardening", "Fewer capDrops, noNewPrivileges: false"),
    switch("allow.writableSpecs", "Specs that others can write"),
    one("pruneGuard.atLeast", "N", "Hold a wave of vanished files from so many [default: 10]"),
    one("pruneGuard.percent", "N", "and from so many per cent of all [default: 50]"),
    one("minFree", "SHARE", "Free space that must be left, 5% or 10Gi [default: 5%]"),
    one("trash.keep", "TIME", "How long the trash is kept [default: 7d]"),
    one("listen", "ADDRESS:PORT", "Serve HTTP there too"),
    one("http.read", "WHO", "Who may read over HTTP: token or open [default: token]"),
    one("log.level", "LEVEL", "error, warn, info, debug or trace [default: info]"),
    one("log.format", "FORMAT", "text or json [default: text]"),
];

/// The variables of a key, the one that wins first: `DOCKET_CONTAINER_PREFIX`, then
/// `DOCKET_CONTAINERPREFIX`.
pub fn variables(path: &str) -> Vec<String> {
    let mut snake = String::from("DOCKET_");
    for c in path.chars() {
        match c {
            '.' => snake.push('_'),
            c if c.is_ascii_uppercase() => {
                snake.push('_');
                snake.push(c);
            }
            c => snake.push(c.to_ascii_uppercase()),
        }
    }
    let plain = format!("DOCKET_{}", path.replace('.', "_").to_ascii_uppercase());
    if plain == snake { vec![snake] } else { vec![snake, plain] }
}

/// The key of a path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The names that may stand below a section (`""`: at the top), sections included.
pub(super) fn names_below(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in KEYS {
        let rest = match section {
            "" => Some(key.path),
            _ => key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
        };
        let name = rest.map(|rest| rest.split('.').next().unwrap_or(rest));
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}
