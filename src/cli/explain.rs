//! `docket explain NAME`: why it is not what was asked for, what blocks it, what happens next
//! and when. Drawn from the status alone: nothing is decided here.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::model::{Condition, ConditionType, Reason, Timestamp, Truth, many};
use crate::status::SessionView;

use super::Context;
use super::client::session;
use super::describe::{indent, overrides};
use super::exit::{Code, Failure};
use super::output::{Format, clean, clean_lines};
use super::table::{age, now};

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
    /// json and yaml print the object, whose status says it for machines
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(context: &Context, asked: &Explain) -> Result<Code, Failure> {
    let view: Arc<SessionView> =
        context.client()?.get(&format!("sessions/{}", session(&asked.name)?)).await?;
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &view)?,
        _ => context.out.data(&draw(&view, now()))?,
    }
    Ok(Code::Done)
}

/// What is wrong if true; for all others, what is wrong if not.
const BAD_IF_TRUE: [ConditionType; 5] = [
    ConditionType::Reconciling,
    ConditionType::Stalled,
    ConditionType::Suspended,
    ConditionType::RuntimeUnresponsive,
    ConditionType::PruneHeld,
];

/// The explanation, a few lines.
pub(super) fn draw(view: &SessionView, now: Timestamp) -> String {
    let status = &view.status;
    let mut text = String::new();
    let ready = status.conditions.iter().find(|c| c.kind == ConditionType::Ready);
    let is_ready = ready.is_some_and(|c| c.status == Truth::True);
    let why = ready.map_or(String::new(), |c| format!(" ({})", told(c)));
    let word = if is_ready { "ready" } else { "not ready" };
    let _ = writeln!(text, "{} is {}, {word}{why}.", clean(&view.metadata.name), status.phase);
    let off = off(view);
    if off.is_empty() {
        text.push_str("It is as it was asked for.\n");
        if let Some(failed) = failed(view) {
            let _ = writeln!(text, "{failed}; forgotten if it does not happen again for a while.");
        }
    } else {
        text.push_str("Not as asked for, or under way:\n");
        for condition in off {
            let since = age(Some(condition.last_transition_time), now);
            let (kind, truth) = (condition.kind, condition.status);
            let _ = writeln!(text, "  {kind:?}={truth:?} for {since}: {}", told(condition));
        }
    }
    blocks(&mut text, view);
    next(&mut text, view, now);
    text
}

fn told(condition: &Condition) -> String {
    match condition.message.as_str() {
        "" => condition.reason.to_string(),
        message => format!("{}: {}", condition.reason, clean(message)),
    }
}

/// Conditions that are not as they should be, Ready apart.
fn off(view: &SessionView) -> Vec<&Condition> {
    view.status
        .conditions
        .iter()
        .filter(|c| c.kind != ConditionType::Ready)
        .filter(|condition| is_off(condition))
        .collect()
}

/// Whether a condition is not as it should be.
pub(super) fn is_off(condition: &Condition) -> bool {
    if BAD_IF_TRUE.contains(&condition.kind) {
        condition.status == Truth::True
    } else {
        condition.status != Truth::True
    }
}

/// What failed lately, if anything did. It blocks nothing once everything is as asked for.
fn failed(view: &SessionView) -> Option<String> {
    let retry = &view.status.retry;
    (!retry.operation.is_empty()).then(|| {
        let times = many(retry.failures, "time");
        clean(&format!("{} failed {times} in a row, last: {}", retry.operation, retry.last_error))
    })
}

fn blocks(text: &mut String, view: &SessionView) {
    let status = &view.status;
    let mut found = Vec::new();
    if let Some(place) = status.queue_position {
        found.push(format!("a limit on sessions: it is number {place} in the queue"));
    }
    if !off(view).is_empty() {
        found.extend(failed(view));
    }
    if let Some(said) = overrides(view) {
        found.push(format!("an override: {said}"));
    }
    for condition in &status.conditions {
        if condition.status == Truth::True
            && matches!(condition.kind, ConditionType::Stalled | ConditionType::PruneHeld)
        {
            found.push(match condition.kind {
                ConditionType::PruneHeld => {
                    "its end is held: bring its file back, or `docket confirm-prune`".to_owned()
                }
                _ => outside(condition, &view.metadata.name),
            });
        }
    }
    found.extend(remedies(view));
    if !found.is_empty() {
        text.push_str("What blocks it:\n");
        text.extend(found.iter().map(|line| format!("  {}\n", clean(line))));
    }
}

/// What a person can do about each reason that docket cannot help by itself, once each.
fn remedies(view: &SessionView) -> Vec<String> {
    let mut reasons: Vec<Reason> = Vec::new();
    for condition in off(view).into_iter().filter(|c| c.kind != ConditionType::Stalled) {
        if !reasons.contains(&condition.reason) {
            reasons.push(condition.reason);
        }
    }
    reasons.into_iter().filter_map(|reason| remedy(reason, view)).collect()
}

