//! A set of files checked as if they were all there is: each by itself, then names and workspaces
//! across them, sessions against their classes, classes against what the operator allows. `docket
//! validate` and a revision of a repository are judged by it.

use std::collections::BTreeMap;

use crate::model::{Bounds, ClassName, ClassObject, SessionName, SessionObject};

use super::{Located, Object, parse_file, place_of, resolve};

/// What was found in a set of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `file:line:column: message`.
    pub complaints: Vec<String>,
    /// What could not be checked.
    pub remarks: Vec<String>,
}

/// An object with where it stands.
struct Placed<'a, T> {
    file: &'a str,
    text: &'a [u8],
    document: usize,
    object: T,
}

impl<T> Placed<'_, T> {
    /// Line and column of a field, and whether it is written there.
    fn place(&self, field: &str) -> (usize, usize, bool) {
        // What is not UTF-8 has no objects.
        let text = std::str::from_utf8(self.text).unwrap_or_default();
        place_of(self.file, text, self.document, field)
    }

    fn complaint(&self, field: &str, message: &str) -> String {
        let (line, column, _) = self.place(field);
        format!("{}:{line}:{column}: {message}", self.file)
    }
}

/// Checks files, each a name for people and its contents, as if they were all there is.
pub fn check(files: &[(String, Vec<u8>)], bounds: &Bounds) -> Found {
    let mut found = Found::default();
    let mut sessions: Vec<Placed<'_, SessionObject>> = Vec::new();
    let mut classes: BTreeMap<ClassName, Placed<'_, ClassObject>> = BTreeMap::new();
    for (file, text) in files {
        let parsed = parse_file(file, text);
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
    for class in classes.values() {
        found.complaints.extend(alone(class, bounds));
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
        let Err(refused) = resolve(object, &class.object, bounds) else { continue };
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
    found.complaints.sort_by_key(|complaint| place_in(files, complaint));
    found
}

/// Where a complaint stands among files: which of them, line, column.
fn place_in(files: &[(String, Vec<u8>)], complaint: &str) -> (usize, usize, usize) {
    let at = files.iter().enumerate().find_map(|(at, (name, _))| {
        let shown = format!("{}:", name.escape_debug());
        let rest =
            complaint.strip_prefix(&shown).or_else(|| complaint.strip_prefix(&format!("{name}:")));
        Some((at, rest?))
    });
    let Some((at, rest)) = at else { return (usize::MAX, 0, 0) };
    let mut numbers = rest.split(':').map(|number| number.parse().unwrap_or(0));
    (at, numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
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
