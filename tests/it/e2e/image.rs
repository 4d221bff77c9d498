//! docket in a container of its own, from the image that `packaging/image/build` makes and started as `docs/src/install.md`
//! says: it makes sessions, and stopping its container does not end the gate.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::docs::{blocks, page};

use super::gitops;
use super::lazy::{content, gate_pid, lazy};
use super::rig::{Rig, run, session};

/// The container and the image of the test, gone with it.
struct Contained {
    name: String,
    image: String,
}

impl Drop for Contained {
    fn drop(&mut self) {
        for words in [["rm", "-f", &self.name], ["rmi", "-f", &self.image]] {
            let _gone_already = Command::new("docker").args(words).output();
        }
    }
}

/// The words of `docker run` in the book, for this rig.
fn words(rig: &Rig, contained: &Contained) -> Vec<String> {
    let page = page("install.md");
    let block = blocks(&page).into_iter().find(|block| block.text.starts_with("docker run "));
    let text = block.expect("the command is in the book").text.replace("\\\n", " ");
    let line = text.lines().next().unwrap_or_default().to_owned();
    let root = rig.path("").display().to_string();
    let root = root.trim_end_matches('/');
    let mut words = Vec::new();
    for word in line.split_whitespace().skip(1) {
        words.push(match word {
            "docket" => contained.name.clone(),
            "docket:latest" => contained.image.clone(),
            "/etc/docket:/etc/docket:ro" => format!("{root}:{root}"),
            "/var/lib/docket:/var/lib/docket" => format!("{root}/objects:{root}/objects"),
            other => other.to_owned(),
        });
    }
    words.extend(["run", "--config"].map(str::to_owned));
    words.push(rig.path("docket.yaml").display().to_string());
    words
}

/// Builds the image, and starts it in a container of its own.
fn contain(rig: &Rig, contained: &Contained, more: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/image/build");
    let build = [more, &["--binary", env!("CARGO_BIN_EXE_docket"), &contained.image]].concat();
    {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _built = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        run(script.to_str().unwrap(), &build);
    }
    let words = words(rig, contained);
    run("docker", &words.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn specs_in_a_repository_need_the_image_with_git_and_that_without_says_so() {
    let (mut rig, repo) = gitops::rig("gitimage", "");
    let first = repo.commit(gitops::ONE, Some(&session("ann-one", "ann", "one", "")));
    let contained =
        Contained { name: rig.installation.clone(), image: format!("{}:test", rig.installation) };
    contain(&rig, &contained, &[]);
    rig.answers();
    rig.until("it is told that git is missing", |rig| {
        let origin = gitops::origin(rig);
        origin["state"] == "Unreachable" && origin["errors"].to_string().contains("install git")
    });
    run("docker", &["rm", "-f", &contained.name]);
    contain(&rig, &contained, &["--git"]);
    rig.answers();
    gitops::followed(&mut rig, "Current", &first);
    rig.ready("ann-one");
}

#[test]
fn docket_runs_in_a_container_and_its_gate_outlives_it() {
    let large = content(41, 3 << 20);
    let mut rig = lazy("contained", &[("large.bin".to_owned(), large.clone())], "");
    let contained =
        Contained { name: rig.installation.clone(), image: format!("{}:test", rig.installation) };
    contain(&rig, &contained, &[]);
    let words = words(&rig, &contained);
    rig.answers();
    rig.ready("ann-one");
    let guard = gate_pid(&rig).expect("there is a gate");
    let found = rig.docket(&["doctor", "-o", "json"]).stdout;
    assert!(found.contains("large files come when they are opened"), "{found}");
    assert!(found.contains("tenants reach neither each other nor the host"), "{found}");

    run("docker", &["stop", &contained.name]);
    let path = rig.workspace("ann", "one").join("large.bin");
    let reader = std::thread::spawn(move || std::fs::read(path).unwrap());
    run("docker", &["start", &contained.name]);
    assert!(reader.join().unwrap() == large, "what was opened meanwhile is not the content");
    assert_eq!(gate_pid(&rig), Some(guard), "the gate ended with the container");
    rig.answers();

    // The next version is another container.
    let before = rig.containers();
    run("docker", &["rm", "-f", &contained.name]);
    run("docker", &words.iter().map(String::as_str).collect::<Vec<_>>());
    rig.answers();
    rig.ready("ann-one");
    assert_eq!(rig.containers(), before);
    rig.remove("a.yaml");
    rig.gone("ann-one");
}
