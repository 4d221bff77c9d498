//! `docs/src/semantics.md`, carried out: its files are written, its commands typed, and what it says comes out.
//!
//! - A block of ```` ```yaml NAME ```` is a file in the watched directory (`yaml-not`: one that is refused).
//! - In a block of ```` ```console ```` a line after `$ ` is typed. `docket` is the binary, on the rig's state;
//!   names of containers are the rig's. What follows is its output: blanks count as one, `...` stands for any lines, a
//!   word `*` for any word. It is typed again until that comes out.

use std::process::Command;

use crate::docs::{Block, blocks, page};

use super::rig::{PATIENCE, Rig};

#[test]
fn the_semantics_are_as_they_are_written() {
    let mut rig = Rig::new("semantics");
    rig.remove("legal.yaml");
    rig.start();
    let bin = rig.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let wrapper = format!(
        "#!/bin/sh\nexec {} \"$@\" --state {}\n",
        env!("CARGO_BIN_EXE_docket"),
        rig.path("state").display()
    );
    std::fs::write(bin.join("docket"), wrapper).unwrap();
    super::rig::run("chmod", &["755", bin.join("docket").to_str().unwrap()]);
    let mut typed = 0;
    for block in blocks(&page("semantics.md")) {
        let file = ["yaml ", "yaml-not "].iter().find_map(|kind| block.info.strip_prefix(kind));
        if let Some(name) = file {
            rig.write(name.trim(), &block.text);
        } else if block.info == "console" {
            typed += carry_out(&rig, &block);
        }
    }
    assert!(typed > 10, "only {typed} commands were found");
}

/// How many commands were typed.
fn carry_out(rig: &Rig, block: &Block) -> usize {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), Vec::new())),
            (None, Some((_, output))) => output.push(words(line)),
            (None, None) => panic!("line {}: output without a command", block.line),
        }
    }
    for (command, wanted) in &steps {
        let began = std::time::Instant::now();
        loop {
            let said = typed(rig, command);
            let lines: Vec<String> =
                said.lines().map(words).filter(|line| !line.is_empty()).collect();
            if fits(&lines, wanted) {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "semantics.md:{}: `{command}` says\n{said}\ninstead of\n{}{}",
                block.line,
                wanted.join("\n"),
                rig.tail()
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    steps.len()
}

/// What a command says on both streams, the rig's names as the document has them.
fn typed(rig: &Rig, command: &str) -> String {
    let theirs = format!("{}-", rig.installation);
    let path = format!("{}:{}", rig.path("bin").display(), std::env::var("PATH").unwrap());
    let out = Command::new("sh")
        .arg("-c")
        .arg(format!("{} 2>&1", command.replace("docket-ann-", &format!("{theirs}ann-"))))
        .current_dir(rig.path("."))
        .env("PATH", path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).replace(&theirs, "docket-")
}

fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fits(lines: &[String], wanted: &[String]) -> bool {
    match wanted.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=lines.len()).any(|skipped| fits(&lines[skipped..], rest))
        }
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, others)| is_like(line, first) && fits(others, rest)),
    }
}

fn is_like(line: &str, wanted: &str) -> bool {
    let (line, wanted): (Vec<&str>, Vec<&str>) =
        (line.split(' ').collect(), wanted.split(' ').collect());
    line.len() == wanted.len() && line.iter().zip(&wanted).all(|(a, b)| is_word(a, b))
}

/// `*` in a word stands for anything.
fn is_word(word: &str, wanted: &str) -> bool {
    match wanted.split_once('*') {
        Some((before, after)) => {
            word.len() >= before.len() + after.len()
                && word.starts_with(before)
                && word.ends_with(after)
        }
        None => word == wanted,
    }
}
