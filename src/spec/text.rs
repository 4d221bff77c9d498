//! The rules for what a spec writes as text: paths, names, images, globs. Everything here can
//! be judged without knowing class or operator; what depends on those is in `bounds`.

use std::path::PathBuf;

use super::complain::nearest;
use super::value::FromText;
use crate::model::{BadName, CaseName, ClassName, Prune, SessionName, UserName};

/// Longest path the kernel takes, with its end.
const PATH_MAX: usize = 4095;
/// Longest file name.
const NAME_MAX: usize = 255;

macro_rules! named {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl FromText for $type {
            const NAME: &'static str = $name;
            const PATTERN: Option<&'static str> = Some($pattern);

            fn from_text(text: &str) -> Result<Self, String> {
                <$type>::parse(text).map_err(|bad: BadName| bad.to_string())
            }
        }
    };
}

named!(SessionName, "SessionName", "^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$");
named!(ClassName, "ClassName", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$");
named!(UserName, "UserName", "^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$");
named!(CaseName, "CaseName", "^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$");

macro_rules! text {
    ($(#[$doc:meta])* $type:ident($inner:ty), $pattern:expr, $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $type(pub $inner);

        impl FromText for $type {
            const NAME: &'static str = stringify!($type);
            const PATTERN: Option<&'static str> = $pattern;

            fn from_text(text: &str) -> Result<Self, String> {
                let read: fn(&str) -> Result<$inner, String> = $read;
                read(text).map($type)
            }
        }
    };
}

text!(
    /// Any text a process can be given: no NUL.
    Plain(String), None, plain
);
text!(
    /// A key of labels or annotations.
    Key(String), None, |text| {
        let ok = (1..=317).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
        if ok { Ok(text.to_owned()) } else { Err(bad(text, "a key: visible ASCII without spaces")) }
    }
);
text!(
    /// A key of a container's labels; docket's own are refused.
    ContainerKey(String), None, |text| {
        if text.starts_with("docket.dev/") {
            return Err(format!("label `{}` is docket's own", shown(text)));
        }
        Key::from_text(text).map(|key| key.0)
    }
);
text!(
    /// The name of an environment variable.
    EnvName(String), Some("^[!-<>-~]+$"), |text| {
        if ["USER_ID", "CASE_ID", "WORKSPACE_BASE"].contains(&text) {
            return Err(format!("`{text}` is set by docket"));
        }
        let ok = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'=');
        if ok { Ok(text.to_owned()) } else { Err(bad(text, "a name: visible ASCII without `=`")) }
    }
);
text!(
    /// The name of a file under `/run/secrets`.
    SecretName(String), Some("^[A-Za-z0-9_][A-Za-z0-9._-]*$"), |text| {
        let ok = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !text.starts_with(['.', '-']);
        if ok { Ok(text.to_owned()) } else { Err(bad(text, "a file name of letters, digits and `._-`")) }
    }
);
text!(
    /// An image reference; the engine knows the rest of the grammar.
    ImageRef(String), Some("^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"), |text| {
        let ok = (1..=512).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if ok { Ok(text.to_owned()) } else { Err(bad(text, "an image such as `name:tag`")) }
    }
);
text!(
    /// An absolute path without `.`, `..`, doubled slashes and control characters.
    AbsPath(PathBuf), Some("^/"), |text| absolute(text).map(PathBuf::from)
);
text!(
    /// A place in the container where something is mounted.
    Target(PathBuf), Some("^/."), |text| {
        let path = absolute(text)?;
        let own = ["/proc", "/sys", "/run/secrets"];
        let below = |root: &str| path == root || path.starts_with(&format!("{root}/"));
        if path == "/" || path == "/dev" || own.into_iter().any(below) {
            return Err(format!("`{}` cannot be mounted on", shown(path)));
        }
        Ok(PathBuf::from(path))
    }
);
text!(
    /// A folder of the workspace: one path component.
    Folder(String), Some("^[^/]+$"), |text| {
        let ok = (1..=NAME_MAX).contains(&text.len())
            && text != "." && text != ".."
            && !text.chars().any(|c| c == '/' || c.is_control());
        if ok { Ok(text.to_owned()) } else { Err(bad(text, "a folder: one name without `/`")) }
    }
);
text!(
    /// `uid` or `uid:gid`; empty: left to docket.
    Owner(String), Some("^([0-9]+(:[0-9]+)?)?$"), |text| {
        let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
        // The largest is -1, which means "leave it" to chown.
        let id = |text: &str| {
            text.bytes().all(|b| b.is_ascii_digit())
                && text.parse::<u32>().is_ok_and(|id| id < u32::MAX)
        };
        if text.is_empty() || id(uid) && id(gid) {
            Ok(text.to_owned())
        } else {
            Err(bad(text, "numbers such as `1000:1000`"))
        }
    }
);
text!(
    /// A capability, upper case without `CAP_`.
    Capability(String), Some("^(CAP_)?[A-Za-z_]+$"), |text| {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || CAPABILITIES.contains(&name) {
            return Ok(name.to_owned());
        }
        let hint = nearest(name, CAPABILITIES.iter().copied())
            .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
        Err(format!("`{}` is not a capability{hint}", shown(text)))
    }
);
text!(
    /// `RuntimeDefault`, `Unconfined` or the path of a profile.
    SeccompText(String), None, |text| {
        if text == "RuntimeDefault" || text == "Unconfined" {
            return Ok(text.to_owned());
        }
        absolute(text).map(str::to_owned).map_err(|_| {
            bad(text, "`RuntimeDefault`, `Unconfined` or the absolute path of a profile")
        })
    }
);
text!(
    /// `docket`, `bridge`, `none` or the name of a network.
    NetworkText(String), Some("^[A-Za-z0-9][A-Za-z0-9_.-]*$"), |text| {
        if text == "host" || text.starts_with("container:") {
            return Err(format!(
                "network `{}` is refused: it would leave the container unisolated", shown(text)
            ));
        }
        let ok = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if ok && text != "default" {
            return Ok(text.to_owned());
        }
        Err(bad(text, "`docket`, `bridge`, `none` or the name of a network in allow.networks"))
    }
);
text!(
    /// Path and query of a GET.
    HttpPath(String), Some("^/"), |text| {
        let ok = text.starts_with('/') && text.len() <= 2048
            && text.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(text.to_owned()) } else { Err(bad(text, "a path such as `/health`")) }
    }
);
text!(
    /// Options of a tmpfs: of those the engine knows, the ones that open no door.
    TmpfsOptions(String), None, |text| {
        match text.split(',').filter(|o| !o.is_empty()).find(|option| !is_tmpfs_option(option)) {
            None => Ok(text.to_owned()),
            Some(option) => Err(format!(
                "`{}` is not a tmpfs option that docket passes on: expected of rw, ro, noexec, \
                 exec, nosuid, nodev, noatime, size=, mode=, uid=, gid=, nr_inodes=", shown(option)
            )),
        }
    }
);
text!(
    /// A glob of paths or image names.
    Glob(String), None, |text| {
        plain(text)?;
        match globset::Glob::new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!("`{}` is not a glob: {}", shown(text), error.kind())),
        }
    }
);

