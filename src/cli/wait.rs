//! `docket wait NAME --for=ready|synced|deleted`.
//!
//! A name that is not there yet may come: its file may not have been noticed. So `ready` and
//! `synced` wait for it too, and only the timeout ends that. `deleted` believes an absence only
//! after the operator has told all there is.

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use crate::api::Watched;
use crate::model::{ConditionType, Truth};
use crate::status::SessionView;

use super::Context;
use super::client::{part, session};
use super::exit::{Code, Failure};
use super::table::now;

#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    what: What,
    /// How long at most
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// All that was asked for is there and answers
    Ready,
    /// Everything in the workspace is stored
    Synced,
    /// It is over; also if it is not there
    Deleted,
}

pub(super) async fn run(context: &Context, asked: &Wait) -> Result<Code, Failure> {
    session(&asked.name)?;
    let mut last = None;
    let (looked, mut look) = tokio::sync::watch::channel(false);
    // However short the time, what is there is looked at once.
    let over = async {
        tokio::time::sleep(asked.timeout).await;
        let _however_it_ends = tokio::time::timeout(LOOK, look.wait_for(|once| *once)).await;
    };
    let work = async {
        tokio::select! {
            biased;
            done = until(context, asked, &mut last, &looked) => Ok(done),
            () = over => Err(()),
        }
    };
    let waited = super::bar::over(work, &context.client()?, &asked.name).await;
    match waited {
        Ok(Ok(())) => {
            context.out.data(&format!("session/{} {}\n", asked.name, word(asked.what)))?;
            Ok(Code::Done)
        }
        Ok(Err(failure)) => Err(failure),
        Err(()) => Err(late(asked, last.as_deref())),
    }
}

/// How long the first look may take at most, beyond the time that was asked for.
const LOOK: Duration = Duration::from_secs(5);

fn word(what: What) -> &'static str {
    match what {
        What::Ready => "ready",
        What::Synced => "synced",
        What::Deleted => "deleted",
    }
}

/// Waits; a stream that breaks off is opened again while there is time.
async fn until(
    context: &Context,
    asked: &Wait,
    last: &mut Option<Arc<SessionView>>,
    looked: &tokio::sync::watch::Sender<bool>,
) -> Result<(), Failure> {
    let client = context.client()?;
    let path = format!("sessions?watch=true&name={}", part(&asked.name));
    let mut first_uid = None;
    let mut connected = false;
    loop {
        match client.stream(&path).await {
            Ok(mut changes) => {
                connected = true;
                while let Ok(Some(change)) = changes.value::<Watched>().await {
                    let all = matches!(change, Watched::Bookmark);
                    if heeded(asked.what, change, last, &mut first_uid) {
                        return Ok(());
                    }
                    looked.send_if_modified(|once| !std::mem::replace(once, *once || all) && all);
                }
            }
            // Nobody was ever there: that is an answer. Later it may be a restart.
            Err(failure) if !connected || failure.code != Code::Unreachable => return Err(failure),
            Err(_) => (),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whether what came ends the wait.
fn heeded(
    what: What,
    change: Watched,
    last: &mut Option<Arc<SessionView>>,
    first_uid: &mut Option<String>,
) -> bool {
    match change {
        Watched::Added(view) | Watched::Modified(view) => {
            let uid = view.metadata.uid.clone();
            let another = what == What::Deleted
                && !uid.is_empty()
                && *first_uid.get_or_insert_with(|| uid.clone()) != uid;
            let reached = another || holds(what, &view);
            *last = Some(view);
            reached
        }
        Watched::Deleted(_) => {
            *last = None;
            what == What::Deleted
        }
        Watched::Bookmark => what == What::Deleted && last.is_none(),
    }
}

fn holds(what: What, view: &SessionView) -> bool {
    let kind = match what {
        What::Ready => ConditionType::Ready,
        What::Synced => ConditionType::FilesSynced,
        What::Deleted => return false,
    };
    view.status.conditions.iter().any(|c| c.kind == kind && c.status == Truth::True)
}

fn late(asked: &Wait, last: Option<&SessionView>) -> Failure {
    let what = format!(
        "session `{}` was not {} within {}",
        asked.name,
        word(asked.what),
        humantime::format_duration(asked.timeout)
    );
    match last {
        None if asked.what == What::Deleted => {
            Failure::new(Code::TimedOut, format!("{what}: the operator has not looked yet"))
        }
        None => Failure::new(Code::TimedOut, format!("{what}: there is no such session"))
            .hint("`docket get sources` shows what was read and what is wrong with it"),
        Some(view) => {
            let why = super::explain::draw(view, now());
            Failure::new(Code::TimedOut, format!("{what}\n{why}"))
        }
    }
}
