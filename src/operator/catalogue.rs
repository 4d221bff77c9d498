//! Every object that the sources hold, by name: kept up file by file, so that a listing costs what
//! is different in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{ClassName, ClassObject, Reason, Record, SessionName, SessionObject, Source};
use crate::spec::{BEING_WRITTEN, Object, Shared, SourceFile, Sources};

/// Objects of one name and where each stands, in the order of their sources.
type Listed<O> = Vec<(Arc<O>, Source)>;

/// All objects by name, and the files nothing can be read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalogue {
    pub(super) sessions: BTreeMap<SessionName, Listed<SessionObject>>,
    pub(super) classes: BTreeMap<ClassName, Listed<ClassObject>>,
    pub(super) broken: BTreeMap<String, (Reason, String)>,
    files: Shared<SourceFile>,
    /// What was applied: as text, and what it says.
    applied: BTreeMap<String, (String, Vec<Object>)>,
}

/// What is different in a listing.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) sessions: BTreeSet<SessionName>,
    pub(super) classes: BTreeSet<ClassName>,
    pub(super) files: BTreeSet<String>,
}

impl Catalogue {
    /// Takes a listing in. Returns what is different in it, and what that is about.
    pub(super) fn update(
        &mut self,
        sources: &Sources,
        applied: &BTreeMap<String, String>,
    ) -> Touched {
        let mut touched = Touched::default();
        let old = std::mem::replace(&mut self.files, sources.files.clone());
        touched.files = old.different(&sources.files, is_same);
        let files = touched.files.clone();
        for (path, file) in files.iter().filter_map(|path| Some((path, old.get(path)?))) {
            self.broken.remove(path);
            self.drop_all(objects_of(file), &Source::File(path.clone()), &mut touched);
        }
        for (path, file) in files.iter().filter_map(|path| Some((path, sources.files.get(path)?))) {
            match file {
                SourceFile::Parsed { .. } => (),
                SourceFile::Invalid(errors) => {
                    let first = errors.first().cloned().unwrap_or_default();
                    self.broken.insert(path.clone(), (Reason::InvalidSpec, first));
                }
                SourceFile::Unreadable(error) => {
                    let why = (Reason::SourceUnreadable, format!("{path}: {error}"));
                    self.broken.insert(path.clone(), why);
                }
            }
            self.add_all(objects_of(file), &Source::File(path.clone()), &mut touched);
        }
        self.update_applied(applied, &mut touched);
        touched
    }

    /// Whether a file is not whole yet: what is in it will be known soon.
    pub(super) fn is_being_written(&self) -> bool {
        let is = |path: &String| match self.files.get(path) {
            Some(SourceFile::Unreadable(error)) => error == BEING_WRITTEN,
            _ => false,
        };
        self.broken.keys().any(is)
    }

    fn update_applied(&mut self, applied: &BTreeMap<String, String>, touched: &mut Touched) {
        let mut old = std::mem::take(&mut self.applied);
        let mut new = Vec::new();
        for (key, text) in applied {
            match old.remove(key) {
                Some(same) if same.0 == *text => {
                    self.applied.insert(key.clone(), same);
                }
                before => {
                    old.extend(before.map(|before| (key.clone(), before)));
                    new.push((key, text));
                }
            }
        }
        for (_, objects) in old.values() {
            self.drop_all(objects, &Source::Applied, touched);
        }
        for (key, text) in new {
            let objects = parse("applied", text).unwrap_or_default();
            self.add_all(&objects, &Source::Applied, touched);
            self.applied.insert(key.clone(), (text.clone(), objects));
        }
    }

    fn add_all(&mut self, all: &[Object], source: &Source, touched: &mut Touched) {
        for object in all {
            match object {
                Object::Session(session) => {
                    touched.sessions.insert(session.name.clone());
                    add(self.sessions.entry(session.name.clone()).or_default(), session, source);
                }
                Object::Class(class) => {
                    touched.classes.insert(class.name.clone());
                    add(self.classes.entry(class.name.clone()).or_default(), class, source);
                }
            }
        }
    }

    fn drop_all(&mut self, all: &[Object], source: &Source, touched: &mut Touched) {
        for object in all {
            match object {
                Object::Session(session) => {
                    touched.sessions.insert(session.name.clone());
                    drop_of(&mut self.sessions, &session.name, source);
                }
                Object::Class(class) => {
                    touched.classes.insert(class.name.clone());
                    drop_of(&mut self.classes, &class.name, source);
                }
            }
        }
    }

    /// The file that owns `session/x` or `sessionclass/y`, if one does.
    pub(super) fn file_that_owns(&self, key: &str) -> Option<String> {
        let file = |source: &Source| match source {
            Source::File(path) => Some(path.clone()),
            Source::Applied => None,
        };
        let (kind, name) = key.split_once('/')?;
        match kind {
            "session" => {
                let all = self.sessions.get(&SessionName::parse(name).ok()?)?;
                all.iter().rev().find_map(|(_, source)| file(source))
            }
            _ => {
                let all = self.classes.get(&ClassName::parse(name).ok()?)?;
                all.iter().rev().find_map(|(_, source)| file(source))
            }
        }
    }

    /// Why nothing can be said of a session that no source names.
    pub(super) fn why_unclear(
        &self,
        record: &Record,
        sources: &Sources,
    ) -> Option<(Reason, String)> {
        if let (Some(trouble), true) =
            (&sources.trouble, record.source_unseen || matches!(record.source, Source::File(_)))
        {
            return Some((Reason::SourceUnreadable, trouble.clone()));
        }
        match &record.source {
            Source::File(path) => self.broken.get(path).cloned(),
            Source::Applied => None,
        }
        .or_else(|| {
            let any = self.broken.iter().next().filter(|_| record.source_unseen)?;
            Some((Reason::SourceUnreadable, format!("a source cannot be read: {}", any.1.1)))
        })
    }
}

fn add<O: Clone>(all: &mut Listed<O>, object: &O, source: &Source) {
    let at = all.partition_point(|(_, known)| known <= source);
    all.insert(at, (Arc::new(object.clone()), source.clone()));
}

fn drop_of<N: Ord, O>(all: &mut BTreeMap<N, Listed<O>>, name: &N, source: &Source) {
    let Some(listed) = all.get_mut(name) else { return };
    listed.retain(|(_, known)| known != source);
    if listed.is_empty() {
        all.remove(name);
    }
}

fn objects_of(file: &SourceFile) -> &[Object] {
    match file {
        SourceFile::Parsed { objects, .. } => objects,
        SourceFile::Invalid(_) | SourceFile::Unreadable(_) => &[],
    }
}

/// Whether a file says what it said. What is shared is not compared.
fn is_same(one: &SourceFile, other: &SourceFile) -> bool {
    match (one, other) {
        (SourceFile::Parsed { objects: one, .. }, SourceFile::Parsed { objects: other, .. }) => {
            Arc::ptr_eq(one, other) || one == other
        }
        _ => one == other,
    }
}

/// The objects of a text, all or none.
pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Object>, Vec<String>> {
    let parsed = crate::spec::parse_file(name, text.as_bytes());
    if parsed.complaints.is_empty() {
        Ok(parsed.objects.into_iter().map(|located| located.object).collect())
    } else {
        Err(parsed.complaints.iter().map(ToString::to_string).collect())
    }
}
