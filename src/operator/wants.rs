//! What the sources say, session by session: present, held or gone. Pure but for the memory of
//! what was seen before; the time is a value.
//!
//! 1. Objects are collected from every file that parses and from what was applied (`catalogue`).
//! 2. Each session is resolved with its class; two of one name, or two of one (user, case), are
//!    settled so that nothing ever flips.
//! 3. A session with a record and without an object is held while anything is unclear, and is
//!    gone only when its absence is proven and the prune guard lets it go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;

use crate::model::{
    Bounds, CaseName, ClassName, ClassObject, Prune, Reason, Record, SessionName, SessionObject,
    Source, Timestamp, UserName,
};
use crate::plan::{Refused, Want};
use crate::spec::Object;
pub use crate::spec::{SourceFile, Sources};
use crate::world::{Clock, Engine, Ledger, Objects, Probe, Workspaces};

use super::catalogue::{Catalogue, parse};
use super::handle::{Answer, Refusal, SourceView};
use super::{Operator, Settings};

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
    records: &'a BTreeMap<SessionName, Arc<Record>>,
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
    bounds: Bounds,
    classes: BTreeMap<ClassName, ClassObject>,
    class_sources: BTreeMap<ClassName, Source>,
    vanished: BTreeMap<SessionName, Timestamp>,
    held: BTreeSet<SessionName>,
    confirmed: BTreeSet<SessionName>,
}

impl Wants {
    pub(super) fn new(confirmed: BTreeSet<SessionName>) -> Wants {
        Wants {
            decided: BTreeMap::new(),
            alone: BTreeMap::new(),
            catalogue: Catalogue::default(),
            bounds: Bounds::default(),
            classes: BTreeMap::new(),
            class_sources: BTreeMap::new(),
            vanished: BTreeMap::new(),
            held: BTreeSet::new(),
            confirmed,
        }
    }

