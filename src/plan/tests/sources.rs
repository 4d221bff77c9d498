//! What sources say, and what they do not say.

use expect_test::expect;

use super::check;

#[test]
fn a_refused_spec_makes_nothing() {
    check(
        "refused ann-one LimitExceeded",
        expect![[r#"
            ann-one is Rejected: LimitExceeded: it may not be
        "#]],
    );
}

#[test]
fn f31_a_broken_edit_keeps_the_last_good_spec() {
    check(
        "held ann-one InvalidSpec
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn f31_a_refused_edit_keeps_the_last_good_spec() {
    check(
        "refused ann-one LimitExceeded
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn f33_a_missing_directory_holds() {
    check(
        "held ann-one SourceUnreadable
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn f33_a_held_session_is_still_kept_alive() {
    check(
        "held ann-one SourceUnreadable
         record ann-one port=8001 noted=Killed:137 fail=Run:Killed@11:59:59+0
         container ann-one exited port=8001 exit=137",
        expect![[r#"
            ann-one is Restarting: it ended
              restart container c1
        "#]],
    );
}

#[test]
fn f34_two_files_with_one_name_make_nothing() {
    check(
        "held ann-one DuplicateName",
        expect![[r#"
            ann-one is Pending: DuplicateName: as it was
        "#]],
    );
}

#[test]
fn a_held_prune_ends_nothing() {
    check(
        "held ann-one PruneGuard prune
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn a_vanished_file_ends_the_session() {
    check(
        "gone ann-one
         record ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Terminating: its file is gone
              begin the end: its file is gone
              sync files before the stop
              stop container c1 within 10s (Requested)
              sync files by checksum
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn a_session_waits_until_another_has_left_its_workspace() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced fail=Sync:StoreUnavailable
         container ann-one exited port=8001
         want zed user=ann case=one",
        expect![[r#"
            ann-one is Terminating: StoreUnavailable: waits until 12:00:59 after 1 failure: it did not work
            zed is Pending: WorkspaceInUse: session ann-one has the workspace of this user and case
        "#]],
    );
}

#[test]
fn a_source_seen_again_after_a_loss_is_taken_up() {
    check(
        "want ann-one
         record ann-one port=8001 ready unseen
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Updating: its metadata changed
              adopt generation 1
        "#]],
    );
}

#[test]
fn stopped_keeps_workspace_and_port() {
    check(
        "want ann-one state=Stopped
         record ann-one state=Stopped port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Stopped: Stopped
              sync files before the stop
              stop container c1 within 10s (Requested)
              sync files by checksum
              remove container 1 c1
        "#]],
    );
}

#[test]
fn a_stop_does_not_wait_for_the_store() {
    check(
        "want ann-one state=Stopped
         record ann-one state=Stopped port=8001 ready fail=Sync*2:StoreUnavailable
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Stopped: StoreUnavailable: waits until 12:00:59 after 2 failures: it did not work
              stop container c1 within 10s (Requested)
        "#]],
    );
}

#[test]
fn an_override_wins_over_the_file() {
    check(
        "want ann-one
         record ann-one port=8001 ready override=Stopped
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Stopped: Stopped
              sync files before the stop
              stop container c1 within 10s (Requested)
              sync files by checksum
              remove container 1 c1
        "#]],
    );
}

#[test]
fn a_session_admitted_stopped_makes_nothing_else() {
    check(
        "want ann-one state=Stopped",
        expect![[r#"
            ann-one is Stopped: Stopped
              admit
        "#]],
    );
}

#[test]
fn a_suspended_session_is_left_alone_and_its_edits_are_stored() {
    check(
        "want ann-one suspend
         record ann-one suspend port=8001 synced=11:00:00
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Suspended: left alone on request
              sync files
        "#]],
    );
}

#[test]
fn an_idle_container_is_ended_and_one_in_use_is_not() {
    check(
        "class     idletimeout=60
         want      ann-one
         record    ann-one port=8001 attempt=1 ready=11:50:00
         container ann-one running attempt=1 port=8001 passing idle=60
         want      bob-two
         record    bob-two port=8002 attempt=1 ready=11:50:00
         container bob-two running attempt=1 port=8002 passing idle=59
         want      cid-three
         record    cid-three port=8003 attempt=1 retired=Idle
         container cid-three running attempt=1 port=8003 passing",
        expect![[r#"
            ann-one is Stopped: Idle
              end its lifetime (Idle)
            bob-two is Running
            cid-three is Stopped: Idle
              sync files before the stop
              stop container c1 within 10s (Requested)
              sync files by checksum
              remove container 1 c1
        "#]],
    );
}

#[test]
fn max_age_ends_the_container_and_keeps_the_rest() {
    check(
        "class maxage=3600
         want ann-one
         record ann-one port=8001 ready active=11:00:00
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Stopped: Expired
              end its lifetime (Expired)
        "#]],
    );
}

#[test]
fn a_session_does_not_age_while_it_waits_for_its_first_start() {
    check(
        "class maxage=3600
         policy starts=1
         want ann-one
         record ann-one port=8001 active=10:00:00 waits
         want bob-two
         record bob-two port=8002 active=11:30:00
         container bob-two running port=8002 probed=1",
        expect![[r#"
            ann-one is Pending: limits.concurrentStarts (1) is reached: place 1 in the queue
            bob-two is Starting: its container has not answered yet
        "#]],
    );
}

#[test]
fn f46_a_clock_that_jumps_ends_one_session_a_look() {
    check(
        "class maxage=3600
         want ann-one
         record ann-one port=8001 ready active=11:00:00
         container ann-one running port=8001 passing
         want bob-two
         record bob-two port=8002 ready active=11:00:00
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Stopped: Expired
              end its lifetime (Expired)
            bob-two is Running
        "#]],
    );
}

#[test]
fn a_retired_session_is_taken_down() {
    check(
        "class maxage=3600
         want ann-one
         record ann-one port=8001 ready retired=Expired
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Stopped: Expired
              sync files before the stop
              stop container c1 within 10s (Requested)
              sync files by checksum
              remove container 1 c1
        "#]],
    );
}
