//! The gate stands apart from its operator: what ends the one must not end the other.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};

/// Own session, own control group where that can be had, and the last to be killed for memory.
/// Each may be refused; the gate then is as safe as its surroundings.
pub(super) fn stand_apart() {
    if let Err(errno) = setsid() {
        tracing::debug!(%errno, "no session of its own");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::debug!(%error, "it may be killed for memory");
    }
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let most = most.min(super::server::DESCRIPTORS);
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    if let Err(errno) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%errno, "the number of descriptors stays as it is");
    }
    let Ok(groups) = std::fs::read_to_string("/proc/self/cgroup") else { return };
    for root in groups.lines().filter_map(hierarchy) {
        move_into(&format!("{root}/docket-gate"));
    }
}

/// Where the hierarchy of a line of /proc/self/cgroup is mounted, if it is one that managers of
/// services and containers end processes by: runc finds a container's processes in `devices`.
/// Source: cgroups(7), the mount points that systemd uses; runc's `GetAllPids`.
fn hierarchy(line: &str) -> Option<String> {
    let (number, rest) = line.split_once(':')?;
    let (controllers, _) = rest.split_once(':')?;
    match (number, controllers) {
        ("0", "") => {
            let pure = std::path::Path::new("/sys/fs/cgroup/cgroup.procs");
            let unified = !matches!(pure.try_exists(), Ok(true));
            Some(format!("/sys/fs/cgroup{}", if unified { "/unified" } else { "" }))
        }
        (_, "name=systemd") => Some("/sys/fs/cgroup/systemd".to_owned()),
        (_, "memory" | "freezer" | "pids" | "devices") => {
            Some(format!("/sys/fs/cgroup/{controllers}"))
        }
        _ => None,
    }
}

fn move_into(group: &str) {
    let made = std::fs::create_dir(group);
    let moved = std::fs::write(format!("{group}/cgroup.procs"), "0");
    if let Err(error) = moved {
        tracing::debug!(group, %error, ?made, "not moved into a control group of its own");
    }
}

#[cfg(test)]
mod tests {
    use super::hierarchy;

    #[test]
    fn it_leaves_every_group_that_a_manager_ends_processes_by() {
        let of = |line: &str| hierarchy(&format!("{line}:/docker/0123"));
        for controller in ["memory", "freezer", "pids", "devices"] {
            let told = of(&format!("7:{controller}"));
            assert_eq!(told, Some(format!("/sys/fs/cgroup/{controller}")));
        }
        assert_eq!(of("9:name=systemd").as_deref(), Some("/sys/fs/cgroup/systemd"));
        assert_eq!(of("2:cpuacct"), None);
        assert!(of("0:").is_some());
    }
}
