//! What must hold after each effect, in every status, and when the weather has long been calm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use docket::model::{ConditionType, ContainerState, Phase, Truth};
use docket::status::SessionView;
use docket::testing::engine::Seen;
use docket::testing::store::sum_of;

use super::site::{Site, names, session_name};

/// Whether an effect of this name can break anything.
pub fn changes(operation: &str) -> bool {
    const LOOKS: &[&str] = &["list", "inspect", "look", "scan", "read", "head", "get", "probe"];
    !operation.split(' ').any(|word| LOOKS.contains(&word))
}

/// What must hold at any time.
pub fn invariants(site: &Site, operation: &str) {
    for wrong in site.machine.wrongs() {
        site.wrong(wrong);
    }
    let own = site.machine.briefly(site.name);
    let mut live: BTreeMap<&str, u32> = BTreeMap::new();
    let mut numbers: BTreeSet<(&str, &str)> = BTreeSet::new();
    for one in &own {
        if one.alive {
            if !one.hardened {
                site.wrong(format!("{} runs without its hardening after {operation}", one.name));
            }
            *live.entry(&one.uid).or_default() += 1;
        }
        if !numbers.insert((&one.uid, &one.attempt)) {
            site.wrong(format!(
                "two containers {} of {} after {operation}",
                one.attempt, one.session
            ));
        }
    }
    if let Some((uid, count)) = live.iter().find(|(_, count)| **count > 1) {
        site.wrong(format!("{count} live containers of {uid} after {operation}"));
    }
    let doubtful = site.ledger.doubtful();
    site.ledger.with_records(|records| {
        let mut ports = BTreeMap::new();
        let mut sessions = BTreeMap::new();
        for record in records.values() {
            if doubtful.contains(&record.uid) {
                // What the operator knows is not what is kept, and it was told so.
                continue;
            }
            if let Some(port) = record.port
                && let Some(other) = ports.insert(port, &record.name)
            {
                site.wrong(format!("port {port} of {other} and {} after {operation}", record.name));
            }
            if record.ending.is_none()
                && let Some(other) = sessions.insert(&record.name, &record.uid)
            {
                let (name, uid) = (&record.name, &record.uid);
                site.wrong(format!("records {other} and {uid} of {name} after {operation}"));
            }
        }
        // A lost ledger is rebuilt in a while; what runs, runs on.
        for one in own.iter().filter(|one| one.alive && !site.forgetful) {
            if !records.keys().any(|uid| uid.as_str() == one.uid) {
                site.wrong(format!("{} runs without a record after {operation}", one.name));
            }
        }
    });
    let spaces: BTreeSet<_> =
        site.disk.spaces().iter().map(|(user, case)| site.disk.path(user, case)).collect();
    for one in own.iter().filter(|one| one.alive) {
        if !one.mounts.iter().all(|mount| spaces.contains(mount)) {
            site.wrong(format!("{} lost its workspace while it runs, after {operation}", one.name));
        }
    }
    for gone in site.disk.destroyed() {
        let prefix = format!("{}/{}/", gone.user, gone.case);
        if gone.sum != sum_of(b"") && !site.store.holds(&prefix, gone.sum) {
            let path = &gone.path;
            site.wrong(format!("LOST: {prefix}{path} by {} before it was stored", gone.by));
        }
    }
}

fn own(site: &Site) -> Vec<Seen> {
    let mut all = site.machine.containers();
    all.retain(|one| one.installation == site.name);
    all
}

