//! Exits, failed probes and what follows.

use expect_test::expect;

use super::check;

#[test]
fn f14_an_exit_is_noted_before_anything_is_done_about_it() {
    check(
        "want ann-one
         record ann-one port=8001 ready
         container ann-one exited port=8001 exit=1",
        expect![[r#"
            ann-one is Restarting: it ended
              note the end: Error with 1
              note failure: Error: ended with exit code 1
        "#]],
    );
}

#[test]
fn a_killed_container_is_started_again() {
    check(
        "want ann-one
         record ann-one port=8001 noted=Killed:137 fail=Run:Killed@11:59:59+0
         container ann-one exited port=8001 exit=137",
        expect![[r#"
            ann-one is Restarting: it ended
              restart container c1
        "#]],
    );
}

#[test]
fn a_restart_waits_for_its_time() {
    check(
        "want ann-one
         record ann-one port=8001 noted=Error:1 fail=Run*2:Error@11:59:59+60
         container ann-one exited port=8001 exit=1",
        expect![[r#"
            ann-one is Restarting: Error: waits until 12:00:59 after 2 failures: it did not work
        "#]],
    );
}

#[test]
fn three_ends_in_a_row_are_a_crash_loop() {
    check(
        "want ann-one
         record ann-one port=8001 noted=Error:1 fail=Run*3:Error@11:59:59+60
         container ann-one exited port=8001 exit=1",
        expect![[r#"
            ann-one is CrashLoop: Error: waits until 12:00:59 after 3 failures: it did not work
        "#]],
    );
}

#[test]
fn an_end_for_memory_is_told_from_one_we_asked_for() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one exited port=8001 exit=137 oom
         want bob-two
         record bob-two port=8002 intent=Stop:Unhealthy
         container bob-two exited port=8002 exit=137 oom",
        expect![[r#"
            ann-one is Restarting: it ended
              note the end: OutOfMemory with 137
              note failure: OutOfMemory: ended with exit code 137
            bob-two is Restarting: it ended
              note the end: Unhealthy with 137
              note failure: Unhealthy: ended with exit code 137
        "#]],
    );
}

#[test]
fn a_stop_asked_for_before_this_start_explains_nothing() {
    check(
        "want ann-one
         record ann-one port=8001 intent=Stop:Requested intent-at=10:00:00
         container ann-one exited port=8001 exit=1",
        expect![[r#"
            ann-one is Restarting: it ended
              note the end: Error with 1
              note failure: Error: ended with exit code 1
        "#]],
    );
}

#[test]
fn f7_an_engine_restart_is_no_penalty() {
    check(
        "engine since=11:59:05
         want ann-one
         record ann-one port=8001
         container ann-one exited port=8001 exit=137",
        expect![[r#"
            ann-one is Restarting: it ended
              note the end: EngineRestart with 137
        "#]],
    );
}

#[test]
fn the_engine_s_restart_starts_everybody_again_within_the_limit() {
    check(
        "policy starts=1
         engine since=11:59:05
         want ann-one
         record ann-one port=8001 noted=EngineRestart:137
         container ann-one exited port=8001 exit=137
         want bob-two
         record bob-two port=8002 noted=EngineRestart:137
         container bob-two exited port=8002 exit=137",
        expect![[r#"
            ann-one is Restarting: it ended
              restart container c1
            bob-two is Pending: limits.concurrentStarts (1) is reached: place 1 in the queue
        "#]],
    );
}

#[test]
fn failed_liveness_stops_what_was_ready() {
    check(
        "want ann-one
         record ann-one port=8001 ready
         container ann-one running port=8001 failing=3",
        expect![[r#"
            ann-one is Restarting: 3 probes failed: connection refused
              stop container c1 within 10s (Unhealthy)
        "#]],
    );
}

#[test]
fn one_failed_probe_only_degrades() {
    check(
        "want ann-one
         record ann-one port=8001 ready
         container ann-one running port=8001 failing=2",
        expect![[r#"
            ann-one is Degraded: a probe failed: connection refused
        "#]],
    );
}

#[test]
fn an_unknown_health_is_not_a_failed_one() {
    check(
        "want ann-one
         record ann-one port=8001 ready
         container ann-one running port=8001",
        expect![[r#"
            ann-one is Running: its health is not known yet
        "#]],
    );
}

#[test]
fn a_start_by_somebody_else_has_its_startup_budget_anew() {
    check(
        "want ann-one
         record ann-one port=8001 ready=11:00:00
         container ann-one running port=8001 failing=4 since=11:59:55 probed=5",
        expect![[r#"
            ann-one is Starting: its container has not answered yet
              note not ready
        "#]],
    );
}

#[test]
fn an_end_with_success_is_final_where_only_failures_restart() {
    check(
        "class restart=OnFailure
         want ann-one
         record ann-one port=8001 noted=Completed:0
         container ann-one exited port=8001 exit=0",
        expect![[r#"
            ann-one is Stopped: Completed: its restart policy is OnFailure
        "#]],
    );
}

#[test]
fn a_failure_is_final_where_nothing_restarts() {
    check(
        "class restart=Never
         want ann-one
         record ann-one port=8001 noted=Error:1 fail=Run:Error@11:59:59+0
         container ann-one exited port=8001 exit=1",
        expect![[r#"
            ann-one is Failed: Error: its restart policy is Never
        "#]],
    );
}

#[test]
fn a_long_ready_time_forgets_earlier_ends() {
    check(
        "class reset=600
         want ann-one
         record ann-one port=8001 ready=11:50:00 fail=Run*5:Error@11:40:00+60
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
              forget failures of Run
        "#]],
    );
}

#[test]
fn a_command_that_cannot_be_run_waits_for_another_spec() {
    check(
        "want ann-one
         record ann-one port=8001 terminal=Start:CommandInvalid
         container ann-one created port=8001",
        expect![[r#"
            ann-one is Failed: CommandInvalid: holds until the spec changes: it did not work
        "#]],
    );
}

#[test]
fn a_dead_container_is_replaced() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one dead port=8001",
        expect![[r#"
            ann-one is Starting: the engine left a dead container
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn a_container_that_is_being_removed_is_waited_for() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one removing port=8001",
        expect![[r#"
            ann-one is Preparing: its container is being removed
        "#]],
    );
}

#[test]
fn a_container_that_was_taken_off_its_network_is_replaced_once_a_restart_did_not_help() {
    check(
        "want ann-one
         record ann-one port=8001 noted=Unhealthy:0 fail=Run:Unhealthy@11:59:59+0
         container ann-one running port=8001 unbound",
        expect![[r#"
            ann-one is Updating: it was taken off its network
              sync files before the stop
              stop container c1 within 10s (Updating)
              remove container 1 c1
              create container 2 on port 8001
              start container
        "#]],
    );
}
