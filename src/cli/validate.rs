//! `docket validate FILE...`: files checked as the operator would, without one.
//!
//! A session is merged with its class and checked against the limits if the class is among the
//! files; where it is not, that is said and only the session's own text is checked. A class is
//! checked as any session of it would be.

use std::path::PathBuf;

use crate::config::Flags;
use crate::spec::check;

use super::exit::{Code, Failure};
use super::output::clean;
use super::{Context, input};

#[derive(Debug, clap::Args)]
pub(super) struct Validate {
    /// Files, directories, - for stdin
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(context: &Context, asked: &Validate) -> Result<Code, Failure> {
    let config = context.config(&asked.flags)?;
    let (files, unreadable) = input::readable(&asked.files);
    if files.is_empty() && unreadable.is_empty() {
        return Err(Failure::input("there is no spec file in what was named"));
    }
    let files: Vec<(String, Vec<u8>)> =
        files.into_iter().map(|file| (file.name, file.text.into_bytes())).collect();
    let mut found = check(&files, &config.bounds());
    found.complaints.splice(0..0, unreadable);
    found.remarks.iter().for_each(|remark| context.out.talk(remark));
    if found.complaints.is_empty() {
        let lines: String =
            files.iter().map(|(name, _)| format!("{}: ok\n", clean(name))).collect();
        context.out.data(&lines)?;
        return Ok(Code::Done);
    }
    // No `error:` before them: editors and CI read `file:line:column:` at the line's beginning.
    found.complaints.iter().for_each(|complaint| context.out.talk(complaint));
    Ok(Code::Input)
}
