//! The bar that a hydration draws on a terminal, on stderr: data and scripts never see it.

use std::future::Future;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::status::SessionView;

use super::client::Client;

/// How often the operator is asked.
const EVERY: Duration = Duration::from_millis(250);
const LOOK: &str =
    "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
/// Before the first bytes nothing says how fast they come.
const FIRST: &str = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes}";

/// Waits for work and shows meanwhile how far the session's hydration is.
pub(super) async fn over<T>(work: impl Future<Output = T>, client: &Client, name: &str) -> T {
    let bar = ProgressBar::new(0);
    wear(&bar, FIRST);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            () = look(&bar, client, name) => {}
        }
    }
}

fn wear(bar: &ProgressBar, look: &str) {
    if let Ok(look) = ProgressStyle::with_template(look) {
        bar.set_style(look);
    }
}

/// What cannot be told is not drawn; the work itself says what is wrong.
async fn look(bar: &ProgressBar, client: &Client, name: &str) {
    tokio::time::sleep(EVERY).await;
    let view = client.get::<SessionView>(&format!("sessions/{name}")).await;
    let Some(progress) = view.ok().and_then(|view| view.status.files.progress) else { return };
    if bar.position() == 0 && progress.bytes > 0 {
        wear(bar, LOOK);
    }
    bar.set_length(progress.bytes_total);
    // Between a file's last byte and its being counted as here it would step back.
    bar.set_position(progress.bytes.max(bar.position()));
    bar.set_message(format!("{} of {} files", progress.files, progress.files_total));
}
