//! The Debian package's texts hold together with the binary. `packaging/deb --check` looks at a built package,
//! `packaging/try` installs one on a machine of its own; both need tools that a plain build does not.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn read(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn set<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_leaves_the_gate_alone_and_keeps_openat2() {
    let unit = read("debian/docket.service");
    assert_eq!(set(&unit, "KillMode"), ["process"], "a killed gate lets zeros through");
    assert_eq!(set(&unit, "Type"), ["notify"]);
    assert_eq!(set(&unit, "Restart"), ["always"]);
    assert!(set(&unit, "RestrictSUIDSGID").is_empty(), "it takes openat2 away");
    assert_eq!(
        set(&unit, "ReadWritePaths"),
        ["/run"],
        "secrets lie there, and no mount may be between"
    );
    assert!(
        set(&unit, "RuntimeDirectory").is_empty(),
        "it would take secrets of running containers away"
    );
    let filter = set(&unit, "SystemCallFilter").join(" ");
    assert!(filter.contains("fanotify_init") && filter.contains("fanotify_mark"), "{filter}");
    let bounded = set(&unit, "CapabilityBoundingSet").join(" ");
    for capability in bounded.split(' ').map(|name| name.trim_start_matches("CAP_")) {
        assert!(unit.contains(&format!("#   {capability}  ")), "{capability} has no reason");
    }
    let page = read("../docs/src/security.md");
    let told: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| CAP_")?.split(' ').next()).collect();
    // Killed last for memory it is by a setting of the unit.
    let here: Vec<&str> = told.iter().copied().filter(|name| *name != "SYS_RESOURCE").collect();
    assert_eq!(bounded.replace("CAP_", ""), here.join(" "));
    let install = read("../docs/src/install.md");
    for capability in here {
        assert!(
            install.contains(&format!("--cap-add {capability} ")),
            "{capability} in install.md"
        );
    }
}

/// What is lost with a gate that ends is what it exists for.
#[test]
fn the_gates_unit_keeps_its_marks_and_nothing_of_docket_ends_it() {
    let gate = read("debian/docket-gate.service");
    assert_eq!(set(&gate, "Type"), ["notify"]);
    assert_eq!(set(&gate, "Restart"), ["always"]);
    assert_eq!(set(&gate, "RestartPreventExitStatus"), ["0 2"], "told to end; none can be here");
    assert_eq!(
        set(&gate, "FileDescriptorStoreMax"),
        ["3"],
        "the group, that all is marked, one again"
    );
    assert_eq!(set(&gate, "RefuseManualStop"), ["yes"]);
    assert_eq!(set(&gate, "Before"), ["docker.service"], "so it ends after the last container");
    for coupled in ["PartOf", "BindsTo", "Requires", "StopPropagatedFrom", "WantedBy"] {
        assert!(set(&gate, coupled).is_empty(), "{coupled}");
    }
    let operator = read("debian/docket.service");
    for ordered in ["Wants", "After"] {
        assert!(set(&operator, ordered).join(" ").contains("docket-gate.service"), "{ordered}");
    }
    assert!(!operator.contains("Requires=") && !operator.contains("BindsTo="));
    for (unit, key, value) in [
        (&gate, "CapabilityBoundingSet", "CAP_SYS_ADMIN"),
        (&gate, "PrivateNetwork", "yes"),
        (&gate, "ReadWritePaths", "-/var/lib/docket/workspaces"),
    ] {
        assert_eq!(set(unit, key), [value], "{key}");
    }
    assert!(set(&gate, "RestrictSUIDSGID").is_empty(), "it takes openat2 away");
    assert!(read("debian/docket.yaml").contains("workspaces: /var/lib/docket/workspaces"));
    let manifest = include_str!("../../Cargo.toml");
    let asset = r#"["packaging/debian/docket-gate.service", "usr/lib/systemd/system/", "644"]"#;
    assert!(manifest.contains(asset) && manifest.contains(r#"unit-name = "docket""#));
}

#[test]
fn the_unit_runs_what_the_package_installs() {
    let unit = read("debian/docket.service");
    let started = set(&unit, "ExecStart").join("");
    assert_eq!(started, "/usr/bin/docket run --config /etc/docket/docket.yaml");
    let gate = read("debian/docket-gate.service");
    let started = set(&gate, "ExecStart").join("");
    assert_eq!(started, "/usr/bin/docket gate stand --config /etc/docket/docket.yaml");
    let manifest = include_str!("../../Cargo.toml");
    assert!(manifest.contains(r#"["target/release/docket", "usr/bin/", "755"]"#));
    assert!(manifest.contains(r#"conf-files = ["/etc/docket/docket.yaml"]"#));
}

#[test]
fn the_packaged_configuration_is_acceptable_and_names_the_packaged_directories() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("docket.yaml"), read("debian/docket.yaml")).unwrap();
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/classroom.yaml");
    let out = Command::new(env!("CARGO_BIN_EXE_docket"))
        .current_dir(place.path())
        .arg("validate")
        .arg(example)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let config = read("debian/docket.yaml");
    for dir in ["state", "workspaces", "objects"] {
        let path = format!("/var/lib/docket/{dir}");
        assert!(config.contains(&path) && read("debian/postinst").contains(&path), "{path}");
    }
}

#[test]
fn the_maintainers_scripts_can_be_read() {
    for script in ["debian/postinst", "debian/prerm", "debian/postrm"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging").join(script);
        let out = Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(read(script).contains("#DEBHELPER#"), "{script} leaves the unit's part out");
    }
    for script in ["deb", "try", "image/build"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging").join(script);
        let out = Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
