//! `docket gate`: the process that holds opens of placeholders back. The operator or a service
//! manager starts it; nobody types it, so help does not show it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use crate::config::Flags;
use crate::gate::{Begin, Environment, Keeper, serve, stand, tell_to_end};

use super::Context;
use super::exit::{Code, Failure, chain};

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
    /// Be the gate of the configuration's workspaces root, as a service of its own
    Stand,
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

pub(super) fn run(context: &Context, asked: &Gate) -> Result<Code, Failure> {
    let failed = |error: std::io::Error| Failure::failed(error.to_string());
    match &asked.what {
        What::Serve { begin, docket } => {
            log();
            let adopted = !matches!(begin, How::Fresh);
            let begin = Begin { adopted, guarded: matches!(begin, How::AdoptGuarded) };
            heedless(|| serve(docket, begin)).map_err(failed)?;
        }
        What::Stand => service(context)?,
        What::Read { file } => copy(file).map_err(failed)?,
        What::End { docket } => {
            if !tell_to_end(docket).map_err(failed)? {
                return Err(Failure::failed("no gate is there".to_owned()));
            }
        }
    }
    Ok(Code::Done)
}

/// Exit code 2 says that trying again is of no use; so it is not said while a group is kept.
fn service(context: &Context) -> Result<(), Failure> {
    let keeper = Keeper::new(&environment()).map_err(|error| Failure::failed(error.to_string()))?;
    log();
    let is_kept = keeper.is_kept();
    let begun = context.config(&Flags::default()).and_then(|config| {
        let docket = crate::workspace::docket_of(&config.workspaces).map_err(|error| {
            Failure::input(chain(&error))
                .hint("workspaces elsewhere need their path in ReadWritePaths= of the gate's unit")
        })?;
        stand(&docket, keeper).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EINVAL | libc::ENOSYS | libc::EROFS | libc::EACCES) => {
                Failure::input(format!("no gate can be here: {error}"))
            }
            _ => Failure::failed(format!("the gate cannot start: {error}")),
        })
    });
    let standing = begun.map_err(|failure| match failure.code {
        Code::Input if is_kept => Failure { code: Code::Failed, ..failure },
        _ => failure,
    })?;
    standing.run().map_err(|error| Failure::failed(format!("the gate ends: {error}")))
}

/// What the service manager says, as sd_notify(3) and sd_listen_fds(3) have it.
fn environment() -> Environment {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let is_ours = |name: &str| number(name).is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|_| is_ours("WATCHDOG_PID"));
    let passed = number("LISTEN_FDS").filter(|_| is_ours("LISTEN_PID")).unwrap_or_default();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    Environment {
        notify: std::env::var_os("NOTIFY_SOCKET"),
        watchdog: micros.map(std::time::Duration::from_micros),
        names: names
            .split(':')
            .take(usize::try_from(passed).unwrap_or_default())
            .map(Into::into)
            .collect(),
    }
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
