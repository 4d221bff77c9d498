//! What is scarce, counted one session at a time, is what counting everything anew gives.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::world::{World, name};
use crate::model::Reason;
use crate::plan::Scarce;

/// A line each of a session that takes this and that.
fn any_session(name: &'static str) -> impl Strategy<Value = String> {
    let record = select(vec![
        "",
        "record NAME bare",
        "record NAME port=8001 ready",
        "record NAME port=8002 was-ready=1 generation=2",
        "record NAME port=8001 override=Stopped",
        "record NAME port=8003 ending=presynced active=11:00:00",
        "record NAME port=8002 retired=Expired user=cid",
    ]);
    let container = select(vec![
        "",
        "container NAME running port=8001",
        "container NAME running port=8002 attempt=2",
        "container NAME exited port=8003",
    ]);
    (record, container)
        .prop_map(move |(one, other)| format!("want NAME\n{one}\n{other}\n").replace("NAME", name))
}

fn any_world() -> impl Strategy<Value = String> {
    let engine = select(vec!["", "", "engine unseen\n"]);
    let all = ["ann-one", "ann-two", "bob-one"].map(any_session);
    (all, engine).prop_map(|(all, engine)| all.concat() + engine)
}

#[test]
fn a_workspace_is_given_once_while_its_session_is_being_admitted() {
    let world = World::parse("want ann-one\nwant zoe-one user=ann");
    let (first, second) = (name("ann-one"), name("zoe-one"));
    let admitted = world.plan().remove(&first).unwrap().actions;
    let input = world.input();
    let mut scarce = Scarce::count(&input, &BTreeMap::from([(&first, admitted.as_slice())]));
    let plan = crate::plan::session(&input, &mut scarce, &second, &world.sessions[&second]);
    assert_eq!(plan.reason, Some(Reason::WorkspaceInUse));
}

proptest! {
    #[test]
    fn what_is_taken_one_by_one_is_what_is_counted_at_once(
        worlds in prop::collection::vec(any_world(), 1..6),
        gone in prop::collection::vec(any::<bool>(), 6),
        works in prop::collection::vec(any::<bool>(), 18),
    ) {
        let mut kept = Scarce::default();
        for ((text, gone), works) in worlds.iter().zip(gone).zip(works.chunks(3)) {
            let mut world = World::parse(text);
            if gone && let Some((name, _)) = world.sessions.pop_first() {
                kept.heed(&name, None, &[]);
            }
            let plans = world.plan();
            let mut underway = BTreeMap::new();
            for ((name, session), works) in world.sessions.iter().zip(works) {
                let steps = plans[name].actions.as_slice();
                let steps = if *works { steps } else { &[] };
                kept.heed(name, Some(session), steps);
                underway.insert(name, steps);
            }
            let input = world.input();
            kept.begin(&input);
            prop_assert_eq!(format!("{kept:?}"), format!("{:?}", Scarce::count(&input, &underway)));
        }
    }
}
