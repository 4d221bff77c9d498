//! What the rounds came to, as a table.

use std::collections::BTreeMap;

/// Rows in their order, and what they are to reach.
const ROWS: [(&str, &str); 9] = [
    ("small files up", "0.30 of rclone"),
    ("nothing changed", "25 ms beyond one manifest check"),
    ("one manifest check", ""),
    ("one changed", "0.25 of the best peer"),
    ("small files down", "0.35 of rclone"),
    ("large file up", "0.80 of the best peer"),
    ("large file down", ""),
    ("20 sessions up", ""),
    ("20 sessions down", ""),
];

/// Seconds of a step: by the clock, and of the processor, which other work on the machine does not
/// change much.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub took: f64,
    pub used: f64,
}

/// By row, by who, by round.
#[derive(Default)]
pub struct Told {
    times: BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<usize, Cost>>>,
    /// MiB at most, of docket's side.
    peaks: BTreeMap<&'static str, f64>,
}

fn took(cost: &Cost) -> f64 {
    cost.took
}

fn used(cost: &Cost) -> f64 {
    cost.used
}

impl Told {
    /// Notes what a step took, and says so.
    pub fn add(&mut self, round: usize, row: &'static str, who: &'static str, cost: Option<Cost>) {
        let Some(cost) = cost else { return };
        eprintln!("round {round}, {row}: {who} {:.3} s, cpu {:.3} s", cost.took, cost.used);
        self.times.entry(row).or_default().entry(who).or_default().insert(round, cost);
    }

    pub fn peak(&mut self, row: &'static str, mib: f64) {
        let peak = self.peaks.entry(row).or_default();
        *peak = peak.max(mib);
    }

    fn median(&self, row: &str, who: &str, of: fn(&Cost) -> f64) -> Option<f64> {
        let mut all: Vec<f64> = self.times.get(row)?.get(who)?.values().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    /// Docket's median to another's, with the lowest and the highest of one round.
    fn ratio(&self, row: &str, who: &str) -> Option<String> {
        let whole = self.median(row, "docket", took)? / self.median(row, who, took)?;
        let (ours, theirs) = (self.times.get(row)?.get("docket")?, self.times.get(row)?.get(who)?);
        let pairs =
            ours.iter().filter_map(|(round, ours)| Some(ours.took / theirs.get(round)?.took));
        let low = pairs.clone().fold(whole, f64::min);
        let high = pairs.fold(whole, f64::max);
        Some(format!("{whole:.2} ({low:.2}-{high:.2})"))
    }

    pub fn print(&self, idle: f64) {
        let dash = || "-".to_owned();
        println!(
            "{:18} {:>8} {:>8} {:>8} {:>8}  {:>17} {:>17} {:>17}  goal",
            "seconds", "docket", "rclone", "aws", "floor", "to rclone", "to aws", "to the floor"
        );
        for (row, goal) in ROWS.iter().filter(|(row, _)| self.times.contains_key(row)) {
            let seconds =
                |who| self.median(row, who, took).map_or_else(dash, |s| format!("{s:.3}"));
            let ratio = |who| self.ratio(row, who).unwrap_or_else(dash);
            println!(
                "{row:18} {:>8} {:>8} {:>8} {:>8}  {:>17} {:>17} {:>17}  {goal}",
                seconds("docket"),
                seconds("rclone"),
                seconds("aws"),
                seconds("floor"),
                ratio("rclone"),
                ratio("aws"),
                ratio("floor"),
            );
        }
        println!(
            "\n{:18} {:>8} {:>8} {:>8} {:>8}  {:>17} {:>17}",
            "processor seconds",
            "docket",
            "rclone",
            "aws",
            "floor",
            "to the best peer",
            "by the clock"
        );
        for (row, _) in ROWS.iter().filter(|(row, _)| self.times.contains_key(row)) {
            let seconds =
                |who| self.median(row, who, used).map_or_else(dash, |s| format!("{s:.3}"));
            let best = |of: fn(&Cost) -> f64| {
                let peers = ["rclone", "aws"].iter().filter_map(|who| self.median(row, who, of));
                let best = peers.reduce(f64::min)?;
                Some(format!("{:.2}", self.median(row, "docket", of)? / best))
            };
            println!(
                "{row:18} {:>8} {:>8} {:>8} {:>8}  {:>17} {:>17}",
                seconds("docket"),
                seconds("rclone"),
                seconds("aws"),
                seconds("floor"),
                best(used).unwrap_or_else(dash),
                best(took).unwrap_or_else(dash),
            );
        }
        println!("\nmemory of docket's side: idle {idle:.1} MiB; at most beyond that (goal 64):");
        for (row, _) in ROWS {
            if let Some(peak) = self.peaks.get(row) {
                println!("{row:18} {:>8.1} MiB", peak - idle);
            }
        }
    }
}
