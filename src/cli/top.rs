//! `docket top`: what sessions use, in the units of `docker stats`.

use comfy_table::Cell;
use serde::Serialize;

use crate::api::{SessionList, parse_selector};
use crate::operator::handle::TopView;

use super::Context;
use super::client::{part, session};
use super::exit::{Code, Failure};
use super::output::Format;
use super::table::{Look, cell, columns};

#[derive(Debug, clap::Args)]
pub(super) struct Top {
    /// This session only
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: Option<String>,
    /// Those whose labels fit; user and case are labels too
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "name")]
    selector: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One session's use; MiB, two decimals. `null`: it does not run or could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    name: String,
    /// 100 is one core.
    cpu_percent: Option<f64>,
    memory_usage_mb: Option<f64>,
    memory_limit_mb: Option<f64>,
    memory_percent: Option<f64>,
    network_rx_mb: Option<f64>,
    network_tx_mb: Option<f64>,
    /// Files of its workspace.
    disk: f64,
    disk_quota: f64,
}

impl Row {
    pub(super) fn of(top: &TopView) -> Row {
        let usage = top.usage.as_ref();
        let share = |used: u64, limit: u64| match limit {
            0 => 0.0,
            _ => two(used as f64 * 100.0 / limit as f64),
        };
        Row {
            name: top.name.clone(),
            cpu_percent: usage.map(|u| two(u.cpu_percent)),
            memory_usage_mb: usage.map(|u| mib(u.memory_bytes)),
            memory_limit_mb: usage.map(|u| mib(u.memory_limit_bytes)),
            memory_percent: usage.map(|u| share(u.memory_bytes, u.memory_limit_bytes)),
            network_rx_mb: usage.map(|u| mib(u.network_rx_bytes)),
            network_tx_mb: usage.map(|u| mib(u.network_tx_bytes)),
            disk: mib(top.disk_bytes),
            disk_quota: mib(top.quota_bytes),
        }
    }
}

fn mib(bytes: u64) -> f64 {
    two(bytes as f64 / 1_048_576.0)
}

fn two(value: f64) -> f64 {
    if value.is_finite() { (value * 100.0).round() / 100.0 } else { 0.0 }
}

pub(super) async fn run(context: &Context, asked: &Top) -> Result<Code, Failure> {
    let path = match &asked.name {
        Some(name) => format!("top?session={}", session(name)?),
        None => "top".to_owned(),
    };
    let client = context.client()?;
    let mut views: Vec<TopView> = client.get(&path).await?;
    if let Some(text) = &asked.selector {
        parse_selector(text).map_err(|error| Failure::input(error.to_string()))?;
        let fit: SessionList = client.get(&format!("sessions?selector={}", part(text))).await?;
        views.retain(|view| fit.items.iter().any(|one| one.metadata.name == view.name));
    }
    let rows: Vec<Row> = views.iter().map(Row::of).collect();
    match (asked.output, &asked.name, rows.as_slice()) {
        (Format::Json | Format::Yaml, Some(_), [row]) => context.out.value(asked.output, row)?,
        (Format::Json | Format::Yaml, ..) => context.out.value(asked.output, &rows)?,
        (Format::Name, ..) => {
            let names: String = rows.iter().map(|row| format!("session/{}\n", row.name)).collect();
            context.out.data(&names)?;
        }
        (_, _, []) => context.out.talk("There are no sessions."),
        _ => context.out.data(&draw(context.out.look, &rows))?,
    }
    Ok(Code::Done)
}

/// Rows as a table.
pub(super) fn draw(look: Look, rows: &[Row]) -> String {
    let number = |value: Option<f64>| cell(value.map_or("-".into(), |value| format!("{value:.2}")));
    let quota = |row: &Row| match row.disk_quota {
        quota if quota > 0.0 => format!("{:.2} / {quota:.2}", row.disk),
        _ => format!("{:.2}", row.disk),
    };
    let cells: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            vec![
                cell(&row.name),
                number(row.cpu_percent),
                number(row.memory_usage_mb),
                number(row.memory_limit_mb),
                number(row.memory_percent),
                number(row.network_rx_mb),
                number(row.network_tx_mb),
                cell(quota(row)),
            ]
        })
        .collect();
    let head = ["NAME", "CPU%", "MEM MIB", "LIMIT MIB", "MEM%", "RX MIB", "TX MIB", "DISK MIB"];
    columns(look, &head, &cells)
}