fn remedy(reason: Reason, view: &SessionView) -> Option<String> {
    let name = &view.metadata.name;
    let workspace = &view.status.workspace;
    let port = view.status.port;
    Some(match reason {
        Reason::DiskPressure => format!(
            "it wrote too much: raise workspace.quota (or free the disk), or remove files on the \
             host under {workspace}"
        ),
        Reason::QuotaExceeded => format!(
            "its workspace is full: raise workspace.quota, or remove files under {workspace}"
        ),
        Reason::LowSpace => {
            "the disk is nearly full: free space under `workspaces:`, or lower `minFree`".to_owned()
        }
        Reason::PoolExhausted => {
            "no port is free: widen `ports:` of the operator, or end or stop sessions with a port \
             (a stopped one keeps its port; an ended one gives it back)"
                .to_owned()
        }
        Reason::PortInUse => {
            "its hostPort is taken: choose another, 0 for one of the range, or end who holds it"
                .to_owned()
        }
        Reason::PortConflict => format!(
            "somebody else listens on port {}: `ss -ltnp` on the host says who",
            port.map_or("-".to_owned(), |port| port.to_string())
        ),
        Reason::NameConflict => {
            "containers that are not docket's have its names (`docker ps -a`): remove or rename \
             them, or set another `containerPrefix`"
                .to_owned()
        }
        Reason::ManifestUnavailable => format!(
            "bring manifest.json back, by `docket restore {name} --at ID` of what `docket history \
             {name}` lists; if that is empty, from a backup of the store; without one, take its \
             source away, `docket delete {name} --discard` (its files go to the trash), and put \
             its source and what you want of {workspace} back"
        ),
        Reason::ManifestInvalid => format!(
            "mend manifest.json in the store, or `docket restore {name} --at ID` (`docket history \
             {name}`)"
        ),
        Reason::WorkspaceUnknown => {
            "`docket doctor` says what is wrong with the workspaces' directory".to_owned()
        }
        Reason::FileSkipped => format!(
            "`docket files {name}` says which and why: remove them under {workspace}, or raise the \
             limit; an end that waits for them gives them up with `docket delete {name} --discard`"
        ),
        Reason::ImageMissing => {
            "build, load or pull its image on this engine, or correct container.image".to_owned()
        }
        Reason::ImagePullFailed => {
            "see to the registry; if it wants a login: `docker login` as the user that docket runs as"
                .to_owned()
        }
        Reason::RolledBack => {
            "the last good spec is in force again: correct the new one; each edit is tried once"
                .to_owned()
        }
        Reason::CommandInvalid => {
            "its command cannot be run: correct container.command, container.args or the image"
                .to_owned()
        }
        Reason::StoreDenied => {
            "the store refuses: check the credentials and the bucket's policy".to_owned()
        }
        _ => return None,
    })
}

/// What can be done about what nothing but a change from outside helps.
fn outside(condition: &Condition, name: &str) -> String {
    match condition.reason {
        Reason::WorkspaceReplaced | Reason::WorkspaceMissing => format!(
            "only a change from outside helps: bring its directory back; or end it without: take \
             its file away, then `docket delete {name} --discard`"
        ),
        Reason::DuplicateName => {
            "only a change from outside helps: leave one of the two".to_owned()
        }
        _ => "only a change from outside helps: edit its spec".to_owned(),
    }
}

fn next(text: &mut String, view: &SessionView, now: Timestamp) {
    let status = &view.status;
    text.push_str("What happens next:\n");
    let plan = clean_lines(&status.plan);
    if plan.trim().is_empty() {
        text.push_str("  nothing is planned\n");
    } else {
        text.push_str(&indent(&plan));
    }
    let when = |at: Timestamp| {
        if at > now {
            format!("in {} ({})", age(Some(now), at), at.format("%H:%M:%S UTC"))
        } else {
            "now".to_owned()
        }
    };
    let is_tried = !status.retry.operation.is_empty() && !off(view).is_empty();
    match (is_tried, status.retry.not_before) {
        (true, Some(at)) => {
            let _ =
                writeln!(text, "  {} is tried again {}", clean(&status.retry.operation), when(at));
        }
        (true, None) => {
            let operation = clean(&status.retry.operation);
            let _ = writeln!(text, "  {operation} is not tried again before the spec changes");
        }
        (false, _) => (),
    }
    if let Some(told) = super::describe::lifetime(view, now) {
        let _ = writeln!(text, "  {told}");
    }
    if let Some(at) = status.next_check {
        let _ = writeln!(text, "  it is looked at again {}, or at the next event", when(at));
    }
}