    /// What is wanted of a session. What nobody ever named is not wanted.
    pub(super) fn of(&self, name: &SessionName, record: Option<&Record>) -> Arc<Want> {
        match (self.decided.get(name), record) {
            (Some(want), _) => Arc::clone(want),
            (None, Some(_)) => {
                Arc::new(held(Reason::SourceUnreadable, "the sources were not listed yet"))
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

    pub(super) fn names(&self) -> impl Iterator<Item = &SessionName> {
        self.decided.keys()
    }

    /// A session is over: nothing of it is remembered. Whether its end had been confirmed.
    pub(super) fn ended(&mut self, name: &SessionName) -> bool {
        self.decided.remove(name);
        self.alone.remove(name);
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

    /// The file that owns `session/x` or `sessionclass/y`, if one does.
    pub(super) fn file_that_owns(&self, key: &str) -> Option<String> {
        self.catalogue.file_that_owns(key)
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
    #[expect(clippy::too_many_arguments, reason = "everything a listing is compared with")]
    pub(super) fn imagine(
        &self,
        files: &[(String, String)],
        whole: bool,
        sources: Option<&Sources>,
        applied: &BTreeMap<String, String>,
        settings: &Settings,
        records: &BTreeMap<SessionName, Arc<Record>>,
        now: Timestamp,
    ) -> Answer<BTreeMap<SessionName, Arc<Want>>> {
        let objects = parse_all(files)?;
        let new: BTreeSet<String> = objects.iter().map(key_of).collect();
        let mut imagined = Sources {
            root: sources.map_or(String::new(), |sources| sources.root.clone()),
            trouble: None,
            revision: String::new(),
            files: BTreeMap::new(),
        };
        if !whole && let Some(sources) = sources {
            imagined = sources.clone();
            for file in imagined.files.values_mut() {
                if let SourceFile::Parsed { objects, .. } = file
                    && objects.iter().any(|object| new.contains(&key_of(object)))
                {
                    Arc::make_mut(objects).retain(|object| !new.contains(&key_of(object)));
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
            imagine_in(imagined.files.entry(path), object);
        }
        let mut wants = self.clone();
        wants.decide(&Around {
            sources: Some(&imagined),
            applied: &applied,
            records,
            settings,
            now,
        });
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
        for (path, file) in &sources.files {
            let (state, revision, objects, errors) = match file {
                SourceFile::Parsed { objects, revision } => {
                    ("Ok", revision.clone(), objects.iter().map(key_of).collect(), Vec::new())
                }
                SourceFile::Invalid(errors) => {
                    ("Invalid", String::new(), Vec::new(), errors.clone())
                }
                SourceFile::Unreadable(error) => {
                    ("Unreadable", String::new(), Vec::new(), vec![error.clone()])
                }
            };
            let (source, state) = (path.clone(), state.to_owned());
            rows.push(SourceView { source, state, revision, objects, errors, git: None });
        }
        if !applied.is_empty() {
            rows.push(SourceView {
                source: "applied".to_owned(),
                state: "Ok".to_owned(),
                revision: String::new(),
                objects: applied.keys().cloned().collect(),
                errors: Vec::new(),
                git: None,
            });
        }
        rows
    }

    /// Decides anew. Returns the sessions whose want changed. What did not change is not resolved
    /// again: the cost is that of the change, and a comparison of names.
    pub(super) fn decide(&mut self, around: &Around<'_>) -> BTreeSet<SessionName> {
        let Some(sources) = around.sources else { return BTreeSet::new() };
        let touched = self.catalogue.update(sources, around.applied);
        let bounds = &around.settings.policy.bounds;
        let all = self.bounds != *bounds;
        self.bounds.clone_from(bounds);
        let classes = self.reclass(sources);
        let mut alone = std::mem::take(&mut self.alone);
        alone.retain(|name, _| self.catalogue.sessions.contains_key(name));
        for (name, candidates) in &self.catalogue.sessions {
            let anew = all
                || touched.contains(name)
                || !alone.contains_key(name)
                || candidates.iter().any(|(one, _)| classes.contains(&one.class));
            if anew {
                alone.insert(name.clone(), Arc::new(self.present(name, candidates)));
            }
        }
        self.alone = alone;
        let mut decided = self.alone.clone();
        settle_moved(&mut decided, around.records);
        settle_workspaces(&mut decided, around.records);
        let missing: Vec<(&SessionName, &Arc<Record>)> =
            around.records.iter().filter(|(name, _)| !decided.contains_key(*name)).collect();
        self.remember_vanished(&missing, sources, around.now);
        let wave = self.wave(around);
        for (name, record) in missing {
            let want = self.absent(name, record, sources, wave);
            decided.insert(name.clone(), Arc::new(want));
        }
        let mut changed: BTreeSet<SessionName> =
            self.decided.keys().filter(|name| !decided.contains_key(*name)).cloned().collect();
        for (name, want) in &mut decided {
            match self.decided.get(name) {
                Some(before) if Arc::ptr_eq(before, want) => (),
                Some(before) if before == want => *want = Arc::clone(before),
                _ => {
                    changed.insert(name.clone());
                }
            }
        }
        self.held = decided
            .iter()
            .filter(|(_, want)| matches!(&***want, Want::Held { reason: Reason::PruneGuard, .. }))
            .map(|(name, _)| name.clone())
            .collect();
        self.vanished.retain(|name, _| around.records.contains_key(name));
        self.decided = decided;
        changed
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

    fn remember_vanished(
        &mut self,
        missing: &[(&SessionName, &Arc<Record>)],
        sources: &Sources,
        now: Timestamp,
    ) {
        let mut still = BTreeSet::new();
        for (name, record) in missing {
            if self.catalogue.why_unclear(record, sources).is_none() && !record.source_unseen {
                self.vanished.entry((*name).clone()).or_insert(now);
                still.insert((*name).clone());
            }
        }
        self.vanished.retain(|name, _| still.contains(name));
    }

    /// Whether the sessions that vanished lately are a wave that is held.
    fn wave(&self, around: &Around<'_>) -> bool {
        let guard = around.settings.prune;
        let of_files = |name: &SessionName| {
            around.records.get(name).is_some_and(|r| matches!(r.source, Source::File(_)))
        };
        let recent = self
            .vanished
            .iter()
            .filter(|(name, at)| {
                of_files(name) && (around.now - **at < WAVE || self.held.contains(*name))
            })
            .count() as u64;
        let all = around.records.keys().filter(|name| of_files(name)).count() as u64;
        recent > 0
            && recent >= u64::from(guard.at_least)
            && recent * 100 >= u64::from(guard.percent) * all
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

/// A session's user and case never change: whoever writes others into its spec is told.
fn settle_moved(
    decided: &mut BTreeMap<SessionName, Arc<Want>>,
    records: &BTreeMap<SessionName, Arc<Record>>,
) {
    for (name, record) in records.iter().filter(|(_, record)| record.ending.is_none()) {
        let Some(want) = decided.get_mut(name) else { continue };
        let Want::Present { object, .. } = &**want else { continue };
        if record.user != object.user || record.case != object.case {
            let message = "user and case of a session cannot change: delete it and make another";
            refuse(want, Reason::InvalidSpec, message.to_owned());
        }
    }
}

fn refuse(want: &mut Arc<Want>, reason: Reason, message: String) {
    if let Want::Present { resolved, .. } = Arc::make_mut(want) {
        *resolved = Err(Refused { reason, message });
    }
}

/// (user, case) is unique: the session that has the record keeps it, else the first by source.
fn settle_workspaces(
    decided: &mut BTreeMap<SessionName, Arc<Want>>,
    records: &BTreeMap<SessionName, Arc<Record>>,
) {
    let mut claims: BTreeMap<(&UserName, &CaseName), Vec<(&Source, &SessionName)>> =
        BTreeMap::new();
    for (name, want) in &*decided {
        if let Want::Present { object, source, .. } = &**want {
            claims.entry((&object.user, &object.case)).or_default().push((source, name));
        }
    }
    let mut owners: BTreeMap<(&UserName, &CaseName), &SessionName> = BTreeMap::new();
    for (name, record) in records {
        owners.insert((&record.user, &record.case), name);
    }
    let mut losers = Vec::new();
    for (place, mut claimants) in claims {
        claimants.sort();
        let owner = owners.get(&place).copied().or(claimants.first().map(|(_, name)| *name));
        let lost = claimants.iter().filter(|(_, name)| Some(*name) != owner);
        losers.extend(lost.map(|(_, name)| {
            let (user, case) = place;
            let owner = owner.map(ToString::to_string).unwrap_or_default();
            let message = format!("the workspace of {user} and {case} belongs to session {owner}");
            ((*name).clone(), message)
        }));
    }
    for (name, message) in losers {
        if let Some(want) = decided.get_mut(&name) {
            refuse(want, Reason::WorkspaceInUse, message);
        }
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
fn imagine_in(file: std::collections::btree_map::Entry<'_, String, SourceFile>, object: Object) {
    let none = || SourceFile::Parsed { objects: Arc::default(), revision: String::new() };
    let file = file.or_insert_with(none);
    if !matches!(file, SourceFile::Parsed { .. }) {
        *file = none();
    }
    if let SourceFile::Parsed { objects, .. } = file {
        Arc::make_mut(objects).push(object);
    }
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
        let records = self.doors.book.by_name();
        let changed = self.wants.decide(&Around {
            sources: self.sources.as_ref(),
            applied: &self.applied,
            records: &records,
            settings: &self.settings,
            now: self.doors.clock.now(),
        });
        for name in &changed {
            // What it is doing may not be wanted any more: it stops before the next step.
            if let Some(cancel) = self.live.get(name).and_then(|live| live.main.as_ref()) {
                cancel.cancel();
            }
        }
        self.dirty.extend(changed);
    }
}
