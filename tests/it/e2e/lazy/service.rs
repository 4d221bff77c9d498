//! A gate that is a service, as `docket-gate.service` has it, under a service manager that keeps what it is given: with
//! it, nobody reads zeros even while operator and gate are both dead.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{blocks, check, checked, gate_pid, lazy, named};
use crate::e2e::rig::{Rig, exchange};

/// A service manager in small: starts, listens, and keeps descriptors for the next start.
struct Manager {
    socket: UnixDatagram,
    kept: BTreeMap<String, OwnedFd>,
    said: Vec<String>,
    gate: Option<Child>,
}

impl Manager {
    fn new(rig: &Rig) -> Manager {
        let socket = UnixDatagram::bind(rig.path("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Manager { socket, kept: BTreeMap::new(), said: Vec::new(), gate: None }
    }

    /// Starts the gate, with what is kept from the third descriptor on.
    fn start(&mut self, rig: &mut Rig) -> u32 {
        self.said.clear();
        let names: Vec<&str> = self.kept.keys().map(String::as_str).collect();
        let script = "export LISTEN_PID=$$; exec \"$0\" gate stand --config \"$1\"";
        let mut passing = Command::new("sh");
        // What is kept comes in as standard input and output, and goes where systemd puts it.
        let moved = ["", " 3<&0", " 3<&0 4<&1"][names.len()];
        passing.arg("-c").arg(format!("{script}{moved} </dev/null >/dev/null"));
        for (at, fd) in self.kept.values().enumerate() {
            let fd = Stdio::from(fd.try_clone().unwrap());
            if at == 0 {
                passing.stdin(fd)
            } else {
                passing.stdout(fd)
            };
        }
        let log = rig.path("service.log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = passing
            .arg(env!("CARGO_BIN_EXE_docket"))
            .arg(rig.path("docket.yaml"))
            .env("NOTIFY_SOCKET", rig.path("notify"))
            .env("WATCHDOG_USEC", "2000000")
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        self.gate = Some(child);
        self.hears(rig, "READY=1", 1);
        pid
    }

    /// Waits until the gate has said something so often.
    fn hears(&mut self, rig: &mut Rig, word: &str, times: usize) {
        rig.until(&format!("the gate says {word}"), |_| {
            self.hear();
            self.said.iter().filter(|said| *said == word).count() >= times
        });
    }

    fn hear(&mut self) {
        let mut bytes = [0u8; 512];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let Ok(heard) = recvmsg(&self.socket, &mut parts, &mut beside, flags) else { return };
            let mut fd = None;
            for message in beside.drain() {
                if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                    fd = fds.next();
                }
            }
            let text = std::str::from_utf8(&bytes[..heard.bytes]).unwrap();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
            match (name, fd) {
                // As systemd: what it has it keeps, under the name it has it.
                (Some(name), Some(fd)) => drop(self.kept.entry(name.to_owned()).or_insert(fd)),
                (Some(name), None) => drop(self.kept.remove(name)),
                _ => self.said.extend(text.lines().map(str::to_owned)),
            }
        }
    }

    /// kill -9 of the gate.
    fn kill(&mut self) {
        if let Some(mut gate) = self.gate.take() {
            let _it_may_have_ended = gate.kill();
            gate.wait().unwrap();
        }
        self.hear();
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Somebody on this machine who opens a file, once he waits.
fn opener(rig: &mut Rig, file: &Path) -> Child {
    let child = Command::new("cat").arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let at = format!("/proc/{}", child.id());
    rig.until("the file is being opened", |_| {
        let read = |name: &str| std::fs::read_to_string(format!("{at}/{name}")).unwrap_or_default();
        // openat, on x86-64 and elsewhere.
        let opens = ["257 ", "56 "].iter().any(|number| read("syscall").starts_with(number));
        opens && !read("stat").contains(") R ")
    });
    child
}

#[test]
fn with_both_gone_a_service_keeps_the_marks_and_whoever_opens_waits() {
    let files = [named("a", 1, 300_000), named("b", 2, 300_000), named("c", 3, 300_000)];
    let mut rig = lazy("lazy-service", &files, "");
    let mut manager = Manager::new(&rig);
    let first = manager.start(&mut rig);
    rig.start();
    let view = rig.ready("ann-one");
    assert_eq!(gate_pid(&rig), Some(first), "docket uses the gate that is there");
    assert_eq!(check(&view, "a"), (200, checked(&files[0].1)));
    manager.hears(&mut rig, "WATCHDOG=1", 3);
    rig.kill();
    manager.kill();
    assert_eq!(manager.kept.keys().collect::<Vec<_>>(), ["group", "guarded"]);

    let file = rig.workspace("ann", "one").join("b");
    let opener = opener(&mut rig, &file);
    let address = view["status"]["address"].as_str().unwrap().to_owned();
    let inside =
        std::thread::spawn(move || exchange(&address, "GET", "/check?path=c", "").unwrap());
    let second = manager.start(&mut rig);
    rig.start();
    let read = opener.wait_with_output().unwrap();
    assert!(read.status.success() && read.stdout == files[1].1, "all of it, and no zeros");
    assert_eq!(inside.join().unwrap(), (200, checked(&files[2].1)));
    assert_eq!(gate_pid(&rig), Some(second));
    let events = rig.ok(&["events", "ann-one"]);
    assert!(!events.contains("Tainted"), "{events}");
    assert_eq!(rig.get("ann-one").unwrap()["status"]["container"]["attempt"], 1);
}

#[test]
fn a_service_takes_the_place_of_the_operators_own_gate_and_the_operator_finds_it_again() {
    let files: Vec<_> =
        (0..4).map(|number| named(&format!("f{number}"), number + 1, 300_000)).collect();
    let mut rig = lazy("lazy-takes", &files, "");
    rig.start();
    let view = rig.ready("ann-one");
    let own = gate_pid(&rig).unwrap();
    let mut manager = Manager::new(&rig);
    let theirs = manager.start(&mut rig);
    assert!(theirs != own && gate_pid(&rig) == Some(theirs));
    assert_eq!(check(&view, "f0"), (200, checked(&files[0].1)));

    // Killed under a living operator, the manager's next one is its gate again.
    manager.kill();
    let next = manager.start(&mut rig);
    assert_eq!(check(&view, "f1"), (200, checked(&files[1].1)));
    assert_eq!(gate_pid(&rig), Some(next));

    // One that lost all is given the operator's group.
    manager.kill();
    manager.kept.clear();
    let next = manager.start(&mut rig);
    assert_eq!(check(&view, "f2"), (200, checked(&files[2].1)));
    assert_eq!(gate_pid(&rig), Some(next));
    rig.until("that is kept", |_| {
        manager.hear();
        manager.kept.contains_key("guarded")
    });

    // It stays without an operator, and the next operator needs no other.
    rig.kill();
    rig.start();
    assert_eq!(gate_pid(&rig), Some(next));
    assert_eq!(check(&view, "f3"), (200, checked(&files[3].1)));
    assert_eq!(rig.ready("ann-one")["status"]["container"]["attempt"], 1);

    // Told to end, it ends; the operator starts one of its own.
    let docket = rig.path("workspaces/.docket");
    let said = rig.docket(&["gate", "end", docket.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(manager.gate.as_mut().unwrap().wait().unwrap().code(), Some(0));
    rig.until("another gate is there", |rig| {
        gate_pid(rig).is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists())
    });
}

/// The operator's marks went into a group of its own while the service was down: what the manager
/// still has would hold readers for ever, answered by nobody.
#[test]
fn a_service_that_comes_late_gives_up_the_group_that_was_kept() {
    let files = [named("a", 1, 300_000), named("b", 2, 300_000)];
    let mut rig = lazy("lazy-late", &files, "");
    let mut manager = Manager::new(&rig);
    manager.start(&mut rig);
    rig.start();
    let view = rig.ready("ann-one");
    rig.kill();
    manager.kill();
    rig.start();
    let own = gate_pid(&rig).unwrap();
    let next = manager.start(&mut rig);
    assert_ne!(next, own);
    assert_eq!(check(&view, "a"), (200, checked(&files[0].1)));
    assert_eq!(blocks(&rig.workspace("ann", "one").join("b")), 0);
    assert_eq!(check(&view, "b"), (200, checked(&files[1].1)));
}

/// Exit code 2 is what the unit does not try again.
#[test]
fn where_no_gate_can_be_a_service_says_so_and_is_not_tried_again() {
    let rig = Rig::new("lazy-nowhere");
    std::fs::write(rig.path("workspaces"), "a file").unwrap();
    let config = rig.path("docket.yaml");
    let said = rig.docket(&["gate", "stand", "--config", config.to_str().unwrap()]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(
        said.stderr.contains("workspaces") && said.stderr.contains("hint: "),
        "{}",
        said.stderr
    );
}
