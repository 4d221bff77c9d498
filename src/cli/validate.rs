//! `docket validate FILE...`: files checked as the operator would, without one.
//!
//! A session is merged with its class and checked against the limits if the class is among the
//! files; where it is not, that is said and only the session's own text is checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, Flags};
use crate::model::{ClassName, ClassObject, SessionName, SessionObject};
use crate::spec::{Object, parse_file, resolve};

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

/// What was found in a set of files.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// `file:line:column: message`, or `file: message` where no place is known.
    pub complaints: Vec<String>,
    /// What could not be checked.
    pub remarks: Vec<String>,
}

pub(super) fn run(context: &Context, asked: &Validate) -> Result<Code, Failure> {
    let config = context.config(&asked.flags)?;
    let (files, unreadable) = input::readable(&asked.files);
    if files.is_empty() && unreadable.is_empty() {
        return Err(Failure::input("there is no spec file in what was named"));
    }
    let files: Vec<(String, String)> = files.into_iter().map(|f| (f.name, f.text)).collect();
    let mut found = check(&files, &config);
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

/// Checks files as if they were all there is.
pub(super) fn check(files: &[(String, String)], config: &Config) -> Found {
    let mut found = Found::default();
    let mut sessions: Vec<(String, SessionObject)> = Vec::new();
    let mut classes: BTreeMap<ClassName, (String, ClassObject)> = BTreeMap::new();
    for (file, text) in files {
        let parsed = parse_file(file, text.as_bytes());
        found.complaints.extend(parsed.complaints.iter().map(ToString::to_string));
        for located in parsed.objects {
            match located.object {
                Object::Session(session) => sessions.push((file.clone(), session)),
                Object::Class(class) => {
                    let name = class.name.clone();
                    if let Some((other, _)) = classes.insert(name.clone(), (file.clone(), class)) {
                        found.complaints.push(format!("{file}: class `{name}` is also in {other}"));
                    }
                }
            }
        }
    }
    duplicates(&mut found, &sessions);
    for (file, session) in &sessions {
        let Some((_, class)) = classes.get(&session.class) else {
            found.remarks.push(format!(
                "{file}: class `{}` is not among the files: `{}` was not checked against it",
                session.class, session.name
            ));
            continue;
        };
        if let Err(refused) = resolve(session, class, &config.bounds()) {
            let named = refused.iter().map(|r| format!("{file}: {}: {}", session.name, r.message));
            found.complaints.extend(named);
        }
    }
    found
}

fn duplicates(found: &mut Found, sessions: &[(String, SessionObject)]) {
    let mut names: BTreeMap<&SessionName, &str> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (file, session) in sessions {
        if let Some(other) = names.insert(&session.name, file) {
            let name = &session.name;
            found.complaints.push(format!("{file}: session `{name}` is also in {other}"));
        } else if let Some(other) = places.insert((&session.user, &session.case), &session.name) {
            let (user, case) = (&session.user, &session.case);
            found.complaints.push(format!(
                "{file}: {}: user `{user}` and case `{case}` are session `{other}`'s already",
                session.name
            ));
        }
    }
}
