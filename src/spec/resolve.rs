//! A session and its class to the one form that everything further in works with.
//!
//! Defaults, then the class, then what the session may change (`merge`), then what the operator
//! allows (`bounds`), then `$(NAME)`. All that is wrong is told, not only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::Refusal;
use super::bounds;
use super::expand::{environment, expand};
use super::merge::{Merge, texts};
use super::text::{Target, shown};
use super::value::Map;
use super::wire;
use crate::model::{
    Bounds, ClassObject, ContainerSpec, FilesSpec, HealthSpec, Lifetime, LogSpec, MountSpec,
    Network, Reason, Resolved, Resources, RestartSpec, Seccomp, Security, SessionObject,
    UpdateSpec, WorkspaceSpec,
};

/// Merges a session into its class, within the class's limits and the operator's `allow`.
///
/// # Errors
/// Everything that is refused, with field, value and limit.
pub fn resolve(
    session: &SessionObject,
    class: &ClassObject,
    bounds: &Bounds,
) -> Result<Resolved, Vec<Refusal>> {
    let written: wire::SessionSpec = spec_of(&session.raw, "session", session.name.as_str())?;
    let shared: wire::ClassSpec = spec_of(&class.raw, "class", class.name.as_str())?;
    let mut merge = Merge::default();
    bounds::check_asked(&asked(&written), bounds, &mut merge.refusals);
    let workspace = workspace(
        &mut merge,
        &written.workspace.unwrap_or_default(),
        &shared.workspace.unwrap_or_default(),
    );
    let container = container(
        &mut merge,
        written.container.unwrap_or_default(),
        shared.container,
        &shared.limits.unwrap_or_default(),
        bounds,
    );
    let mut resolved = Resolved {
        user: session.user.clone(),
        case: session.case.clone(),
        class: class.name.clone(),
        container,
        health: health(&written.health.unwrap_or_default(), &shared.health.unwrap_or_default()),
        restart: restart(&written.restart.unwrap_or_default(), &shared.restart.unwrap_or_default()),
        workspace,
        lifetime: lifetime(
            &written.lifetime.unwrap_or_default(),
            &shared.lifetime.unwrap_or_default(),
        ),
        update: update(
            &mut merge,
            &written.update.unwrap_or_default(),
            &shared.update.unwrap_or_default(),
        ),
    };
    variables(&mut resolved, &mut merge.refusals);
    coherent(&resolved, &mut merge.refusals);
    bounds::check(&resolved, bounds, &mut merge.refusals);
    if merge.refusals.is_empty() { Ok(resolved) } else { Err(merge.refusals) }
}

/// `spec` of an object that was parsed once and may have come through the ledger since.
fn spec_of<T: for<'de> Deserialize<'de>>(
    raw: &serde_json::Value,
    what: &str,
    name: &str,
) -> Result<T, Vec<Refusal>> {
    let spec = raw.get("spec").cloned().unwrap_or_default();
    serde_json::from_value(spec).map_err(|error| {
        let message = format!("{what} {name}: {}", shown(&error.to_string()));
        vec![Refusal { reason: Reason::InvalidSpec, message }]
    })
}

/// Capabilities that the session itself names.
fn asked(session: &wire::SessionSpec) -> BTreeSet<String> {
    let security = session.container.as_ref().and_then(|container| container.security.as_ref());
    let list = security.and_then(|security| security.cap_add.as_deref()).unwrap_or_default();
    list.iter().map(|one| one.0.0.clone()).collect()
}

