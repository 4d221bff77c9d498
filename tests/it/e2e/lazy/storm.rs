//! Operator and gate are killed -9 over and over while a container reads: no reader ever sees a
//! zero in place of content.
//!
//! `DOCKET_STORM_SECONDS` says for how long; 100 is a run in full.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::rig::{exchange, run};
use super::{checked, content, gate_pid, lazy, welcomes};

const FILES: usize = 1000;
const SIZE: usize = 40_000;
const READERS: usize = 3;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// What the readers met.
#[derive(Default)]
struct Met {
    good: AtomicUsize,
    again: AtomicUsize,
    late: AtomicUsize,
    wrong: std::sync::Mutex<Vec<String>>,
}

#[test]
fn no_reader_sees_zeros_however_often_operator_and_gate_are_killed() {
    let seconds = std::env::var("DOCKET_STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    let lasts = Duration::from_secs(seconds.unwrap_or(15));
    let files: Vec<(String, Vec<u8>)> =
        (0..FILES).map(|n| (format!("d{}/f{n}", n % 9), content(n as u64 + 1, SIZE))).collect();
    let expected: Vec<String> = files.iter().map(|(_, bytes)| checked(bytes)).collect();
    let mut rig = lazy("lazy-storm", &files, "");
    rig.start();
    let view = rig.ready("ann-one");
    let address = view["status"]["address"].as_str().unwrap().to_owned();
    let (met, over) = (Met::default(), AtomicBool::new(false));
    let began = Instant::now();
    let (mut operators, mut gates) = (0, 0);
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (met, over, files, expected, address) = (&met, &over, &files, &expected, &address);
            scope.spawn(move || {
                for n in 0..FILES {
                    // Spread over the storm; each reader goes its own way.
                    let at = (n * [1, 7, 333][reader] + reader) % FILES;
                    let due = lasts * u32::try_from(n).unwrap() / u32::try_from(FILES).unwrap();
                    while began.elapsed() < due && !over.load(Ordering::Relaxed) {
                        std::thread::sleep(LOOK);
                    }
                    read(address, &files[at].0, &expected[at], met);
                }
            });
        }
        while began.elapsed() < lasts {
            if (operators + gates) % 3 == 2 {
                let before = (gate_pid(&rig).unwrap(), welcomes(&rig));
                run("kill", &["-9", &before.0.to_string()]);
                gates += 1;
                rig.until("the next gate is there", |rig| welcomes(rig) > before.1);
            } else {
                let before = welcomes(&rig);
                rig.kill();
                operators += 1;
                rig.spawn(&[]);
                rig.until("the next operator is there", |rig| welcomes(rig) > before);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    println!(
        "{operators} operators and {gates} gates killed in {:?}: {} good reads, {} to be tried \
         again (EAGAIN), {} too late (EIO)",
        began.elapsed(),
        count(&met.good),
        count(&met.again),
        count(&met.late)
    );
    let wrong = met.wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}{}", rig.tail());
    assert_eq!(count(&met.good), READERS * FILES);
    assert!(operators > 0 && gates > 0);
}

/// Reads one file until it comes.
fn read(address: &str, path: &str, expected: &str, met: &Met) {
    loop {
        // A container that is being started again does not answer: it has not read anything.
        let Ok((status, said)) = exchange(address, "GET", &format!("/check?path={path}"), "")
        else {
            continue;
        };
        if status == 200 && said == expected {
            met.good.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if said.contains("os error 11") {
            met.again.fetch_add(1, Ordering::Relaxed);
        } else if said.contains("os error 5") {
            met.late.fetch_add(1, Ordering::Relaxed);
        } else {
            met.wrong.lock().unwrap().push(format!("{path}: {status} {said}, not {expected}"));
            return;
        }
    }
}
