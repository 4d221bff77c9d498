//! What is wrong with the sources: told once when it begins, and once when it is gone.

use std::collections::BTreeSet;

use crate::model::{ClassName, Reason, SessionName, Source};
use crate::plan::Want;
use crate::spec::{BEING_WRITTEN, NO_REVISION, SourceFile, Sources};

use super::{Wants, source_text};

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum At {
    Root,
    File(String),
    Session(SessionName),
    Class(ClassName),
}

/// Something began to be wrong with the sources, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::operator) struct News {
    /// Where it is.
    pub(in crate::operator) place: String,
    /// What.
    pub(in crate::operator) wrong: String,
    /// That it is no more.
    pub(in crate::operator) gone: bool,
}

impl Wants {
    /// What began to be wrong with the sources, or is not any more, since this was asked last.
    pub(in crate::operator) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes in what is wrong with these files and classes, and with the directory. While that
    /// cannot be seen nothing is known to be mended.
    pub(super) fn note_wrongs(
        &mut self,
        sources: &Sources,
        files: BTreeSet<String>,
        classes: BTreeSet<ClassName>,
        unclear: bool,
    ) {
        // At a first start that is no fault, and what keeps it from coming is told by its follower.
        let is_told =
            |trouble: &String| !trouble.ends_with(NO_REVISION) || !sources.files.is_empty();
        self.note_wrong(At::Root, sources.trouble.clone().filter(is_told));
        if sources.trouble.is_some() {
            return;
        }
        let mut anew: BTreeSet<At> = files.into_iter().map(At::File).collect();
        anew.extend(classes.into_iter().map(At::Class));
        if unclear {
            // Nothing was taken in meanwhile.
            anew.extend(self.wrongs.keys().cloned());
            anew.extend(self.catalogue.classes.keys().cloned().map(At::Class));
            anew.extend(self.decided.keys().cloned().map(At::Session));
        }
        for at in anew {
            let wrong = match &at {
                At::File(path) => match sources.files.get(path) {
                    Some(SourceFile::Invalid(errors)) => errors.clone(),
                    Some(SourceFile::Unreadable(error)) if error == BEING_WRITTEN => continue,
                    Some(SourceFile::Unreadable(error)) => vec![format!("{path}: {error}")],
                    Some(SourceFile::Parsed { .. }) | None => Vec::new(),
                },
                At::Class(name) => {
                    let listed = self.catalogue.classes.get(name).map_or(&[][..], Vec::as_slice);
                    let places: Vec<String> = listed.iter().map(|(_, s)| source_text(s)).collect();
                    let places = (places.len() > 1).then(|| places.join(" and "));
                    let twice = |places| {
                        format!(
                            "DuplicateName: class {name} is in {places}: the one in force stays"
                        )
                    };
                    places.map(twice).into_iter().collect()
                }
                At::Session(name) => {
                    let want = self.decided.get(name);
                    want.and_then(|want| wrong_with(want)).into_iter().collect()
                }
                At::Root => continue,
            };
            self.note_wrong(at, wrong);
        }
    }

    /// Takes in what is wrong somewhere now: what is new of it, or gone, is told once.
    pub(super) fn note_wrong(&mut self, at: At, wrong: impl IntoIterator<Item = String>) {
        let now: Vec<String> = wrong.into_iter().collect();
        let known = self.wrongs.get(&at);
        let before = known.map_or(&[][..], |(_, wrongs)| wrongs.as_slice());
        if before == now {
            return;
        }
        let place = self.place_of(&at);
        // What is gone may stand nowhere any more.
        let was = known.map_or_else(String::new, |(place, _)| place.clone());
        let told = |place: &String, wrong: &String, gone| News {
            place: place.clone(),
            wrong: wrong.clone(),
            gone,
        };
        let gone = before.iter().filter(|wrong| !now.contains(wrong));
        let came = now.iter().filter(|wrong| !before.contains(wrong));
        let gone = gone.map(|wrong| told(&was, wrong, true));
        let news: Vec<News> = gone.chain(came.map(|wrong| told(&place, wrong, false))).collect();
        self.news.extend(news);
        if now.is_empty() {
            self.wrongs.remove(&at);
        } else {
            self.wrongs.insert(at, (place, now));
        }
    }

    fn place_of(&self, at: &At) -> String {
        let sources = |listed: Vec<&Source>| {
            listed.into_iter().map(source_text).collect::<Vec<_>>().join(" and ")
        };
        match at {
            At::Root => "the watched directory".to_owned(),
            At::File(path) => path.clone(),
            At::Session(name) => {
                let listed = self.catalogue.sessions.get(name).into_iter().flatten();
                sources(listed.map(|(_, source)| source).collect())
            }
            At::Class(name) => {
                let listed = self.catalogue.classes.get(name).into_iter().flatten();
                sources(listed.map(|(_, source)| source).collect())
            }
        }
    }
}

/// What is wrong with a session's object, for the log and `docket get sources`.
pub(super) fn wrong_with(want: &Want) -> Option<String> {
    match want {
        Want::Held { reason: reason @ Reason::DuplicateName, message, prune: false } => {
            Some(format!("{reason}: {message}"))
        }
        Want::Present { object, resolved: Err(refused), .. } => {
            Some(format!("session/{}: {}: {}", object.name, refused.reason, refused.message))
        }
        _ => None,
    }
}
