//! Everything in a spec reaches the engine, and nothing may be left out silently.

use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ContainerConfig;

use super::*;
use crate::model::{ContainerPrefix, ContainerSpec, Installation, LogSpec, PullPolicy, Security};

fn identity() -> Identity {
    Identity {
        installation: Installation::parse("here").unwrap(),
        prefix: ContainerPrefix::parse("docket").unwrap(),
        bind: "127.0.0.1".parse().unwrap(),
    }
}

pub(in crate::docker) fn request() -> CreateRequest {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    CreateRequest {
        name: "docket-ann-1".to_owned(),
        image_id: "sha256:00".to_owned(),
        spec: ContainerSpec {
            image: "app:latest".to_owned(),
            pull_policy: PullPolicy::Never,
            command: words(&["/app"]),
            args: words(&["serve"]),
            env: BTreeMap::from([("B".into(), "2".into()), ("A".into(), "1".into())]),
            secrets: BTreeMap::new(),
            port: 3000,
            host_port: 0,
            resources: Resources { nano_cpus: 2_000_000_000, memory: 4 << 30, pids: 512 },
            security: Security {
                run_as: "1000:1000".to_owned(),
                cap_drop: words(&["ALL"]),
                cap_add: words(&["CHOWN"]),
                no_new_privileges: true,
                seccomp: Seccomp::RuntimeDefault,
                read_only_rootfs: true,
                docker_socket: false,
            },
            tmpfs: BTreeMap::from([("/tmp".into(), "rw,noexec,size=1g".into())]),
            mounts: Vec::new(),
            network: Network::Docket,
            init: true,
            stop_grace: Duration::from_millis(1500),
            labels: BTreeMap::new(),
            logs: LogSpec { max_size: 10 << 20, max_files: 3 },
        },
        host_port: Some(8001),
        mounts: vec![BindMount {
            source: PathBuf::from("/w/ann"),
            target: PathBuf::from("/opt/workspace"),
            read_only: false,
        }],
        labels: BTreeMap::from([("docket.dev/installation".into(), "here".into())]),
    }
}