/// Looks at every status that is shown.
pub async fn watch(site: Arc<Site>) {
    loop {
        let handle = site.handle.lock().unwrap().clone();
        let Some(mut handle) = handle else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut before = std::sync::Arc::default();
        while handle.sessions.changed().await.is_ok() {
            let snapshot = handle.sessions.borrow_and_update().clone();
            let known: docket::operator::handle::Snapshot =
                std::mem::replace(&mut before, Arc::clone(&snapshot));
            let is_new = |(name, view): &(_, &Arc<SessionView>)| {
                known.get(*name).is_none_or(|known| !Arc::ptr_eq(known, view))
            };
            for (_, view) in snapshot.iter().filter(is_new) {
                for wrong in rules(view) {
                    let plan = view.status.plan.replace('\n', " |");
                    site.wrong(format!("status of {}: {wrong}; {plan}", view.metadata.name));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What every status keeps to.
fn rules(view: &SessionView) -> Vec<String> {
    use ConditionType as Kind;
    const NEEDED: &[Kind] = &[
        Kind::WorkspaceReady,
        Kind::FilesReady,
        Kind::PortReady,
        Kind::ImageReady,
        Kind::ContainerReady,
        Kind::Healthy,
    ];
    const ONLY_WHILE_TRUE: &[Kind] = &[
        Kind::Reconciling,
        Kind::Stalled,
        Kind::Suspended,
        Kind::RuntimeUnresponsive,
        Kind::PruneHeld,
    ];
    let mut wrongs = Vec::new();
    let of = |kind: Kind| view.status.conditions.iter().find(|c| c.kind == kind);
    let is = |kind: Kind| of(kind).is_some_and(|c| c.status == Truth::True);
    let kinds: BTreeSet<Kind> = view.status.conditions.iter().map(|c| c.kind).collect();
    if kinds.len() != view.status.conditions.len() {
        wrongs.push("a condition stands there twice".to_owned());
    }
    if is(Kind::Ready) {
        for kind in NEEDED.iter().filter(|kind| !is(**kind)) {
            wrongs.push(format!("Ready, and not {kind:?}"));
        }
        let fits = matches!(
            view.status.phase,
            Phase::Running
                | Phase::Degraded
                | Phase::Updating
                | Phase::Suspended
                | Phase::Restarting
                | Phase::Preparing
        );
        if !fits {
            wrongs.push(format!("Ready, and {}", view.status.phase));
        }
    }
    if is(Kind::Stalled) && is(Kind::Reconciling) {
        wrongs.push("Stalled and Reconciling".to_owned());
    }
    for kind in ONLY_WHILE_TRUE {
        if of(*kind).is_some_and(|c| c.status != Truth::True) {
            wrongs.push(format!("{kind:?} stands there though it is not true"));
        }
    }
    let ending = view.metadata.deletion_timestamp.is_some();
    if ending && view.status.phase != Phase::Terminating {
        wrongs.push(format!("it is ending, and {}", view.status.phase));
    }
    if ending && is(Kind::Ready) {
        wrongs.push("it is ending, and Ready".to_owned());
    }
    wrongs
}

/// What is still not as wanted.
pub fn owed(site: &Site) -> Vec<String> {
    let mut owed = Vec::new();
    let specs = site.specs.lock().unwrap().clone();
    let containers = own(site);
    let records = site.ledger.records();
    let views = site.handle.lock().unwrap().as_ref().map(|h| h.sessions.borrow().clone());
    let views = views.unwrap_or_default();
    let mut wanted_places = BTreeSet::new();
    for (name, wish) in &specs.wishes {
        let place = names(&wish.user, &wish.case);
        wanted_places.insert(place.clone());
        let record = records.values().find(|r| r.name.as_str() == name && r.ending.is_none());
        let Some(record) = record else {
            let plan =
                views.get(&session_name(name)).map(|view| view.status.plan.replace('\n', " |"));
            owed.push(format!("{name} has no record: {plan:?}"));
            continue;
        };
        let Some(view) = views.get(&session_name(name)) else {
            owed.push(format!("{name} has no status"));
            continue;
        };
        let of_it: Vec<&Seen> = containers.iter().filter(|one| one.session == *name).collect();
        owed.extend(owed_of(name, wish, record, view, &of_it));
        match site.disk.files(&place.0, &place.1) {
            None if wish.stopped => (), // It may never have run.
            None => owed.push(format!("{name} has no workspace")),
            Some(files) => {
                let prefix = format!("{}/{}/", place.0, place.1);
                for (path, sum) in files {
                    // An empty file of a session that never ran was never anywhere else.
                    if sum != sum_of(b"") && !site.store.holds(&prefix, sum) {
                        owed.push(format!("{name}: {path} is not stored"));
                    }
                }
            }
        }
    }
    for one in containers.iter().filter(|one| !specs.wishes.contains_key(&one.session)) {
        owed.push(format!("container {} ({:?}) is left of what nobody wants", one.name, one.state));
    }
    for record in records.values().filter(|r| !specs.wishes.contains_key(r.name.as_str())) {
        owed.push(format!("the record of {} is left", record.name));
    }
    for (user, case) in site.disk.spaces() {
        if !wanted_places.contains(&(user.clone(), case.clone())) {
            owed.push(format!("the workspace {user}/{case} is left"));
        }
    }
    let known = |uid: &docket::model::Uid| records.contains_key(uid);
    owed.extend(
        site.disk
            .noted()
            .iter()
            .filter(|uid| !known(uid))
            .map(|uid| format!("the note of {uid} is left")),
    );
    owed.extend(site.disk.trashed().iter().map(|uid| format!("{uid} is left in the trash")));
    for name in views.keys().filter(|name| !specs.wishes.contains_key(name.as_str())) {
        owed.push(format!("the status of {name} is left"));
    }
    owed
}

fn owed_of(
    name: &str,
    wish: &super::site::Wish,
    record: &docket::model::Record,
    view: &SessionView,
    containers: &[&Seen],
) -> Vec<String> {
    let mut owed = Vec::new();
    let conditions = &view.status.conditions;
    let ready =
        conditions.iter().any(|c| c.kind == ConditionType::Ready && c.status == Truth::True);
    if wish.stopped {
        for one in containers {
            owed.push(format!("{name} is stopped and has container {}", one.name));
        }
        return owed;
    }
    if !ready {
        let plan = view.status.plan.replace('\n', " |");
        owed.push(format!(
            "{name} is not Ready but {}: {plan}; {:?}",
            view.status.phase, view.status.retry
        ));
    }
    let [one] = containers else {
        let all: Vec<String> =
            containers.iter().map(|one| format!("{} {:?}", one.name, one.state)).collect();
        owed.push(format!("{name} should have one container and has {all:?}"));
        return owed;
    };
    if one.state != ContainerState::Running || one.uid != record.uid.as_str() {
        owed.push(format!("{name}'s container is {:?} of {}", one.state, one.uid));
    }
    if one.env.get("REVISION") != Some(&wish.revision.to_string()) {
        owed.push(format!(
            "{name} runs revision {:?}, wanted {}",
            one.env.get("REVISION"),
            wish.revision
        ));
    }
    let memory = if wish.memory == "2Gi" { 2_u64 << 30 } else { 4 << 30 };
    if one.resources.memory != memory {
        owed.push(format!("{name} has {} bytes of memory", one.resources.memory));
    }
    if one.port != record.port || one.port.is_none() {
        owed.push(format!("{name} has port {:?}, leased {:?}", one.port, record.port));
    }
    owed
}

/// What does not change once all is as wanted: the containers and how often they were started.
pub fn settled(site: &Site) -> Vec<(String, u64)> {
    own(site).into_iter().map(|one| (one.name, one.starts)).collect()
}
