//! `docket doctor`: everything that docket needs, each with what to do about it.
//!
//! What is local is looked at here; what only the operator can see (engine, network, store as
//! it uses them) is asked of it, or of the engine itself if no operator runs.

use comfy_table::{Cell, Color};

use crate::config::Flags;
use crate::operator::handle::Finding;
use crate::world::Engine as _;

use super::client::Client;
use super::exit::{Code, Failure};
use super::output::{Format, clean};
use super::table::{Look, cell, columns};
use super::{Context, local};

#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(context: &Context, asked: &Doctor) -> Result<Code, Failure> {
    let config = context.config(&asked.flags)?;
    let client = Client::new(config.socket());
    let (runs, asked_of_it): (bool, Vec<Finding>) = match client.get("doctor").await {
        Ok(findings) => (true, findings),
        Err(failure) if failure.code == Code::Unreachable => (false, vec![engine(&config).await]),
        Err(failure) => {
            let hint = "look at the operator's log";
            (true, vec![local::finding("operator", "fail", failure.message, hint)])
        }
    };
    let mut findings = local::checks(&config, runs);
    // The operator sees what it really uses: its word replaces ours.
    findings.retain(|ours| asked_of_it.iter().all(|theirs| theirs.check != ours.check));
    findings.extend(asked_of_it);
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &findings)?,
        _ => context.out.data(&draw(context.out.look, &findings))?,
    }
    let failed = findings.iter().any(|finding| finding.level == "fail");
    Ok(if failed { Code::Failed } else { Code::Done })
}

/// The engine, asked without an operator.
async fn engine(config: &crate::config::Config) -> Finding {
    let hint = "start the engine, or set `docker:` or DOCKER_HOST";
    let wrong = |message: String| local::finding("engine", "fail", message, hint);
    match super::run::engine(config) {
        Err(message) => wrong(message),
        Ok(engine) => match engine.info().await {
            Ok(info) if info.api < (1, 41) => wrong(format!(
                "{} speaks API {}.{} only; docket needs 1.41",
                info.version, info.api.0, info.api.1
            )),
            Ok(info) => local::ok(
                "engine",
                format!(
                    "{}, API {}.{}, kernel {}",
                    info.version, info.api.0, info.api.1, info.kernel
                ),
            ),
            Err(error) => wrong(error.to_string()),
        },
    }
}

/// Findings as a table with what to do; where that is wider than the terminal, below it.
pub(super) fn draw(look: Look, findings: &[Finding]) -> String {
    let level = |finding: &Finding| match finding.level.as_str() {
        "ok" => Cell::new("ok").fg(Color::Green),
        "warn" => Cell::new("warn").fg(Color::Yellow),
        _ => Cell::new("fail").fg(Color::Red),
    };
    let wide: Vec<Vec<Cell>> = findings
        .iter()
        .map(|one| vec![level(one), cell(&one.check), cell(&one.message), cell(&one.hint)])
        .collect();
    let head = ["LEVEL", "CHECK", "FOUND", "WHAT TO DO"];
    if look.fits(&head, &wide) {
        return columns(look, &head, &wide);
    }
    let narrow: Vec<Vec<Cell>> =
        findings.iter().map(|one| vec![level(one), cell(&one.check), cell(&one.message)]).collect();
    let mut text = columns(look, head.get(..3).unwrap_or(&head), &narrow);
    for one in findings.iter().filter(|one| !one.hint.is_empty()) {
        text.push_str(&format!("\nhint: {}: {}\n", clean(&one.check), clean(&one.hint)));
    }
    text
}
