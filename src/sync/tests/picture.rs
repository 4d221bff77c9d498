//! The three-way diff in pictures. A world is lines of `base|here|there PATH WHAT`: `base` is the
//! last commit, `here` the workspace, `there` the store; WHAT is a content's word, `lazy WORD`
//! (known, not fetched), `dir`, `link TARGET`, `placeholder`, `fifo`, `unreadable`.

use expect_test::{Expect, expect};

use crate::model::{
    Base, BaseEntry, LocalEntry, LocalKind, ManifestEntry, RelPath, Remote, Scan, SkipReason,
    Stamp, Timestamp, Tree, UserName,
};
use crate::sync::{Context, diff, stub_text, sum};

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A file's stamp; `time` in its word after `#` makes an older or newer one.
fn stamp(word: &str) -> Stamp {
    let (content, time) = word.split_once('#').unwrap_or((word, "100"));
    let mtime_ns = time.parse().unwrap();
    Stamp { ino: 1, size: content.len() as u64, mtime_ns, ctime_ns: 5 }
}

fn content(word: &str) -> &str {
    word.split('#').next().unwrap()
}

struct World {
    base: Option<Base>,
    scan: Scan,
    remote: Remote,
}

fn world(text: &str) -> World {
    let mut world = World { base: None, scan: Scan::default(), remote: Remote::default() };
    world.remote.etag = Some("e".to_owned());
    let mut tree = Tree::default();
    let mut tree_known = true;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["base"] => world.base = Some(Base::default()),
            ["there", "no-tree"] => tree_known = false,
            ["base", at, ref what @ ..] => {
                let base = world.base.get_or_insert_default();
                match what {
                    ["dir"] => drop(base.tree.directories.insert(path(at), 0o755)),
                    ["link", to] => {
                        base.tree.symlinks.insert(path(at), (*to).to_owned());
                    }
                    ["lazy", word] => drop(base.files.insert(path(at), entry(at, word, false))),
                    ["placed", word] => {
                        let placed = BaseEntry { placed: true, ..entry(at, word, false) };
                        base.files.insert(path(at), placed);
                    }
                    [word] => drop(base.files.insert(path(at), entry(at, word, true))),
                    _ => panic!("{line}"),
                }
            }
            ["here", at, ref what @ ..] => here(&mut world.scan, at, what),
            ["there", at, ref what @ ..] => match what {
                ["dir"] => drop(tree.directories.insert(path(at), 0o755)),
                ["dir", mode] => {
                    tree.directories.insert(path(at), u32::from_str_radix(mode, 8).unwrap());
                }
                ["link", to] => drop(tree.symlinks.insert(path(at), (*to).to_owned())),
                [word] => drop(world.remote.files.insert(path(at), row(at, word))),
                _ => panic!("{line}"),
            },
            _ => panic!("{line}"),
        }
    }
    world.remote.tree = tree_known.then_some(tree);
    world
}

fn entry(at: &str, word: &str, fetched: bool) -> BaseEntry {
    let row = row(at, word);
    BaseEntry {
        sha256: row.sha256,
        size: content(word).len() as u64,
        mode: 0o644,
        mtime_ns: stamp(word).mtime_ns,
        storage_key: row.storage_key,
        stamp: fetched.then(|| stamp(word)),
        placed: false,
    }
}

fn row(at: &str, word: &str) -> ManifestEntry {
    ManifestEntry {
        sha256: Some(sum(content(word).as_bytes())),
        size: Some(content(word).len() as u64),
        mode: Some(0o644),
        mtime_ns: Some(stamp(word).mtime_ns),
        storage_key: format!("files/{at}@{}", content(word)),
    }
}

