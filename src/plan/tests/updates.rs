//! Edits of sessions and classes, and the way back.

use expect_test::expect;

use super::check;
use super::world::{World, at, name};

#[test]
fn a_session_s_own_edit_acts_at_once() {
    check(
        "want ann-one image=web2
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: its spec changed
              adopt generation 2
        "#]],
    );
}

#[test]
fn a_new_spec_resolves_its_image_before_anything_is_taken_down() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 unpinned port=8001 ready was-ready=1
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
              resolve image web2
        "#]],
    );
}

#[test]
fn a_changed_spec_replaces_the_container_and_keeps_the_files() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 ready was-ready=1 good=web
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: its spec changed
              sync files before the stop
              stop container c1 within 10s (Updating)
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn a_replacement_cut_short_is_finished() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web
         container ann-one exited port=8001 exit=143",
        expect![[r#"
            ann-one is Updating: its spec changed
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn a_class_edit_waits_for_the_next_start() {
    check(
        "want ann-one class-image=web2
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn a_class_edit_comes_with_the_next_start() {
    check(
        "want ann-one class-image=web2
         record ann-one port=8001",
        expect![[r#"
            ann-one is Updating: its spec changed
              adopt generation 2
        "#]],
    );
}

#[test]
fn a_class_edit_rolls_out_so_many_at_a_time() {
    check(
        "class rollout=Immediate concurrent=1
         want ann-one class-image=web2
         record ann-one port=8001 ready
         container ann-one running port=8001 passing
         want bob-two class-image=web2
         record bob-two port=8002 ready
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Updating: its spec changed
              adopt generation 2
            bob-two is Running
        "#]],
    );
}

#[test]
fn a_restart_is_the_next_start_that_a_class_edit_waits_for() {
    check(
        "want ann-one class-image=web2
         record ann-one port=8001 attempt=1 ready
         container ann-one running attempt=1 port=8001 passing
         want bob-two class-image=web2
         record bob-two port=8002 attempt=1 ready restart-after=1
         container bob-two running attempt=1 port=8002 passing",
        expect![[r#"
            ann-one is Running
            bob-two is Updating: its spec changed
              adopt generation 2
        "#]],
    );
}

#[test]
fn the_next_of_a_roll_out_waits_until_the_first_is_ready() {
    check(
        "class rollout=Immediate concurrent=1
         want ann-one class-image=web2
         record ann-one class-image=web2 generation=2 port=8001 ready was-ready=1
         container ann-one running port=8001 passing
         want bob-two class-image=web2
         record bob-two port=8002 ready
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Updating: its spec changed
              sync files before the stop
              stop container c1 within 10s (Updating)
              remove container 1 c1
              create container 2 on port 8001
              start container
            bob-two is Running
        "#]],
    );
}

#[test]
fn a_fix_of_the_class_reaches_a_session_that_never_got_ready() {
    check(
        "class rollout=Immediate concurrent=1
         want ann-one class-image=web3
         record ann-one class-image=web2 generation=2 port=8001 was-ready=1
         container ann-one running class-image=web2 port=8001 failing=2 probed=3",
        expect![[r#"
            ann-one is Updating: its spec changed
              adopt generation 3
        "#]],
    );
}

#[test]
fn limits_change_in_place() {
    check(
        "want ann-one memory=8
         record ann-one memory=8 generation=2 port=8001 ready was-ready=1
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
              change limits of container c1
              note ready, generation 2
        "#]],
    );
}

#[test]
fn limits_that_do_not_change_in_place_replace_the_container() {
    check(
        "want ann-one memory=8
         record ann-one memory=8 generation=2 port=8001 ready was-ready=1 fail=Update*3:StartFailed@11:59:59+0
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: its limits cannot be changed in place
              sync files before the stop
              stop container c1 within 10s (Updating)
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn strategy_recreate_replaces_for_limits_too() {
    check(
        "class strategy=Recreate
         want ann-one memory=8
         record ann-one memory=8 generation=2 port=8001 ready was-ready=1
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: its limits changed
              sync files before the stop
              stop container c1 within 10s (Updating)
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn strategy_never_leaves_what_runs() {
    check(
        "class strategy=Never
         want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 ready was-ready=1
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
              note ready, generation 2
        "#]],
    );
}

#[test]
fn strategy_never_replaces_what_ended() {
    check(
        "class strategy=Never
         want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1
         container ann-one exited port=8001 exit=1",
        expect![[r#"
            ann-one is Updating: its spec changed
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn a_spec_that_never_gets_ready_is_rolled_back() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web noted=StartupTimeout:137 fail=Run:StartupTimeout@11:59:59+10
         container ann-one exited exit=137 image=web2 port=8001",
        expect![[r#"
            ann-one is Updating: the new spec never got ready
              roll back to the last good spec: StartupTimeout: it did not work
        "#]],
    );
}

#[test]
fn a_spec_that_cannot_start_is_rolled_back() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web terminal=Start:CommandInvalid
         container ann-one created image=web2 port=8001",
        expect![[r#"
            ann-one is Updating: the new spec never got ready
              roll back to the last good spec: CommandInvalid: holds until the spec changes: it did not work
        "#]],
    );
}

#[test]
fn a_spec_that_ends_three_times_is_rolled_back() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web noted=Error:1 fail=Run*3:Error@11:59:59+10
         container ann-one exited exit=1 image=web2 port=8001",
        expect![[r#"
            ann-one is Updating: the new spec never got ready
              roll back to the last good spec: Error: it did not work
        "#]],
    );
}

/// With the spec before, somebody else would hold the ports all the same.
#[test]
fn a_spec_is_not_to_blame_for_ports_that_others_hold() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web fail=Start*6:PortConflict@11:59:59+10
         container ann-one created image=web2 port=8001",
        expect![[r#"
            ann-one is Starting: PortConflict: waits until 12:00:09 after 6 failures: it did not work
        "#]],
    );
}

#[test]
fn a_spec_is_not_to_blame_for_an_engine_that_did_not_look_for_its_image() {
    check(
        "want ann-one image=web2
         record ann-one unpinned image=web2 generation=2 port=8001 was-ready=1 good=web fail=Image*2:EngineUnreachable@11:59:59+10",
        expect![[r#"
            ann-one is Preparing: EngineUnreachable: waits until 12:00:09 after 2 failures: it did not work
        "#]],
    );
}

#[test]
fn a_spec_that_ends_once_gets_another_try() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web noted=Error:1 fail=Run:Error@11:59:59+0
         container ann-one exited exit=1 image=web2 port=8001",
        expect![[r#"
            ann-one is Restarting: it ended
              restart container c1
        "#]],
    );
}

#[test]
fn a_spec_that_ends_and_may_not_restart_is_rolled_back() {
    check(
        "class restart=Never
         want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web noted=Error:1 fail=Run:Error@11:59:59+0
         container ann-one exited exit=1 image=web2 port=8001",
        expect![[r#"
            ann-one is Updating: the new spec never got ready
              roll back to the last good spec: Error: it did not work
        "#]],
    );
}

#[test]
fn on_failure_hold_stays_with_the_new_spec() {
    check(
        "class hold
         want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web noted=StartupTimeout:137 fail=Run:StartupTimeout@11:59:59+10
         container ann-one exited exit=137 image=web2 port=8001",
        expect![[r#"
            ann-one is Restarting: StartupTimeout: waits until 12:00:09 after 1 failure: it did not work
        "#]],
    );
}

#[test]
fn what_was_rolled_back_is_not_tried_again() {
    check(
        "want ann-one image=web2
         record ann-one port=8001 ready bad=web2 generation=2
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn another_edit_after_a_roll_back_is_tried() {
    check(
        "want ann-one image=web3
         record ann-one port=8001 ready bad=web2 generation=2
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: its spec changed
              adopt generation 3
        "#]],
    );
}

#[test]
fn a_missing_new_image_leaves_the_old_container_running() {
    check(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 unpinned port=8001 ready was-ready=1 good=web fail=Image:ImageMissing
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn a_missing_new_image_is_tried_again_at_its_time_behind_the_old_container() {
    let world = World::parse(
        "want ann-one image=web2
         record ann-one image=web2 generation=2 unpinned port=8001 ready was-ready=1 good=web fail=Image*2:ImageMissing@11:59:50+20
         container ann-one running port=8001 passing",
    );
    let plan = world.plan();
    assert_eq!(plan.get(&name("ann-one")).and_then(|plan| plan.wake_at), Some(at("12:00:10")));
}

#[test]
fn limits_that_could_not_be_changed_are_tried_again_at_their_time() {
    let world = World::parse(
        "want ann-one memory=8
         record ann-one memory=8 generation=2 port=8001 ready fail=Update*1:StartFailed@11:59:55+20
         container ann-one running port=8001 passing",
    );
    let plan = world.plan();
    assert_eq!(plan.get(&name("ann-one")).and_then(|plan| plan.wake_at), Some(at("12:00:15")));
}

#[test]
fn an_old_container_that_answers_does_not_make_the_new_spec_good() {
    check(
        "policy starts=1
         want ann-one image=web2
         record ann-one image=web2 generation=2 port=8001 was-ready=1 good=web
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

/// A restart is a start: an edited class comes with it.
#[test]
fn a_restart_on_request_takes_an_edited_class_with_it() {
    check(
        "want ann-one class-image=web2
         record ann-one port=8001 ready restart-after=1 unpinned
         container ann-one running port=8001 passing
         want bob-two class-image=web2
         record bob-two port=8002 ready synced=11:59:59
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Updating: its spec changed
              adopt generation 2
            bob-two is Running
        "#]],
    );
}

#[test]
fn a_restart_on_request_makes_a_new_container() {
    check(
        "want ann-one
         record ann-one port=8001 ready restart-after=1 unpinned
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: a restart was asked for
              resolve image web
              sync files before the stop
              stop container c1 within 10s (Updating)
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn a_restart_on_request_keeps_what_runs_while_the_image_is_missing() {
    check(
        "want ann-one
         record ann-one port=8001 ready restart-after=1 unpinned fail=Image:ImageMissing
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn metadata_alone_changes_nothing_that_runs() {
    check(
        "want ann-one note=x
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: its metadata changed
              adopt generation 1
        "#]],
    );
}

#[test]
fn user_and_case_of_a_session_do_not_change() {
    check(
        "want ann-one user=eve
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn a_left_over_of_an_interrupted_replacement_goes_first() {
    check(
        "want ann-one
         record ann-one attempt=2 port=8001
         container ann-one running attempt=1 port=8001
         container ann-one created attempt=2 port=8001",
        expect![[r#"
            ann-one is Starting: its container is made
              stop container c1 within 10s (Requested)
              remove container 1 c1
              start container c2
        "#]],
    );
}