fn container(
    merge: &mut Merge,
    session: wire::Container,
    class: wire::Container,
    limits: &wire::Limits,
    bounds: &Bounds,
) -> ContainerSpec {
    let resources = resources(
        merge,
        &session.resources.unwrap_or_default(),
        &class.resources.unwrap_or_default(),
        limits,
    );
    let security = security(
        merge,
        session.security.unwrap_or_default(),
        class.security.unwrap_or_default(),
        bounds,
    );
    let image = merge.image(session.image.as_ref(), class.image.as_ref(), limits.images.as_deref());
    let at = |field: &str| format!("spec.container.{field}");
    let env = |map: Option<Map<_, _>>| {
        texts(map, |key: super::text::EnvName| key.0, |v: super::text::Plain| v.0)
    };
    let mut all_env = env(class.env);
    all_env.extend(env(session.env));
    let tmpfs = session.tmpfs.or(class.tmpfs).map_or_else(default_tmpfs, |map| {
        let options =
            |(Target(path), options): (Target, super::value::Text<super::text::TmpfsOptions>)| {
                Some((path.to_str()?.to_owned(), options.0.0))
            };
        map.0.into_iter().filter_map(options).collect()
    });
    let secrets =
        merge.class_only(&at("secrets"), session.secrets, class.secrets).unwrap_or_default();
    let mounts = merge.class_only(&at("mounts"), session.mounts, class.mounts).unwrap_or_default();
    let labels = merge.class_only(&at("labels"), session.labels, class.labels);
    let logs = merge.class_only(&at("logs"), session.logs, class.logs).unwrap_or_default();
    let port = merge.class_only(&at("port"), session.port, class.port);
    ContainerSpec {
        image,
        pull_policy: merge
            .class_only(&at("pullPolicy"), session.pull_policy, class.pull_policy)
            .unwrap_or_default(),
        command: plain_list(session.command.or(class.command)),
        args: plain_list(session.args.or(class.args)),
        env: all_env,
        secrets: secrets.0.into_iter().map(|(name, secret)| (name.0, secret.file.0.0)).collect(),
        port: port.map_or(3000, |port| port.0 as u16),
        host_port: session.host_port.or(class.host_port).map_or(0, |port| port.0 as u16),
        resources,
        security,
        tmpfs,
        mounts: mounts.into_iter().map(mount).collect(),
        network: network(
            merge
                .class_only(&at("network"), session.network, class.network)
                .map_or("docket".to_owned(), |name| name.0.0),
        ),
        init: merge.class_only(&at("init"), session.init, class.init).unwrap_or(true),
        stop_grace: session
            .stop_grace_period
            .or(class.stop_grace_period)
            .map_or(Duration::from_secs(10), |span| span.0),
        labels: texts(labels, |key| key.0, |value| value.0),
        logs: LogSpec {
            max_size: logs.max_size.map_or(10 << 20, |size| size.0),
            max_files: logs.max_files.map_or(3, |files| files.0 as u32),
        },
    }
}

fn plain_list(list: Option<Vec<super::value::Text<super::text::Plain>>>) -> Vec<String> {
    list.unwrap_or_default().into_iter().map(|text| text.0.0).collect()
}

fn default_tmpfs() -> BTreeMap<String, String> {
    BTreeMap::from([("/tmp".to_owned(), "rw,noexec,nosuid,size=1g".to_owned())])
}

fn mount(mount: wire::Mount) -> MountSpec {
    MountSpec {
        source: mount.source.0.0,
        target: mount.target.0.0,
        read_only: mount.read_only.unwrap_or_default(),
    }
}

fn network(name: String) -> Network {
    match name.as_str() {
        "docket" => Network::Docket,
        "bridge" => Network::Bridge,
        "none" => Network::None,
        _ => Network::Named(name),
    }
}

fn resources(
    merge: &mut Merge,
    session: &wire::ResourcesSection,
    class: &wire::ResourcesSection,
    limits: &wire::Limits,
) -> Resources {
    use super::value::{show_bytes, show_cpus};
    let memory_limit = limits.max_memory.map_or(16 << 30, |memory| memory.0);
    let cpus_limit = limits.max_cpus.map_or(8_000_000_000, |cpus| cpus.0);
    let pids_limit = limits.max_pids.map_or(4096, |pids| pids.0);
    let show_count = |count: u64| count.to_string();
    let (memory, cpus, pids) =
        (session.memory.map(|v| v.0), session.cpus.map(|v| v.0), session.pids.map(|v| v.0));
    Resources {
        memory: merge.up_to(
            "memory",
            memory,
            class.memory.map(|v| v.0),
            4 << 30,
            memory_limit,
            show_bytes,
        ),
        nano_cpus: merge.up_to(
            "cpus",
            cpus,
            class.cpus.map(|v| v.0),
            2_000_000_000,
            cpus_limit,
            show_cpus,
        ),
        pids: merge.up_to("pids", pids, class.pids.map(|v| v.0), 512, pids_limit, show_count)
            as u32,
    }
}

