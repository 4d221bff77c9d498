//! Against a real file system, by what comes out of the receiver. Waits are bounded.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Options, spawn};
use crate::spec::{SourceFile, Sources};

/// Longest wait for anything.
const BOUND: Duration = Duration::from_secs(20);

struct Rig {
    _dir: tempfile::TempDir,
    root: PathBuf,
    told: mpsc::Receiver<Sources>,
    ask: mpsc::Sender<()>,
    last: Option<Sources>,
    runtime: tokio::runtime::Runtime,
}

fn session(name: &str) -> String {
    format!(
        "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: {name}}}\n\
         spec: {{user: ann, case: {name}}}\n"
    )
}

impl Rig {
    fn new(prepare: impl FnOnce(&Path)) -> Rig {
        Rig::with(prepare, false)
    }

    fn with(prepare: impl FnOnce(&Path), writable: bool) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("specs");
        prepare(&root);
        let (told, ask) = spawn(Options {
            root: root.clone(),
            writable,
            marker: Some(dir.path().join("marker")),
            revisions: false,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Rig { _dir: dir, root, told, ask, last: None, runtime }
    }

    fn empty() -> Rig {
        let mut rig = Rig::new(|root| fs::create_dir(root).unwrap());
        rig.wait(|sources| sources.trouble.is_none() && sources.files.is_empty());
        rig
    }

    /// The next listing that is told.
    fn next(&mut self) -> Sources {
        let next =
            self.runtime.block_on(async { tokio::time::timeout(BOUND, self.told.recv()).await });
        let next = next.unwrap_or_else(|_| panic!("nothing new after {:?}", self.last));
        next.expect("the watcher lives")
    }

    /// Waits until a listing is as wanted.
    fn wait(&mut self, wanted: impl Fn(&Sources) -> bool) -> Sources {
        loop {
            if let Some(sources) = self.last.as_ref().filter(|sources| wanted(sources)) {
                return sources.clone();
            }
            self.last = Some(self.next());
        }
    }

    /// Waits until the sessions listed are these.
    fn wait_for(&mut self, names: &[&str]) -> Sources {
        self.wait(|sources| sources.trouble.is_none() && sessions(sources) == names)
    }

    /// Writes a file elsewhere and renames it in.
    fn rename_in(&self, name: &str, text: &str) {
        let half = self.root.join(".half");
        fs::write(&half, text).unwrap();
        fs::rename(half, self.root.join(name)).unwrap();
    }
}

fn sessions(sources: &Sources) -> Vec<String> {
    let mut names = Vec::new();
    for file in sources.files.values() {
        if let SourceFile::Parsed { objects, .. } = file {
            names.extend(objects.iter().map(|object| super::key(object).1));
        }
    }
    names.sort();
    names
}

#[test]
fn a_file_renamed_in_is_told_at_once() {
    let mut rig = Rig::empty();
    let mut names: Vec<String> = Vec::new();
    let times = (0..5).map(|n| {
        names.push(format!("s{n}"));
        let began = Instant::now();
        rig.rename_in(&format!("s{n}.yaml"), &session(&format!("s{n}")));
        rig.wait(|sources| sessions(sources) == names);
        began.elapsed()
    });
    let best = times.min().unwrap();
    println!("a renamed file was told after {best:?}");
    assert!(best < super::settle::SETTLE / 2, "took {best:?}");
}

#[test]
fn a_file_closed_from_writing_is_told_and_edits_too() {
    let mut rig = Rig::empty();
    fs::write(rig.root.join("a.yml"), session("a")).unwrap();
    rig.wait_for(&["a"]);
    fs::write(rig.root.join("a.yml"), session("b")).unwrap();
    rig.wait_for(&["b"]);
    fs::write(rig.root.join("a.yml"), "nonsense").unwrap();
    let sources =
        rig.wait(|sources| matches!(sources.files.get("a.yml").unwrap(), SourceFile::Invalid(_)));
    let SourceFile::Invalid(errors) = sources.files.get("a.yml").unwrap() else {
        panic!("{sources:?}")
    };
    assert!(errors[0].starts_with("a.yml:1:1: "), "{errors:?}");
}

#[test]
fn what_is_still_being_written_is_not_taken() {
    use std::io::Write as _;
    let mut rig = Rig::empty();
    let mut file = fs::File::create(rig.root.join("a.yaml")).unwrap();
    let text = session("a");
    let (head, tail) = text.split_at(text.len() - 20);
    file.write_all(head.as_bytes()).unwrap();
    // Something else is told meanwhile, and the half file is not in it.
    rig.rename_in("b.yaml", &session("b"));
    let sources = rig.wait_for(&["b"]);
    assert!(!matches!(sources.files.get("a.yaml"), Some(SourceFile::Parsed { .. })));
    file.write_all(tail.as_bytes()).unwrap();
    drop(file);
    rig.wait_for(&["a", "b"]);
}

#[test]
fn names_that_editors_leave_are_not_looked_at() {
    let mut rig = Rig::empty();
    for name in [".a.yaml", "a.yaml~", ".a.yaml.swp", "a.yaml.tmp", "a.txt"] {
        fs::write(rig.root.join(name), session("no")).unwrap();
    }
    fs::write(rig.root.join("z.json"), "{\"kind\":\"Session\"}").unwrap();
    let sources = rig.wait(|sources| !sources.files.is_empty());
    assert_eq!(sources.files.keys().collect::<Vec<_>>(), ["z.json"]);
}

#[test]
fn sub_directories_are_listed_though_their_files_came_before_the_watch() {
    let mut rig = Rig::empty();
    fs::create_dir_all(rig.root.join("x/y")).unwrap();
    for n in 0..50 {
        fs::write(rig.root.join(format!("x/y/s{n:02}.yaml")), session(&format!("s{n:02}")))
            .unwrap();
    }
    let sources = rig.wait(|sources| sessions(sources).len() == 50);
    assert!(sources.files.contains_key("x/y/s00.yaml"));
    fs::remove_dir_all(rig.root.join("x")).unwrap();
    rig.wait_for(&[]);
}

#[test]
fn a_vanished_file_counts_after_two_seconds() {
    let mut rig = Rig::empty();
    rig.rename_in("a.yaml", &session("a"));
    rig.wait_for(&["a"]);
    let began = Instant::now();
    fs::remove_file(rig.root.join("a.yaml")).unwrap();
    rig.wait_for(&[]);
    assert!(began.elapsed() >= super::settle::VANISH);
}

#[test]
fn a_renamed_file_is_not_there_twice() {
    let mut rig = Rig::empty();
    rig.rename_in("a.yaml", &session("a"));
    rig.wait_for(&["a"]);
    fs::rename(rig.root.join("a.yaml"), rig.root.join("b.yaml")).unwrap();
    loop {
        let sources = rig.next();
        assert_eq!(sessions(&sources), ["a"], "{sources:?}");
        if !sources.files.contains_key("a.yaml") {
            return;
        }
    }
}

#[test]
fn a_directory_that_goes_holds_and_comes_back() {
    let mut rig = Rig::empty();
    rig.rename_in("a.yaml", &session("a"));
    rig.wait_for(&["a"]);
    let away = rig.root.with_extension("away");
    fs::rename(&rig.root, &away).unwrap();
    rig.wait(|sources| sources.trouble.is_some());
    // Another one, empty: nothing is concluded.
    fs::create_dir(&rig.root).unwrap();
    let empty = |sources: &Sources| sources.trouble.as_ref().is_some_and(|t| t.contains("empty"));
    rig.wait(empty);
    // With a spec in it, it is the directory from now on.
    rig.rename_in("b.yaml", &session("b"));
    rig.wait(|sources| sources.trouble.is_none() && sessions(sources).contains(&"b".to_owned()));
    rig.wait_for(&["b"]);
    // And it is watched: what comes is told at once.
    rig.rename_in("c.yaml", &session("c"));
    rig.wait_for(&["b", "c"]);
}

#[test]
fn a_directory_that_is_not_there_yet_is_trouble_until_it_is() {
    let mut rig = Rig::new(|_| ());
    rig.wait(|sources| sources.trouble.is_some());
    fs::create_dir(&rig.root).unwrap();
    rig.wait(|sources| sources.trouble.is_none());
    rig.rename_in("a.yaml", &session("a"));
    rig.wait_for(&["a"]);
}

#[test]
fn an_unmounted_directory_is_known_over_a_restart() {
    let mut rig = Rig::new(|root| {
        fs::create_dir(root).unwrap();
        fs::write(root.with_file_name("marker"), "1 2 3\n").unwrap();
    });
    let sources = rig.wait(|sources| sources.trouble.is_some());
    assert!(sources.trouble.unwrap().contains("another directory than before"));
    rig.rename_in("a.yaml", &session("a"));
    rig.wait_for(&["a"]);
    let marker = fs::read_to_string(rig.root.with_file_name("marker")).unwrap();
    assert_ne!(marker, "1 2 3\n");
}

#[test]
fn files_that_are_there_at_the_start_are_told_or_waited_for() {
    let mut rig = Rig::new(|root| {
        fs::create_dir(root).unwrap();
        fs::write(root.join("a.yaml"), session("a")).unwrap();
    });
    // Just written: not read before it settled, and not absent either.
    let first = rig.wait(|sources| !sources.files.is_empty());
    assert!(first.files.contains_key("a.yaml"));
    rig.wait_for(&["a"]);
}

#[test]
fn a_config_map_is_swapped_as_kubernetes_does() {
    let mut rig = Rig::new(|root| {
        fs::create_dir_all(root.join("..1")).unwrap();
        fs::write(root.join("..1/a.yaml"), session("a")).unwrap();
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    });
    rig.wait_for(&["a"]);
    fs::create_dir(rig.root.join("..2")).unwrap();
    fs::write(rig.root.join("..2/a.yaml"), session("b")).unwrap();
    symlink("..2", rig.root.join("..data_tmp")).unwrap();
    fs::rename(rig.root.join("..data_tmp"), rig.root.join("..data")).unwrap();
    fs::remove_dir_all(rig.root.join("..1")).unwrap();
    rig.wait_for(&["b"]);
}

#[test]
fn links_that_lead_outside_and_what_is_no_file_are_not_read() {
    let mut rig = Rig::empty();
    let outside = rig.root.with_file_name("outside.yaml");
    fs::write(&outside, session("outside")).unwrap();
    symlink(&outside, rig.root.join("absolute.yaml")).unwrap();
    symlink("../outside.yaml", rig.root.join("up.yaml")).unwrap();
    symlink("/", rig.root.join("root")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        rig.root.join("fifo.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    rig.rename_in("good.yaml", &session("good"));
    let sources = rig.wait(|sources| sources.files.keys().count() == 4);
    assert_eq!(sessions(&sources), ["good"]);
    for name in ["absolute.yaml", "up.yaml", "fifo.yaml"] {
        assert!(matches!(sources.files.get(name).unwrap(), SourceFile::Unreadable(_)), "{name}");
    }
}

#[test]
fn l1_specs_that_others_can_write_are_not_taken() {
    let mut rig = Rig::empty();
    rig.rename_in("a.yaml", &session("a"));
    rig.wait_for(&["a"]);
    fs::set_permissions(rig.root.join("a.yaml"), fs::Permissions::from_mode(0o666)).unwrap();
    rig.wait(|sources| matches!(sources.files.get("a.yaml"), Some(SourceFile::Unreadable(_))));
    fs::set_permissions(&rig.root, fs::Permissions::from_mode(0o777)).unwrap();
    rig.ask.blocking_send(()).unwrap();
    let sources = rig.wait(|sources| sources.trouble.is_some());
    assert!(sources.trouble.unwrap().contains("chmod go-w"));
}

#[test]
fn l1_specs_that_others_can_write_are_taken_where_the_operator_says_so() {
    let prepare = |root: &Path| {
        fs::create_dir(root).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(0o777)).unwrap();
    };
    let mut refused = Rig::new(prepare);
    refused.rename_in("a.yaml", &session("a"));
    refused.wait(|sources| sources.trouble.is_some() && sources.files.is_empty());
    let mut taken = Rig::with(prepare, true);
    taken.rename_in("a.yaml", &session("a"));
    taken.wait_for(&["a"]);
}

/// More events than the kernel keeps (16,384), among many directories and a link to everything.
#[test]
fn t11_a_flood_of_events_loses_no_change_and_no_link_is_watched() {
    let mut rig = Rig::new(|root| {
        fs::create_dir(root).unwrap();
        symlink("/", root.join("everything")).unwrap();
        for n in 0..500 {
            fs::create_dir(root.join(format!("d{n}"))).unwrap();
        }
        fs::write(root.join("a.yaml"), session("a")).unwrap();
    });
    rig.wait_for(&["a"]);
    let watched = watches(&rig.root);
    assert!((1..=501).contains(&watched), "{watched} directories are watched");
    for round in 0..15_000 {
        let noise = rig.root.join(format!("d{}/noise", round % 500));
        fs::write(&noise, "").unwrap();
        fs::remove_file(&noise).unwrap();
    }
    fs::remove_file(rig.root.join("a.yaml")).unwrap();
    rig.rename_in("d499/b.yaml", &session("b"));
    rig.wait_for(&["b"]);
}

/// How many inotify watches the descriptor has that watches this root.
fn watches(root: &Path) -> usize {
    use std::os::unix::fs::MetadataExt as _;
    let top = fs::metadata(root).unwrap().ino();
    let infos = fs::read_dir("/proc/self/fdinfo")
        .unwrap()
        .filter_map(|info| fs::read_to_string(info.ok()?.path()).ok());
    let watched = infos.map(|info| -> Vec<u64> {
        let lines = info.lines().filter(|line| line.starts_with("inotify "));
        lines
            .filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("ino:")))
            .filter_map(|hex| u64::from_str_radix(hex, 16).ok())
            .collect()
    });
    watched.filter(|watched| watched.contains(&top)).map(|watched| watched.len()).max().unwrap_or(0)
}

