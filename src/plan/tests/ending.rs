//! The end, in every phase, in the order that loses nothing.

use expect_test::expect;

use super::check;

/// Seed: sync, container, workspace, record, in the order that loses nothing.
#[test]
fn seed_the_end_syncs_stops_syncs_removes_and_lets_go() {
    check(
        "gone ann-one
         record ann-one port=8001 ready
         container ann-one running port=8001",
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
fn an_end_after_the_stop_syncs_by_checksum_before_it_removes() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              sync files by checksum
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn an_end_after_the_sync_removes() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced,stored
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

/// A start that was given up as unanswered landed after the final sync, and ended by itself.
#[test]
fn an_end_syncs_again_after_a_start_that_came_after_its_final_sync() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced,stored followed=10:30:00
         container ann-one exited port=8001 since=11:58:30",
        expect![[r#"
            ann-one is Terminating: its file is gone
              sync files by checksum
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn an_end_after_the_removal_lets_go() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced,stored",
        expect![[r#"
            ann-one is Terminating: its file is gone
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn an_end_cut_short_after_the_trash_is_finished() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced,stored,trashed
         workspace ann-one missing",
        expect![[r#"
            ann-one is Terminating: its file is gone
              remove workspace from the trash
              release port and record
        "#]],
    );
}

/// The directory was made and moved away before the record said that there is one.
#[test]
fn an_end_cut_short_leaves_nothing_of_an_unrecorded_workspace_in_the_trash() {
    check(
        "gone ann-one
         record ann-one port=8001 bare ending=presynced",
        expect![[r#"
            ann-one is Terminating: its file is gone
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn a_session_without_workspace_just_goes() {
    check(
        "gone ann-one
         record ann-one port=8001 bare",
        expect![[r#"
            ann-one is Terminating: its file is gone
              begin the end: its file is gone
              release port and record
        "#]],
    );
}

#[test]
fn a_session_ends_before_its_files_were_there() {
    check(
        "gone ann-one
         record ann-one port=8001 empty attempt=0",
        expect![[r#"
            ann-one is Terminating: its file is gone
              begin the end: its file is gone
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn a_created_container_is_removed() {
    check(
        "gone ann-one
         record ann-one port=8001
         container ann-one created port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              begin the end: its file is gone
              sync files by checksum
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn f16_a_paused_container_is_stopped() {
    check(
        "gone ann-one
         record ann-one port=8001
         container ann-one paused port=8001",
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
fn a_crash_loop_ends_at_once() {
    check(
        "gone ann-one
         record ann-one port=8001 noted=Error:1 fail=Run*5:Error
         container ann-one exited exit=1 port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              begin the end: its file is gone
              sync files by checksum
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn a_suspended_session_ends() {
    check(
        "gone ann-one
         record ann-one port=8001 suspend
         container ann-one running port=8001",
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
fn a_missing_image_does_not_hold_up_the_end() {
    check(
        "gone ann-one
         record ann-one port=8001 bare fail=Image*5:ImageMissing",
        expect![[r#"
            ann-one is Terminating: its file is gone
              begin the end: its file is gone
              release port and record
        "#]],
    );
}

#[test]
fn f19_a_failing_store_holds_up_the_end_and_not_the_stop() {
    check(
        "gone ann-one
         record ann-one port=8001 ending= fail=Sync*3:StoreUnavailable
         container ann-one running port=8001",
        expect![[r#"
            ann-one is Terminating: StoreUnavailable: waits until 12:00:59 after 3 failures: it did not work
              sync files before the stop
              stop container c1 within 10s (Requested)
        "#]],
    );
}

#[test]
fn f19_nothing_is_removed_while_the_store_fails() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced fail=Sync*3:StoreUnavailable
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: StoreUnavailable: waits until 12:00:59 after 3 failures: it did not work
        "#]],
    );
}

#[test]
fn only_discard_gives_up_unsynced_edits_into_the_trash() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=discard fail=Sync*3:StoreUnavailable
         container ann-one running port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              stop container c1 within 10s (Requested)
              remove container 1 c1
              move workspace to the trash
              release port and record
        "#]],
    );
}

#[test]
fn excluded_files_stay_in_the_trash() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced,stored excluded=2",
        expect![[r#"
            ann-one is Terminating: its file is gone
              move workspace to the trash
              release port and record
        "#]],
    );
}

#[test]
fn a_stop_that_fails_waits_for_its_time() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced fail=Stop*2:EngineUnreachable
         container ann-one running port=8001",
        expect![[r#"
            ann-one is Terminating: EngineUnreachable: waits until 12:00:59 after 2 failures: it did not work
        "#]],
    );
}

#[test]
fn an_end_is_never_undone() {
    check(
        "want ann-one
         record ann-one port=8001 ending=presynced
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              sync files by checksum
              remove container 1 c1
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn an_engine_that_does_not_answer_ends_nothing() {
    check(
        "engine unseen
         gone ann-one
         record ann-one port=8001 ready",
        expect![[r#"
            ann-one is Terminating: the engine is not seen: connection refused
        "#]],
    );
}

#[test]
fn f45_a_replaced_workspace_is_not_synced_and_not_removed() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced
         workspace ann-one replaced
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: WorkspaceReplaced: another directory stands where the workspace was; `docket delete --discard` ends it
        "#]],
    );
}

#[test]
fn f45_a_missing_workspace_is_held_until_discard() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced
         workspace ann-one missing
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: WorkspaceMissing: the workspace directory is gone before it was synced; `docket delete --discard` ends it
        "#]],
    );
}

#[test]
fn f45_discard_ends_a_session_whose_workspace_was_replaced() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=discard
         workspace ann-one replaced
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              remove container 1 c1
              release port and record
        "#]],
    );
}

#[test]
fn a_workspace_that_is_not_seen_is_waited_for() {
    check(
        "gone ann-one
         record ann-one port=8001 ending=presynced
         workspace ann-one unseen
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Terminating: WorkspaceUnknown: the workspace is not seen: I/O error
        "#]],
    );
}

#[test]
fn containers_of_every_attempt_and_uid_go() {
    check(
        "gone ann-one
         record ann-one port=8001 attempt=2
         container ann-one running attempt=1 port=8001
         container ann-one created attempt=2 port=8001
         container ann-one running uid=stray attempt=7 port=8001",
        expect![[r#"
            ann-one is Terminating: its file is gone
              begin the end: its file is gone
              sync files before the stop
              stop container c1 within 10s (Requested)
              stop container c7 within 10s (Requested)
              sync files by checksum
              remove container 1 c1
              remove container 2 c2
              remove container 7 c7
              move workspace to the trash
              remove workspace from the trash
              release port and record
        "#]],
    );
}

#[test]
fn a_user_s_other_container_that_sees_the_tree_asks_for_another_look() {
    check(
        "class wide
         gone ann-one
         record ann-one port=8001 ending=presynced,stored
         want ann-two
         record ann-two port=8002 ready
         container ann-two running port=8002 passing",
        expect![[r#"
            ann-one is Terminating: its file is gone
              sync files by checksum
              move workspace to the trash
              remove workspace from the trash
              release port and record
            ann-two is Running
        "#]],
    );
}
