//! `docket validate FILE...`: files checked as the operator would, without one.
//!
//! A session is merged with its class and checked against the limits if the class is among the
//! files; where it is not, that is said and only the session's own text is checked. A class is
//! checked as any session of it would be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, Flags};
use crate::model::{Bounds, ClassName, ClassObject, SessionName, SessionObject};
use crate::spec::{Located, Object, parse_file, place_of, resolve};

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
    /// `file:line:column: message`, or `file: message` of a file that cannot be read.
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

/// An object with where it stands.
struct Placed<'a, T> {
    file: &'a str,
    text: &'a str,
    document: usize,
    object: T,
}

impl<T> Placed<'_, T> {
    /// Line and column of a field, and whether it is written there.
    fn place(&self, field: &str) -> (usize, usize, bool) {
        place_of(self.file, self.text, self.document, field)
    }

    fn complaint(&self, field: &str, message: &str) -> String {
        let (line, column, _) = self.place(field);
        format!("{}:{line}:{column}: {message}", self.file)
    }
}

/// Checks files as if they were all there is.
pub(super) fn check(files: &[(String, String)], config: &Config) -> Found {
    let mut found = Found::default();
    let mut sessions: Vec<Placed<'_, SessionObject>> = Vec::new();
    let mut classes: BTreeMap<ClassName, Placed<'_, ClassObject>> = BTreeMap::new();
    for (file, text) in files {
        let parsed = parse_file(file, text.as_bytes());
        found.complaints.extend(parsed.complaints.iter().map(ToString::to_string));
        for Located { object, document } in parsed.objects {
            match object {
                Object::Session(object) => sessions.push(Placed { file, text, document, object }),
                Object::Class(object) => {
                    let name = object.name.clone();
                    let class = Placed { file, text, document, object };
                    if let Some(other) = classes.get(&name) {
                        let message = format!("class `{name}` is also in {}", other.file);
                        found.complaints.push(class.complaint("metadata.name", &message));
                    } else {
                        classes.insert(name, class);
                    }
                }
            }
        }
    }
    duplicates(&mut found, &sessions);
    let bounds = config.bounds();
    for class in classes.values() {
        found.complaints.extend(alone(class, &bounds));
    }
    for session in &sessions {
        let object = &session.object;
        let Some(class) = classes.get(&object.class) else {
            found.remarks.push(format!(
                "{}: class `{}` is not among the files: `{}` was not checked against it",
                session.file, object.class, object.name
            ));
            continue;
        };
        let Err(refused) = resolve(object, &class.object, &bounds) else { continue };
        for refusal in refused {
            let field = field_of(&refusal.message);
            let told = match (session.place(field).2, class.place(field).2) {
                (false, true) => class.complaint(field, &refusal.message),
                _ => session.complaint(field, &format!("{}: {}", object.name, refusal.message)),
            };
            if !found.complaints.contains(&told) {
                found.complaints.push(told);
            }
        }
    }
    found
}

/// What is wrong with a class for any session of it.
fn alone(class: &Placed<'_, ClassObject>, bounds: &Bounds) -> Vec<String> {
    let text = format!(
        "{{apiVersion: docket.dev/v1, kind: Session, spec: {{user: a, case: a, class: {}}}}}",
        class.object.name
    );
    let any = parse_file("any.yaml", text.as_bytes());
    let Some(Located { object: Object::Session(any), .. }) = any.objects.first() else {
        return Vec::new();
    };
    let refused = resolve(any, &class.object, bounds).err().unwrap_or_default();
    refused.iter().map(|r| class.complaint(field_of(&r.message), &r.message)).collect()
}

/// The field that a refusal begins with.
fn field_of(message: &str) -> &str {
    let field = message.split(": ").next().unwrap_or_default();
    if field.starts_with("spec.") { field } else { "spec" }
}

fn duplicates(found: &mut Found, sessions: &[Placed<'_, SessionObject>]) {
    let mut names: BTreeMap<&SessionName, &str> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for session in sessions {
        let object = &session.object;
        let (name, user, case) = (&object.name, &object.user, &object.case);
        if let Some(other) = names.get(name) {
            let message = format!("session `{name}` is also in {other}");
            found.complaints.push(session.complaint("metadata.name", &message));
        } else if let Some(other) = places.insert((user, case), name) {
            let message =
                format!("{name}: user `{user}` and case `{case}` are session `{other}`'s already");
            found.complaints.push(session.complaint("spec.case", &message));
        }
        names.entry(name).or_insert(session.file);
    }
}
