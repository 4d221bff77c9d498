//! `docket files`, `docket hydrate`, `docket sync`.

use comfy_table::Cell;

use crate::api::{Done, Paths};
use crate::model::FileState;

use super::Context;
use super::client::session;
use super::exit::{Code, Failure};
use super::output::Format;
use super::table::{Look, cell, columns, moment, size};

#[derive(Debug, clap::Args)]
pub(super) struct Files {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct Hydrate {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
    /// Paths in the workspace; left out: all
    paths: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Sync {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
}

pub(super) async fn run(context: &Context, asked: &Files) -> Result<Code, Failure> {
    let path = format!("sessions/{}/files", session(&asked.name)?);
    let files: Vec<FileState> = context.client()?.get(&path).await?;
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &files)?,
        Format::Name => {
            let names: String = files.iter().map(|file| format!("{}\n", file.path)).collect();
            context.out.data(&names)?;
        }
        _ if files.is_empty() => context.out.talk("There are no files."),
        _ => context.out.data(&draw(context.out.look, &files))?,
    }
    Ok(Code::Done)
}

/// Files as a table.
pub(super) fn draw(look: Look, files: &[FileState]) -> String {
    let rows: Vec<Vec<Cell>> = files
        .iter()
        .map(|file| {
            vec![
                cell(&file.state),
                cell(size(file.size)),
                cell(file.mtime.map_or("-".to_owned(), moment)),
                cell(file.path.to_string()),
                cell(&file.reason),
            ]
        })
        .collect();
    columns(look, &["STATE", "SIZE", "MODIFIED", "PATH", "REASON"], &rows)
}

pub(super) async fn hydrate(context: &Context, asked: &Hydrate) -> Result<Code, Failure> {
    let path = format!("sessions/{}/hydrate", session(&asked.name)?);
    let body = Paths { paths: asked.paths.clone() };
    let client = context.client()?;
    let work = client.post_and_wait(&path, &body);
    let done: Done = super::bar::over(work, &client, &asked.name).await?;
    context.out.data(&format!(
        "session/{}: {}\n",
        asked.name,
        super::output::clean(&done.message)
    ))?;
    Ok(Code::Done)
}

pub(super) async fn sync(context: &Context, asked: &Sync) -> Result<Code, Failure> {
    let path = format!("sessions/{}/sync", session(&asked.name)?);
    let client = context.client()?;
    let work = client.post_and_wait(&path, &());
    let done: Done = super::bar::over(work, &client, &asked.name).await?;
    context.out.data(&format!(
        "session/{}: {}\n",
        asked.name,
        super::output::clean(&done.message)
    ))?;
    Ok(Code::Done)
}
