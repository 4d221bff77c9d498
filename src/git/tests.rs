//! Decisions by values; the rest with the real git program and repositories in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use expect_test::{Expect, expect};
use tokio::sync::{mpsc, watch};

use super::decide::{self, Memory, Revision, Step};
use super::{Follower, Options, Remote};
use crate::model::{Bounds, Origin, OriginState};

fn id(digit: char) -> Revision {
    Revision::parse(&digit.to_string().repeat(40)).unwrap()
}

#[test]
fn what_is_done_follows_from_the_newest_commit() {
    let bounds = Bounds::default();
    let other = Bounds { docker_socket: true, ..Bounds::default() };
    let memory = Memory {
        current: Some(id('a')),
        fetched: Some(id('b')),
        refused: Some((id('b'), bounds.clone(), vec!["bad".to_owned()])),
    };
    let next =
        |newest: Option<char>, bounds| decide::next(&memory, newest.map(id).as_ref(), bounds);
    assert_eq!(next(None, &bounds), Step::Hold);
    assert_eq!(next(Some('a'), &bounds), Step::Rest, "also after another was refused");
    assert_eq!(next(Some('b'), &bounds), Step::Refuse(vec!["bad".to_owned()]));
    assert_eq!(next(Some('b'), &other), Step::Judge { fetch: false }, "within other bounds anew");
    assert_eq!(next(Some('c'), &bounds), Step::Judge { fetch: true });
}

#[test]
fn only_the_very_reference_counts() {
    let (a, b) = (id('a'), id('b'));
    let told = format!("{}\trefs/x/refs/heads/main\n{}\trefs/heads/main\n", a.as_str(), b.as_str());
    assert_eq!(decide::newest(&told, "refs/heads/main"), Some(b));
    assert_eq!(decide::newest(&told, "HEAD"), None);
    assert_eq!(decide::newest("nonsense\tHEAD\n", "HEAD"), None);
}

#[expect(clippy::needless_pass_by_value, reason = "as expect_test is used")]
fn check_tree(tree: &str, expected: Expect) {
    let remote = Remote::parse("git+file:///r#main:deploy").unwrap();
    let told = tree.lines().fold(String::new(), |text, line| text + line.trim() + "\0");
    let told = told.replace("ID", id('1').as_str()).replace("->", "\t");
    let files = match decide::spec_files(told.as_bytes(), &remote) {
        Ok(files) => files.iter().map(|f| format!("{} {}\n", f.path, f.size)).collect::<String>(),
        Err(wrong) => wrong.join("\n") + "\n",
    };
    expected.assert_eq(&files);
}

