//! What the sources say, session by session: present, held or gone. Pure but for the memory of
//! what was seen before; the time is a value. What did not change is not decided again: a change
//! costs the same among ten sessions and ten thousand.
//!
//! 1. Objects are collected from every file that parses and from what was applied (`catalogue`).
//! 2. Each session is resolved with its class; two of one name, or two of one (user, case), are
//!    settled so that nothing ever flips.
//! 3. A session with a record and without an object is held while anything is unclear, and is
//!    gone only when its absence is proven and the prune guard lets it go.

mod news;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;

use crate::model::{
    Bounds, ClassName, ClassObject, Prune, Reason, Record, SessionName, SessionObject, Source,
    Timestamp,
};
use crate::plan::{Refused, Want};
use crate::spec::{Object, Shared};
pub use crate::spec::{SourceFile, Sources};
use crate::world::{Clock, Engine, Ledger, Objects, Probe, Workspaces};

use super::catalogue::{Catalogue, parse};
use super::claims::Claims;
use super::handle::{Answer, Refusal, SourceView};
use super::{Operator, Settings};
use news::{At, News, wrong_with};

/// Files that vanish within this long count together.
const WAVE: TimeDelta = TimeDelta::seconds(60);

/// When a wave of vanished files is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneGuard {
    /// So many sessions.
    pub at_least: u32,
    /// And so many per cent of all that files own.
    pub percent: u32,
}

/// What a listing has to be compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    sources: Option<&'a Sources>,
    applied: &'a BTreeMap<String, String>,
    settings: &'a Settings,
    now: Timestamp,
}

/// The wants of all sessions, and what was seen before.
#[derive(Clone, Debug)]
pub(super) struct Wants {
    /// What holds after all is settled between sessions.
    decided: BTreeMap<SessionName, Arc<Want>>,
    /// What a session's sources alone say.
    alone: BTreeMap<SessionName, Arc<Want>>,
    catalogue: Catalogue,
    claims: Claims,
    /// Sessions to be decided anew.
    stale: BTreeSet<SessionName>,
    /// Sessions with a record that no source names.
    missing: BTreeSet<SessionName>,
    /// Sessions whose class is nowhere, and whether some file is being written that may have it.
    classless: BTreeSet<SessionName>,
    writing: bool,
    /// What is wrong, by where it is told, and what of it is news for the log.
    wrongs: BTreeMap<At, (String, Vec<String>)>,
    news: Vec<News>,
    bounds: Bounds,
    classes: BTreeMap<ClassName, ClassObject>,
    class_sources: BTreeMap<ClassName, Source>,
    vanished: BTreeMap<SessionName, Timestamp>,
    held: BTreeSet<SessionName>,
    confirmed: BTreeSet<SessionName>,
    /// Everything that may name a session was read.
    clear: bool,
}

impl Wants {
    pub(super) fn new(confirmed: BTreeSet<SessionName>) -> Wants {
        Wants {
            decided: BTreeMap::new(),
            alone: BTreeMap::new(),
            catalogue: Catalogue::default(),
            claims: Claims::default(),
            stale: BTreeSet::new(),
            missing: BTreeSet::new(),
            classless: BTreeSet::new(),
            writing: false,
            wrongs: BTreeMap::new(),
            news: Vec::new(),
            bounds: Bounds::default(),
            classes: BTreeMap::new(),
            class_sources: BTreeMap::new(),
            vanished: BTreeMap::new(),
            held: BTreeSet::new(),
            confirmed,
            clear: false,
        }
    }

    /// What is wanted of a session. What nobody ever named is not wanted, once all was read that
    /// may name it.
    pub(super) fn of(&self, name: &SessionName, record: Option<&Record>) -> Arc<Want> {
        match (self.decided.get(name), record) {
            (Some(want), _) => Arc::clone(want),
            (None, Some(_)) => {
                Arc::new(held(Reason::SourceUnreadable, "the sources were not listed yet"))
            }
            (None, None) if !self.clear => {
                Arc::new(held(Reason::SourceUnreadable, "a source that may name it was not read"))
            }
            (None, None) => Arc::new(Want::Gone { cause: "no source names it".to_owned() }),
        }
    }

    pub(super) fn knows(&self, name: &SessionName) -> bool {
        self.decided.get(name).is_some_and(|want| !matches!(**want, Want::Gone { .. }))
    }

