//! `examples/`, as they are: each gets ready on the real engine, with the sample image in the place of its own.

use std::fs;
use std::path::Path;

use crate::support::image::ensure_sample;

use super::rig::{Rig, condition, exchange, run};

/// Runs an example until the named sessions are ready; the images it names become the sample.
fn runs(file: &str, extra: &str, ready: &[&str], stopped: &[&str]) -> Rig {
    ensure_sample("");
    let name = file.trim_end_matches(".yaml");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
    let text = fs::read_to_string(path).unwrap();
    let mut rig = Rig::with(&format!("ex-{name}"), extra);
    rig.remove("legal.yaml");
    rig.write(file, &text);
    rig.start();
    for name in ready {
        rig.ready(name);
    }
    for name in stopped {
        let view = rig.see("is stopped", name, |view| view["status"]["phase"] == "Stopped");
        assert_eq!(condition(&view, "Ready").1, "Stopped", "{view}");
    }
    let said = rig.docket(&["get", "sources"]);
    assert!(
        said.code == 0 && said.stdout.lines().skip(1).all(|line| line.contains(" Ok ")),
        "{said:?}"
    );
    rig
}

#[test]
fn the_legal_workspace_runs() {
    let rig = runs("legal.yaml", "", &["alice-smith-v-jones"], &[]);
    assert!(rig.workspace("alice", "smith-v-jones").join("pleadings/.gitkeep").exists());
}

#[test]
fn the_agent_sandbox_runs_and_is_alone() {
    let rig = runs("agent-sandbox.yaml", "", &["agent-7", "agent-8"], &[]);
    let all = rig.containers();
    let (id, _, _) = all.iter().find(|(_, name, _)| name.contains("agent-7")).unwrap();
    let inspect = |what: &str| run("docker", &["inspect", "--format", what, id]);
    assert_eq!(inspect("{{.HostConfig.NetworkMode}}").trim(), "none");
    assert_eq!(inspect("{{.HostConfig.ReadonlyRootfs}}").trim(), "true");
    assert_eq!(inspect("{{.HostConfig.CapAdd}}").trim(), "[]");
}

#[test]
fn the_classroom_runs_and_the_absent_pupil_rests() {
    runs("classroom.yaml", "", &["ada", "grace"], &["alan"]);
}

#[test]
fn what_traefik_needs_is_on_the_container_and_the_host_reaches_it() {
    let rig = runs("traefik.yaml", "", &["carol"], &[]);
    let (id, _, _) = rig.containers().remove(0);
    let inspect = |what: &str| run("docker", &["inspect", "--format", what, &id]);
    let labels = inspect("{{json .Config.Labels}}");
    assert!(labels.contains(r#""traefik.enable":"true""#), "{labels}");
    assert!(labels.contains(r#""docket.dev/session":"carol""#), "{labels}");
    assert_eq!(inspect("{{json .Config.ExposedPorts}}").trim(), r#"{"3000/tcp":{}}"#);
    let address = inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    let (status, _) = exchange(&format!("{}:3000", address.trim()), "GET", "/health", "").unwrap();
    assert_eq!(status, 200);
}
