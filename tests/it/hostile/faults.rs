//! Disks that are full or read-only, odd files, replaced directories, and edits at a bad moment.

use super::*;

#[test]
fn an_edit_at_any_moment_survives_replacement_and_removal() {
    let den = den();
    let (at, draft) = (den.inside.join("f"), den.inside.join("draft"));
    let (mut done, mut refused) = (0, 0);
    for round in 0..1500u32 {
        let _ = fs::remove_file(&at);
        let seen = den.write(&path("f"), b"agreed", Expect::Absent).expect("written");
        fs::write(&draft, format!("edit {round}")).expect("write");
        let (from, to) = (draft.clone(), at.clone());
        let spin = round % 300 * 40;
        let tenant = std::thread::spawn(move || {
            (0..spin).for_each(|_| std::hint::spin_loop());
            fs::rename(from, to).expect("rename");
        });
        let result = if round % 2 == 0 {
            den.write(&path("f"), b"theirs", Expect::Stamp(seen)).map(drop)
        } else {
            wait(den.local.remove_file(&den.place, &path("f"), Expect::Stamp(seen)))
        };
        tenant.join().expect("the tenant");
        match result {
            Ok(()) => done += 1,
            Err(error) if error.kind == Kind::Changed => refused += 1,
            Err(error) => panic!("{error}"),
        }
        let now = fs::read_to_string(&at).expect("the edit is there");
        assert_eq!(now, format!("edit {round}"));
    }
    assert!(done > 0 && refused > 0, "both orders were met: {done} done, {refused} refused");
}

/// The whole way in, many files at a time, while their parent leads outside every other moment.
#[test]
fn t3_a_parent_swapped_during_large_hydrations_takes_nothing_outside() {
    use docket::apply::files::{Bounds, Files};
    let den = den();
    let objects = den.dir.path().join("objects");
    let store = docket::objects::directory::Directory::open(&objects, "").expect("a store");
    let hostile = swap_sub(&den);
    let large = vec![7u8; 400_000];
    let turns = docket::apply::files::Turns::new(16, 16);
    let bounds = Bounds { floor: docket::plan::MinFree::Bytes(0), turns: &turns };
    for round in 0..4 {
        for number in 0..60 {
            let at = objects.join(format!("alice/case/files/sub/r{round}/{number}"));
            fs::create_dir_all(at.parent().expect("a parent")).expect("mkdir");
            fs::write(at, &large).expect("write");
        }
        // It may give up on what is in the way again and again: what it did is what counts.
        let clock = docket::clock::WallClock;
        let spec =
            WorkspaceSpec { files: FilesSpec { eager_below: 1 << 30, ..spec().files }, ..spec() };
        let files = Files {
            workspaces: &den.local,
            objects: &store,
            clock: &clock,
            place: &den.place,
            spec: &spec,
            owner: (1000, 1000),
            bounds,
        };
        let _ = wait(files.hydrate(None, &|_| ()));
    }
    drop(hostile);
    let came = |dir: &str| {
        let dir = den.inside.join(dir);
        let is_there =
            |round| fs::read_dir(dir.join(format!("r{round}"))).map_or(0, Iterator::count);
        if dir.is_symlink() { 0 } else { (0..4).map(is_there).sum() }
    };
    assert!(came("sub") + came("link") > 0, "some arrived");
    den.assert_outside_untouched();
}

#[test]
fn fault_28_a_full_file_system_says_so_and_goes_on_when_there_is_space() {
    let den = den_at("full", |dir| Some(tmpfs(&dir.join("full"), "size=1m,mode=700")));
    let kept = den.write(&path("kept"), &vec![1; 300_000], Expect::Absent).expect("it fits");
    let large = vec![2; 2_000_000];
    for size in [2_000_000, 800_000] {
        let full = den.write(&path("d/large"), &large[..size], Expect::Absent);
        assert_eq!(full.expect_err("full").kind, Kind::NoSpace);
    }
    let full = den.write(&path("kept"), &large[..800_000], Expect::Stamp(kept));
    assert_eq!(full.expect_err("full").kind, Kind::NoSpace);
    assert_eq!(den.read(&path("kept"), kept).expect("reading goes on").len(), 300_000);
    assert_eq!(den.scan().entries.len(), 1, "nothing half written is seen");
    wait(den.local.remove_file(&den.place, &path("kept"), Expect::Stamp(kept))).expect("removed");
    den.write(&path("d/large"), &large[..800_000], Expect::Absent).expect("now it fits");
}