    /// Whether it was held for its record's sake alone: without one nothing is left to hold.
    pub(super) fn only_held(&self, name: &SessionName) -> bool {
        let named_twice = |reason: Reason| reason == Reason::DuplicateName;
        let want = self.decided.get(name).map(|want| &**want);
        matches!(want, Some(Want::Held { reason, .. }) if !named_twice(*reason))
    }

    /// Whether everything was read that may name a session.
    pub(super) fn is_clear(&self) -> bool {
        self.clear
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &SessionName> {
        self.decided.keys()
    }

    /// A session's record as it is now. Whether anything depends on what is new in it: then
    /// [`Wants::decide`] is due.
    pub(super) fn heed(&mut self, name: &SessionName, record: Option<&Arc<Record>>) -> bool {
        let touched = self.claims.heed(name, record);
        let due = touched.is_some();
        self.stale.extend(touched.into_iter().flatten());
        due
    }

    /// A session is over: nothing of it is remembered. Whether its end had been confirmed.
    pub(super) fn ended(&mut self, name: &SessionName) -> bool {
        self.heed(name, None);
        self.decided.remove(name);
        self.stale.insert(name.clone());
        self.vanished.remove(name);
        self.confirmed.remove(name)
    }

    pub(super) fn confirmed(&self) -> &BTreeSet<SessionName> {
        &self.confirmed
    }

    pub(super) fn confirm(&mut self, names: &BTreeSet<SessionName>) {
        self.confirmed.extend(names.iter().cloned());
    }

    /// Sessions whose end waits for `docket confirm-prune`.
    pub(super) fn held_for_prune(&self) -> BTreeSet<SessionName> {
        self.decided
            .iter()
            .filter(|(_, want)| {
                matches!(&***want, Want::Held { prune: true, reason, .. } if *reason != Reason::PruneDisabled)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The file that owns `session/x` or `sessionclass/y`, if one does. One that cannot be read now
    /// goes on owning what came of it.
    pub(super) fn file_that_owns(&self, key: &str) -> Option<String> {
        let owner = match key.split_once('/')? {
            ("session", name) => self.unclear_owner(&SessionName::parse(name).ok()?),
            (_, name) => self.class_sources.get(&ClassName::parse(name).ok()?),
        };
        let file = |source: &Source| match source {
            Source::File(path) => Some(path.clone()),
            Source::Applied => None,
        };
        self.catalogue.file_that_owns(key).or_else(|| owner.and_then(file))
    }

    /// Where a session came from that is not proven to have been taken away there.
    fn unclear_owner(&self, name: &SessionName) -> Option<&Source> {
        let record = self.claims.records().get(name)?;
        let gone = match self.decided.get(name).map(|want| &**want) {
            Some(Want::Gone { .. } | Want::Held { prune: true, .. }) => true,
            Some(Want::Held { .. } | Want::Present { .. }) | None => false,
        };
        (!gone).then_some(&record.source)
    }

    /// Objects of `docket apply -f`, as `kind/name` and JSON text.
    pub(super) fn parse_applied(
        &self,
        files: &[(String, String)],
    ) -> Answer<Vec<(String, String)>> {
        let mut all = Vec::new();
        for object in parse_all(files)? {
            all.push((key_of(&object), raw_of(&object)));
        }
        Ok(all)
    }

    /// The wants as if these files were applied, or were all there is.
    pub(super) fn imagine(
        &self,
        files: &[(String, String)],
        whole: bool,
        sources: Option<&Sources>,
        applied: &BTreeMap<String, String>,
        settings: &Settings,
        now: Timestamp,
    ) -> Answer<BTreeMap<SessionName, Arc<Want>>> {
        let objects = parse_all(files)?;
        let new: BTreeSet<String> = objects.iter().map(key_of).collect();
        let mut imagined = Sources {
            root: sources.map_or(String::new(), |sources| sources.root.clone()),
            trouble: None,
            revision: String::new(),
            files: Shared::default(),
        };
        if !whole && let Some(sources) = sources {
            imagined = sources.clone();
            for (path, file) in &sources.files {
                if let SourceFile::Parsed { objects, revision } = file
                    && objects.iter().any(|object| new.contains(&key_of(object)))
                {
                    let (mut objects, revision) = (Arc::clone(objects), revision.clone());
                    Arc::make_mut(&mut objects).retain(|object| !new.contains(&key_of(object)));
                    imagined.files.insert(path, SourceFile::Parsed { objects, revision });
                }
            }
        }
        // What is given takes the place of what it is now: being in another file is no change.
        let mut applied = applied.clone();
        for object in objects {
            let key = key_of(&object);
            if let Some(text) = applied.get_mut(&key) {
                *text = raw_of(&object);
                continue;
            }
            let path = self.catalogue.file_that_owns(&key).unwrap_or("(given)".to_owned());
            imagine_in(&mut imagined.files, &path, object);
        }
        let mut wants = self.clone();
        wants.decide(&Around { sources: Some(&imagined), applied: &applied, settings, now });
        Ok(wants.decided)
    }

    /// Rows of `docket get sources`.
    pub(super) fn sources(
        &self,
        sources: Option<&Sources>,
        applied: &BTreeMap<String, String>,
    ) -> Vec<SourceView> {
        let mut rows = Vec::new();
        let Some(sources) = sources else { return rows };
        if let Some(trouble) = &sources.trouble {
            rows.push(SourceView {
                source: sources.root.clone(),
                state: "Unreadable".to_owned(),
                revision: String::new(),
                objects: Vec::new(),
                errors: vec![trouble.clone()],
                git: None,
            });
        }
        let mut refused = self.refused();
        for (path, file) in &sources.files {
            let refused = refused.remove(&Source::File(path.to_owned())).unwrap_or_default();
            let (state, revision, objects, errors) = match file {
                SourceFile::Parsed { objects, revision } => {
                    let state = if refused.is_empty() { "Ok" } else { "Refused" };
                    (state, revision.clone(), objects.iter().map(key_of).collect(), refused)
                }
                SourceFile::Invalid(errors) => {
                    ("Invalid", String::new(), Vec::new(), errors.clone())
                }
                SourceFile::Unreadable(error) => {
                    ("Unreadable", String::new(), Vec::new(), vec![format!("{path}: {error}")])
                }
            };
            let (source, state) = (path.to_owned(), state.to_owned());
            rows.push(SourceView { source, state, revision, objects, errors, git: None });
        }
        if !applied.is_empty() {
            let errors = refused.remove(&Source::Applied).unwrap_or_default();
            rows.push(SourceView {
                source: "applied".to_owned(),
                state: if errors.is_empty() { "Ok" } else { "Refused" }.to_owned(),
                revision: String::new(),
                objects: applied.keys().cloned().collect(),
                errors,
                git: None,
            });
        }
        rows
    }

    /// What is wrong with objects that can be read, by where they stand.
    fn refused(&self) -> BTreeMap<Source, Vec<String>> {
        let mut all: BTreeMap<Source, Vec<String>> = BTreeMap::new();
        for (at, (_, wrongs)) in &self.wrongs {
            let sources: Vec<&Source> = match at {
                At::Session(name) => {
                    let listed = self.catalogue.sessions.get(name).into_iter().flatten();
                    listed.map(|(_, source)| source).collect()
                }
                At::Class(name) => {
                    let listed = self.catalogue.classes.get(name).into_iter().flatten();
                    listed.map(|(_, source)| source).collect()
                }
                At::Root | At::File(_) => Vec::new(),
            };
            for source in sources {
                let place = match source {
                    Source::File(path) => path.as_str(),
                    Source::Applied => "applied",
                };
                let told = wrongs.iter().map(|wrong| format!("{place}: {wrong}"));
                all.entry(source.clone()).or_default().extend(told);
            }
        }
        all
    }

    /// Decides anew. Returns the sessions whose want changed. What did not change is not looked at:
    /// the cost is that of the change, and, where the listing is another one, that of finding out
    /// which of its files are.
    pub(super) fn decide(&mut self, around: &Around<'_>) -> BTreeSet<SessionName> {
        let Some(sources) = around.sources else { return BTreeSet::new() };
        let touched = self.catalogue.update(sources, around.applied);
        let before = self.wrongs.get(&At::Root).and_then(|(_, wrongs)| wrongs.first());
        let unclear = before != sources.trouble.as_ref();
        let mut anew = touched.sessions;
        let bounds = &around.settings.policy.bounds;
        if self.bounds != *bounds {
            self.bounds.clone_from(bounds);
            anew.extend(self.catalogue.sessions.keys().cloned());
        }
        let classes = if unclear || !touched.files.is_empty() || !touched.classes.is_empty() {
            self.reclass(sources)
        } else {
            BTreeSet::new()
        };
        if !classes.is_empty() {
            let of = |(one, _): &(Arc<SessionObject>, Source)| classes.contains(&one.class);
            let all = self.catalogue.sessions.iter();
            let all = all.filter(|(_, candidates)| candidates.iter().any(of));
            anew.extend(all.map(|(name, _)| name.clone()));
        }
        let writing = self.catalogue.is_being_written();
        if writing != self.writing {
            self.writing = writing;
            anew.extend(self.classless.iter().cloned());
        }
        for name in anew {
            let listed = self.catalogue.sessions.get(&name).into_iter().flatten();
            if listed.clone().any(|(one, _)| !self.classes.contains_key(&one.class)) {
                self.classless.insert(name.clone());
            } else {
                self.classless.remove(&name);
            }
            let want = self.catalogue.sessions.get(&name).map(|all| self.present(&name, all));
            self.stale.extend(self.claims.claim(&name, want.as_ref()));
            match want {
                Some(want) => drop(self.alone.insert(name.clone(), Arc::new(want))),
                None => drop(self.alone.remove(&name)),
            }
            self.stale.insert(name);
        }
        let mut stale = std::mem::take(&mut self.stale);
        for name in &stale {
            if self.claims.records().contains_key(name) && !self.alone.contains_key(name) {
                self.missing.insert(name.clone());
            } else {
                self.missing.remove(name);
            }
        }
        // What is missing depends on the time, and on all that cannot be read.
        self.remember_vanished(sources, around.now);
        let wave = self.wave(around);
        stale.extend(self.missing.iter().cloned());
        let mut changed = BTreeSet::new();
        for name in stale {
            let want = self.decided_of(&name, sources, wave);
            if sources.trouble.is_none() {
                self.note_wrong(At::Session(name.clone()), want.as_deref().and_then(wrong_with));
            }
            let same = match (self.decided.get(&name), &want) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
                (one, other) => one.is_none() && other.is_none(),
            };
            if same {
                continue;
            }
            match want {
                Some(want) => drop(self.decided.insert(name.clone(), want)),
                None => drop(self.decided.remove(&name)),
            }
            changed.insert(name);
        }
        let guarded = |want: &Want| matches!(want, Want::Held { reason: Reason::PruneGuard, .. });
        let held = self.missing.iter().filter(|n| self.decided.get(*n).is_some_and(|w| guarded(w)));
        self.held = held.cloned().collect();
        self.clear = sources.trouble.is_none() && self.catalogue.broken.is_empty();
        self.note_wrongs(sources, touched.files, touched.classes, unclear);
        changed
    }

    /// Decides all of it anew, whether or not it changed. Returns the sessions whose want changed.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn decide_all(&mut self, around: &Around<'_>) -> BTreeSet<SessionName> {
        self.stale.extend(self.alone.keys().cloned());
        self.stale.extend(self.decided.keys().cloned());
        self.stale.extend(self.claims.records().keys().cloned());
        self.decide(around)
    }

    /// Sees that deciding all of it would give the same, while the simulation wants that.
    #[cfg(feature = "testing")]
    fn recount(&self, around: &Around<'_>) {
        if crate::plan::planted::recounts() {
            let changed = self.clone().decide_all(around);
            assert!(changed.is_empty(), "{changed:?} was not decided on");
        }
    }

    /// What holds for a session after all is settled with the others.
    fn decided_of(&self, name: &SessionName, sources: &Sources, wave: bool) -> Option<Arc<Want>> {
        let record = self.claims.records().get(name);
        let Some(alone) = self.alone.get(name) else {
            return Some(Arc::new(self.absent(name, record?, sources, wave)));
        };
        let Want::Present { object, .. } = &**alone else { return Some(Arc::clone(alone)) };
        // A session's user and case never change: whoever writes others into its spec is told.
        let moved = record.is_some_and(|record| {
            record.ending.is_none() && (record.user != object.user || record.case != object.case)
        });
        let mut want = Arc::clone(alone);
        if moved {
            let message = "user and case of a session cannot change: delete it and make another";
            refuse(&mut want, Reason::InvalidSpec, message.to_owned());
        }
        if let Some(owner) = self.claims.loses_to(name) {
            let (user, case) = (&object.user, &object.case);
            let message = format!("the workspace of {user} and {case} belongs to session {owner}");
            refuse(&mut want, Reason::WorkspaceInUse, message);
        }
        Some(want)
    }

    /// The classes in force; those whose file is broken stay as they were. Returns which changed.
    fn reclass(&mut self, sources: &Sources) -> BTreeSet<ClassName> {
        let mut classes = BTreeMap::new();
        let mut class_sources = BTreeMap::new();
        for (name, candidates) in &self.catalogue.classes {
            // Two of one name: the one in force stays, and if there is none, neither is.
            let kept = match &candidates[..] {
                [(class, source)] => Some(((**class).clone(), source.clone())),
                _ => None,
            };
            let before =
                || Some((self.classes.get(name)?.clone(), self.class_sources.get(name)?.clone()));
            if let Some((class, source)) = kept.or_else(before) {
                classes.insert(name.clone(), class);
                class_sources.insert(name.clone(), source);
            }
        }
        let broken = &self.catalogue.broken;
        for (name, class) in &self.classes {
            let source = self.class_sources.get(name);
            let unclear = sources.trouble.is_some()
                || matches!(source, Some(Source::File(path)) if broken.contains_key(path));
            if !classes.contains_key(name) && unclear {
                classes.insert(name.clone(), class.clone());
                class_sources.extend(source.map(|source| (name.clone(), source.clone())));
            }
        }
        let names = classes.keys().chain(self.classes.keys());
        let changed = names.filter(|name| classes.get(*name) != self.classes.get(*name));
        let changed = changed.cloned().collect();
        self.classes = classes;
        self.class_sources = class_sources;
        changed
    }

    /// A session that at least one source names.
    fn present(&self, name: &SessionName, candidates: &[(Arc<SessionObject>, Source)]) -> Want {
        let [(object, source)] = candidates else {
            let places: Vec<String> = candidates.iter().map(|(_, s)| source_text(s)).collect();
            let message = format!("{name} is in {}: both are held", places.join(" and "));
            return held(Reason::DuplicateName, &message);
        };
        let class = self.classes.get(&object.class);
        // A listing may have the session and not yet its class, above all the first one.
        let told = self.wrongs.contains_key(&At::Session(name.clone()));
        if class.is_none() && self.writing && !told {
            let message =
                format!("class `{}` may be in a file that is being written", object.class);
            return held(Reason::SourceUnreadable, &message);
        }
        let resolved = match class {
            None => Err(Refused {
                reason: Reason::ClassNotFound,
                message: format!("there is no class `{}`", object.class),
            }),
            Some(class) => crate::spec::resolve(object, class, &self.bounds)
                .map(Box::new)
                .map_err(|refusals| refused(&refusals)),
        };
        Want::Present {
            object: Box::new((**object).clone()),
            source: source.clone(),
            class_hash: class.map_or("", |class| &class.hash).to_owned(),
            resolved,
        }
    }

    fn remember_vanished(&mut self, sources: &Sources, now: Timestamp) {
        let records = self.claims.records();
        let missing = self.missing.iter().filter_map(|name| Some((name, records.get(name)?)));
        let gone = missing.filter(|(_, record)| {
            self.catalogue.why_unclear(record, sources).is_none() && !record.source_unseen
        });
        self.vanished = gone
            .map(|(name, _)| (name.clone(), self.vanished.get(name).copied().unwrap_or(now)))
            .collect();
    }

    /// Whether the sessions that vanished lately are a wave that is held.
    fn wave(&self, around: &Around<'_>) -> bool {
        let guard = around.settings.prune;
        let records = self.claims.records();
        let of_files = |name: &SessionName| {
            records.get(name).is_some_and(|r| matches!(r.source, Source::File(_)))
        };
        let recent = self
            .vanished
            .iter()
            .filter(|(name, at)| {
                of_files(name) && (around.now - **at < WAVE || self.held.contains(*name))
            })
            .count() as u64;
        recent > 0
            && recent >= u64::from(guard.at_least)
            && recent * 100 >= u64::from(guard.percent) * self.claims.of_files()
    }

    /// A session with a record that no source names.
    fn absent(&self, name: &SessionName, record: &Record, sources: &Sources, wave: bool) -> Want {
        if let Some((reason, message)) = self.catalogue.why_unclear(record, sources) {
            return held(reason, &message);
        }
        let confirmed = self.confirmed.contains(name);
        let prune = |reason, message: String| Want::Held { reason, message, prune: true };
        if record.source_unseen && !confirmed {
            let message = "rebuilt after a loss of state, and its source was not seen since";
            return prune(Reason::SourceUnknown, message.to_owned());
        }
        let Source::File(path) = &record.source else {
            return Want::Gone { cause: "it was deleted".to_owned() };
        };
        match record.applied.object.prune() {
            Prune::Disabled => prune(
                Reason::PruneDisabled,
                format!("{path} is gone, and docket.dev/prune is disabled"),
            ),
            Prune::Confirm if !confirmed => prune(
                Reason::ConfirmationRequired,
                format!("{path} is gone; `docket confirm-prune` ends it"),
            ),
            _ if !confirmed && (self.held.contains(name) || wave) => prune(
                Reason::PruneGuard,
                format!("{path} is gone with many others; `docket confirm-prune` ends it"),
            ),
            _ => Want::Gone { cause: format!("{path} is gone") },
        }
    }
}

fn refuse(want: &mut Arc<Want>, reason: Reason, message: String) {
    if let Want::Present { resolved, .. } = Arc::make_mut(want) {
        *resolved = Err(Refused { reason, message });
    }
}

fn held(reason: Reason, message: &str) -> Want {
    Want::Held { reason, message: message.to_owned(), prune: false }
}

fn source_text(source: &Source) -> String {
    match source {
        Source::File(path) => path.clone(),
        Source::Applied => "what was applied".to_owned(),
    }
}

fn key_of(object: &Object) -> String {
    match object {
        Object::Session(session) => format!("session/{}", session.name),
        Object::Class(class) => format!("sessionclass/{}", class.name),
    }
}

fn raw_of(object: &Object) -> String {
    match object {
        Object::Session(session) => session.raw.to_string(),
        Object::Class(class) => class.raw.to_string(),
    }
}

/// Puts an object into a file of an imagined listing, also if the file is broken now.
fn imagine_in(files: &mut Shared<SourceFile>, path: &str, object: Object) {
    let (mut objects, revision) = match files.get(path) {
        Some(SourceFile::Parsed { objects, revision }) => (Arc::clone(objects), revision.clone()),
        _ => Default::default(),
    };
    Arc::make_mut(&mut objects).push(object);
    files.insert(path, SourceFile::Parsed { objects, revision });
}

fn refused(refusals: &[crate::spec::Refusal]) -> Refused {
    let reason = refusals.first().map_or(Reason::InvalidSpec, |refusal| refusal.reason);
    let messages: Vec<String> = refusals.iter().map(|refusal| refusal.message.clone()).collect();
    Refused { reason, message: messages.join("; ") }
}

fn parse_all(files: &[(String, String)]) -> Answer<Vec<Object>> {
    let mut objects = Vec::new();
    let mut complaints = Vec::new();
    for (name, text) in files {
        match parse(name, text) {
            Ok(more) => objects.extend(more),
            Err(more) => complaints.extend(more),
        }
    }
    if complaints.is_empty() { Ok(objects) } else { Err(Refusal::Invalid(complaints.join("\n"))) }
}

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// Decides anew what the sources say, and marks what changed.
    pub(super) fn reconsider(&mut self) {
        for name in &self.dirty {
            self.wants.heed(name, self.doors.book.by_session(name).as_ref());
        }
        let around = Around {
            sources: self.sources.as_ref(),
            applied: &self.applied,
            settings: &self.settings,
            now: self.doors.clock.now(),
        };
        let clear = self.wants.is_clear();
        let changed = self.wants.decide(&around);
        if clear != self.wants.is_clear() {
            // What no source names is another thing now.
            let nameless = self.live.iter().filter(|(_, live)| live.session.record.is_none());
            self.dirty.extend(nameless.map(|(name, _)| name.clone()));
        }
        #[cfg(feature = "testing")]
        self.wants.recount(&around);
        for News { place, wrong, gone } in self.wants.news() {
            if gone {
                tracing::info!(?place, "not wrong any more: {wrong}");
            } else {
                tracing::warn!(?place, "{wrong}");
            }
        }
        for name in &changed {
            // What it is doing may not be wanted any more: it stops before the next step.
            if let Some(cancel) = self.live.get(name).and_then(|live| live.main.as_ref()) {
                cancel.cancel();
            }
        }
        self.dirty.extend(changed);
    }
}
