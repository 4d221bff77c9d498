//! Specs in a repository: what is merged runs, and whatever else happens to the repository ends
//! nothing. With the real git program; how it comes over the network is in `transports`.

mod transports;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::rig::{Rig, class, session};

/// A rig whose specs are in a repository; with the class `legal` in place and no operator yet.
pub(super) fn rig(name: &str, more: &str) -> (Rig, Repo) {
    let rig = Rig::with(name, &format!("git: {{interval: 1s{more}}}"));
    let repo = Repo { at: rig.path("repo") };
    std::fs::create_dir(&repo.at).unwrap();
    repo.git(&["init", "-q", "-b", "main"]);
    repo.commit("deploy/specs/legal.yaml", Some(&class("legal", "")));
    rig.set("specs", &format!("git+file://{}#main:deploy/specs", repo.at.display()));
    (rig, repo)
}

pub(super) struct Repo {
    pub(super) at: PathBuf,
}

impl Repo {
    #[track_caller]
    fn git(&self, words: &[&str]) -> String {
        let out = Command::new("git")
            .arg("-C")
            .arg(&self.at)
            .args(["-c", "user.name=ann", "-c", "user.email=ann@x", "-c", "gpg.format=ssh"])
            .args(words)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(out.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Writes or removes a file and commits that; the commit's id.
    pub(super) fn commit(&self, file: &str, text: Option<&str>) -> String {
        self.stage(file, text);
        self.git(&["commit", "-q", "-m", "more"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// The same, signed with a key.
    fn sign(&self, file: &str, text: &str, key: &Path) -> String {
        self.stage(file, Some(text));
        let key = format!("user.signingkey={}.pub", key.display());
        self.git(&["-c", &key, "commit", "-q", "-S", "-m", "signed"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn stage(&self, file: &str, text: Option<&str>) {
        let path = self.at.join(file);
        match text {
            Some(text) => {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            None => std::fs::remove_file(path).unwrap(),
        }
        self.git(&["add", "-A"]);
    }
}

/// The repository's row of `docket get sources -o json`.
pub(super) fn origin(rig: &Rig) -> serde_json::Value {
    let rows: serde_json::Value =
        serde_json::from_str(&rig.ok(&["get", "sources", "-o", "json"])).unwrap();
    rows[0]["git"].clone()
}

/// Waits until the repository is in a state, and a commit is in force.
#[track_caller]
pub(super) fn followed(rig: &mut Rig, state: &str, revision: &str) -> serde_json::Value {
    rig.until(&format!("{revision} is in force, {state}"), |rig| {
        let origin = origin(rig);
        origin["state"] == state && origin["revision"] == revision
    });
    origin(rig)
}

pub(super) const ONE: &str = "deploy/specs/one.yaml";

#[test]
fn what_is_merged_runs_and_what_is_broken_or_away_ends_nothing() {
    let (mut rig, repo) = rig("git", "");
    let first = repo.commit(ONE, Some(&session("ann-one", "ann", "one", "")));
    rig.start();
    let view = rig.ready("ann-one");
    let log = std::fs::read_to_string(rig.path("operator.log")).unwrap();
    assert!(!log.contains("is not there yet"), "a first start is no fault: {log}");
    assert_eq!(view["status"]["sourceRevision"], *first);
    assert_eq!(view["status"]["source"], "one.yaml");
    assert!(rig.ok(&["describe", "ann-one"]).contains(&first));

    // An edit by a commit; a session that it does not touch is left as it is, and says the commit.
    let env = "  container: {env: {COLOR: red}}\n";
    let second = repo.commit("deploy/specs/two.yaml", Some(&session("ann-two", "ann", "two", env)));
    rig.ready("ann-two");
    let same =
        rig.see("says the commit", "ann-one", |view| view["status"]["sourceRevision"] == *second);
    assert_eq!(same["status"]["container"]["id"], view["status"]["container"]["id"]);
    let env = env.replace("red", "blue");
    let third = repo.commit("deploy/specs/two.yaml", Some(&session("ann-two", "ann", "two", &env)));
    rig.see("is made anew", "ann-two", |view| {
        view["status"]["container"]["attempt"] == 2 && view["status"]["sourceRevision"] == *third
    });

    // A commit of which a part is broken: nothing of it counts, the removal in it neither.
    repo.stage(ONE, None);
    let broken =
        repo.commit("deploy/specs/two.yaml", Some("kind: Session\nspec: {user: ann, cas: x}\n"));
    let told = followed(&mut rig, "Refused", &third);
    assert_eq!(told["newest"], *broken);
    let complaint = told["errors"][0].as_str().unwrap();
    assert!(complaint.starts_with("deploy/specs/two.yaml:"), "{complaint}");
    let table = rig.ok(&["get", "sources"]);
    assert!(table.contains("Refused") && table.contains(complaint), "{table}");
    assert_eq!(rig.containers().len(), 2);

    // The remote is away, also over a restart of the operator.
    std::fs::rename(&repo.at, rig.path("away")).unwrap();
    followed(&mut rig, "Unreachable", &third);
    rig.kill();
    rig.start();
    followed(&mut rig, "Unreachable", &third);
    rig.ready("ann-one");
    let there =
        rig.see("says the commit", "ann-one", |view| view["status"]["sourceRevision"] == *third);
    assert_eq!(there["status"]["container"]["id"], view["status"]["container"]["id"]);
    std::fs::rename(rig.path("away"), &repo.at).unwrap();
    followed(&mut rig, "Refused", &third);

    // What a good commit does not have any more ends.
    let last = repo.commit("deploy/specs/two.yaml", Some(&session("ann-two", "ann", "two", &env)));
    followed(&mut rig, "Current", &last);
    rig.gone("ann-one");
    rig.ready("ann-two");
    assert_eq!(rig.containers().len(), 1);
}

#[test]
fn only_signed_commits_run_and_a_branch_that_is_gone_holds_everything() {
    let (mut rig, repo) = rig("gitsign", ", verify: signers");
    let key = rig.path("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    let public = std::fs::read_to_string(rig.path("key.pub")).unwrap();
    std::fs::write(rig.path("signers"), format!("ann@x {public}")).unwrap();
    let text = session("ann-one", "ann", "one", "");
    let unsigned = repo.commit(ONE, Some(&text));
    rig.start();
    let told = followed(&mut rig, "Refused", "");
    assert_eq!(told["newest"], *unsigned);
    assert_eq!(rig.containers(), []);

    let signed = repo.sign("README.md", "signed\n", &key);
    followed(&mut rig, "Current", &signed);
    rig.ready("ann-one");

    repo.commit(ONE, None);
    followed(&mut rig, "Refused", &signed);
    repo.git(&["checkout", "-q", "-b", "other"]);
    repo.git(&["branch", "-q", "-D", "main"]);
    followed(&mut rig, "Missing", &signed);
    assert_eq!(rig.containers().len(), 1, "nothing ended");
    let table = rig.ok(&["get", "sources"]);
    assert!(table.contains("there is no branch `main`"), "{table}");
}
