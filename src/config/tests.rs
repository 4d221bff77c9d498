//! What wins, what is refused and where the complaint points.

use std::path::{Path, PathBuf};
use std::time::Duration;

use expect_test::{Expect, expect};

use super::{Config, HttpRead, KEYS, Store, Surroundings, variables};
use crate::plan::MinFree;

fn load(
    file: Option<&str>,
    env: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Config, String> {
    let place = tempfile::tempdir().unwrap();
    if let Some(text) = file {
        std::fs::write(place.path().join("docket.yaml"), text).unwrap();
    }
    let around = Surroundings {
        file: None,
        flags: flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect(),
        env: env.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect(),
        cwd: place.path().to_owned(),
    };
    let mut config = Config::load(&around).map_err(|error| error.to_string())?;
    for path in [&mut config.specs, &mut config.state, &mut config.workspaces] {
        if let Ok(rest) = path.strip_prefix(place.path()) {
            *path = Path::new("HERE").join(rest);
        }
    }
    Ok(config)
}

#[expect(clippy::needless_pass_by_value, reason = "as expect_test is used")]
fn refused(file: &str, expected: Expect) {
    expected.assert_eq(&load(Some(file), &[], &[]).unwrap_err());
}

#[test]
fn without_a_file_everything_is_as_documented() {
    let config = load(None, &[], &[]).unwrap();
    assert_eq!(config.specs, Path::new("HERE/specs"));
    assert_eq!(config.state, Path::new("HERE/state"));
    assert_eq!(config.workspaces, Path::new("/var/lib/docket/workspaces"));
    assert_eq!(config.store, Store::Directory(PathBuf::from("/var/lib/docket/objects")));
    assert_eq!(config.docker, "unix:///var/run/docker.sock");
    assert_eq!(config.ports, (8001, 8999));
    assert_eq!(config.tick, Duration::from_secs(5));
    assert_eq!(config.min_free, MinFree::Percent(5.0));
    assert_eq!(config.trash_keep, Duration::from_hours(168));
    assert_eq!(config.allow.capabilities.len(), 5);
}

#[test]
fn who_asks_an_operator_and_names_none_asks_that_of_the_package() {
    let (here, package) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let installed = package.path().join("docket.yaml");
    let around = Surroundings { cwd: here.path().to_owned(), ..Surroundings::default() };
    let found = |around: &Surroundings| around.clone().or(&installed).file;
    assert_eq!(found(&around), None, "it is not installed");
    std::fs::write(&installed, "").unwrap();
    assert_eq!(found(&around).as_ref(), Some(&installed));
    let env = [("DOCKET_STATE".to_owned(), "s".to_owned())].into();
    assert_eq!(found(&Surroundings { env, ..around.clone() }), None);
    let flags = [("state", "s".to_owned())].into();
    assert_eq!(found(&Surroundings { flags, ..around.clone() }), None);
    let named = Surroundings { file: Some("mine.yaml".into()), ..around.clone() };
    assert_eq!(found(&named), Some("mine.yaml".into()));
    std::fs::create_dir(here.path().join("state")).unwrap();
    assert_eq!(found(&around), None, "there is one here");
}

#[test]
fn a_file_that_says_nothing_changes_nothing() {
    for text in ["", "\n\n", "# all as it is\n", "---\n", "---\n# nothing\n...\n"] {
        let config = load(Some(text), &[], &[]).unwrap();
        assert_eq!(config.tick, Duration::from_secs(5), "{text:?}");
    }
}

#[test]
fn the_documented_file_is_the_default() {
    let text = r#"
specs: specs
state: state
workspaces: /var/lib/docket/workspaces
store: file:/var/lib/docket/objects  # or s3://bucket/prefix
s3: {endpoint: "", region: us-east-1, pathStyle: true, caFile: ""}
docker: ""
installation: default
ports: 8001-8999
bind: 127.0.0.1
containerPrefix: docket
tick: 5s
limits: {sessions: 0, perUser: 0, concurrentStarts: 0}
allow:
  {dockerSocket: false, hostPaths: [], unconfinedSeccomp: false, seccompProfiles: [], secretFiles: [], networks: [],
   capabilities: [CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID], loosenHardening: false, writableSpecs: false}
pruneGuard: {atLeast: 10, percent: 50}
minFree: 5%
trash: {keep: 7d}
listen: ""
http: {read: token}
log: {level: info, format: text}
git: {interval: 30s, verify: "", credentials: "", sshKey: "", knownHosts: ""}
"#;
    let mut config = load(Some(text), &[], &[]).unwrap();
    assert!(config.file.take().is_some());
    assert_eq!(config, load(None, &[], &[]).unwrap());
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let file = Some("tick: 1s");
    let env: &[(&str, &str)] = &[("DOCKET_TICK", "2s")];
    assert_eq!(load(file, &[], &[]).unwrap().tick, Duration::from_secs(1));
    assert_eq!(load(file, env, &[]).unwrap().tick, Duration::from_secs(2));
    assert_eq!(load(file, env, &[("tick", "3s")]).unwrap().tick, Duration::from_secs(3));
}

#[test]
fn specs_may_be_in_a_repository() {
    let file = "specs: git+file:///srv/specs.git#main:legal\nstate: var\ngit: {interval: 1m, verify: signers}";
    let config = load(Some(file), &[], &[]).unwrap();
    let remote = config.git.remote.as_ref().unwrap();
    assert_eq!(remote.to_string(), "git+file:///srv/specs.git#main:legal");
    assert_eq!(config.specs, Path::new("HERE/var/git/current"));
    assert_eq!(config.git.interval, Duration::from_mins(1));
    assert!(config.git.verify.as_ref().unwrap().ends_with("signers"));
    // A flag for a directory wins over all of it.
    let config = load(Some(file), &[], &[("specs", "here")]).unwrap();
    assert_eq!((config.git.remote, &*config.specs), (None, Path::new("HERE/here")));
    refused(
        "specs: git+http://host/x",
        expect![
            "docket.yaml:1:8: specs: `git+http://host/x` is not git+https://, git+ssh:// or git+file:// and a repository"
        ],
    );
    refused(
        "git: {interval: 10ms}",
        expect!["docket.yaml:1:17: git.interval: 10ms is too short: at least 1s"],
    );
}

#[test]
fn every_key_is_a_variable_in_snake_case_and_in_plain_case() {
    assert_eq!(variables("s3.endpoint"), ["DOCKET_S3_ENDPOINT"]);
    assert_eq!(variables("limits.perUser"), ["DOCKET_LIMITS_PER_USER", "DOCKET_LIMITS_PERUSER"]);
    for name in ["DOCKET_CONTAINER_PREFIX", "DOCKET_CONTAINERPREFIX"] {
        let config = load(None, &[(name, "legal-session")], &[]).unwrap();
        assert_eq!(config.container_prefix.as_str(), "legal-session", "{name}");
    }
}

#[test]
fn no_two_keys_share_a_variable() {
    let mut all: Vec<String> = KEYS.iter().flat_map(|key| variables(key.path)).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn unknown_variables_are_ignored_and_bad_values_are_not() {
    assert!(load(None, &[("DOCKET_COLOUR", "blue")], &[]).is_ok());
    let error = load(None, &[("DOCKET_LIMITS_PER_USER", "many")], &[]).unwrap_err();
    assert_eq!(error, "DOCKET_LIMITS_PER_USER: `many` is not a whole number from 0");
    let error = load(None, &[], &[("ports", "9-8")]).unwrap_err();
    assert!(error.starts_with("--ports: `9-8` is not a range"), "{error}");
}

#[test]
fn lists_are_separated_by_commas_outside_of_the_file() {
    let config = load(None, &[("DOCKET_ALLOW_NETWORKS", "a, b")], &[]).unwrap();
    assert_eq!(config.allow.networks, ["a", "b"]);
    let config = load(Some("allow: {networks: [x]}"), &[], &[("allow.networks", "")]).unwrap();
    assert!(config.allow.networks.is_empty());
}

#[test]
fn the_engine_is_the_key_then_docker_host_then_the_local_socket() {
    let host: &[(&str, &str)] = &[("DOCKER_HOST", "unix:///run/other.sock")];
    assert_eq!(load(None, host, &[]).unwrap().docker, "unix:///run/other.sock");
    let config = load(Some("docker: unix:///a.sock"), host, &[]).unwrap();
    assert_eq!(config.docker, "unix:///a.sock");
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("etc")).unwrap();
    std::fs::write(place.path().join("etc/my.yaml"), "store: file:objects\nspecs: ./a//b/\n")
        .unwrap();
    let around = Surroundings {
        file: Some("etc/my.yaml".into()),
        cwd: place.path().to_owned(),
        ..Surroundings::default()
    };
    let config = Config::load(&around).unwrap();
    assert_eq!(config.store, Store::Directory(place.path().join("etc/objects")));
    assert_eq!(config.specs, place.path().join("etc/a/b"));
    assert_eq!(config.state, place.path().join("etc/state"));
}

#[test]
fn a_named_file_that_is_not_there_is_an_error() {
    let around = Surroundings {
        file: Some("none.yaml".into()),
        cwd: "/nowhere".into(),
        ..Surroundings::default()
    };
    assert_eq!(Config::load(&around).unwrap_err().to_string(), "none.yaml: cannot be read");
}

#[test]
fn an_unknown_key_is_placed_and_the_nearest_named() {
    refused(
        "specs: a\ntik: 5s\n",
        expect![[r#"docket.yaml:2:1: unknown key `tik`: did you mean `tick`?"#]],
    );
    refused(
        "limits:\n  peruser: 3\n",
        expect![[r#"docket.yaml:2:3: unknown key `peruser` in `limits`: did you mean `perUser`?"#]],
    );
}

#[test]
fn a_bad_value_is_placed() {
    refused(
        "specs: a\ntick: fast\n",
        expect![[
            r#"docket.yaml:2:7: tick: `fast` is not a duration: a number and a unit, e.g. 30s, 8h, 7d"#
        ]],
    );
    refused(
        "allow:\n  networks: mine\n",
        expect![[r#"docket.yaml:2:13: allow.networks: expected a list, e.g. [mine]"#]],
    );
    refused(
        "limits: 5\n",
        expect![
            "docket.yaml:1:9: limits: invalid type: integer `5`, expected a map for `limits` (sessions, perUser, concurrentStarts)"
        ],
    );
    refused(
        "tick: {a: b}\n",
        expect!["docket.yaml:1:7: tick: invalid type: map, expected TIME for `tick`"],
    );
    refused("tick: 5s\ntick: 6s\n", expect!["docket.yaml:2:1: `tick` stands here twice"]);
    refused(
        "store: ftp://x\n",
        expect!["docket.yaml:1:8: store: `ftp://x` is not file:/path or s3://bucket/prefix"],
    );
    refused(
        "a: [\n",
        expect![
            "docket.yaml:1:1: unknown key `a`: expected one of specs, git, state, workspaces, store, s3, docker, installation, ports, bind, containerPrefix, tick, limits, allow, pruneGuard, minFree, trash, listen, http, log"
        ],
    );
}

#[test]
fn open_reading_is_for_loopback_only() {
    let open = "http: {read: open}\n";
    let config = load(Some(&format!("{open}listen: 127.0.0.1:7070")), &[], &[]).unwrap();
    assert_eq!(config.http_read, HttpRead::Open);
    assert!(load(Some(&format!("{open}listen: 0.0.0.0:7070")), &[], &[]).is_err());
}

#[test]
fn free_space_is_a_share_or_a_size() {
    let free = |text: &str| load(None, &[], &[("minFree", text)]).map(|config| config.min_free);
    assert_eq!(free("10%").unwrap(), MinFree::Percent(10.0));
    assert_eq!(free("1.5Gi").unwrap(), MinFree::Bytes(1_610_612_736));
    assert_eq!(free("100").unwrap(), MinFree::Bytes(100));
    for bad in ["-1", "101%", "5X", "", "inf", "1e3"] {
        assert!(free(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_store_is_a_directory_or_a_bucket() {
    let store = |text: &str| load(None, &[], &[("store", text)]).map(|config| config.store);
    let bucket = |prefix: &str| Store::S3 { bucket: "b".into(), prefix: prefix.into() };
    assert_eq!(store("s3://b").unwrap(), bucket(""));
    assert_eq!(store("s3://b/x/y/").unwrap(), bucket("x/y"));
    assert_eq!(store("file:///a/b").unwrap(), Store::Directory("/a/b".into()));
    for bad in ["s3://", "s3://a b", "s3://b/../c", "/plain", "file:"] {
        assert!(store(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_switch_takes_its_value_with_a_space_too() {
    let joined = |words: &[&str]| super::joined(words.iter().map(Into::into).collect());
    let words = ["run", "--s3.pathStyle", "false", "--allow.dockerSocket", "--tick", "5s", "true"];
    let expected = ["run", "--s3.pathStyle=false", "--allow.dockerSocket", "--tick", "5s", "true"];
    assert_eq!(joined(&words), expected);
}