fn here(scan: &mut Scan, at: &str, what: &[&str]) {
    let kind = match what {
        ["dir", ..] => LocalKind::Directory,
        ["link", to] => LocalKind::Symlink((*to).to_owned()),
        ["placeholder", word, more @ ..] => {
            let (of, altered) = match more {
                [] => (at, false),
                ["of", of] => (*of, false),
                ["altered"] => (at, true),
                _ => panic!("{what:?}"),
            };
            let row = ManifestEntry { mode: None, ..row(of, word) };
            LocalKind::Placeholder { row: Some(row), altered }
        }
        ["fifo"] => return drop(scan.skipped.insert(path(at), SkipReason::Special)),
        ["unreadable"] => {
            return drop(scan.skipped.insert(path(at), SkipReason::Unreadable("EIO".into())));
        }
        ["stub", word] => {
            let of = at.strip_suffix(".stub").unwrap();
            let text = stub_text(&path(of), word.len() as u64, &row(of, word).storage_key);
            LocalKind::File { sha256: Some(sum(text.as_bytes())), stamp: stamp("stub") }
        }
        [word] => {
            LocalKind::File { sha256: Some(sum(content(word).as_bytes())), stamp: stamp(word) }
        }
        _ => panic!("{what:?}"),
    };
    let mode = match what {
        ["dir", mode] => u32::from_str_radix(mode, 8).unwrap(),
        ["dir"] => 0o755,
        _ => 0o644,
    };
    scan.entries.insert(path(at), LocalEntry { kind, mode });
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn check(text: &str, expect: Expect) {
    check_as(true, text, &expect);
}

/// `stubs`: what is lazy is absent here; else a placeholder stands for it.
fn check_as(stubs: bool, text: &str, expect: &Expect) {
    let world = world(text);
    let user = UserName::parse("ann").unwrap();
    let context = Context {
        user: &user,
        now: Timestamp::from_timestamp(1_795_464_250, 0).unwrap(),
        lazy: &|size| size >= 10,
        excluded: &|path| path.as_bytes().ends_with(b".tmp"),
        stubs,
    };
    let said = match diff(world.base.as_ref(), &world.scan, &world.remote, &context) {
        Ok(plan) => plan.to_string(),
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&said);
}

#[test]
fn nothing_changed_and_nothing_happens() {
    check(
        "base a one
         here a one
         there a one",
        expect![""],
    );
}

#[test]
fn what_changed_on_one_side_goes_to_the_other() {
    check(
        "base edited-here one
         here edited-here two
         there edited-here one
         base edited-there one
         here edited-there one
         there edited-there two
         here new-here x
         there new-there x
         base gone-here one
         there gone-here one
         base gone-there one
         here gone-there one",
        expect![[r#"
            upload `edited-here` (3 bytes)
            replace `edited-there` from files/edited-there@two
            drop `gone-here` from the manifest
            remove `gone-there` here
            upload `new-here` (1 bytes)
            fetch `new-there` from files/new-there@x
        "#]],
    );
}

#[test]
fn both_changed_and_both_are_kept() {
    check(
        "base report.final.pdf one
         here report.final.pdf two
         there report.final.pdf three",
        expect![[r#"
            upload `report.final (conflict ann 2026-11-23T20-04-10Z).pdf` (3 bytes) from `report.final.pdf`
            move `report.final.pdf` aside to `report.final (conflict ann 2026-11-23T20-04-10Z).pdf`
        "#]],
    );
}

#[test]
fn both_changed_to_the_same_and_are_agreed() {
    check(
        "base a one
         here a two
         there a two",
        expect![""],
    );
}

#[test]
fn an_edit_wins_over_a_deletion() {
    check(
        "base deleted-there one
         here deleted-there two
         base deleted-here one
         there deleted-here two",
        expect![[r#"
            fetch `deleted-here` from files/deleted-here@two
            upload `deleted-there` (3 bytes)
        "#]],
    );
}

#[test]
fn without_a_trusted_base_nothing_is_deleted() {
    check(
        "here only-here x
         there only-there x
         here same x
         there same x
         here other x
         there other y",
        expect![[r#"
            upload `only-here` (1 bytes)
            fetch `only-there` from files/only-there@x
            move `other` aside to `other (conflict ann 2026-11-23T20-04-10Z)`
            upload `other (conflict ann 2026-11-23T20-04-10Z)` (1 bytes) from `other`
        "#]],
    );
}

#[test]
fn an_empty_manifest_is_not_followed() {
    check(
        "base a one
         here a one
         base b one
         here b two",
        expect!["the manifest is empty although 1 files of it are known: nothing is removed here"],
    );
}

#[test]
fn an_empty_manifest_is_fine_when_nothing_would_go() {
    check("base a one", expect![""]);
}

#[test]
fn what_could_not_be_looked_into_stays_as_it_was() {
    check(
        "base dir/a one
         there dir/a one
         base dir/b one
         there dir/b two
         base gone-there one
         here gone-there unreadable
         here dir unreadable
         there other x
         here other fifo",
        expect![""],
    );
}

#[test]
fn excluded_paths_are_never_touched() {
    check(
        "there a.tmp x
         there dir.tmp/b x
         base c.tmp one
         there c.tmp one",
        expect![""],
    );
}

#[test]
fn large_files_wait_and_their_absence_is_no_deletion() {
    check(
        "there big 0123456789
         base known lazy 0123456789
         there known 0123456789
         base newer lazy 0123456789
         there newer 01234567890
         base gone lazy 0123456789",
        expect![[r#"
            leave `big` in the store until it is asked for (10 bytes)
            leave `newer` in the store until it is asked for (11 bytes)
        "#]],
    );
}

#[test]
fn a_stub_is_never_uploaded_and_a_changed_one_is_the_tenants() {
    check(
        "base big lazy 0123456789
         there big 0123456789
         here big.stub stub 0123456789
         base old lazy 0123456789
         here old.stub stub 0123456789
         base edited lazy 0123456789
         there edited 0123456789
         here edited.stub mine",
        expect![[r#"
            upload `edited.stub` (4 bytes)
            remove the stub `old.stub`
        "#]],
    );
}

#[test]
fn an_own_file_that_ends_in_stub_is_a_file() {
    check(
        "base a.stub one
         here a.stub two
         there a.stub one",
        expect![[r#"
            upload `a.stub` (3 bytes)
        "#]],
    );
}

#[test]
fn a_placeholder_is_unchanged_and_gone_it_is_a_deletion() {
    check_as(
        false,
        "base here placed 0123456789
         there here 0123456789
         here here placeholder 0123456789
         base gone placed 0123456789
         there gone 0123456789
         base never lazy 0123456789
         there never 0123456789",
        &expect![[r#"
            drop `gone` from the manifest
        "#]],
    );
}

#[test]
fn where_no_placeholders_can_be_an_absent_one_was_not_deleted() {
    check_as(
        true,
        "base gone placed 0123456789
         there gone 0123456789",
        &expect![[r#""#]],
    );
    check_as(
        false,
        "base gone placed 0123456789
         there gone 0123456789
         here gone.stub stub 0123456789",
        &expect![[r#""#]],
    );
}

#[test]
fn a_placeholder_at_another_path_is_a_rename() {
    check_as(
        false,
        "base a placed 0123456789
         there a 0123456789
         here b placeholder 0123456789 of a
         base over placed aaaaaaaaaa
         there over aaaaaaaaaa
         base from placed bbbbbbbbbb
         there from bbbbbbbbbb
         here over placeholder bbbbbbbbbb of from",
        &expect![[r#"
            drop `a` from the manifest
            carry the placeholder `b` along
            drop `from` from the manifest
            carry the placeholder `over` along
        "#]],
    );
}

#[test]
fn a_placeholder_follows_the_store() {
    check_as(
        false,
        "base gone placed 0123456789
         here gone placeholder 0123456789
         base newer placed 0123456789
         there newer 01234567890
         here newer placeholder 0123456789
         base small placed 0123456789
         there small x
         here small placeholder 0123456789
         there keep 0123456789",
        &expect![[r#"
            remove the placeholder `gone`
            leave `keep` in the store until it is asked for (10 bytes)
            leave `newer` in the store until it is asked for (11 bytes)
            fetch `small` from files/small@x
        "#]],
    );
}

#[test]
fn a_placeholder_that_was_changed_is_filled_before_anything_else() {
    check_as(
        false,
        "base cut placed 0123456789
         there cut 0123456789
         here cut placeholder 0123456789 altered
         base both placed 0123456789
         there both 01234567890
         here both placeholder aaaaaaaaaa of elsewhere",
        &expect![[r#"
            fill the placeholder `both` first
            fill the placeholder `cut` first
        "#]],
    );
}

#[test]
fn a_file_here_gives_way_to_a_directory_there() {
    check(
        "base
         here a x
         there a/b y",
        expect![[r#"
            move `a` aside to `a (conflict ann 2026-11-23T20-04-10Z)`
            upload `a (conflict ann 2026-11-23T20-04-10Z)` (1 bytes) from `a`
            fetch `a/b` from files/a/b@y
        "#]],
    );
}

#[test]
fn a_file_there_gives_way_to_a_directory_here() {
    check(
        "base
         here a dir
         here a/b x
         there a y",
        expect![[r#"
            drop `a` from the manifest
            fetch `a (conflict ann 2026-11-23T20-04-10Z)` from files/a@y
            upload `a/b` (1 bytes)
        "#]],
    );
}

#[test]
fn a_directory_made_in_place_of_a_file_replaces_it() {
    check(
        "base a one
         there a one
         here a dir
         here a/b x",
        expect![[r#"
            drop `a` from the manifest
            upload `a/b` (1 bytes)
        "#]],
    );
}

#[test]
fn nothing_is_fetched_through_a_link() {
    check(
        "base
         here a link /etc
         there a/b y
         here c link /etc
         there c y",
        expect![[r#"
            hold `a/b`: a link stands in its way
            hold `c`: a link stands in its place
        "#]],
    );
}

#[test]
fn a_new_time_is_told_and_followed() {
    check(
        "base touched-here one
         here touched-here one#200
         there touched-here one
         base touched-there one
         here touched-there one
         there touched-there one#300",
        expect![[r#"
            describe `touched-here` (mode 0644)
            set mode and time of `touched-there` (mode 0644)
        "#]],
    );
}

#[test]
fn directories_and_links_come_unless_they_were_removed_here() {
    check(
        "base old dir
         there old dir
         there new dir
         there l link a
         there under/file x
         there under dir
         here mine dir",
        expect![[r#"
            fetch `under/file` from files/under/file@x
            make the directory `new`
            make the directory `under`
            make the link `l`
        "#]],
    );
}

#[test]
fn directories_and_links_that_were_deleted_there_go_here() {
    check(
        "base old dir
         here old dir
         base old/deeper dir
         here old/deeper dir
         base l link a
         here l link a
         base full dir
         here full dir
         here full/mine x
         base special dir
         here special dir
         here special/pipe fifo",
        expect![[r#"
            upload `full/mine` (1 bytes)
            remove the link `l`
            remove the directory `old` if it is empty
            remove the directory `old/deeper` if it is empty
        "#]],
    );
}

#[test]
fn a_manifest_without_a_tree_says_nothing_of_directories_and_links() {
    check(
        "there no-tree
         base old dir
         here old dir
         base l link a
         here l link a",
        expect![""],
    );
}

#[test]
fn a_directory_or_link_that_changed_on_one_side_changes_on_the_other() {
    check(
        "base mine dir
         here mine dir 700
         there mine dir
         base theirs dir
         here theirs dir
         there theirs dir 700
         here standard dir
         there standard dir 750
         base l link a
         here l link a
         there l link b
         base m link a
         here m link b
         there m link a",
        expect![[r#"
            remove the link `l`
            set the mode of the directory `standard` to 0750
            set the mode of the directory `theirs` to 0700
            make the link `l`
        "#]],
    );
}

#[test]
fn without_a_base_the_stores_mode_and_time_are_taken() {
    check(
        "here .gitkeep x#300
         there .gitkeep x#100",
        expect![[r#"
            set mode and time of `.gitkeep` (mode 0644)
        "#]],
    );
}
