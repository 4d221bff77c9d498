//! Directories, their modes and links between two sides.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::home::{Home, map, store};

#[tokio::test]
async fn directories_and_links_deleted_on_one_side_go_on_the_other_and_stay_gone() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    fs::create_dir_all(a.dir.join("empty/deeper")).unwrap();
    fs::create_dir_all(a.dir.join("full")).unwrap();
    fs::create_dir(a.dir.join("kept")).unwrap();
    symlink("/nowhere", a.dir.join("l")).unwrap();
    symlink("one", a.dir.join("m")).unwrap();
    a.write("full/f", "x");
    a.write("stays", "x");
    a.sync().await;
    b.sync().await;
    assert!(b.dir.join("empty/deeper").is_dir() && b.dir.join("kept").is_dir());
    assert_eq!(fs::read_link(b.dir.join("l")).unwrap(), Path::new("/nowhere"));
    fs::remove_dir_all(a.dir.join("empty")).unwrap();
    fs::remove_dir_all(a.dir.join("full")).unwrap();
    fs::remove_file(a.dir.join("l")).unwrap();
    fs::remove_file(a.dir.join("m")).unwrap();
    symlink("two", a.dir.join("m")).unwrap();
    fs::set_permissions(a.dir.join("kept"), fs::Permissions::from_mode(0o700)).unwrap();
    for _ in 0..2 {
        a.sync().await;
        b.sync().await;
    }
    for home in [&a, &b] {
        let there = |at: &str| fs::symlink_metadata(home.dir.join(at)).is_ok();
        assert!(!there("empty") && !there("full") && !there("l"));
        assert_eq!(fs::read_link(home.dir.join("m")).unwrap(), Path::new("two"));
        let mode = fs::metadata(home.dir.join("kept")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}

#[tokio::test]
async fn a_directory_deleted_there_stays_while_something_here_is_in_it() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    fs::create_dir(a.dir.join("d")).unwrap();
    a.sync().await;
    b.sync().await;
    fs::remove_dir(a.dir.join("d")).unwrap();
    b.write("d/mine", "x");
    a.sync().await;
    b.sync().await;
    a.sync().await;
    assert_eq!(a.files(), map(&[("d/mine", "x")]));
    assert_eq!(b.files(), map(&[("d/mine", "x")]));
}

#[tokio::test]
async fn a_manifest_of_another_program_deletes_no_directories_and_links() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    fs::create_dir(home.dir.join("d")).unwrap();
    symlink("x", home.dir.join("l")).unwrap();
    home.write("a", "one");
    home.sync().await;
    store.drop_in("up/b", "theirs");
    let rows = r#"[{"logical_path": "b", "storage_key": "up/b"}]"#;
    store.take_out("manifest.json");
    store.drop_in("manifest.json", rows);
    home.sync().await;
    assert_eq!(home.files(), map(&[("b", "theirs")]));
    assert!(home.dir.join("d").is_dir() && home.dir.join("l").is_symlink());
}
