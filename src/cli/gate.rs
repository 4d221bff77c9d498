//! `docket gate`: the process that holds opens of placeholders back. The operator starts it;
//! nobody types it, so help does not show it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use crate::gate::{Begin, serve, tell_to_end};

use super::exit::{Code, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Gate {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Be the gate of a `.docket` directory; the group is standard input
    Serve {
        /// What it begins with
        #[arg(long, value_enum)]
        begin: How,
        /// The directory
        docket: PathBuf,
    },
    /// Read a file to standard output, as a tenant would
    Read {
        /// The file
        file: PathBuf,
    },
    /// Tell the gate of a `.docket` directory to end
    End {
        /// The directory
        docket: PathBuf,
    },
}

/// How a gate begins.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum How {
    /// With a new group.
    Fresh,
    /// With the group of one that died, before all was marked.
    Adopt,
    /// With the group of one that died.
    AdoptGuarded,
}

pub(super) fn run(asked: &Gate) -> Result<Code, Failure> {
    let failed = |error: std::io::Error| Failure::failed(error.to_string());
    match &asked.what {
        What::Serve { begin, docket } => {
            log();
            let adopted = !matches!(begin, How::Fresh);
            let begin = Begin { adopted, guarded: matches!(begin, How::AdoptGuarded) };
            heedless(|| serve(docket, begin)).map_err(failed)?;
        }
        What::Read { file } => copy(file).map_err(failed)?,
        What::End { docket } => {
            if !tell_to_end(docket).map_err(failed)? {
                return Err(Failure::failed("no gate is there".to_owned()));
            }
        }
    }
    Ok(Code::Done)
}

fn log() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
}

/// The signals that end an operator do not end its gate: it ends when nothing is left to guard,
/// or when it is told over its socket.
fn heedless(work: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let _heard_by_nobody = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    work()
}

#[expect(clippy::disallowed_methods, reason = "it reads one file by path, as a tenant would")]
fn copy(path: &std::path::Path) -> std::io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    std::io::stdout().write_all(&bytes)
}