/// What an honest engine would answer to an inspect.
fn made(body: &ContainerCreateBody) -> ContainerInspectResponse {
    ContainerInspectResponse {
        host_config: body.host_config.clone(),
        config: Some(ContainerConfig {
            user: body.user.clone(),
            labels: body.labels.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn everything_in_the_spec_reaches_the_engine() {
    let body = create_body(&request(), &identity(), None);
    let sent = serde_json::to_value(&body).unwrap();
    let at = |path: &str| sent.pointer(path).cloned().unwrap_or_default();
    assert_eq!(at("/Image"), "sha256:00");
    assert_eq!(at("/Entrypoint"), serde_json::json!(["/app"]));
    assert_eq!(at("/Cmd"), serde_json::json!(["serve"]));
    assert_eq!(at("/Env"), serde_json::json!(["A=1", "B=2"]));
    assert_eq!(at("/User"), "1000:1000");
    assert_eq!(at("/StopTimeout"), 2);
    assert_eq!(at("/Healthcheck/Test"), serde_json::json!(["NONE"]));
    assert_eq!(at("/Tty"), false);
    let host = |key: &str| at(&format!("/HostConfig/{key}"));
    assert_eq!((host("Memory"), host("MemorySwap")), ((4_u64 << 30).into(), (4_u64 << 30).into()));
    assert_eq!((host("NanoCpus"), host("PidsLimit")), (2_000_000_000.into(), 512.into()));
    assert_eq!(host("CapDrop"), serde_json::json!(["ALL"]));
    assert_eq!(host("CapAdd"), serde_json::json!(["CHOWN"]));
    assert_eq!(host("SecurityOpt"), serde_json::json!(["no-new-privileges"]));
    assert_eq!(host("ReadonlyRootfs"), true);
    assert_eq!(host("Init"), true);
    assert_eq!(host("Tmpfs"), serde_json::json!({"/tmp": "rw,noexec,size=1g"}));
    assert_eq!(host("RestartPolicy/Name"), "no");
    assert_eq!(host("LogConfig/Type"), "json-file");
    assert_eq!(host("LogConfig/Config/max-size"), (10 << 20).to_string());
    assert_eq!(host("LogConfig/Config/max-file"), "3");
    assert_eq!(host("NetworkMode"), "docket-here");
    let binding = serde_json::json!({"3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}]});
    assert_eq!(host("PortBindings"), binding);
    assert_eq!(host("Binds"), serde_json::Value::Null);
    assert_eq!(host("Mounts/0/Source"), "/w/ann");
    assert_eq!(host("Mounts/0/Target"), "/opt/workspace");
    assert_eq!(host("Mounts/0/Type"), "bind");
}

#[test]
fn a_seccomp_profile_is_sent_as_text_and_unconfined_only_when_said() {
    let mut request = request();
    request.spec.security.seccomp = Seccomp::Profile("/p.json".into());
    let profile = compact_profile(b"{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }").unwrap();
    let options = |request: &CreateRequest, profile| {
        create_body(request, &identity(), profile).host_config.unwrap().security_opt.unwrap()
    };
    let expected = "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}";
    assert_eq!(options(&request, Some(&profile)), ["no-new-privileges", expected]);
    request.spec.security.seccomp = Seccomp::Unconfined;
    assert_eq!(options(&request, None), ["no-new-privileges", "seccomp=unconfined"]);
    assert!(compact_profile(b"[]").is_err());
    assert!(compact_profile(b"{").is_err());
    assert!(compact_profile(&vec![b' '; PROFILE_MAX + 1]).is_err());
}

#[test]
fn an_honest_engine_drops_nothing() {
    let body = create_body(&request(), &identity(), None);
    assert_eq!(dropped(&body, &made(&body)), None);
    let mut newer = made(&body);
    let host = newer.host_config.as_mut().unwrap();
    host.cap_add = Some(vec!["CAP_CHOWN".to_owned()]);
    host.security_opt = Some(vec!["no-new-privileges:true".to_owned()]);
    host.restart_policy = None;
    assert_eq!(dropped(&body, &newer), None);
}

type Edit = fn(&mut HostConfig);

#[test]
fn each_setting_that_an_engine_drops_is_named() {
    let edits: &[(&str, Edit)] = &[
        ("Memory", |host| host.memory = Some(0)),
        ("MemorySwap", |host| host.memory_swap = Some(-1)),
        ("NanoCpus", |host| host.nano_cpus = None),
        ("PidsLimit", |host| host.pids_limit = None),
        ("CapDrop", |host| host.cap_drop = None),
        ("CapAdd", |host| host.cap_add = Some(vec!["SYS_ADMIN".to_owned()])),
        ("SecurityOpt", |host| host.security_opt = None),
        ("ReadonlyRootfs", |host| host.readonly_rootfs = Some(false)),
        ("Privileged", |host| host.privileged = Some(true)),
        ("Init", |host| host.init = None),
        ("PidMode", |host| host.pid_mode = Some("host".to_owned())),
        ("IpcMode", |host| host.ipc_mode = Some("host".to_owned())),
        ("Tmpfs", |host| host.tmpfs = None),
        ("Mounts", |host| host.mounts = None),
        ("Binds", |host| host.binds = Some(vec!["/:/host".to_owned()])),
        ("NetworkMode", |host| host.network_mode = Some("host".to_owned())),
        ("PortBindings", |host| host.port_bindings = None),
        ("RestartPolicy", |host| {
            host.restart_policy.as_mut().unwrap().name = Some(RestartPolicyNameEnum::ALWAYS);
        }),
        ("LogConfig", |host| host.log_config = None),
    ];
    let body = create_body(&request(), &identity(), None);
    for (name, edit) in edits {
        let mut made = made(&body);
        edit(made.host_config.as_mut().unwrap());
        let said = dropped(&body, &made).unwrap_or_default();
        assert!(said.starts_with(&format!("{name}:")), "{name}: {said}");
    }
    let mut other = made(&body);
    other.config.as_mut().unwrap().user = None;
    assert!(dropped(&body, &other).unwrap().starts_with("User:"));
    let mut bare = made(&body);
    bare.config.as_mut().unwrap().labels = None;
    assert!(dropped(&body, &bare).unwrap().starts_with("Labels:"));
}

#[test]
fn a_grace_of_part_of_a_second_is_a_whole_one() {
    assert_eq!(whole_seconds(Duration::ZERO), 0);
    assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
    assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
    assert_eq!(whole_seconds(Duration::MAX), i64::from(i32::MAX));
}
