//! What there is only so much of: ports, places, starts, space.

use std::collections::BTreeMap;

use expect_test::expect;

use super::check;
use super::world::{World, name};
use crate::model::Reason;
use crate::plan::{Scarce, session};

/// Seed: NoAvailablePorts.
#[test]
fn an_exhausted_pool_says_so_and_waits() {
    check(
        "policy ports=8001-8001
         want ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing
         want bob-two",
        expect![[r#"
            ann-one is Running
            bob-two is Pending: PoolExhausted: every port of the range is taken
              admit
        "#]],
    );
}

#[test]
fn f13_a_contested_port_is_quarantined_and_the_next_is_taken() {
    check(
        "quarantine 8001
         want ann-one
         record ann-one port=8001 fail=Start:PortConflict@11:59:59+0
         container ann-one created port=8001",
        expect![[r#"
            ann-one is Updating: its port changed
              quarantine port 8001 and lease port 8002
              remove container 1 c1
              create container 2 on port 8002
              start container
        "#]],
    );
}

#[test]
fn f13_a_run_of_held_ports_is_passed_even_if_earlier_quarantines_are_over() {
    check(
        "quarantine 8005
         want ann-one
         record ann-one port=8005 fail=Start:PortConflict@11:59:59+0
         container ann-one created port=8005",
        expect![[r#"
            ann-one is Updating: its port changed
              quarantine port 8005 and lease port 8006
              remove container 1 c1
              create container 2 on port 8006
              start container
        "#]],
    );
}

#[test]
fn f13_a_port_that_stays_contested_five_times_waits() {
    check(
        "quarantine 8001
         want ann-one
         record ann-one port=8001 fail=Start*6:PortConflict@11:59:59+60
         container ann-one created port=8001",
        expect![[r#"
            ann-one is Starting: PortConflict: waits until 12:00:59 after 6 failures: it did not work
              quarantine port 8001 and lease port 8002
        "#]],
    );
}

#[test]
fn a_fixed_port_that_another_session_has_is_waited_for() {
    check(
        "want ann-one hostport=8002
         want bob-two
         record bob-two port=8002 ready
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Pending: PortInUse: port 8002 is held by bob-two
              admit
            bob-two is Running
        "#]],
    );
}

#[test]
fn a_fixed_port_that_is_contested_is_not_given_up() {
    check(
        "quarantine 8001
         want ann-one hostport=8001
         record ann-one hostport=8001 port=8001 fail=Start:PortConflict@11:59:59+0
         container ann-one created port=8001 hostport=8001",
        expect![[r#"
            ann-one is Pending: PortInUse: port 8001 is held by somebody else
        "#]],
    );
}

#[test]
fn a_session_serves_on_while_its_new_port_is_taken() {
    check(
        "want ann-one hostport=8002
         record ann-one hostport=8002 port=8001 ready
         container ann-one running port=8001 passing
         want bob-two
         record bob-two port=8002 ready
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Degraded: PortInUse: port 8002 is held by bob-two
            bob-two is Running
        "#]],
    );
}

#[test]
fn a_leased_port_is_given_to_nobody_while_its_session_is_stopped() {
    check(
        "want ann-one state=Stopped
         record ann-one port=8001 state=Stopped
         want bob-two",
        expect![[r#"
            ann-one is Stopped: Stopped
            bob-two is Starting: there is no container
              admit
              lease port 8002
              resolve image web
              create workspace
              hydrate files
              create container 1 on port 8002
              start container
        "#]],
    );
}

#[test]
fn a_full_house_queues_in_order() {
    check(
        "policy sessions=1
         want ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing
         want bob-two
         want cid-three",
        expect![[r#"
            ann-one is Running
            bob-two is Pending: limits.sessions (1) is reached: place 1 in the queue
            cid-three is Pending: limits.sessions (1) is reached: place 2 in the queue
        "#]],
    );
}

/// Seed: `limits.perUser: 1` is the old rule.
#[test]
fn seed_one_active_container_a_user() {
    check(
        "policy user=1
         want ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing
         want ann-two
         want bob-two",
        expect![[r#"
            ann-one is Running
            ann-two is Pending: limits.perUser (1) of ann is reached: place 1 in the queue
            bob-two is Starting: there is no container
              admit
              lease port 8002
              resolve image web
              create workspace
              hydrate files
              create container 1 on port 8002
              start container
        "#]],
    );
}

#[test]
fn a_stopped_session_gives_up_its_place_and_queues_for_another() {
    check(
        "policy user=1
         want ann-one
         record ann-one port=8001 active=11:55:00
         want ann-two
         record ann-two port=8002 ready
         container ann-two running port=8002 passing",
        expect![[r#"
            ann-one is Pending: the limit on sessions is reached: place 1 in the queue
            ann-two is Running
        "#]],
    );
}

#[test]
fn an_ending_session_keeps_its_place_until_it_is_gone() {
    check(
        "policy sessions=1
         gone ann-one
         record ann-one port=8001 ending=
         container ann-one running port=8001
         want bob-two",
        expect![[r#"
            ann-one is Terminating: its file is gone
              sync files before the stop
              stop container c1 within 10s (Requested)
              sync files by checksum
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
            bob-two is Pending: limits.sessions (1) is reached: place 1 in the queue
        "#]],
    );
}

#[test]
fn only_so_many_start_at_once() {
    check(
        "policy starts=1
         want ann-one
         want bob-two",
        expect![[r#"
            ann-one is Starting: there is no container
              admit
              lease port 8001
              resolve image web
              create workspace
              hydrate files
              create container 1 on port 8001
              start container
            bob-two is Pending: limits.concurrentStarts (1) is reached: place 1 in the queue
              admit
              lease port 8002
              resolve image web
              create workspace
              hydrate files
        "#]],
    );
}

#[test]
fn f49_one_that_keeps_ending_leaves_the_start_to_the_others() {
    check(
        "policy starts=1
         want aaa-one
         record aaa-one port=8001 noted=Error:1 fail=Run:Error@11:59:59+0
         container aaa-one exited port=8001 exit=1
         want bob-two
         record bob-two port=8002
         container bob-two created port=8002",
        expect![[r#"
            aaa-one is Pending: limits.concurrentStarts (1) is reached: place 1 in the queue
            bob-two is Starting: its container is made
              start container c1
        "#]],
    );
}

#[test]
fn a_start_under_way_does_not_queue_behind_itself() {
    check(
        "policy starts=1
         want ann-one
         record ann-one port=8001
         container ann-one created port=8001",
        expect![[r#"
            ann-one is Starting: its container is made
              start container c1
        "#]],
    );
}

#[test]
fn an_update_that_waits_for_its_start_takes_nothing_down() {
    check(
        "policy starts=1
         want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 ready was-ready=1
         container ann-one running port=8001 passing
         want aaa-one
         record aaa-one port=8002
         container aaa-one running port=8002",
        expect![[r#"
            aaa-one is Starting: its container has not answered yet
            ann-one is Updating: limits.concurrentStarts (1) is reached: place 1 in the queue
        "#]],
    );
}

/// Each of them is not ready and has a container that runs, but waits for its own start.
#[test]
fn updates_that_wait_for_their_starts_do_not_wait_for_each_other() {
    check(
        "policy starts=1
         want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1
         container ann-one running port=8001 passing
         want bob-two image=web2
         record bob-two image=web2 generation=2 port=8002 was-ready=1
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Updating: its spec changed
              sync files before the stop
              stop container c1 within 10s (Updating)
              remove container 1 c1
              create container 2 on port 8001
              start container
            bob-two is Updating: limits.concurrentStarts (1) is reached: place 1 in the queue
        "#]],
    );
}

#[test]
fn low_space_hydrates_nothing() {
    check(
        "space low
         want ann-one",
        expect![[r#"
            ann-one is Pending: LowSpace: 1.0 GiB are free, below minFree
              admit
              lease port 8001
              resolve image web
              create workspace
        "#]],
    );
}

#[test]
fn low_space_starts_nothing_new() {
    check(
        "space low
         want ann-one
         record ann-one port=8001",
        expect![[r#"
            ann-one is Pending: LowSpace: 1.0 GiB are free, below minFree
        "#]],
    );
}

#[test]
fn low_space_lets_what_runs_run_and_restart() {
    check(
        "space low
         want ann-one
         record ann-one port=8001 noted=Error:1 fail=Run:Error@11:59:59+0
         container ann-one exited port=8001
         want bob-two
         record bob-two port=8002 ready synced=11:00:00
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Restarting: it ended
              restart container c1
            bob-two is Running
              sync files
        "#]],
    );
}

#[test]
fn space_that_cannot_be_seen_holds_nobody_up() {
    check(
        "space unseen
         want ann-one
         record ann-one port=8001",
        expect![[r#"
            ann-one is Starting: there is no container
              create container 2 on port 8001
              start container
        "#]],
    );
}

/// What a plan under way takes is not in its record yet: without counting it, a session that
/// comes while another's steps run would get the same port.
#[test]
fn a_plan_under_way_keeps_its_port_its_place_and_its_start() {
    let first = World::parse("want ann-one");
    let under_way = first.plan().remove(&name("ann-one")).unwrap();
    let both = World::parse(
        "policy sessions=1 starts=1
         want ann-one
         want bob-two",
    );
    let input = both.input();
    let ann = name("ann-one");
    let under_way = BTreeMap::from([(&ann, under_way.actions.as_slice())]);
    let mut scarce = Scarce::count(&input, &under_way);
    assert!(scarce.ports().contains(&8001));
    let bob = name("bob-two");
    let plan = session(&input, &mut scarce, &bob, &both.sessions[&bob]);
    assert_eq!(plan.reason, Some(Reason::LimitReached));
}
