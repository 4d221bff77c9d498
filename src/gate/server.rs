//! The gate process: owns the group and the opens that wait, and knows nothing of any store.
//!
//! 1. Whoever opens a placeholder waits in the kernel; the gate reads the event.
//! 2. An operator is connected: it is handed the descriptor, and says what the opener is told.
//! 3. None is: the opener waits for one, until the deadline that the placeholder itself names.
//! 4. Nobody is connected and nothing is marked: the gate ends, unless it is a service's.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, fgetxattr, flock, openat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::abi::{self, Class, Response};
use super::client::{greet, is_held};
use super::keeper::Keeper;
use super::table::Table;
use super::wire::{self, Message};
use super::{LOCK, STANDING, XATTR_STUB};
use crate::model::Stub;

/// Descriptors the gate may have, so opens that may wait at a time; more are denied.
pub(super) const DESCRIPTORS: u64 = 65_536;
/// Longest wait of the loop.
const TURN: Duration = Duration::from_millis(500);
/// How long a gate waits for its first operator.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the lock of a gate that is gone may be held after it.
const FREE_WITHIN: Duration = Duration::from_secs(5);
/// How long the gate of an operator may take to let go.
const LETS_GO_WITHIN: Duration = Duration::from_secs(10);
/// How long a gate that was told to end may take to let go of its lock until it is told again.
const HEARS_WITHIN: Duration = Duration::from_millis(500);
/// Between two tries to take it.
const LOOK: Duration = Duration::from_millis(5);
/// For a placeholder that does not say.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a gate begins with.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    /// It takes over the group of a gate that died: its unanswered opens are to be told so.
    pub adopted: bool,
    /// Everything that must be marked is marked.
    pub guarded: bool,
}

/// Runs the gate of a `.docket` directory until it is told to end, or has nothing to guard. The
/// group is standard input.
///
/// # Errors
/// Another gate is there, or the system refuses something it cannot be without.
pub fn serve(docket: &Path, begin: Begin) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let docket = rustix::fs::open(docket, flags, Mode::empty())?;
    let _lock = take_lock(&docket, "")?;
    super::stand_apart();
    let group = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let class = class_of(&group)?;
    if begin.adopted {
        deny_stranded(&group, class);
    }
    let listener = wire::listen_in(&docket)?;
    Gate::new(group, class, listener, begin.guarded).run()
}

/// A gate that is a service, ready to run.
pub struct Standing {
    gate: Gate,
    lock: OwnedFd,
}

impl Standing {
    /// Runs until it is told to end, also while nothing is marked.
    ///
    /// # Errors
    /// The system refuses something it cannot be without.
    pub fn run(self) -> io::Result<()> {
        self.gate.run()?;
        // Nobody is to wait for a gate that was told to end.
        Ok(rustix::fs::ftruncate(&self.lock, 0)?)
    }
}

/// The gate of a `.docket` directory as a service. Its group is that of a gate which is there and
/// ends by this, the one that the manager kept, or a new one.
///
/// # Errors
/// The gate that is there does not let go, or the system refuses something it cannot be without.
pub fn stand(docket: &Path, mut keeper: Keeper) -> io::Result<Standing> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let docket = rustix::fs::open(docket, flags, Mode::empty())?;
    let kept = keeper.group.take().map(|group| (group, keeper.guarded));
    let theirs = take_over(&docket)?;
    let lock = take_lock(&docket, STANDING)?;
    if let (Some(_), Some((stale, _))) = (&theirs, &kept) {
        // The operator made its marks in the other: nobody would answer for this one. Where they
        // are the same, those who wait are told to try again either way.
        drain(stale)?;
        keeper.forget_all();
    }
    let (group, guarded) = match theirs.or(kept) {
        Some((group, guarded)) => {
            deny_stranded(&group, class_of(&group)?);
            (group, guarded)
        }
        None => (abi::init()?.0, false),
    };
    keeper.keep(&group, guarded);
    let class = class_of(&group)?;
    let listener = wire::listen_in(&docket)?;
    keeper.say("READY=1");
    let gate = Gate { keeper: Some(keeper), ..Gate::new(group, class, listener, guarded) };
    Ok(Standing { gate, lock })
}

