//! A writer that stands still in the midst of one write(2), as one does whose container is throttled or whose memory is
//! slow: the file's times moved when it began, and do not when it goes on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use docket::model::LocalKind;

use super::{den, path, sum};

const SIZE: usize = 4 << 20;
/// A look that does not wait for the writer is over long before.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn t10_a_write_that_halts_half_way_is_waited_for_and_not_taken_for_a_state() {
    let den = den();
    let at = den.inside.join("halted");
    std::fs::write(&at, vec![b'a'; SIZE]).expect("write");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/halted-write.py");
    let mut writer = Command::new("python3")
        .arg(program)
        .arg(&at)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut said = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
    let mut says = || said.next().and_then(Result::ok).unwrap_or_default();
    assert_eq!(says(), "halted");
    std::thread::scope(|all| {
        let (tell, told) = channel();
        let den = &den;
        all.spawn(move || tell.send(den.scan()));
        let early = told.recv_timeout(SOON);
        writer.stdin.take().expect("a pipe").write_all(b"go on\n").expect("write");
        assert_eq!(says(), "done");
        assert_eq!(early.err(), Some(RecvTimeoutError::Timeout), "it looked at half a write");
        let scan = told.recv().expect("a scan");
        let LocalKind::File { sha256, .. } = scan.entries[&path("halted")].kind else {
            panic!("{:?}", scan.entries)
        };
        assert_eq!(sha256, Some(sum(&vec![b'b'; SIZE])));
    });
    assert!(writer.wait().expect("it ends").success());
}