fn security(
    merge: &mut Merge,
    session: wire::SecuritySection,
    class: wire::SecuritySection,
    bounds: &Bounds,
) -> Security {
    let at = |field: &str| format!("spec.container.security.{field}");
    let names = |list: Option<Vec<super::value::Text<super::text::Capability>>>| {
        list.map(|list| list.into_iter().map(|one| one.0.0).collect::<BTreeSet<String>>())
    };
    let cap_drop = names(class.cap_drop).unwrap_or_else(|| BTreeSet::from(["ALL".to_owned()]));
    let more_drop = names(session.cap_drop).unwrap_or_default();
    let class_add = names(class.cap_add).unwrap_or_else(|| {
        let usual = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];
        usual.into_iter().filter(|one| bounds::capability(one, bounds)).map(str::to_owned).collect()
    });
    let cap_add = Merge::fewer_capabilities(names(session.cap_add), class_add, &more_drop);
    let seccomp = merge
        .class_only(&at("seccomp"), session.seccomp, class.seccomp)
        .map_or("RuntimeDefault".to_owned(), |text| text.0.0);
    Security {
        run_as: merge
            .class_only(&at("runAs"), session.run_as, class.run_as)
            .map_or(String::new(), |owner| owner.0.0),
        cap_drop: cap_drop.union(&more_drop).cloned().collect(),
        cap_add: cap_add.into_iter().collect(),
        no_new_privileges: merge.only_true(
            &at("noNewPrivileges"),
            session.no_new_privileges,
            class.no_new_privileges.unwrap_or(true),
        ),
        seccomp: match seccomp.as_str() {
            "RuntimeDefault" => Seccomp::RuntimeDefault,
            "Unconfined" => Seccomp::Unconfined,
            path => Seccomp::Profile(PathBuf::from(path)),
        },
        read_only_rootfs: merge.only_true(
            &at("readOnlyRootfs"),
            session.read_only_rootfs,
            class.read_only_rootfs.unwrap_or(false),
        ),
        docker_socket: merge
            .class_only(&at("dockerSocket"), session.docker_socket, class.docker_socket)
            .unwrap_or(false),
    }
}

fn health(session: &wire::Health, class: &wire::Health) -> HealthSpec {
    let span =
        |own: Option<super::value::Span<false>>,
         theirs: Option<super::value::Span<false>>,
         default| { own.or(theirs).map_or(Duration::from_secs(default), |span| span.0) };
    let path = session.path.as_ref().or(class.path.as_ref());
    HealthSpec {
        path: path.map_or("/health".to_owned(), |path| path.0.0.clone()),
        startup: span(session.startup, class.startup, 60),
        interval: span(session.interval, class.interval, 10),
        timeout: span(session.timeout, class.timeout, 2),
        failures: session.failures.or(class.failures).map_or(3, |count| count.0 as u32),
    }
}

fn restart(session: &wire::Restart, class: &wire::Restart) -> RestartSpec {
    let span =
        |own: Option<super::value::Span<false>>,
         theirs: Option<super::value::Span<false>>,
         default| { own.or(theirs).map_or(Duration::from_secs(default), |span| span.0) };
    RestartSpec {
        policy: session.policy.or(class.policy).unwrap_or_default(),
        initial_delay: span(session.initial_delay, class.initial_delay, 1),
        max_delay: span(session.max_delay, class.max_delay, 60),
        reset_after: span(session.reset_after, class.reset_after, 600),
    }
}

fn workspace(
    merge: &mut Merge,
    session: &wire::Workspace,
    class: &wire::Workspace,
) -> WorkspaceSpec {
    let at = |field: &str| format!("spec.workspace.{field}");
    let mount_path =
        merge.class_only(&at("mountPath"), session.mount_path.clone(), class.mount_path.clone());
    let owner = merge.class_only(&at("owner"), session.owner.clone(), class.owner.clone());
    let limits = merge.class_only(&at("limits"), session.limits.clone(), class.limits.clone());
    let limits = limits.unwrap_or_default();
    let own_files = session.files.clone().unwrap_or_default();
    let class_files = class.files.clone().unwrap_or_default();
    let own_sync = session.sync.clone().unwrap_or_default();
    let class_sync = class.sync.clone().unwrap_or_default();
    let folders = session.folders.as_ref().or(class.folders.as_ref());
    let exclude = own_sync.exclude.or(class_sync.exclude).unwrap_or_default();
    WorkspaceSpec {
        mount_path: mount_path.map_or(PathBuf::from("/opt/workspace"), |path| path.0.0),
        scope: merge.class_only(&at("scope"), session.scope, class.scope).unwrap_or_default(),
        folders: folders
            .map_or_else(default_folders, |list| list.iter().map(|f| f.0.0.clone()).collect()),
        owner: owner.map_or(String::new(), |owner| owner.0.0),
        quota: merge.class_only(&at("quota"), session.quota, class.quota).map_or(10 << 30, |q| q.0),
        max_files: limits.files.map_or(1_000_000, |count| count.0),
        max_file_size: limits.file_size.map_or(100 << 30, |size| size.0),
        max_depth: limits.depth.map_or(256, |depth| depth.0 as u32),
        files: FilesSpec {
            eager_below: own_files.eager_below.or(class_files.eager_below).map_or(1 << 20, |v| v.0),
            large: own_files.large.or(class_files.large).unwrap_or_default(),
            prefetch: own_files.prefetch.or(class_files.prefetch).map_or(0, |v| v.0),
            open_deadline: own_files
                .open_deadline
                .or(class_files.open_deadline)
                .map_or(Duration::from_mins(1), |span| span.0),
        },
        sync_interval: own_sync
            .interval
            .or(class_sync.interval)
            .map_or(Duration::from_secs(30), |span| span.0),
        sync_exclude: exclude.into_iter().map(|glob| glob.0.0).collect(),
    }
}

