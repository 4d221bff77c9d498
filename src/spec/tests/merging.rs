//! Merging, limits, bounds, expansion, fingerprint.
#![expect(clippy::needless_pass_by_value, reason = "an `expect!` is written where it is checked")]

use expect_test::{Expect, expect};

use crate::model::{Bounds, ClassObject, Network, Resolved, Scope, SessionObject};
use crate::spec::{Object, ObjectKind, fingerprint, parse_file, resolve, schema};

fn parse(text: &str) -> Vec<Object> {
    let parsed = parse_file("s.yaml", text.as_bytes());
    assert_eq!(parsed.complaints, [], "{text}");
    parsed.objects.into_iter().map(|located| located.object).collect()
}

fn session(spec: &str) -> SessionObject {
    let text = format!(
        "{{apiVersion: docket.dev/v1, kind: Session, spec: {{user: ann, case: one, {spec}}}}}"
    );
    match parse(&text).remove(0) {
        Object::Session(session) => session,
        Object::Class(_) => panic!("a class"),
    }
}

fn class(spec: &str) -> ClassObject {
    let text = format!(
        "{{apiVersion: docket.dev/v1, kind: SessionClass, metadata: {{name: legal}}, spec: {{{spec}}}}}"
    );
    match parse(&text).remove(0) {
        Object::Class(class) => class,
        Object::Session(_) => panic!("a session"),
    }
}

/// The defaults of the operator's configuration.
fn bounds() -> Bounds {
    Bounds {
        capabilities: ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
            .map(str::to_owned)
            .to_vec(),
        ports: (8001, 8999),
        ..Bounds::default()
    }
}

fn merged(of_session: &str, of_class: &str) -> Resolved {
    resolve(&session(of_session), &class(of_class), &bounds()).unwrap()
}

fn refused_by(of_session: &str, of_class: &str, bounds: &Bounds, expected: Expect) {
    let refusals = resolve(&session(of_session), &class(of_class), bounds).expect_err("is refused");
    let lines: Vec<String> =
        refusals.iter().map(|refusal| format!("{}: {}", refusal.reason, refusal.message)).collect();
    expected.assert_eq(&lines.join("\n"));
}

fn refused(of_session: &str, of_class: &str, expected: Expect) {
    refused_by(of_session, of_class, &bounds(), expected);
}

const IMAGE: &str = "container: {image: 'legal:1'}";

