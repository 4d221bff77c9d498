//! The operator's `allow`: what classes and sessions may ask for. Whoever may write a spec must
//! not become root on the host by it.
//!
//! Paths are judged as text here; that no link leads elsewhere is checked where they are opened.

use std::collections::BTreeSet;
use std::path::Path;

use super::Refusal;
use super::text::shown;
use crate::model::{Bounds, Network, Reason, Resolved, Seccomp};

/// Where the engine's socket is found; mounting one is `dockerSocket` by another name.
const SOCKETS: &[&str] = &["/var/run/docker.sock", "/run/docker.sock"];

/// Holds a resolved spec against what the operator allows.
pub(super) fn check(resolved: &Resolved, bounds: &Bounds, refusals: &mut Vec<Refusal>) {
    let mut refuse = |field: &str, message: String| {
        refusals.push(Refusal {
            reason: Reason::NotAllowed,
            message: format!("spec.container.{field}: {message}"),
        });
    };
    let container = &resolved.container;
    let security = &container.security;
    if security.docker_socket && !bounds.docker_socket {
        refuse(
            "security.dockerSocket",
            "true is root on the host, and allow.dockerSocket is false".to_owned(),
        );
    }
    match &security.seccomp {
        Seccomp::Unconfined if !bounds.unconfined_seccomp => refuse(
            "security.seccomp",
            "`Unconfined`, and allow.unconfinedSeccomp is false".to_owned(),
        ),
        Seccomp::Profile(path) if !bounds.seccomp_profiles.contains(path) => {
            let path = path.to_string_lossy();
            refuse("security.seccomp", format!("{} is not in allow.seccompProfiles", shown(&path)));
        }
        Seccomp::RuntimeDefault | Seccomp::Unconfined | Seccomp::Profile(_) => {}
    }
    if !bounds.loosen_hardening {
        if !security.no_new_privileges {
            refuse(
                "security.noNewPrivileges",
                "false, and allow.loosenHardening is false".to_owned(),
            );
        }
        if !security.cap_drop.iter().any(|name| name == "ALL") {
            refuse(
                "security.capDrop",
                "without `ALL`, and allow.loosenHardening is false".to_owned(),
            );
        }
    }
    let unknown = outside(security.cap_add.iter(), bounds);
    if !unknown.is_empty() {
        refuse("security.capAdd", format!("{} is not in allow.capabilities", unknown.join(", ")));
    }
    for mount in &container.mounts {
        if let Err(message) = host_path(&mount.source, bounds) {
            refuse("mounts", message);
        }
    }
    for (name, file) in &container.secrets {
        let below = |root: &std::path::PathBuf| file.starts_with(root) && file != root;
        if !is_plain(file) || !bounds.secret_files.iter().any(below) {
            let path = file.to_string_lossy();
            refuse(
                "secrets",
                format!("{name}: {} is below none of allow.secretFiles", shown(&path)),
            );
        }
    }
    if let Network::Named(name) = &container.network
        && !bounds.networks.contains(name)
    {
        refuse("network", format!("`{}` is not in allow.networks", shown(name)));
    }
    let (first, last) = bounds.ports;
    if container.host_port != 0 && !(first..=last).contains(&container.host_port) {
        refuse("hostPort", format!("{} is outside of ports {first}-{last}", container.host_port));
    }
}

/// Capabilities that a session names beyond the operator's, though its class would leave them
/// out: refused, so that nobody believes to have them.
pub(super) fn check_asked(asked: &BTreeSet<String>, bounds: &Bounds, refusals: &mut Vec<Refusal>) {
    let unknown = outside(asked.iter(), bounds);
    if !unknown.is_empty() {
        refusals.push(Refusal {
            reason: Reason::NotAllowed,
            message: format!(
                "spec.container.security.capAdd: {} is not in allow.capabilities",
                unknown.join(", ")
            ),
        });
    }
}

fn outside<'a>(names: impl Iterator<Item = &'a String>, bounds: &Bounds) -> Vec<&'a str> {
    names.map(String::as_str).filter(|name| !capability(name, bounds)).collect()
}

/// Whether a capability, upper case without `CAP_`, is in `allow.capabilities`.
pub(super) fn capability(name: &str, bounds: &Bounds) -> bool {
    bounds.capabilities.iter().any(|one| {
        let one = one.to_ascii_uppercase();
        one.strip_prefix("CAP_").unwrap_or(&one) == name || one == "ALL"
    })
}

fn host_path(source: &Path, bounds: &Bounds) -> Result<(), String> {
    let shown_path = shown(&source.to_string_lossy());
    if SOCKETS.iter().any(|socket| Path::new(socket) == source) && !bounds.docker_socket {
        return Err(format!(
            "{shown_path} is the engine's socket, and allow.dockerSocket is false"
        ));
    }
    if is_plain(source) && bounds.host_paths.iter().any(|root| source.starts_with(root)) {
        return Ok(());
    }
    Err(format!("{shown_path} is below none of allow.hostPaths"))
}

/// Absolute and without a step that text comparison would not see.
fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| {
            matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_))
        })
}
