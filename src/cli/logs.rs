//! `docket logs NAME [-f] [--tail N]`: the container's output, byte for byte.

use std::io::Write as _;

use super::Context;
use super::client::session;
use super::exit::{Code, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// The session
    name: String,
    /// Go on as it comes
    #[arg(short, long)]
    follow: bool,
    /// Lines from the end [default: all]
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
}

pub(super) async fn run(context: &Context, asked: &Logs) -> Result<Code, Failure> {
    let tail = asked.tail.map_or(String::new(), |lines| format!("&tail={lines}"));
    let path = format!("sessions/{}/logs?follow={}{tail}", session(&asked.name)?, asked.follow);
    let mut log = context.client()?.stream(&path).await?;
    let mut out = std::io::stdout().lock();
    while let Some(piece) = log.piece().await? {
        out.write_all(&piece)?;
        out.flush()?;
    }
    Ok(Code::Done)
}
