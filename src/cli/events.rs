//! `docket events [NAME] [-w]`: what the operator did and met.

use std::sync::Arc;

use comfy_table::Cell;

use crate::api::EventList;
use crate::model::{Event, Timestamp};
use crate::status::SessionView;

use super::Context;
use super::client::session;
use super::exit::{Code, Failure};
use super::output::{Format, line};
use super::table::{Look, age, cell, columns, moment, now};

#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Of this session only
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: Option<String>,
    /// Go on and print events as they happen
    #[arg(short, long)]
    watch: bool,
    /// How to print; json with -w: one event a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(context: &Context, asked: &Events) -> Result<Code, Failure> {
    let query = match &asked.name {
        Some(name) => format!("session={}", session(name)?),
        None => String::new(),
    };
    if asked.watch {
        return watch(context, asked, &query).await;
    }
    let client = context.client()?;
    let list: EventList = client.get(&format!("events?{query}")).await?;
    if let (Some(name), true) = (&asked.name, list.items.is_empty()) {
        // Neither a session nor what is left of one: that is said as for any other command.
        let _it_is_there: Arc<SessionView> = client.get(&format!("sessions/{name}")).await?;
    }
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &list)?,
        _ if list.items.is_empty() => context.out.talk("There are no events."),
        _ => context.out.data(&draw(context.out.look, &list.items, now(), asked.name.is_some()))?,
    }
    Ok(Code::Done)
}

/// Goes on, also of a name that is not there yet: it may come.
async fn watch(context: &Context, asked: &Events, query: &str) -> Result<Code, Failure> {
    let mut stream = context.client()?.stream(&format!("events?follow=true&{query}")).await?;
    while let Some(text) = stream.line().await? {
        let Some(data) = text.strip_prefix(b"data: ") else { continue };
        let event: Event = serde_json::from_slice(data).map_err(|error| {
            Failure::failed(format!("the operator's answer cannot be read: {error}"))
        })?;
        match asked.output {
            Format::Json => context.out.data(&line(&event)?)?,
            Format::Yaml => {
                context.out.data("---\n")?;
                context.out.value(asked.output, &event)?;
            }
            _ => context.out.data(&one_line(&event))?,
        }
    }
    Err(Failure::new(Code::Unreachable, "the operator ended").hint("look at its log"))
}

fn level(event: &Event) -> &'static str {
    if event.warning { "Warning" } else { "Normal" }
}

fn whose(event: &Event) -> &str {
    event.session.as_ref().map_or("-", |name| name.as_str())
}

/// An event that comes by itself.
fn one_line(event: &Event) -> String {
    let (at, level, whose) = (moment(event.at), level(event), whose(event));
    let (reason, message) =
        (super::output::clean(&event.reason), super::output::clean(&event.message));
    format!("{at}  {level:<7}  {whose}  {reason}  {message}\n")
}

/// Events as a table; without the session if all are of one.
pub(super) fn draw(look: Look, events: &[Event], now: Timestamp, of_one: bool) -> String {
    let rows: Vec<Vec<Cell>> = events
        .iter()
        .map(|event| {
            let mut cells = vec![cell(age(Some(event.at), now)), cell(level(event))];
            if !of_one {
                cells.push(cell(whose(event)));
            }
            cells.extend([cell(&event.reason), cell(&event.message)]);
            cells
        })
        .collect();
    let head: &[&str] = if of_one {
        &["AGE", "TYPE", "REASON", "MESSAGE"]
    } else {
        &["AGE", "TYPE", "SESSION", "REASON", "MESSAGE"]
    };
    columns(look, head, &rows)
}
