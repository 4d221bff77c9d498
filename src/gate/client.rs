//! The operator's side of the gate.
//!
//! It connects to the gate that is there; where nobody answers and the lock is free, it makes a
//! group and starts one. It keeps a descriptor of the group: when the gate dies, nothing is lost
//! but the opens it had read, and the next gate tells those to try again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::abi::{self, Class, Response};
use super::wire::{self, Message};
use super::{LOCK, LOG, STANDING};
use crate::world::Marks;

/// How long a gate may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// How long one that was started may take until it holds the lock.
const HOLDS_WITHIN: Duration = Duration::from_secs(7);
/// How long one of a service may take to be started again before the operator starts its own.
const RETURNS_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two tries to start a gate that would not start.
const RESTART: Duration = Duration::from_millis(500);

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The kernel refuses the group.
    #[error("{}", refused(_0))]
    Refused(#[source] io::Error),
    /// A gate is there and does not answer.
    #[error("a gate holds {} and does not answer", _0.display())]
    Silent(PathBuf),
    /// It could not be started or spoken to.
    #[error("the gate cannot be started: {0}")]
    Start(#[source] io::Error),
}

/// What a refusal by fanotify_init means.
fn refused(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM: no CAP_SYS_ADMIN in the initial user namespace",
        Some(libc::EINVAL | libc::ENOSYS) => "EINVAL: the kernel has no fanotify permission events",
        _ => return format!("fanotify is refused: {error}"),
    };
    why.to_owned()
}

/// What the opener is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The content is there.
    Go,
    /// It cannot be had.
    Broken,
    /// There is no space for it.
    NoSpace,
    /// The workspace's quota has no room for it.
    OverQuota,
}

impl Answer {
    fn code(self, class: Class) -> u32 {
        let response = match self {
            Answer::Go => Response::Allow,
            Answer::Broken => Response::Deny(Errno::IO),
            Answer::NoSpace => Response::Deny(Errno::NOSPC),
            Answer::OverQuota => Response::Deny(Errno::DQUOT),
        };
        response.code(class)
    }
}

/// Somebody opens a placeholder and waits. Dropped without an answer, the open is as good as
/// never handed over: its deadline ends it.
#[derive(Debug)]
pub struct Opened {
    file: OwnedFd,
    id: u64,
    gate: Arc<OwnedFd>,
    class: Class,
}

impl Opened {
    /// The file, open for writing, and nothing done to it through this raises an event.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Answers. A gate that died meanwhile has told the opener to try again.
    pub fn answer(self, answer: Answer) {
        let Opened { file, id, gate, class } = self;
        drop(file); // Nobody can execute what is open for writing.
        let code = answer.code(class);
        if let Err(error) = wire::send(&*gate, Message::Answer { id, code }, None) {
            tracing::debug!(%error, "the gate did not hear an answer");
        }
    }
}

/// Opens as they come.
pub type Opens = mpsc::UnboundedReceiver<Opened>;

/// The operator's hold on the gate. Clones are the same.
#[derive(Clone, Debug)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `.docket`, as a path for a new gate and as a descriptor.
    path: PathBuf,
    docket: OwnedFd,
    group: OwnedFd,
    class: Class,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Arc<OwnedFd>,
    guarded: bool,
    /// Inodes that were met and marked, and when they had last been changed then: marking again
    /// is dearer than looking here.
    seen: BTreeMap<(u64, u64), (i64, u64)>,
    /// Whether every mark so far makes truncate(2) wait as well.
    whole: bool,
}

impl Gate {
    /// Whether everything that must be marked was marked before, so that nobody can have read
    /// from a placeholder.
    pub fn is_guarded(&self) -> bool {
        self.shared.state().guarded
    }

    /// Everything that must be marked is marked.
    pub fn set_guarded(&self) {
        let mut state = self.shared.state();
        state.guarded = true;
        if let Err(error) = wire::send(&*state.connection, Message::Guarded, None) {
            tracing::debug!(%error, "the gate did not hear that all is marked");
        }
    }

