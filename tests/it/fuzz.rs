//! The fuzz targets over their corpora and what becomes of these when bytes are changed, cut, doubled and mixed: the
//! same every time. `scripts/fuzz` goes further.

#[path = "../../fuzz/src/lib.rs"]
mod bodies;

use std::path::Path;

use docket::testing::faults::mix;

/// So many children has each file of a corpus.
const CHILDREN: u64 = 300;

fn run(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    assert!(all.len() >= 3, "the corpus of {target} is not there");
    let all: Vec<Vec<u8>> = all.iter().map(|path| std::fs::read(path).unwrap()).collect();
    for (number, parent) in all.iter().enumerate() {
        body(parent);
        for child in 0..CHILDREN {
            let other = &all[(child as usize) % all.len()];
            let bytes = changed(parent, other, mix(number as u64 * CHILDREN + child));
            let ended = std::panic::catch_unwind(|| body(&bytes));
            assert!(ended.is_ok(), "{target}: {}", bytes.escape_ascii());
        }
    }
}

/// A few changes of a file, each from the seed.
fn changed(parent: &[u8], other: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = parent.to_vec();
    for round in 0..=seed % 4 {
        let dice = mix(seed ^ (round << 32));
        let at = (dice >> 16) as usize % (bytes.len() + 1);
        let to = at + (dice >> 40) as usize % 16;
        match dice % 6 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (dice % 8),
            1 if at < bytes.len() => {
                bytes[at] = b"{}[]:,-#&*!|'\"\\/.\n\t\0"[(dice >> 8) as usize % 20];
            }
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..to.min(bytes.len()))),
            4 => {
                let twice = bytes[at..to.min(bytes.len())].to_vec();
                bytes.splice(at..at, twice);
            }
            _ => {
                let from = (dice >> 8) as usize % (other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes
}

#[test]
fn no_spec_file_makes_it_panic() {
    run("specs", bodies::specs);
}

#[test]
fn no_manifest_makes_it_panic_and_what_is_taken_is_written_as_it_was_read() {
    run("manifests", bodies::manifests);
}

#[test]
fn no_name_leads_out_and_any_bytes_can_be_shown_and_read_back() {
    run("names", bodies::names);
}

#[test]
fn no_body_of_a_request_makes_it_panic() {
    run("bodies", bodies::bodies);
}

#[test]
fn no_packet_makes_the_gate_lose_an_open_or_answer_one_twice() {
    run("protocol", bodies::protocol);
}
