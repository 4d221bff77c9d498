//! As a person at a terminal: tables on real ones of two widths, and completions in the shells that are not bash.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Fake, view};

/// The built binary comes first where programs are looked for.
fn path() -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_docket")).parent().unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

fn words(command: &mut Command) -> String {
    let out = command.env("PATH", path()).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).replace('\r', "");
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// What a command prints on a terminal of so many columns.
fn on_a_terminal(fake: &Fake, columns: u32, line: &str) -> Vec<String> {
    let state = fake.state();
    let line = format!("stty cols {columns} rows 24; docket --state '{}' {line}", state.display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("NO_COLOR", "1").env("SHELL", "/bin/sh");
    words(&mut script).lines().map(str::to_owned).collect()
}

fn crowd() -> Fake {
    let fake = Fake::start();
    for (name, reason) in [("ann-one", "Running"), ("bob-with-a-rather-long-name", "CrashLoop")] {
        let mut view = view(name, reason, "True");
        let source = "teams/litigation/a-directory/that-is-deep/session.yaml";
        source.clone_into(&mut view.status.source);
        fake.put(view);
    }
    fake
}

#[test]
fn a_wide_table_is_a_line_each_on_every_terminal_and_a_plain_one_fits() {
    let fake = crowd();
    for columns in [80, 120] {
        let wide = on_a_terminal(&fake, columns, "get -o wide");
        assert_eq!(wide.len(), 3, "{wide:?}");
        assert!(wide.iter().all(|line| !line.contains('\u{2026}')), "nothing is cut: {wide:?}");
        assert!(wide[1].contains("that-is-deep/session.yaml"), "{wide:?}");
        let reason = wide[0].find("REASON").unwrap();
        assert!(wide[1..].iter().all(|line| line[reason..].starts_with("Converged")), "{wide:?}");
        let plain = on_a_terminal(&fake, columns, "get");
        let kept = if columns < 100 { "bob-with-a-rath" } else { "bob-with-a-rather-long-name " };
        assert!(plain[2].starts_with(kept), "a name is cut last: {plain:?}");
        let fits = plain.iter().all(|line| line.chars().count() <= columns as usize);
        assert!(plain.len() == 3 && fits, "{plain:?}");
    }
}

#[test]
fn fish_completes_the_names_of_sessions() {
    let fake = crowd();
    let line = format!("docket --state {} describe ", fake.state().display());
    let script = format!("docket completions fish | source; complete -C '{line}'");
    let mut fish = Command::new("fish");
    fish.args(["--no-config", "-c", &script]).env("HOME", fake.place.path());
    let offered = words(&mut fish);
    for one in ["ann-one\tRunning", "bob-with-a-rather-long-name\tCrashLoop"] {
        assert!(offered.lines().any(|line| line == one), "{offered}");
    }
}

/// In a zsh at a terminal of its own, by the key that asks.
#[test]
fn zsh_completes_the_names_of_sessions() {
    let fake = crowd();
    let home = fake.place.path().display();
    let typed = format!("docket --state {} describe b", fake.state().display());
    let script = format!(
        r#"
        zmodload zsh/zpty || exit 7
        zpty inner zsh -f -i
        zpty -w inner 'autoload -Uz compinit; compinit -u -d {home}/dump; source <(docket completions zsh); print -n "RE""ADY"'
        zpty -r inner out '*READY*'
        zpty -w -n inner $'{typed}\t'
        zpty -r inner out '*with-a-rather-long-name*'
        print -r -- "$out"
        zpty -d inner
        "#
    );
    let mut zsh = Command::new("timeout");
    zsh.args(["60", "zsh", "-f", "-c", &script]).env("HOME", fake.place.path()).env("TERM", "dumb");
    let shown = words(&mut zsh);
    assert!(shown.contains("ob-with-a-rather-long-name"), "{shown}");
}