/// A value of an annotation or a label.
pub(super) fn plain(text: &str) -> Result<String, String> {
    if text.contains('\0') { Err("a NUL is not allowed".to_owned()) } else { Ok(text.to_owned()) }
}

/// The values of the annotation `docket.dev/prune`: a typing error must not delete anything.
pub(super) fn prune(text: &str) -> Result<Prune, String> {
    match text {
        "enabled" => Ok(Prune::Enabled),
        "confirm" => Ok(Prune::Confirm),
        "disabled" => Ok(Prune::Disabled),
        _ => Err(format!(
            "docket.dev/prune: `{}` is not one of `enabled`, `confirm`, `disabled`",
            shown(text)
        )),
    }
}

fn absolute(text: &str) -> Result<&str, String> {
    let expected = "an absolute path without `.`, `..` and doubled slashes";
    let trimmed = match text.strip_suffix('/') {
        Some("") | None => text,
        Some(rest) => rest,
    };
    let Some(rest) = trimmed.strip_prefix('/') else { return Err(bad(text, expected)) };
    let component = |part: &str| !part.is_empty() && part != "." && part != "..";
    let ok = text.len() <= PATH_MAX
        && !text.chars().any(char::is_control)
        && (rest.is_empty() || rest.split('/').all(component));
    if ok { Ok(trimmed) } else { Err(bad(text, expected)) }
}

fn is_tmpfs_option(option: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match option.split_once('=') {
        None => ["rw", "ro", "noexec", "exec", "nosuid", "nodev", "noatime"].contains(&option),
        Some(("size", size)) => {
            digits(size.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%']).unwrap_or(size))
        }
        Some(("mode", mode)) => {
            // Without setuid and setgid, which a tmpfs root has no use for.
            u32::from_str_radix(mode, 8).is_ok_and(|mode| mode & !0o1777 == 0)
        }
        Some(("uid" | "gid", id)) => digits(id) && id.parse::<u32>().is_ok(),
        Some(("nr_inodes", count)) => digits(count.strip_suffix(['k', 'm', 'g']).unwrap_or(count)),
        Some(_) => false,
    }
}

fn bad(text: &str, expected: &str) -> String {
    format!("`{}` is not {expected}", shown(text))
}

/// Text of somebody else's in a message: no control characters, not endless.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// Source: capabilities(7), Linux 6.1.
const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