#[test]
fn only_spec_files_of_a_tree_are_read() {
    check_tree(
        "100644 blob ID 12->a.yaml
         100755 blob ID 7->sub/b.json
         100644 blob ID 99999999->video.mp4
         120000 blob ID 9->link-to-something
         160000 commit ID ->module
         100644 blob ID 1->.github/workflows/x.yaml
         100644 blob ID 1->../../etc/x.yaml
         100644 blob ID 1->.hidden.yaml",
        expect![[r#"
            a.yaml 12
            sub/b.json 7
        "#]],
    );
}

#[test]
fn a_tree_with_links_or_large_specs_is_refused() {
    check_tree(
        "120000 blob ID 9->a.yaml
         100644 blob ID 70000->b.yaml",
        expect![[r#"
            deploy/a.yaml: it is a link; put the file itself there
            deploy/b.yaml:1:1: the file has 70000 bytes, at most 64 KiB are read
        "#]],
    );
}

#[test]
fn contents_are_taken_only_as_they_were_asked_for() {
    let blob = |path: &str, size| decide::Blob {
        path: path.to_owned(),
        id: id('1').as_str().to_owned(),
        size,
    };
    let told = format!("{0} blob 3\na\nb\n{0} blob 0\n\n", id('1').as_str());
    let asked = [blob("x", 3), blob("y", 0)];
    let read = decide::contents(told.as_bytes(), &asked).unwrap();
    let expected =
        BTreeMap::from([("x".to_owned(), b"a\nb".to_vec()), ("y".to_owned(), Vec::new())]);
    assert_eq!(read, expected);
    assert_eq!(decide::contents(told.as_bytes(), &[blob("x", 3)]), None, "more than asked for");
    assert_eq!(decide::contents(told.as_bytes(), &[blob("x", 4), blob("y", 0)]), None);
    let missing = format!("{} missing\n", id('1').as_str());
    assert_eq!(decide::contents(missing.as_bytes(), &[blob("x", 3)]), None);
}

#[test]
fn waits_grow_with_failures_up_to_a_bound_and_are_spread() {
    let seconds = Duration::from_secs;
    let waits = |random| -> Vec<u64> {
        (0..8).map(|n| decide::wait(seconds(30), n, random).as_secs()).collect()
    };
    assert_eq!(waits(0), [24, 24, 48, 96, 192, 240, 240, 240]);
    assert_eq!(waits(255), [36, 36, 72, 144, 288, 300, 300, 300]);
    assert_eq!(decide::wait(seconds(3600), 9, 255), seconds(3600));
}

/// A repository, and docket's follower of it.
struct Rig {
    dir: tempfile::TempDir,
    told: watch::Receiver<Option<Origin>>,
    ask: mpsc::Sender<()>,
    _swapped: mpsc::Receiver<()>,
}

fn session(name: &str) -> String {
    format!(
        "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: {name}}}\n\
         spec: {{user: ann, case: {name}}}\n"
    )
}

#[track_caller]
fn git(at: &Path, words: &[&str]) -> String {
    let out = Command::new("git")
        .arg("-C")
        .arg(at)
        .args(["-c", "user.name=ann", "-c", "user.email=ann@x", "-c", "gpg.format=ssh"])
        .args(words)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(out.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Makes a repository with one session in `specs/`.
fn repository(dir: &Path) -> PathBuf {
    let at = dir.join("repo");
    fs::create_dir(&at).unwrap();
    git(&at, &["init", "-q", "-b", "main"]);
    commit(&at, "specs/a.yaml", &session("a"));
    at
}

/// Writes a file and commits it; the commit's id.
fn commit(at: &Path, file: &str, text: &str) -> String {
    let path = at.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    git(at, &["add", "-A"]);
    git(at, &["commit", "-q", "--allow-empty", "-m", "more"]);
    git(at, &["rev-parse", "HEAD"])
}

impl Rig {
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        repository(dir.path());
        Rig::following(dir, |_| ())
    }

    fn following(dir: tempfile::TempDir, adjust: impl FnOnce(&mut Options)) -> Rig {
        let url = format!("git+file://{}#main:specs", dir.path().join("repo").display());
        let mut options = Options {
            remote: Remote::parse(&url).unwrap(),
            cache: dir.path().join("state/git"),
            interval: Duration::from_hours(1),
            verify: None,
            credentials: None,
            ssh_key: None,
            known_hosts: None,
        };
        adjust(&mut options);
        let (_bounds, within) = watch::channel(Bounds::default());
        let (follower, told) = Follower::open(options, within).unwrap();
        let (ask, asked) = mpsc::channel(1);
        let (swap, swapped) = mpsc::channel(1);
        tokio::spawn(follower.follow(asked, swap));
        Rig { dir, told, ask, _swapped: swapped }
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// Waits until what is told is as wanted.
    async fn until(&self, wanted: impl Fn(&Origin) -> bool) -> Origin {
        let mut told = self.told.clone();
        let found = told.wait_for(|origin| origin.as_ref().is_some_and(&wanted));
        let found = tokio::time::timeout(Duration::from_secs(60), found).await;
        let found = found.unwrap_or_else(|late| panic!("{late}: {:?}", self.told.borrow()));
        found.unwrap().clone().unwrap()
    }

    /// Asks for a look, and waits until what is told is as wanted.
    async fn look(&self, wanted: impl Fn(&Origin) -> bool) -> Origin {
        self.ask.send(()).await.unwrap();
        self.until(wanted).await
    }

    /// The files in force.
    fn files(&self) -> Vec<String> {
        let current = self.dir.path().join("state/git/current");
        let mut names: Vec<String> = fs::read_dir(current)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_commit_comes_into_force_as_a_whole_or_not_at_all() {
    let rig = Rig::new();
    let first = git(&rig.repo(), &["rev-parse", "HEAD"]);
    let origin = rig.until(|origin| origin.state == OriginState::Current).await;
    assert_eq!((origin.revision.as_str(), origin.newest.as_str()), (&*first, &*first));
    assert_eq!(rig.files(), ["a.yaml"]);

    fs::write(rig.repo().join("specs/b.yaml"), session("b")).unwrap();
    let bad =
        commit(&rig.repo(), "specs/c.yaml", "kind: Session\nspec: {user: ann, case: c, imag: x}\n");
    let origin = rig.look(|origin| origin.state == OriginState::Refused).await;
    assert_eq!((origin.revision.as_str(), origin.newest.as_str()), (&*first, &*bad));
    assert!(origin.errors[0].starts_with("specs/c.yaml:"), "{origin:?}");
    assert_eq!(rig.files(), ["a.yaml"], "nothing of it is taken");

    let twice = commit(&rig.repo(), "specs/c.yaml", &session("b"));
    let origin = rig.look(|origin| origin.newest == twice).await;
    assert_eq!(origin.state, OriginState::Refused);
    assert!(origin.errors[0].contains("also in specs/b.yaml"), "{origin:?}");

    let good = commit(&rig.repo(), "specs/c.yaml", &session("c"));
    let origin = rig.look(|origin| origin.revision == good).await;
    assert_eq!((origin.state, origin.errors.len()), (OriginState::Current, 0));
    assert_eq!(rig.files(), ["a.yaml", "b.yaml", "c.yaml"]);

    git(&rig.repo(), &["rm", "-q", "specs/a.yaml"]);
    let fewer = commit(&rig.repo(), "notes.txt", "not a spec\n");
    rig.look(|origin| origin.revision == fewer).await;
    assert_eq!(rig.files(), ["b.yaml", "c.yaml"]);

    git(&rig.repo(), &["reset", "-q", "--hard", &first]);
    rig.look(|origin| origin.revision == first && origin.state == OriginState::Current).await;
    assert_eq!(rig.files(), ["a.yaml"], "a forced push is another revision");
}

#[tokio::test]
async fn what_is_in_force_stays_while_the_repository_or_its_branch_is_away() {
    let rig = Rig::new();
    let first = rig.until(|origin| origin.state == OriginState::Current).await.revision;
    let (repo, away) = (rig.repo(), rig.dir.path().join("away"));
    fs::rename(&repo, &away).unwrap();
    let origin = rig.look(|origin| origin.state == OriginState::Unreachable).await;
    assert_eq!((origin.revision.as_str(), origin.failures), (&*first, 1));
    let origin = rig.look(|origin| origin.failures == 2).await;
    assert!(origin.next_look > origin.answered_at, "{origin:?}");

    // A restart meanwhile goes on with what is here.
    let dir = rig.dir;
    drop((rig.ask, rig.told));
    let rig = Rig::following(dir, |_| ());
    let origin = rig.until(|origin| origin.state == OriginState::Unreachable).await;
    assert_eq!((origin.revision.as_str(), rig.files().len()), (&*first, 1));

    fs::rename(&away, &repo).unwrap();
    rig.look(|origin| origin.state == OriginState::Current && origin.failures == 0).await;
    git(&repo, &["checkout", "-q", "-b", "other"]);
    git(&repo, &["branch", "-q", "-D", "main"]);
    let origin = rig.look(|origin| origin.state == OriginState::Missing).await;
    assert_eq!(origin.errors, ["there is no branch `main`"]);
    assert_eq!((origin.revision.as_str(), rig.files().len()), (&*first, 1));
}

#[tokio::test]
async fn a_commit_without_the_directory_is_refused() {
    let rig = Rig::new();
    let first = rig.until(|origin| origin.state == OriginState::Current).await.revision;
    git(&rig.repo(), &["rm", "-q", "-r", "specs"]);
    commit(&rig.repo(), "README.md", "moved\n");
    let origin = rig.look(|origin| origin.state == OriginState::Refused).await;
    assert_eq!(origin.errors, ["specs: there is no such directory in the commit"]);
    assert_eq!(origin.revision, first);
}

#[tokio::test]
async fn of_another_repository_nothing_is_used() {
    let rig = Rig::new();
    rig.until(|origin| origin.state == OriginState::Current).await;
    let dir = rig.dir;
    drop((rig.ask, rig.told));
    let rig = Rig::following(dir, |options| {
        options.remote = Remote::parse("git+file:///nowhere/at/all#main").unwrap();
    });
    let origin = rig.until(|origin| origin.state == OriginState::Unreachable).await;
    assert_eq!(origin.revision, "");
    assert!(!rig.dir.path().join("state/git/current").exists());
}

#[tokio::test]
async fn nothing_of_a_repository_runs_and_filters_change_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    let attributes = "*.yaml filter=evil text eol=crlf ident\n";
    fs::write(repo.join(".gitattributes"), attributes).unwrap();
    let text = format!("# $Id$\n{}", session("a"));
    commit(&repo, "specs/a.yaml", &text);
    let rig = Rig::following(dir, |_| ());
    rig.until(|origin| origin.state == OriginState::Current).await;
    let read = fs::read_to_string(rig.dir.path().join("state/git/current/a.yaml")).unwrap();
    assert_eq!(read, text);
}

#[tokio::test]
async fn only_commits_of_those_who_may_sign_come_into_force() {
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    let key = |name: &str| {
        let path = dir.path().join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&path)
            .status();
        assert!(made.unwrap().success());
        path.display().to_string()
    };
    let (ann, eve) = (key("ann"), key("eve"));
    let sign = |key: &str, name: &str| {
        fs::write(repo.join("specs").join(format!("{name}.yaml")), session(name)).unwrap();
        git(&repo, &["add", "-A"]);
        let by = format!("user.signingkey={key}.pub");
        git(&repo, &["-c", &by, "commit", "-q", "-S", "-m", "signed"]);
        git(&repo, &["rev-parse", "HEAD"])
    };
    let public = fs::read_to_string(format!("{ann}.pub")).unwrap();
    let signers = dir.path().join("signers");
    fs::write(&signers, format!("ann@x {public}")).unwrap();
    let first = sign(&ann, "b");
    let rig = Rig::following(dir, |options| options.verify = Some(signers.clone()));
    rig.until(|origin| origin.revision == first).await;

    let unsigned = commit(&repo, "specs/c.yaml", &session("c"));
    let origin = rig.look(|origin| origin.newest == unsigned).await;
    assert_eq!((origin.state, origin.revision.as_str()), (OriginState::Refused, &*first));
    assert!(origin.errors[0].ends_with("it is not signed"), "{origin:?}");

    let foreign = sign(&eve, "d");
    let origin = rig.look(|origin| origin.newest == foreign).await;
    assert_eq!((origin.state, origin.revision.as_str()), (OriginState::Refused, &*first));
    assert!(origin.errors[0].contains("No principal matched"), "{origin:?}");

    // Who may sign is looked at again each time.
    let more = fs::read_to_string(format!("{eve}.pub")).unwrap();
    fs::write(&signers, format!("ann@x {public}eve@x {more}")).unwrap();
    rig.look(|origin| origin.revision == foreign).await;
}

/// The other kind: whoever is in a keyring of docket's own may sign.
#[tokio::test]
async fn a_keyring_of_docket_s_own_may_say_who_signs() {
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    let home = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let home = dir.path().join(name);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        home
    };
    let gpg = |home: &Path, words: &[&str]| {
        let mut command = Command::new("gpg");
        let out = command.arg("--homedir").arg(home).args(["--batch", "-q"]).args(words).output();
        let out = out.unwrap();
        assert!(out.status.success(), "gpg {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let (ann, eve, ring) = (home("ann"), home("eve"), home("ring"));
    for home in [&ann, &eve] {
        let words = ["--passphrase", "", "--quick-generate-key", "ann <ann@x>", "ed25519"];
        gpg(home, &words);
    }
    let public = dir.path().join("public");
    fs::write(&public, gpg(&ann, &["--export"])).unwrap();
    gpg(&ring, &["--import", &public.display().to_string()]);
    let foreign = sign_by(&repo, &eve, "b");
    let rig = Rig::following(dir, |options| options.verify = Some(ring.clone()));
    let origin = rig.until(|origin| origin.newest == foreign).await;
    assert_eq!((origin.state, origin.revision.as_str()), (OriginState::Refused, ""));
    let good = sign_by(&repo, &ann, "c");
    rig.look(|origin| origin.revision == good).await;
    for home in [&ann, &eve] {
        let _it_ends_anyway =
            Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).output();
    }
}

/// Commits a session, signed by the key of a GnuPG home.
fn sign_by(repo: &Path, home: &Path, name: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let program = home.join("program");
    let text = format!("#!/bin/sh\nexec gpg --homedir {} \"$@\"\n", home.display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(repo.join("specs").join(format!("{name}.yaml")), session(name)).unwrap();
    git(repo, &["add", "-A"]);
    let program = format!("gpg.program={}", program.display());
    git(repo, &["-c", "gpg.format=openpgp", "-c", &program, "commit", "-q", "-S", "-m", "signed"]);
    git(repo, &["rev-parse", "HEAD"])
}