    /// How many inodes are marked.
    pub fn marked(&self) -> io::Result<usize> {
        abi::marked(&self.shared.group)
    }
}

impl Marks for Gate {
    fn mark(&self, inode: BorrowedFd<'_>) -> io::Result<()> {
        let whole = abi::mark(self.shared.group.as_fd(), inode)?;
        self.shared.state().whole &= whole;
        Ok(())
    }

    /// An inode number may be another file's by now, but not with the same time of its last change.
    fn see(&self, inode: BorrowedFd<'_>) -> io::Result<()> {
        let stat = fstat(inode)?;
        let (id, changed) = ((stat.st_dev, stat.st_ino), (stat.st_ctime, stat.st_ctime_nsec));
        if self.shared.state().seen.get(&id) == Some(&changed) {
            return Ok(());
        }
        self.mark(inode)?;
        self.shared.state().seen.insert(id, changed);
        Ok(())
    }

    fn unmark(&self, inode: BorrowedFd<'_>) -> io::Result<()> {
        let stat = fstat(inode)?;
        self.shared.state().seen.remove(&(stat.st_dev, stat.st_ino));
        abi::unmark(self.shared.group.as_fd(), inode)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to the gate of a `.docket` directory, or starts one. Blocks; for the start of the
/// program.
///
/// # Errors
/// [`Unfit`]: files cannot come when they are opened, and why.
pub fn attach(docket: &Path) -> Result<(Gate, Opens), Unfit> {
    let path = docket.to_owned();
    let docket = open_docket(docket).map_err(Unfit::Start)?;
    let mut group = None;
    let began = std::time::Instant::now();
    let until = began + ANSWERS_WITHIN;
    let (connection, group, guarded, class) = loop {
        match greet(&docket) {
            Ok((connection, theirs, guarded, class)) => {
                break (connection, theirs, guarded, class);
            }
            Err(_) if group.is_none() && returns(&docket) && began.elapsed() < RETURNS_WITHIN => {
                std::thread::sleep(PAUSE);
            }
            Err(error) if group.is_none() && !is_held(&docket).map_err(Unfit::Start)? => {
                tracing::debug!(%error, "no gate answers");
                let (made, _) = abi::init().map_err(Unfit::Refused)?;
                spawn(&path, &docket, &made, "fresh").map_err(Unfit::Start)?;
                group = Some(made);
            }
            Err(_) if std::time::Instant::now() < until => std::thread::sleep(PAUSE),
            Err(error) if group.is_some() => return Err(Unfit::Start(error)),
            Err(_) => return Err(Unfit::Silent(path.join(LOCK))),
        }
    };
    let connection = Arc::new(connection);
    let state =
        State { connection: Arc::clone(&connection), guarded, seen: BTreeMap::new(), whole: true };
    let shared = Arc::new(Shared { path, docket, group, class, state: Mutex::new(state) });
    let (tell, opens) = mpsc::unbounded_channel();
    let listening = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("gate".to_owned())
        .spawn(move || listen(&listening, connection, &tell))
        .map_err(Unfit::Start)?;
    Ok((Gate { shared }, opens))
}

/// Tells the gate of a `.docket` directory to end. `Ok(false)`: none is there.
///
/// # Errors
/// It could not be told.
pub fn tell_to_end(docket: &Path) -> io::Result<bool> {
    let docket = open_docket(docket)?;
    match wire::connect_in(&docket) {
        Ok(connection) => wire::send(&connection, Message::Exit, None).map(|()| true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(false),
            _ => Err(error),
        },
    }
}

fn open_docket(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whether the gate that was there last is a service's: it comes back by itself.
fn returns(docket: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let text = openat(docket, LOCK, flags, Mode::empty()).map(|lock| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(lock), &mut text).map(|_| text)
    });
    text.is_ok_and(|text| text.is_ok_and(|text| text.lines().any(|line| line == STANDING)))
}

/// Whether a gate lives, answering or not.
pub(super) fn is_held(docket: &OwnedFd) -> io::Result<bool> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(docket, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Connects, and is welcomed with the group.
pub(super) fn greet(docket: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd, bool, Class)> {
    let connection = wire::connect_in(docket)?;
    wire::send(&connection, Message::Serve, None)?;
    let answered = abi::wait(&[connection.as_fd()], ANSWERS_WITHIN)?;
    if answered.first() != Some(&true) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match wire::receive(&connection)? {
        Some((Message::Welcome { guarded, class }, Some(group))) => {
            Ok((connection, group, guarded, class))
        }
        _ => Err(io::Error::other("the gate says what is not understood")),
    }
}

/// Starts this very binary as the gate: the group as its standard input, nothing of our
/// environment, its words into a file of its own.
fn spawn(path: &Path, docket: &OwnedFd, group: &OwnedFd, begin: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW;
    let log = openat(docket, LOG, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
    let mut child = Command::new("/proc/self/exe")
        .args(["gate", "serve", "--begin", begin])
        .arg(path)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(group.try_clone()?))
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()?;
    // So that it is no zombie when it ends.
    std::thread::Builder::new().name("gate-end".to_owned()).spawn(move || {
        if let Ok(status) = child.wait() {
            tracing::debug!(%status, "a gate ended");
        }
    })?;
    Ok(())
}

/// Passes on what the gate says; when it dies, starts the next.
fn listen(shared: &Shared, mut gate: Arc<OwnedFd>, tell: &mpsc::UnboundedSender<Opened>) {
    loop {
        match wire::receive(&*gate) {
            Ok(Some((Message::Opened { id }, Some(file)))) => {
                let opened = Opened { file, id, gate: Arc::clone(&gate), class: shared.class };
                if tell.send(opened).is_err() {
                    return; // The operator ends.
                }
            }
            Ok(Some(_)) => (),
            Ok(None) | Err(_) => {
                tracing::warn!("the gate is gone; another takes its place");
                gate = again(shared);
            }
        }
    }
}

/// A new gate on our descriptor of the group; without one, opens wait in the kernel.
fn again(shared: &Shared) -> Arc<OwnedFd> {
    if returns(&shared.docket)
        && let Ok(connection) = returned(shared)
    {
        return known(shared, connection);
    }
    loop {
        let begin = if shared.state().guarded { "adopt-guarded" } else { "adopt" };
        let started = spawn(&shared.path, &shared.docket, &shared.group, begin);
        match started.and_then(|()| met(shared)) {
            Ok(connection) => return known(shared, connection),
            Err(error) => {
                tracing::error!(%error, "a new gate does not start; tried again");
                std::thread::sleep(RESTART);
            }
        }
    }
}

/// The gate of a service, once that has started it again.
fn returned(shared: &Shared) -> io::Result<OwnedFd> {
    let began = std::time::Instant::now();
    loop {
        match greet(&shared.docket) {
            Ok((connection, ..)) => return Ok(connection),
            Err(error) if began.elapsed() >= RETURNS_WITHIN => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A gate that took another's place is told of our group, should it have lost it, and of the marks.
fn known(shared: &Shared, connection: OwnedFd) -> Arc<OwnedFd> {
    let connection = Arc::new(connection);
    let mut state = shared.state();
    state.connection = Arc::clone(&connection);
    let told = wire::send(&*connection, Message::Adopt, Some(&shared.group)).and_then(|()| {
        if state.guarded { wire::send(&*connection, Message::Guarded, None) } else { Ok(()) }
    });
    if let Err(error) = told {
        tracing::debug!(%error, "the new gate did not hear what it guards");
    }
    drop(state);
    connection
}

/// The gate just started, once it answers.
fn met(shared: &Shared) -> io::Result<OwnedFd> {
    let began = std::time::Instant::now();
    loop {
        match greet(&shared.docket) {
            Ok((connection, ..)) => return Ok(connection),
            Err(error) if began.elapsed() >= ANSWERS_WITHIN => return Err(error),
            // It ended, and nobody else is there.
            Err(error) if began.elapsed() >= HOLDS_WITHIN && !is_held(&shared.docket)? => {
                return Err(error);
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
