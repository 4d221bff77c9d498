//! What is drawn on a terminal while something takes its time, on stderr: data and scripts never see
//! it. A bar where bytes are counted, else where the session is.

use std::future::Future;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::model::{ConditionType, many};
use crate::status::SessionView;

use super::client::Client;
use super::output::clean;
use super::table::size;

/// How often the operator is asked.
const EVERY: Duration = Duration::from_millis(250);
const BYTES: &str =
    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
/// Before the first bytes nothing says how fast they come.
const FIRST: &str = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}";
const WORDS: &str = "{spinner} {wide_msg} {elapsed}";

/// Waits for work and shows meanwhile what it has come to, if stderr is a terminal.
pub(super) async fn over<T>(work: impl Future<Output = T>, client: &Client, name: &str) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let bar = ProgressBar::new(0);
    wear(&bar, WORDS);
    let mut most = 0;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            () = look(&bar, client, name, &mut most) => {}
        }
    }
}

fn wear(bar: &ProgressBar, look: &str) {
    if let Ok(look) = ProgressStyle::with_template(look) {
        bar.set_style(look);
    }
}

/// What cannot be told is not drawn; the work itself says what is wrong.
async fn look(bar: &ProgressBar, client: &Client, name: &str, most: &mut u64) {
    tokio::time::sleep(EVERY).await;
    bar.tick();
    let view = client.get::<SessionView>(&format!("sessions/{name}")).await;
    let Ok(view) = view else { return };
    match shown(&view, most) {
        Shown::Bytes { done, all, what } => {
            wear(bar, if done > 0 { BYTES } else { FIRST });
            bar.set_length(all);
            // Between a file's last byte and its being counted as here it would step back.
            bar.set_position(done.max(bar.position()));
            bar.set_message(what);
        }
        Shown::Words(what) => {
            wear(bar, WORDS);
            bar.set_message(what);
        }
    }
}

/// What is drawn of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// So many of so many bytes.
    Bytes {
        /// Those that are done.
        done: u64,
        /// All of them.
        all: u64,
        /// Of what.
        what: String,
    },
    /// Where it is.
    Words(String),
}

/// Bytes that come, else bytes that go, else the phase and why it is not ready. `most` remembers
/// the most bytes that were to go.
pub(super) fn shown(view: &SessionView, most: &mut u64) -> Shown {
    let files = &view.status.files;
    if let Some(progress) = files.progress {
        return Shown::Bytes {
            done: progress.bytes,
            all: progress.bytes_total,
            what: format!("{} of {} files", progress.files, progress.files_total),
        };
    }
    *most = (*most).max(files.unsynced_bytes);
    if files.unsynced_bytes > 0 {
        let what =
            format!("{} to store", many(u32::try_from(files.unsynced).unwrap_or(u32::MAX), "file"));
        return Shown::Bytes { done: *most - files.unsynced_bytes, all: *most, what };
    }
    let ready = view.status.conditions.iter().find(|c| c.kind == ConditionType::Ready);
    let why = ready.map_or(String::new(), |ready| format!(", {}", ready.reason));
    let unsynced = match files.unsynced {
        0 => String::new(),
        count => format!(", {count} files ({}) not stored", size(files.unsynced_bytes)),
    };
    Shown::Words(clean(&format!("{} is {}{why}{unsynced}", view.metadata.name, view.status.phase)))
}