fn default_folders() -> Vec<String> {
    [
        "pleadings",
        "motions",
        "discovery",
        "exhibits",
        "correspondence",
        "research",
        "drafts",
        "final",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn lifetime(session: &wire::LifetimeSection, class: &wire::LifetimeSection) -> Lifetime {
    Lifetime {
        max_age: session.max_age.or(class.max_age).map_or(Duration::ZERO, |span| span.0),
        idle_timeout: session.idle_timeout.or(class.idle_timeout).map_or(Duration::ZERO, |s| s.0),
    }
}

fn update(merge: &mut Merge, session: &wire::Update, class: &wire::Update) -> UpdateSpec {
    let at = |field: &str| format!("spec.update.{field}");
    UpdateSpec {
        strategy: merge
            .class_only(&at("strategy"), session.strategy, class.strategy)
            .unwrap_or_default(),
        rollout: merge
            .class_only(&at("rollout"), session.rollout, class.rollout)
            .unwrap_or_default(),
        max_concurrent: merge
            .class_only(&at("maxConcurrent"), session.max_concurrent, class.max_concurrent)
            .map_or(2, |count| count.0 as u32),
        on_failure: merge
            .class_only(&at("onFailure"), session.on_failure, class.on_failure)
            .unwrap_or_default(),
    }
}

/// Fills in docket's own variables and expands the others, and the places that use them.
fn variables(resolved: &mut Resolved, refusals: &mut Vec<Refusal>) {
    let base = resolved.workspace.mount_path.to_string_lossy().into_owned();
    let own = BTreeMap::from([
        ("USER_ID".to_owned(), resolved.user.to_string()),
        ("CASE_ID".to_owned(), resolved.case.to_string()),
        ("WORKSPACE_BASE".to_owned(), base),
    ]);
    let too_long = |field: &str| Refusal {
        reason: Reason::InvalidSpec,
        message: format!("{field}: expands to more than can be passed to a process"),
    };
    let container = &mut resolved.container;
    match environment(&container.env, &own) {
        Ok(env) => container.env = env,
        Err(name) => refusals.push(too_long(&format!("spec.container.env.{}", shown(&name)))),
    }
    let env = container.env.clone();
    for (field, list) in [("command", &mut container.command), ("args", &mut container.args)] {
        for text in list.iter_mut() {
            match expand(text, &mut |name| Ok(env.get(name).cloned())) {
                Ok(expanded) => *text = expanded,
                Err(_) => refusals.push(too_long(&format!("spec.container.{field}"))),
            }
        }
    }
    for (name, file) in &mut container.secrets {
        let text = file.to_string_lossy().into_owned();
        match expand(&text, &mut |name| Ok(own.get(name).cloned())) {
            Ok(expanded) => *file = PathBuf::from(expanded),
            Err(_) => refusals.push(too_long(&format!("spec.container.secrets.{}", shown(name)))),
        }
    }
}

/// What has to fit together whoever wrote it.
fn coherent(resolved: &Resolved, refusals: &mut Vec<Refusal>) {
    let container = &resolved.container;
    let mut refuse = |message: String| {
        refusals.push(Refusal { reason: Reason::InvalidSpec, message });
    };
    if container.network == Network::None && container.port != 0 {
        refuse(format!(
            "spec.container.network: `none` needs port 0, and port is {}",
            container.port
        ));
    }
    if container.host_port != 0 && container.port == 0 {
        refuse(format!(
            "spec.container.hostPort: {} is published for nothing, port is 0",
            container.host_port
        ));
    }
    if resolved.restart.max_delay < resolved.restart.initial_delay {
        refuse("spec.restart.maxDelay: shorter than initialDelay".to_owned());
    }
    if resolved.health.timeout > Duration::from_mins(1) {
        refuse("spec.health.timeout: longer than 60s".to_owned());
    }
    let mut taken: BTreeSet<&Path> = BTreeSet::from([resolved.workspace.mount_path.as_path()]);
    if container.security.docker_socket {
        taken.insert(Path::new("/var/run/docker.sock"));
    }
    let targets = container.mounts.iter().map(|mount| mount.target.as_path());
    for target in targets.chain(container.tmpfs.keys().map(Path::new)) {
        if !taken.insert(target) {
            refuse(format!("{}: two things are mounted there", shown(&target.to_string_lossy())));
        }
    }
    let mut folders = BTreeSet::new();
    if let Some(twice) = resolved.workspace.folders.iter().find(|folder| !folders.insert(*folder)) {
        refuse(format!("spec.workspace.folders: `{}` stands there twice", shown(twice)));
    }
}
