//! Who claims which workspace and who has it, kept up one session at a time: (user, case) is
//! unique among sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{CaseName, Prune, Record, SessionName, Source, UserName};
use crate::plan::Want;

type Place = (UserName, CaseName);

/// Claims by what sources say, and owners by records.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// Claimants of each place, first the one that has it if nobody's record does.
    wanted: BTreeMap<Place, BTreeSet<(Source, SessionName)>>,
    /// Where each claimant stands in that.
    standing: BTreeMap<SessionName, (Place, Source)>,
    records: BTreeMap<SessionName, Arc<Record>>,
    owners: BTreeMap<Place, BTreeSet<SessionName>>,
    /// Records that files own.
    of_files: u64,
}

/// What of a record others' wants, or its own, depend on.
fn matters(record: &Record) -> (&UserName, &CaseName, bool, &Source, bool, Prune) {
    let Record { user, case, source, source_unseen, .. } = record;
    let prune = record.applied.object.prune();
    (user, case, record.ending.is_some(), source, *source_unseen, prune)
}

impl Claims {
    /// All records, as they were last heeded.
    pub(super) fn records(&self) -> &BTreeMap<SessionName, Arc<Record>> {
        &self.records
    }

    /// How many of them files own.
    pub(super) fn of_files(&self) -> u64 {
        self.of_files
    }

    /// Takes in a session's record as it is now. `Some`: it is another one for those who decide,
    /// and these sessions are to be decided anew.
    pub(super) fn heed(
        &mut self,
        name: &SessionName,
        record: Option<&Arc<Record>>,
    ) -> Option<BTreeSet<SessionName>> {
        let before = self.records.get(name);
        let same = match (before, record) {
            (Some(one), Some(other)) if Arc::ptr_eq(one, other) => return None,
            (Some(one), Some(other)) => matters(one) == matters(other),
            (None, None) => return None,
            _ => false,
        };
        let before = match record {
            Some(record) => self.records.insert(name.clone(), Arc::clone(record)),
            None => self.records.remove(name),
        };
        if same {
            return None;
        }
        let mut touched = BTreeSet::from([name.clone()]);
        for (record, comes) in [(before.as_ref(), false), (record, true)] {
            let Some(record) = record else { continue };
            let place = (record.user.clone(), record.case.clone());
            let files = u64::from(matches!(record.source, Source::File(_)));
            if comes {
                self.of_files += files;
                self.owners.entry(place.clone()).or_default().insert(name.clone());
            } else {
                self.of_files -= files;
                take_out(&mut self.owners, &place, name);
            }
            touched.extend(self.claimants(&place).cloned());
        }
        Some(touched)
    }

    /// Takes in what a session's sources say now. Returns the sessions to be decided anew.
    pub(super) fn claim(&mut self, name: &SessionName, want: Option<&Want>) -> Vec<SessionName> {
        let claim = match want {
            Some(Want::Present { object, source, .. }) => {
                Some(((object.user.clone(), object.case.clone()), source.clone()))
            }
            _ => None,
        };
        let before = self.standing.remove(name);
        let mut touched = Vec::new();
        if let Some((place, source)) = before.filter(|before| Some(before) != claim.as_ref()) {
            take_out(&mut self.wanted, &place, &(source, name.clone()));
            touched.extend(self.claimants(&place).cloned());
        }
        if let Some((place, source)) = claim {
            let all = self.wanted.entry(place.clone()).or_default();
            if all.insert((source.clone(), name.clone())) {
                touched.extend(all.iter().map(|(_, name)| name.clone()));
            }
            self.standing.insert(name.clone(), (place, source));
        }
        touched
    }

    fn claimants(&self, place: &Place) -> impl Iterator<Item = &SessionName> {
        self.wanted.get(place).into_iter().flatten().map(|(_, name)| name)
    }

    /// The session that has a claimant's workspace, if that is another: who has the record keeps
    /// it, else the first by source.
    pub(super) fn loses_to(&self, name: &SessionName) -> Option<&SessionName> {
        let (place, _) = self.standing.get(name)?;
        let owner = self.owners.get(place).and_then(BTreeSet::last);
        owner.or_else(|| self.claimants(place).next()).filter(|owner| *owner != name)
    }
}

fn take_out<K: Ord, V: Ord>(all: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = all.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            all.remove(key);
        }
    }
}