#[test]
fn fault_28_no_inodes_left_says_so() {
    let options = "size=4m,nr_inodes=24,mode=700";
    let den = den_at("full", |dir| Some(tmpfs(&dir.join("full"), options)));
    let mut last = Ok(());
    for number in 0..24 {
        last = den.write(&path(&format!("d/f{number}")), b"x", Expect::Absent).map(drop);
        if last.is_err() {
            break;
        }
    }
    assert_eq!(last.expect_err("full").kind, Kind::NoSpace);
    let folder = ["late".to_owned()];
    let made = wait(den.local.ensure_folders(&den.place, &folder, (0, 0)));
    assert_eq!(made.expect_err("full").kind, Kind::NoSpace);
    let scan = den.scan();
    assert!(scan.entries.len() > 3 && scan.skipped.is_empty());
}

#[test]
fn fault_29_a_read_only_file_system_loses_nothing() {
    let den = den_at("ro", |dir| Some(tmpfs(&dir.join("ro"), "size=1m,mode=700")));
    let kept = den.write(&path("kept"), b"bytes", Expect::Absent).expect("written");
    let root = den.dir.path().join("ro");
    mount_remount(&root, MountFlags::RDONLY, c"").expect("remount");
    let failures = [
        den.write(&path("new"), b"x", Expect::Absent).map(drop),
        den.write(&path("kept"), b"x", Expect::Stamp(kept)).map(drop),
        wait(den.local.remove_file(&den.place, &path("kept"), Expect::Stamp(kept))),
        wait(den.local.trash(&den.place)),
        wait(den.local.put_note(&den.place.uid, b"x".to_vec())),
    ];
    for failure in failures {
        assert_eq!(failure.expect_err("read-only").kind, Kind::Io);
    }
    assert_eq!(den.read(&path("kept"), kept).expect("reading goes on"), b"bytes");
    mount_remount(&root, MountFlags::empty(), c"").expect("remount");
    den.write(&path("new"), b"x", Expect::Absent).expect("written again");
}

#[test]
fn fault_39_hard_links_are_files_of_their_own() {
    let den = den();
    fs::write(den.inside.join("a"), "shared").expect("write");
    fs::hard_link(den.inside.join("a"), den.inside.join("b")).expect("link");
    let scan = den.scan();
    let kinds: Vec<_> = scan.entries.values().map(|entry| &entry.kind).collect();
    assert_eq!(kinds.len(), 2);
    assert_eq!(kinds[0], kinds[1]);
    let LocalKind::File { stamp, .. } = *kinds[0] else { panic!("{scan:?}") };
    // Replacing one leaves the other as it is.
    den.write(&path("a"), b"new", Expect::Stamp(stamp)).expect("written");
    assert_eq!(fs::read(den.inside.join("b")).expect("it is there"), b"shared");
}

#[test]
fn fault_43_a_restored_mtime_does_not_hide_an_edit() {
    let den = den();
    let at = den.inside.join("f");
    fs::write(&at, "before").expect("write");
    let scan = den.scan();
    let LocalKind::File { sha256, stamp: seen } = scan.entries[&path("f")].kind else { panic!() };
    let mut base = Base::default();
    let entry = BaseEntry {
        sha256,
        size: 6,
        mode: 0o644,
        mtime_ns: seen.mtime_ns,
        storage_key: "files/f".into(),
        stamp: Some(seen),
        placed: false,
    };
    base.files.insert(path("f"), entry);
    let mtime = fs::metadata(&at).expect("metadata").modified().expect("a time");
    let mut writer = fs::OpenOptions::new().write(true).open(&at).expect("open");
    writer.write_all(b"edited").expect("write");
    writer.set_modified(mtime).expect("touch");
    assert_eq!(stamp(&at).mtime_ns, seen.mtime_ns);
    for mode in [ScanMode::Quick, ScanMode::Checksum] {
        let scan = den.scan_as(&spec(), &base, mode);
        let LocalKind::File { sha256, .. } = scan.entries[&path("f")].kind else { panic!() };
        assert_eq!(sha256, Some(sum(b"edited")));
    }
}

#[test]
fn fault_45_a_user_tree_made_of_links_is_a_replaced_workspace() {
    let den = den();
    let active = den.inside.parent().expect("active").to_owned();
    // With scope User the tenant owns all of it: elsewhere a directory that looks the part.
    fs::create_dir_all(den.outside.join("case")).expect("mkdir");
    fs::rename(&active, active.with_file_name("mine")).expect("rename");
    symlink(&den.outside, &active).expect("symlink");
    let Place { user, case, .. } = &den.place;
    let fresh = Place { id: None, ..den.place.clone() };
    let found = [
        wait(den.local.look(user, case)).map(drop),
        wait(den.local.ensure(&fresh, (1000, 1000))).map(drop),
        wait(den.local.ensure(&den.place, (1000, 1000))).map(drop),
        den.write(&path("f"), b"x", Expect::Absent).map(drop),
        wait(den.local.trash(&den.place)),
    ];
    for result in found {
        assert_eq!(result.expect_err("refused").kind, Kind::Replaced);
    }
    assert!(wait(den.local.list()).expect("the others are listed").is_empty());
    fs::remove_dir(den.outside.join("case")).expect("still empty");
    den.assert_outside_untouched();
}