#[test]
#[expect(clippy::too_many_lines, reason = "the whole of a class, once")]
fn an_empty_class_has_the_promised_defaults() {
    expect![[r#"
        Resolved {
            user: UserName(
                "ann",
            ),
            case: CaseName(
                "one",
            ),
            class: ClassName(
                "legal",
            ),
            container: ContainerSpec {
                image: "legal:1",
                pull_policy: IfNotPresent,
                command: [],
                args: [],
                env: {
                    "CASE_ID": "one",
                    "USER_ID": "ann",
                    "WORKSPACE_BASE": "/opt/workspace",
                },
                secrets: {},
                port: 3000,
                host_port: 0,
                resources: Resources {
                    nano_cpus: 2000000000,
                    memory: 4294967296,
                    pids: 512,
                },
                security: Security {
                    run_as: "",
                    cap_drop: [
                        "ALL",
                    ],
                    cap_add: [
                        "CHOWN",
                        "DAC_OVERRIDE",
                        "FOWNER",
                        "SETGID",
                        "SETUID",
                    ],
                    no_new_privileges: true,
                    seccomp: RuntimeDefault,
                    read_only_rootfs: false,
                    docker_socket: false,
                },
                tmpfs: {
                    "/tmp": "rw,noexec,nosuid,size=1g",
                },
                mounts: [],
                network: Docket,
                init: true,
                stop_grace: 10s,
                labels: {},
                logs: LogSpec {
                    max_size: 10485760,
                    max_files: 3,
                },
            },
            health: HealthSpec {
                path: "/health",
                startup: 60s,
                interval: 10s,
                timeout: 2s,
                failures: 3,
            },
            restart: RestartSpec {
                policy: Always,
                initial_delay: 1s,
                max_delay: 60s,
                reset_after: 600s,
            },
            workspace: WorkspaceSpec {
                mount_path: "/opt/workspace",
                scope: Case,
                folders: [
                    "pleadings",
                    "motions",
                    "discovery",
                    "exhibits",
                    "correspondence",
                    "research",
                    "drafts",
                    "final",
                ],
                owner: "",
                quota: 10737418240,
                max_files: 1000000,
                max_file_size: 107374182400,
                max_depth: 256,
                files: FilesSpec {
                    eager_below: 1048576,
                    large: OnAccess,
                    prefetch: 0,
                    open_deadline: 60s,
                },
                sync_interval: 30s,
                sync_exclude: [],
            },
            lifetime: Lifetime {
                max_age: 0ns,
                idle_timeout: 0ns,
            },
            update: UpdateSpec {
                strategy: InPlaceOrRecreate,
                rollout: OnNextStart,
                max_concurrent: 2,
                on_failure: Rollback,
            },
        }
    "#]]
    .assert_debug_eq(&merged("", IMAGE));
}

#[test]
fn a_session_changes_what_it_may() {
    let resolved = merged(
        "container: {env: {B: s, C: s}, command: [run], args: [x], tmpfs: {/scratch: rw}, hostPort: 8100, \
           stopGracePeriod: 3s, resources: {memory: 8Gi, cpus: 4, pids: 1000}, image: 'legal:2', \
           security: {capDrop: [chown], capAdd: [CAP_CHOWN, SETUID], readOnlyRootfs: true}}, \
         health: {interval: 5s}, restart: {policy: Never}, lifetime: {maxAge: 8h}, \
         workspace: {folders: [in], files: {large: Stub}, sync: {exclude: ['*.tmp']}}",
        "container: {image: 'legal:1', env: {A: c, B: c}, args: [c1, c2]}, \
         health: {path: /z, startup: 5s}, workspace: {files: {prefetch: 1Mi}}",
    );
    let container = &resolved.container;
    expect![[r#"
        {
            "A": "c",
            "B": "s",
            "C": "s",
            "CASE_ID": "one",
            "USER_ID": "ann",
            "WORKSPACE_BASE": "/opt/workspace",
        }
    "#]]
    .assert_debug_eq(&container.env);
    assert_eq!(
        (container.command.as_slice(), container.args.as_slice()),
        (&["run".to_owned()][..], &["x".to_owned()][..])
    );
    assert_eq!(container.tmpfs.keys().collect::<Vec<_>>(), ["/scratch"]);
    assert_eq!((container.host_port, container.stop_grace.as_secs()), (8100, 3));
    assert_eq!(
        (container.resources.memory, container.resources.nano_cpus, container.resources.pids),
        (8 << 30, 4_000_000_000, 1000)
    );
    assert_eq!(container.image, "legal:2");
    assert_eq!(container.security.cap_drop, ["ALL", "CHOWN"]);
    assert_eq!(container.security.cap_add, ["SETUID"]);
    assert!(container.security.read_only_rootfs);
    assert_eq!(
        (
            resolved.health.path.as_str(),
            resolved.health.interval.as_secs(),
            resolved.health.startup.as_secs()
        ),
        ("/z", 5, 5)
    );
    assert_eq!(resolved.lifetime.max_age.as_secs(), 8 * 3600);
    assert_eq!(resolved.workspace.folders, ["in"]);
    assert_eq!(
        (resolved.workspace.files.prefetch, resolved.workspace.sync_exclude.as_slice()),
        (1 << 20, &["*.tmp".to_owned()][..])
    );
}

/// THREATS P1, the half that the class decides.
#[test]
fn p1_a_session_cannot_go_beyond_its_class() {
    refused(
        "container: {resources: {memory: 17Gi, cpus: 9, pids: 5000}}",
        IMAGE,
        expect![[r#"
        LimitExceeded: spec.container.resources.memory: 17Gi is over the class's limit of 16Gi
        LimitExceeded: spec.container.resources.cpus: 9 is over the class's limit of 8
        LimitExceeded: spec.container.resources.pids: 5000 is over the class's limit of 4096"#]],
    );
    refused(
        "container: {image: 'evil:1'}",
        "container: {image: 'a:1'}, limits: {images: ['a:*', 'b']}",
        expect![
            "LimitExceeded: spec.container.image: `evil:1` is not one of the class's limits.images: a:*, b"
        ],
    );
    refused(
        "container: {security: {noNewPrivileges: false}}",
        IMAGE,
        expect![
            "LimitExceeded: spec.container.security.noNewPrivileges: the class has it true, and a session may not loosen it"
        ],
    );
    refused(
        "container: {security: {readOnlyRootfs: false}}",
        "container: {image: a, security: {readOnlyRootfs: true}}",
        expect![
            "LimitExceeded: spec.container.security.readOnlyRootfs: the class has it true, and a session may not loosen it"
        ],
    );
    refused(
        "container: {security: {seccomp: Unconfined, dockerSocket: true, runAs: '0:0'}}",
        IMAGE,
        expect![[r#"
        LimitExceeded: spec.container.security.seccomp: only the class may set it
        LimitExceeded: spec.container.security.runAs: only the class may set it
        LimitExceeded: spec.container.security.dockerSocket: only the class may set it"#]],
    );
    refused(
        "container: {network: bridge, port: 80, init: false, pullPolicy: Always, labels: {a: b}}",
        IMAGE,
        expect![[r#"
        LimitExceeded: spec.container.labels: only the class may set it
        LimitExceeded: spec.container.port: only the class may set it
        LimitExceeded: spec.container.pullPolicy: only the class may set it
        LimitExceeded: spec.container.network: only the class may set it
        LimitExceeded: spec.container.init: only the class may set it"#]],
    );
    refused(
        "container: {mounts: [{source: /etc, target: /x}], secrets: {A: {file: /etc/shadow}}}",
        IMAGE,
        expect![[r#"
        LimitExceeded: spec.container.secrets: only the class may set it
        LimitExceeded: spec.container.mounts: only the class may set it"#]],
    );
    refused(
        "workspace: {mountPath: /x, scope: User, quota: 0, owner: '0:0', limits: {files: 1}}",
        IMAGE,
        expect![[r#"
        LimitExceeded: spec.workspace.mountPath: only the class may set it
        LimitExceeded: spec.workspace.owner: only the class may set it
        LimitExceeded: spec.workspace.limits: only the class may set it
        LimitExceeded: spec.workspace.scope: only the class may set it
        LimitExceeded: spec.workspace.quota: only the class may set it"#]],
    );
    refused(
        "container: {hostPort: 80}",
        IMAGE,
        expect!["NotAllowed: spec.container.hostPort: 80 is outside of ports 8001-8999"],
    );
    refused(
        "container: {security: {capAdd: [SYS_ADMIN]}}",
        IMAGE,
        expect![
            "NotAllowed: spec.container.security.capAdd: SYS_ADMIN is not in allow.capabilities"
        ],
    );
}

/// THREATS P1, the half that the operator decides: classes lie in the same directory.
#[test]
fn p1_a_class_cannot_go_beyond_what_the_operator_allows() {
    for (of_class, expected) in [
        (
            "image: a, security: {dockerSocket: true}",
            expect![
                "NotAllowed: spec.container.security.dockerSocket: true is root on the host, and allow.dockerSocket is false"
            ],
        ),
        (
            "image: a, security: {capAdd: [SYS_ADMIN, CHOWN]}",
            expect![
                "NotAllowed: spec.container.security.capAdd: SYS_ADMIN is not in allow.capabilities"
            ],
        ),
        (
            "image: a, security: {capAdd: [ALL]}",
            expect!["NotAllowed: spec.container.security.capAdd: ALL is not in allow.capabilities"],
        ),
        (
            "image: a, security: {seccomp: Unconfined}",
            expect![
                "NotAllowed: spec.container.security.seccomp: `Unconfined`, and allow.unconfinedSeccomp is false"
            ],
        ),
        (
            "image: a, security: {seccomp: /etc/docket/allow-all.json}",
            expect![
                "NotAllowed: spec.container.security.seccomp: /etc/docket/allow-all.json is not in allow.seccompProfiles"
            ],
        ),
        (
            "image: a, security: {capDrop: [CHOWN]}",
            expect![
                "NotAllowed: spec.container.security.capDrop: without `ALL`, and allow.loosenHardening is false"
            ],
        ),
        (
            "image: a, security: {noNewPrivileges: false}",
            expect![
                "NotAllowed: spec.container.security.noNewPrivileges: false, and allow.loosenHardening is false"
            ],
        ),
        (
            "image: a, mounts: [{source: /, target: /host}]",
            expect!["NotAllowed: spec.container.mounts: / is below none of allow.hostPaths"],
        ),
        (
            "image: a, mounts: [{source: /var/run/docker.sock, target: /s}]",
            expect![
                "NotAllowed: spec.container.mounts: /var/run/docker.sock is the engine's socket, and allow.dockerSocket is false"
            ],
        ),
        (
            "image: a, secrets: {A: {file: /etc/shadow}}",
            expect![
                "NotAllowed: spec.container.secrets: A: /etc/shadow is below none of allow.secretFiles"
            ],
        ),
        (
            "image: a, network: other",
            expect!["NotAllowed: spec.container.network: `other` is not in allow.networks"],
        ),
        (
            "image: a, hostPort: 22",
            expect!["NotAllowed: spec.container.hostPort: 22 is outside of ports 8001-8999"],
        ),
    ] {
        refused("", &format!("container: {{{of_class}}}"), expected);
    }
}

#[test]
fn what_the_operator_allows_is_taken() {
    let bounds = Bounds {
        docker_socket: true,
        host_paths: vec!["/srv/shared".into()],
        unconfined_seccomp: true,
        seccomp_profiles: vec!["/etc/docket/p.json".into()],
        secret_files: vec!["/etc/docket/secrets".into()],
        networks: vec!["proxy".to_owned()],
        capabilities: vec!["cap_net_raw".to_owned()],
        loosen_hardening: true,
        ports: (8001, 8999),
    };
    let of_class = "container: {image: a, network: proxy, hostPort: 8001, \
        mounts: [{source: /srv/shared, target: /a}, {source: /srv/shared/x, target: /b, readOnly: true}], \
        secrets: {T: {file: /etc/docket/secrets/$(USER_ID)/token}}, \
        security: {dockerSocket: true, seccomp: Unconfined, capDrop: [], capAdd: [NET_RAW], noNewPrivileges: false}}";
    let resolved = resolve(&session(""), &class(of_class), &bounds).unwrap();
    assert_eq!(resolved.container.secrets["T"].to_str(), Some("/etc/docket/secrets/ann/token"));
    assert_eq!(resolved.container.network, Network::Named("proxy".to_owned()));
    refused_by(
        "",
        "container: {image: a, mounts: [{source: /srv/sharedx, target: /a}], \
        secrets: {A: {file: /etc/docket/secrets}}}",
        &Bounds { loosen_hardening: true, ..bounds },
        expect![[r#"
            NotAllowed: spec.container.mounts: /srv/sharedx is below none of allow.hostPaths
            NotAllowed: spec.container.secrets: A: /etc/docket/secrets is below none of allow.secretFiles"#]],
    );
}

#[test]
fn what_does_not_fit_together_is_refused() {
    refused(
        "",
        "container: {image: a, network: none}",
        expect!["InvalidSpec: spec.container.network: `none` needs port 0, and port is 3000"],
    );
    refused(
        "",
        "container: {image: a, port: 0, hostPort: 8001}",
        expect!["InvalidSpec: spec.container.hostPort: 8001 is published for nothing, port is 0"],
    );
    refused(
        "",
        "container: {image: a, tmpfs: {/opt/workspace: rw}}",
        expect!["InvalidSpec: /opt/workspace: two things are mounted there"],
    );
    refused(
        "restart: {initialDelay: 5m}",
        IMAGE,
        expect!["InvalidSpec: spec.restart.maxDelay: shorter than initialDelay"],
    );
    refused(
        "workspace: {folders: [a, a]}",
        IMAGE,
        expect!["InvalidSpec: spec.workspace.folders: `a` stands there twice"],
    );
    merged("", "container: {image: a, network: none, port: 0}");
}

#[test]
fn a_class_is_not_bound_by_its_limits_but_its_sessions_and_defaults_are() {
    let own = merged("", "container: {image: a, resources: {memory: 32Gi}}");
    assert_eq!(own.container.resources.memory, 32 << 30);
    let small =
        merged("", "container: {image: a}, limits: {maxMemory: 256Mi, maxCpus: 500m, maxPids: 64}");
    let resources = small.container.resources;
    assert_eq!(
        (resources.memory, resources.nano_cpus, resources.pids),
        (256 << 20, 500_000_000, 64)
    );
    refused(
        "container: {resources: {memory: 257Mi}}",
        "container: {image: a}, limits: {maxMemory: 256Mi}",
        expect![
            "LimitExceeded: spec.container.resources.memory: 257Mi is over the class's limit of 256Mi"
        ],
    );
}

#[test]
fn a_session_may_repeat_what_the_class_says() {
    let resolved = merged(
        "container: {network: bridge, port: 80, security: {runAs: '1:1'}}, workspace: {scope: User}",
        "container: {image: a, network: bridge, port: 80, security: {runAs: '1:1'}}, workspace: {scope: User}",
    );
    assert_eq!(resolved.workspace.scope, Scope::User);
}

#[test]
fn variables_are_expanded_where_kubernetes_does() {
    let resolved = merged(
        "container: {env: {HOME: /home/$(USER_ID), X: $$(USER_ID), Y: $(NOPE), Z: $(HOME)/z}, args: [--dir, $(Z)]}",
        "container: {image: a, env: {WHERE: '$(WORKSPACE_BASE)/active/$(CASE_ID)'}, command: [sh, $(WHERE)]}",
    );
    let container = &resolved.container;
    expect![[r#"
        {
            "CASE_ID": "one",
            "HOME": "/home/ann",
            "USER_ID": "ann",
            "WHERE": "/opt/workspace/active/one",
            "WORKSPACE_BASE": "/opt/workspace",
            "X": "$(USER_ID)",
            "Y": "$(NOPE)",
            "Z": "/home/ann/z",
        }
    "#]]
    .assert_debug_eq(&container.env);
    assert_eq!(container.args, ["--dir", "/home/ann/z"]);
    assert_eq!(container.command, ["sh", "/opt/workspace/active/one"]);
}

/// These strings are on containers in the field: a change of one recreates all of them.
#[test]
fn fingerprints_never_change() {
    let image = "sha256:0123";
    let plain = merged("", IMAGE);
    expect!["v1-1bfbd55ca98e0c64"].assert_eq(&fingerprint(&plain, image, Some(8001)));
    let full = resolve(
        &session("container: {env: {A: b}, command: [x], args: [y, z], image: 'b:2'}"),
        &class(
            "container: {image: a, mounts: [{source: /srv/x, target: /x, readOnly: true}], network: bridge, \
             labels: {l: m}, security: {runAs: '1:1', seccomp: Unconfined, readOnlyRootfs: true}, \
             secrets: {T: {file: /s/t}}, logs: {maxSize: 1Mi}}, workspace: {scope: User, mountPath: /w}",
        ),
        &Bounds {
            host_paths: vec!["/srv".into()],
            unconfined_seccomp: true,
            secret_files: vec!["/s".into()],
            ..bounds()
        },
    )
    .unwrap();
    expect!["v1-f82c7fd1b3495875"].assert_eq(&fingerprint(&full, image, None));
}

#[test]
fn only_what_a_live_container_cannot_change_is_in_the_fingerprint() {
    let print = |of_session: &str| fingerprint(&merged(of_session, IMAGE), "sha256:1", Some(8001));
    let base = print("");
    for same in [
        "container: {resources: {memory: 1Gi, cpus: 1, pids: 9}, stopGracePeriod: 1s}",
        "health: {path: /x}, restart: {policy: Never}, lifetime: {maxAge: 1h}",
        "workspace: {sync: {interval: 1s}, folders: [a], files: {large: Stub}}, state: Stopped, suspend: true",
    ] {
        assert_eq!(print(same), base, "{same}");
    }
    for other in [
        "container: {env: {A: b}}",
        "container: {command: [a]}",
        "container: {args: [a]}",
        "container: {args: [a, b]}",
        "container: {args: ['ab']}",
        "container: {tmpfs: {}}",
        "container: {security: {readOnlyRootfs: true}}",
        "container: {security: {capAdd: []}}",
    ] {
        assert_ne!(print(other), base, "{other}");
    }
    assert_ne!(print("container: {args: [a, b]}"), print("container: {args: ['ab']}"));
    assert_ne!(fingerprint(&merged("", IMAGE), "sha256:2", Some(8001)), base);
    assert_ne!(fingerprint(&merged("", IMAGE), "sha256:1", Some(8002)), base);
}

#[test]
fn the_schema_is_closed_and_knows_the_fields() {
    let schema = schema(ObjectKind::SessionClass);
    assert_eq!(schema["title"], "SessionClass");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["kind"]["const"], "SessionClass");
    let container = &schema["$defs"]["Container"];
    assert_eq!(container["additionalProperties"], false);
    assert!(container["properties"]["hostPort"].is_object());
    let session = super::super::schema(ObjectKind::Session);
    assert_eq!(session["required"], serde_json::json!(["apiVersion", "kind", "spec"]));
}
