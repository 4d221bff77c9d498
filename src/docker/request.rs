//! A create request in the engine's words, and the proof that the engine took every word of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerUpdateBody, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount, MountType, PortBinding, PortMap, RestartPolicy,
    RestartPolicyNameEnum,
};

use crate::model::{Identity, Network, Resources, Seccomp};
use crate::world::{BindMount, CreateRequest};

/// Largest seccomp profile, bytes.
pub(super) const PROFILE_MAX: usize = 1024 * 1024;

/// The installation's own bridge.
pub(super) fn network_name(identity: &Identity) -> String {
    format!("docket-{}", identity.installation)
}

/// The body of a create call. `profile` is the seccomp profile's text, if the spec names one.
pub(super) fn create_body(
    request: &CreateRequest,
    identity: &Identity,
    profile: Option<&str>,
) -> ContainerCreateBody {
    let spec = &request.spec;
    let port_key = format!("{}/tcp", spec.port);
    let words = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    ContainerCreateBody {
        image: Some(request.image_id.clone()),
        entrypoint: words(&spec.command),
        cmd: words(&spec.args),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: (!spec.security.run_as.is_empty()).then(|| spec.security.run_as.clone()),
        labels: Some(request.labels.clone().into_iter().collect()),
        exposed_ports: (spec.port != 0).then(|| vec![port_key.clone()]),
        tty: Some(false),
        open_stdin: Some(false),
        // The image's own would cost three events and a process a probe; docket probes by HTTP.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        stop_timeout: Some(whole_seconds(spec.stop_grace)),
        host_config: Some(host_config(request, identity, profile, port_key)),
        ..Default::default()
    }
}

fn host_config(
    request: &CreateRequest,
    identity: &Identity,
    profile: Option<&str>,
    port_key: String,
) -> HostConfig {
    let spec = &request.spec;
    let security = &spec.security;
    let limit = |value: u64| (value > 0).then(|| i64::try_from(value).unwrap_or(i64::MAX));
    let network = match &spec.network {
        Network::Docket => network_name(identity),
        Network::Bridge => "bridge".to_owned(),
        Network::None => "none".to_owned(),
        Network::Named(name) => name.clone(),
    };
    let log = [
        ("max-size".to_owned(), spec.logs.max_size.to_string()),
        ("max-file".to_owned(), spec.logs.max_files.to_string()),
    ];
    HostConfig {
        memory: limit(spec.resources.memory),
        memory_swap: limit(spec.resources.memory),
        nano_cpus: limit(spec.resources.nano_cpus),
        pids_limit: limit(spec.resources.pids.into()),
        cap_drop: Some(security.cap_drop.clone()),
        cap_add: Some(security.cap_add.clone()),
        security_opt: Some(security_options(request, profile)),
        privileged: Some(false),
        readonly_rootfs: Some(security.read_only_rootfs),
        tmpfs: Some(spec.tmpfs.clone().into_iter().collect()),
        mounts: Some(request.mounts.iter().map(bind).collect()),
        init: Some(spec.init),
        network_mode: Some(network),
        port_bindings: request.host_port.map(|port| bindings(port_key, identity, port)),
        publish_all_ports: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from(log)),
        }),
        ..Default::default()
    }
}

fn security_options(request: &CreateRequest, profile: Option<&str>) -> Vec<String> {
    let security = &request.spec.security;
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match (&security.seccomp, profile) {
        (Seccomp::Unconfined, _) => options.push("seccomp=unconfined".to_owned()),
        (Seccomp::Profile(_), Some(profile)) => options.push(format!("seccomp={profile}")),
        _ => {}
    }
    options
}

fn bindings(key: String, identity: &Identity, port: u16) -> PortMap {
    let binding =
        PortBinding { host_ip: Some(identity.bind.to_string()), host_port: Some(port.to_string()) };
    HashMap::from([(key, Some(vec![binding]))])
}

/// `Mounts`, never `Binds`: those make a missing source as a root-owned directory.
fn bind(mount: &BindMount) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(text(&mount.source)),
        target: Some(text(&mount.target)),
        read_only: Some(mount.read_only),
        ..Default::default()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What cannot be sent as it is: the engine's words are UTF-8.
pub(super) fn unsendable(request: &CreateRequest) -> Option<String> {
    let odd = |path: &&Path| path.to_str().is_none() || !path.is_absolute();
    request
        .mounts
        .iter()
        .flat_map(|mount| [mount.source.as_path(), mount.target.as_path()])
        .find(odd)
        .map(|path| format!("mount path {} is not absolute UTF-8", path.display()))
}

/// A seccomp profile as the engine takes it: the text itself, compact.
pub(super) fn compact_profile(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() > PROFILE_MAX {
        return Err(format!("is larger than {PROFILE_MAX} bytes"));
    }
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| format!("is not JSON: {error}"))?;
    if !value.is_object() {
        return Err("is not a JSON object".to_owned());
    }
    Ok(value.to_string())
}

/// The body of an update call.
pub(super) fn update_body(resources: Resources) -> ContainerUpdateBody {
    let number = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    ContainerUpdateBody {
        memory: number(resources.memory),
        memory_swap: number(resources.memory),
        nano_cpus: number(resources.nano_cpus),
        pids_limit: number(resources.pids.into()),
        ..Default::default()
    }
}

/// Whole seconds, rounded up: the engine knows no finer grace.
pub(super) fn whole_seconds(time: std::time::Duration) -> i64 {
    let up = u64::from(time.subsec_nanos() > 0);
    i64::try_from(time.as_secs().saturating_add(up)).unwrap_or(i64::MAX).min(i64::from(i32::MAX))
}

