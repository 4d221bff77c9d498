//! The rows that all benches print, so that one table can be made of them.

use std::time::Duration;

/// The head of the table, once a bench.
pub fn head() {
    println!("| what | docket | floor | ratio (spread) | goal |\n|---|---|---|---|---|");
}

/// Medians of both, and of the ratio of each pair.
pub fn ratio(what: &str, ours: &[Duration], floor: &[Duration], goal: &str) {
    let mut ratios: Vec<f64> =
        ours.iter().zip(floor).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let (first, last) = (ratios[0], ratios[ratios.len() - 1]);
    println!(
        "| {what} | {} | {} | {:.2} ({first:.2}-{last:.2}) | {goal} |",
        shown(median(ours)),
        shown(median(floor)),
        ratios[ratios.len() / 2],
    );
}

/// Something that has no floor but a goal.
#[allow(dead_code, reason = "not every bench has such")]
pub fn value(what: &str, ours: &str, goal: &str) {
    println!("| {what} | {ours} | | | {goal} |");
}

pub fn median(all: &[Duration]) -> Duration {
    let mut all = all.to_vec();
    all.sort();
    all[all.len() / 2]
}

fn shown(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    if millis < 1000.0 { format!("{millis:.0} ms") } else { format!("{:.2} s", millis / 1e3) }
}
