//! T13: what a tenant on docket's own bridge may not reach: the metadata service and the rest of
//! 169.254.0.0/16, and the host's own addresses.
//!
//! Best effort, since it needs `iptables`, the right to use it, and the bridge on this machine.
//! Rules name the bridge's interface and carry a comment, so ours are found, kept once, and
//! taken away when the bridge is another. Nobody else's rule is touched.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::failure::one_line;
use super::local::read;

/// Longest time for one run of iptables; it waits for its own lock for 5 s.
const RUN: Duration = Duration::from_secs(10);

/// What keeps tenants off the host's network, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The rules are in force.
    Enforced,
    /// They are not, and this is why and what to do.
    Open(String),
}

/// One rule: its chain and what it matches and does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    chain: &'static str,
    words: Vec<String>,
}

/// The rules for a bridge. New connections only: answers of published ports go on.
fn rules(interface: &str, comment: &str) -> Vec<Rule> {
    let rule = |chain, matches: &str| Rule {
        chain,
        words: format!("{matches} -m comment --comment {comment} -j DROP")
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    };
    vec![
        rule("DOCKER-USER", &format!("-d 169.254.0.0/16 -i {interface}")),
        rule("INPUT", &format!("-i {interface} -m conntrack --ctstate NEW")),
    ]
}

/// Puts the rules in force. Running it again changes nothing.
pub(super) async fn isolate(interface: &str, comment: &str) -> Isolation {
    // Of our own network namespace, which /sys need not show.
    let known = read("/proc/self/net/dev").unwrap_or_default();
    let is_here = |line: &str| line.trim_start().split(':').next() == Some(interface);
    if !known.lines().any(is_here) {
        return Isolation::Open(format!(
            "the engine's bridge {interface} is not on this machine: drop 169.254.0.0/16 and the \
             host's own addresses for it there"
        ));
    }
    match enforce(interface, comment).await {
        Ok(()) => Isolation::Enforced,
        Err(why) => Isolation::Open(format!(
            "iptables could not be used ({why}): run docket as root with iptables installed, or \
             drop 169.254.0.0/16 and the host's own addresses for {interface} yourself"
        )),
    }
}

async fn enforce(interface: &str, comment: &str) -> Result<(), String> {
    for rule in rules(interface, comment) {
        let listed = iptables(&["-S", rule.chain]).await?;
        let (is_there, stale) = compare(&listed, &rule, comment);
        if !is_there {
            let mut insert = vec!["-I", rule.chain, "1"];
            insert.extend(rule.words.iter().map(String::as_str));
            iptables(&insert).await?;
        }
        for old in stale {
            let mut delete = vec!["-D"];
            delete.extend(old.iter().map(String::as_str));
            iptables(&delete).await?;
        }
    }
    Ok(())
}

/// Whether the rule is among the listed ones, and which other rules carry our comment (or this
/// one once too often), as chain and words.
fn compare(listed: &str, rule: &Rule, comment: &str) -> (bool, Vec<Vec<String>>) {
    let mut is_there = false;
    let mut stale = Vec::new();
    for line in listed.lines() {
        // iptables quotes a comment only if it must; ours has nothing to quote.
        let words: Vec<String> =
            line.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
        let Some((add, body)) = words.split_first() else { continue };
        let marked = body.windows(2).any(|two| two[0] == "--comment" && two[1] == comment);
        if add != "-A" || !marked {
            continue;
        }
        let is_it =
            body.first().is_some_and(|chain| chain == rule.chain) && body[1..] == rule.words[..];
        if is_it && !is_there {
            is_there = true;
        } else {
            stale.push(body.to_vec());
        }
    }
    (is_there, stale)
}

async fn iptables(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("iptables");
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(["-w", "5"])
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match timeout(RUN, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Ok(output)) => Err(one_line(&String::from_utf8_lossy(&output.stderr))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it did not end in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "-N DOCKER-USER\n\
        -A DOCKER-USER -d 169.254.0.0/16 -i br-1 -m comment --comment docket-here -j DROP\n\
        -A DOCKER-USER -d 169.254.0.0/16 -i br-2 -m comment --comment \"docket-here\" -j DROP\n\
        -A DOCKER-USER -d 169.254.0.0/16 -i br-3 -m comment --comment docket-there -j DROP\n\
        -A DOCKER-USER -m comment --comment \"somebody else's docket-here\" -j DROP\n\
        -A DOCKER-USER -j RETURN\n";

    #[test]
    fn our_rule_is_kept_once_and_rules_of_another_bridge_are_stale() {
        let rule = &rules("br-1", "docket-here")[0];
        let (is_there, stale) = compare(LISTED, rule, "docket-here");
        assert!(is_there);
        assert_eq!(stale.len(), 1, "{stale:?}");
        assert_eq!(stale[0][..5], ["DOCKER-USER", "-d", "169.254.0.0/16", "-i", "br-2"]);
        let twice = format!("{LISTED}{LISTED}");
        assert_eq!(compare(&twice, rule, "docket-here").1.len(), 3);
    }

    #[test]
    fn another_installations_rules_are_not_ours() {
        let rule = &rules("br-9", "docket-new")[0];
        assert_eq!(compare(LISTED, rule, "docket-new"), (false, Vec::new()));
    }

    #[tokio::test]
    async fn a_bridge_that_is_elsewhere_is_said_to_be_open() {
        let open = isolate("br-nowhere", "docket-nowhere").await;
        assert!(matches!(open, Isolation::Open(why) if why.contains("not on this machine")));
    }
}