/// PERF: many files are listed and told without each being parsed anew.
#[test]
fn a_thousand_files_are_told_and_one_more_at_once() {
    let mut rig = Rig::new(|root| {
        fs::create_dir(root).unwrap();
        for n in 0..1000 {
            fs::write(root.join(format!("s{n}.yaml")), session(&format!("s{n}"))).unwrap();
        }
    });
    rig.wait(|sources| sessions(sources).len() == 1000);
    let began = Instant::now();
    rig.rename_in("one-more.yaml", &session("one-more"));
    rig.wait(|sources| sources.files.contains_key("one-more.yaml"));
    println!("one more among a thousand was told after {:?}", began.elapsed());
}

#[test]
fn a_file_that_is_too_large_is_told_and_not_read() {
    let mut rig = Rig::empty();
    rig.rename_in("a.yaml", &"#".repeat(70_000));
    let sources = rig.wait(|sources| !sources.files.is_empty());
    let want = "a.yaml:1:1: the file has 70000 bytes, at most 64 KiB are read";
    assert_eq!(sources.files.get("a.yaml"), Some(&SourceFile::Invalid(vec![want.to_owned()])));
}

/// A revision of a repository stands behind a link that moves.
#[test]
fn another_revision_is_told_as_a_whole_and_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let make = |revision: &str, names: &[&str]| {
        fs::create_dir_all(dir.path().join(revision).join("sub")).unwrap();
        for name in names {
            fs::write(dir.path().join(revision).join(format!("{name}.yaml")), session(name))
                .unwrap();
        }
        let half = dir.path().join("half");
        symlink(revision, &half).unwrap();
        fs::rename(half, dir.path().join("current")).unwrap();
    };
    let (told, ask) = spawn(Options {
        root: dir.path().join("current"),
        writable: false,
        marker: None,
        revisions: true,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let root = dir.path().join("current");
    let mut rig = Rig { _dir: tempfile::tempdir().unwrap(), root, told, ask, last: None, runtime };
    rig.wait(|sources| sources.trouble.as_ref().is_some_and(|why| why.contains("no revision")));
    for (revision, names) in
        [("r1", &["a", "b", "c"][..]), ("r2", &["b", "d"][..]), ("r3", &[][..]), ("r4", &["a"][..])]
    {
        make(revision, names);
        rig.ask.blocking_send(()).unwrap();
        let sources = loop {
            let sources = rig.next();
            if sources.revision == revision {
                break sources;
            }
        };
        // The first listing of it is all of it, and nothing of the one before.
        assert_eq!(
            (sessions(&sources), sources.trouble),
            (names.iter().map(|n| (*n).to_owned()).collect(), None)
        );
    }
}