/// Asks the gate that is there, if any, for its group, and lets it end. Its operator is told by the
/// lock that another comes, and starts none itself.
fn take_over(docket: &OwnedFd) -> io::Result<Option<(OwnedFd, bool)>> {
    let until = now() + LETS_GO_WITHIN;
    while is_held(docket)? {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(docket, LOCK, flags, Mode::empty())?;
        writeln!(std::fs::File::from(lock), "{STANDING}")?;
        // The operator, which lost its connection to this, may come back before the gate hears more.
        let asked = greet(docket).and_then(|(connection, group, guarded, _)| {
            wire::send(&connection, Message::Exit, None)?;
            Ok((group, guarded))
        });
        match asked {
            Ok((group, guarded)) if lets_go(docket)? => {
                tracing::info!(guarded, "takes the place of the gate that is there");
                return Ok(Some((group, guarded)));
            }
            Err(error) if now() >= until => return Err(error),
            Ok(_) if now() >= until => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(_) => abi::wait(&[], LOOK)?,
        };
    }
    Ok(None)
}

/// Whether a gate that was told to end does so in a moment.
fn lets_go(docket: &OwnedFd) -> io::Result<bool> {
    let until = now() + HEARS_WITHIN;
    while is_held(docket)? {
        if now() >= until {
            return Ok(false);
        }
        abi::wait(&[], LOOK)?;
    }
    Ok(true)
}

/// Those who wait in a group that is given up try again.
fn drain(group: &OwnedFd) -> io::Result<()> {
    let class = class_of(group)?;
    deny_stranded(group, class);
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let files = abi::read(group.as_fd(), &mut buffer)?;
        if files.is_empty() {
            return Ok(());
        }
        for file in files {
            answer(group, file, Response::Deny(Errno::AGAIN).code(class));
        }
    }
}

/// Closed first: the answer goes by its number, which nothing takes meanwhile.
fn answer(group: &OwnedFd, file: OwnedFd, code: u32) {
    let number = file.as_raw_fd();
    drop(file);
    if let Err(error) = abi::respond(group.as_fd(), number, code)
        && error.raw_os_error() != Some(libc::ENOENT)
    {
        tracing::warn!(%error, code, "an open could not be answered");
    }
}

/// Held as long as the gate lives. One that was killed may not have let go of it yet, and an
/// operator that looks whether anybody holds it does so for a moment: neither is another gate.
fn take_lock(docket: &OwnedFd, word: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = openat(docket, LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    let until = now() + FREE_WITHIN;
    while let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if errno != Errno::WOULDBLOCK || now() >= until {
            return Err(errno.into());
        }
        abi::wait(&[], LOOK)?;
    }
    rustix::fs::ftruncate(&lock, 0)?;
    let mut file = std::fs::File::from(lock);
    writeln!(file, "pid {}", std::process::id())?;
    if !word.is_empty() {
        writeln!(file, "{word}")?;
    }
    Ok(file.into())
}

/// What class the group is of: its fdinfo says the flags it was made with.
fn class_of(group: &OwnedFd) -> io::Result<Class> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", group.as_raw_fd()))?;
    let flags = text.lines().find_map(|line| {
        let (flags, _) = line.strip_prefix("fanotify flags:")?.split_once(' ')?;
        u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok()
    });
    match flags {
        Some(flags) if flags & libc::FAN_CLASS_PRE_CONTENT != 0 => Ok(Class::PreContent),
        Some(_) => Ok(Class::Content),
        None => Err(io::Error::other("standard input is no fanotify group")),
    }
}

/// A dead gate had read these: the kernel knows them by number only, and any number may be one.
fn deny_stranded(group: &OwnedFd, class: Class) {
    let code = Response::Deny(Errno::AGAIN).code(class);
    let numbers = 0..i32::try_from(DESCRIPTORS).unwrap_or(i32::MAX);
    let told = numbers.filter(|number| abi::respond(group.as_fd(), *number, code).is_ok()).count();
    tracing::info!(told, "took over from a gate that died");
}

/// Monotonic, and shared by all processes.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

struct Gate {
    group: OwnedFd,
    class: Class,
    listener: OwnedFd,
    operator: Option<OwnedFd>,
    guarded: bool,
    table: Table<OwnedFd>,
    lonely_since: Duration,
    patience: Duration,
    /// It is a service's.
    keeper: Option<Keeper>,
}

impl Gate {
    fn new(group: OwnedFd, class: Class, listener: OwnedFd, guarded: bool) -> Gate {
        Gate {
            group,
            class,
            listener,
            operator: None,
            guarded,
            table: Table::new(u64::from(std::process::id()) << 32),
            lonely_since: now(),
            patience: PATIENCE,
            keeper: None,
        }
    }

    fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let turn = self.table.next_deadline(now()).map_or(TURN, |next| next.min(TURN));
            let mut fds = vec![self.group.as_fd(), self.listener.as_fd()];
            fds.extend(self.operator.iter().map(AsFd::as_fd));
            let ready = abi::wait(&fds, turn)?;
            let is_ready = |at: usize| ready.get(at).copied().unwrap_or_default();
            if is_ready(0) {
                for file in abi::read(self.group.as_fd(), &mut buffer)? {
                    let until = now() + deadline_of(&file);
                    self.table.add(file, until);
                }
            }
            if is_ready(2) && !self.hear() {
                return Ok(());
            }
            if is_ready(1) && !self.accept() {
                return Ok(());
            }
            self.hand_over();
            for file in self.table.late(now()) {
                answer(&self.group, file, Response::Deny(Errno::IO).code(self.class));
            }
            if let Some(keeper) = &self.keeper {
                keeper.alive(now());
            }
            if self.is_done() {
                tracing::info!("nobody is connected and nothing is marked: the gate ends");
                return Ok(());
            }
        }
    }

    /// A message of the operator. `false`: it says to end.
    fn hear(&mut self) -> bool {
        let Some(operator) = &self.operator else { return true };
        match wire::receive(operator) {
            Ok(Some((Message::Answer { id, code }, _))) => {
                if let Some(file) = self.table.take(id) {
                    answer(&self.group, file, code);
                }
            }
            Ok(Some((Message::Guarded, _))) => {
                self.guarded = true;
                self.keep();
            }
            Ok(Some((Message::Adopt, Some(group)))) => self.adopt(group),
            Ok(Some((Message::Exit, _))) => return false,
            Ok(_) | Err(_) => {
                tracing::info!("the operator is gone");
                self.operator = None;
                self.lonely_since = now();
                self.patience = Duration::ZERO;
                self.table.unhand();
            }
        }
        true
    }

    /// Somebody connects. `false`: and says to end.
    fn accept(&mut self) -> bool {
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let Ok(guest) = rustix::net::accept_with(&self.listener, flags) else { return true };
        // One that connects and stays silent must not hold up the others.
        let waited = abi::wait(&[guest.as_fd()], TURN);
        if !waited.is_ok_and(|ready| ready.first() == Some(&true)) {
            return true;
        }
        match wire::receive(&guest) {
            Ok(Some((Message::Exit, _))) => return false,
            Ok(Some((Message::Serve, _))) => {
                let welcome = Message::Welcome { guarded: self.guarded, class: self.class };
                if wire::send(&guest, welcome, Some(&self.group)).is_ok() {
                    tracing::info!(guarded = self.guarded, "an operator is connected");
                    self.operator = Some(guest);
                    self.table.unhand();
                    self.keep();
                }
            }
            _ => (),
        }
        true
    }

    /// The operator's group, if ours has nothing in it: the manager had lost it.
    fn adopt(&mut self, group: OwnedFd) {
        let is_empty = abi::marked(&self.group).is_ok_and(|marked| marked == 0);
        if is_empty && self.table.is_empty() && class_of(&group).is_ok() {
            deny_stranded(&group, self.class);
            if let Some(keeper) = &self.keeper {
                keeper.forget_all();
            }
            self.group = group;
            self.keep();
        }
    }

    fn keep(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.keep(&self.group, self.guarded);
        }
    }

    fn hand_over(&mut self) {
        let Some(operator) = &self.operator else { return };
        self.table.hand(|id, file| wire::offer(operator, Message::Opened { id }, file).is_ok());
    }

    fn is_done(&self) -> bool {
        self.keeper.is_none()
            && self.operator.is_none()
            && self.table.is_empty()
            && now().saturating_sub(self.lonely_since) >= self.patience
            && abi::marked(&self.group).is_ok_and(|marked| marked == 0)
    }
}

/// How long an opener of this file waits at most.
fn deadline_of(file: &OwnedFd) -> Duration {
    let mut value = [0u8; 4096];
    match fgetxattr(file, XATTR_STUB, &mut value) {
        Ok(length) => Stub::parse(&value[..length]).map_or(DEADLINE, |stub| stub.deadline),
        Err(_) => DEADLINE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_waits_until_the_lock_of_one_that_was_killed_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let docket = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        let held = take_lock(&docket, "").unwrap();
        let (tell, hear) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| {
                tell.send(()).unwrap();
                take_lock(&docket, "")
            });
            hear.recv().unwrap();
            abi::wait(&[], 4 * LOOK).unwrap();
            assert!(!next.is_finished(), "it does not give up at once");
            drop(held);
            next.join().unwrap().unwrap();
        });
    }
}