/// The first setting of `asked` that the engine's container does not have: its name, what was
/// asked for and what is there. `None`: everything is in force.
pub(super) fn dropped(
    asked: &ContainerCreateBody,
    made: &ContainerInspectResponse,
) -> Option<String> {
    let none = HostConfig::default();
    let want = asked.host_config.as_ref().unwrap_or(&none);
    let have = made.host_config.as_ref().unwrap_or(&none);
    let config = made.config.clone().unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let lost = asked.labels.iter().flatten().find(|(key, value)| labels.get(*key) != Some(value));
    limits_dropped(want, have)
        .or_else(|| confinement_dropped(want, have))
        .or_else(|| surroundings_dropped(want, have))
        .or_else(|| {
            differs("User", &or_empty(asked.user.as_ref()), &or_empty(config.user.as_ref()))
        })
        .or_else(|| lost.map(|(key, _)| format!("Labels: {key} is missing")))
}

fn limits_dropped(want: &HostConfig, have: &HostConfig) -> Option<String> {
    let number = |value: Option<i64>| value.unwrap_or_default();
    differs("Memory", &number(want.memory), &number(have.memory))
        .or_else(|| differs("MemorySwap", &number(want.memory_swap), &number(have.memory_swap)))
        .or_else(|| differs("NanoCpus", &number(want.nano_cpus), &number(have.nano_cpus)))
        .or_else(|| differs("PidsLimit", &number(want.pids_limit), &number(have.pids_limit)))
        .or_else(|| differs("LogConfig", &log_of(want), &log_of(have)))
}

fn confinement_dropped(want: &HostConfig, have: &HostConfig) -> Option<String> {
    let flag = |value: Option<bool>| value.unwrap_or_default();
    differs("CapDrop", &caps(want.cap_drop.as_ref()), &caps(have.cap_drop.as_ref()))
        .or_else(|| differs("CapAdd", &caps(want.cap_add.as_ref()), &caps(have.cap_add.as_ref())))
        .or_else(|| differs("SecurityOpt", &options_of(want), &options_of(have)))
        .or_else(|| {
            differs("ReadonlyRootfs", &flag(want.readonly_rootfs), &flag(have.readonly_rootfs))
        })
        .or_else(|| differs("Privileged", &flag(want.privileged), &flag(have.privileged)))
        .or_else(|| differs("Init", &flag(want.init), &flag(have.init)))
        .or_else(|| differs("PidMode", &"", &or_empty(have.pid_mode.as_ref()).as_str()))
        .or_else(|| {
            let shares = have.ipc_mode.as_deref() == Some("host");
            shares.then(|| "IpcMode: the host's is shared".to_owned())
        })
}

fn surroundings_dropped(want: &HostConfig, have: &HostConfig) -> Option<String> {
    differs("Tmpfs", &map_of(want.tmpfs.as_ref()), &map_of(have.tmpfs.as_ref()))
        .or_else(|| differs("Mounts", &mounts_of(want), &mounts_of(have)))
        .or_else(|| {
            let extra = have.binds.iter().flatten().next();
            extra.map(|bind| format!("Binds: {bind} was added"))
        })
        .or_else(|| {
            differs(
                "NetworkMode",
                &or_empty(want.network_mode.as_ref()),
                &or_empty(have.network_mode.as_ref()),
            )
        })
        .or_else(|| differs("PortBindings", &ports_of(want), &ports_of(have)))
        .or_else(|| differs("RestartPolicy", &restart_of(want), &restart_of(have)))
}

fn differs<T: PartialEq + Debug>(name: &str, asked: &T, made: &T) -> Option<String> {
    (asked != made).then(|| format!("{name}: asked for {asked:?}, the engine has {made:?}"))
}

fn or_empty(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

/// Newer engines answer `CAP_CHOWN` to `CHOWN`.
fn caps(list: Option<&Vec<String>>) -> BTreeSet<String> {
    let plain = |cap: &String| {
        let cap = cap.to_ascii_uppercase();
        cap.strip_prefix("CAP_").unwrap_or(&cap).to_owned()
    };
    list.into_iter().flatten().map(plain).collect()
}

fn options_of(host: &HostConfig) -> BTreeSet<String> {
    let plain = |option: &String| match option.as_str() {
        "no-new-privileges:true" | "no-new-privileges=true" => "no-new-privileges".to_owned(),
        other => other.to_owned(),
    };
    host.security_opt.iter().flatten().map(plain).collect()
}

fn map_of(map: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    map.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn mounts_of(host: &HostConfig) -> BTreeSet<(String, String, bool)> {
    let plain = |mount: &Mount| {
        let read_only = mount.read_only.unwrap_or_default();
        (or_empty(mount.source.as_ref()), or_empty(mount.target.as_ref()), read_only)
    };
    host.mounts.iter().flatten().map(plain).collect()
}

fn ports_of(host: &HostConfig) -> BTreeSet<(String, String, String)> {
    let rows = host.port_bindings.iter().flatten();
    rows.flat_map(|(key, list)| {
        list.iter().flatten().map(move |at| {
            (key.clone(), or_empty(at.host_ip.as_ref()), or_empty(at.host_port.as_ref()))
        })
    })
    .collect()
}

fn log_of(host: &HostConfig) -> (String, BTreeMap<String, String>) {
    let log = host.log_config.clone().unwrap_or_default();
    (or_empty(log.typ.as_ref()), map_of(log.config.as_ref()))
}

/// No policy and the policy `no` are one.
fn restart_of(host: &HostConfig) -> String {
    let name = host.restart_policy.as_ref().and_then(|policy| policy.name);
    match name {
        None | Some(RestartPolicyNameEnum::EMPTY) => "no".to_owned(),
        Some(name) => name.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests;
