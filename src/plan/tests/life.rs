//! From a file to a container that serves.

use expect_test::expect;

use super::check;

/// Seed: start workspace, files, container, record, resumable at any point.
#[test]
fn a_new_session_goes_from_its_file_to_its_container_in_one_run() {
    check(
        "want ann-one",
        expect![[r#"
            ann-one is Starting: there is no container
              admit
              lease port 8001
              resolve image web
              create workspace
              hydrate files
              create container 1 on port 8001
              start container
        "#]],
    );
}

/// Seed: host ports from 8001 up, never one for two.
#[test]
fn two_new_sessions_get_two_ports() {
    check(
        "want ann-one
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
fn a_healthy_session_is_left_alone() {
    check(
        "want ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn a_crash_halfway_is_finished_and_not_begun_again() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one created port=8001",
        expect![[r#"
            ann-one is Starting: its container is made
              start container c1
        "#]],
    );
}

#[test]
fn a_crash_after_admission_goes_on_where_it_was() {
    check(
        "want ann-one
         record ann-one bare",
        expect![[r#"
            ann-one is Starting: there is no container
              lease port 8001
              resolve image web
              create workspace
              hydrate files
              create container 1 on port 8001
              start container
        "#]],
    );
}

#[test]
fn a_container_whose_making_was_begun_keeps_its_number() {
    check(
        "want ann-one
         record ann-one port=8001 attempt=3 intent=Create:InProgress",
        expect![[r#"
            ann-one is Starting: there is no container
              create container 3 on port 8001
              start container
        "#]],
    );
}

/// Seed: a lost container is found by its labels, a second start orphans nothing.
#[test]
fn a_lost_record_is_rebuilt_from_its_container() {
    check(
        "want ann-one
         container ann-one running port=8007 attempt=2 passing",
        expect![[r#"
            ann-one is Preparing: its record was lost
              rebuild the record from container docket-ann-one-2
        "#]],
    );
}

#[test]
fn a_container_without_record_and_source_is_taken_in_as_its_labels_say() {
    check(
        "gone ann-one
         container ann-one running port=8007",
        expect![[r#"
            ann-one is Preparing: its record was lost
              rebuild the record from container docket-ann-one-1
        "#]],
    );
}

#[test]
fn a_container_without_record_and_source_touches_no_workspace_of_another_session() {
    check(
        "want ann-one
         record ann-one port=8001 attempt=1
         container ann-one running attempt=1 port=8001 passing
         gone ann-two
         container ann-two running port=8007 case=one",
        expect![[r#"
            ann-one is Running
              note ready, generation 1
            ann-two is Unknown: SourceUnknown: a container of this installation has no record and no source, and session ann-one has its workspace: remove it
        "#]],
    );
}

#[test]
fn two_containers_of_a_name_of_which_nothing_is_known_are_left_alone() {
    check(
        "gone ann-one
         container ann-one running port=8007
         container ann-one running port=8008 attempt=2 uid=stray",
        expect![[r#"
            ann-one is Unknown: SourceUnknown: a container of this installation has no record and no source, nor has another of its session: remove one of them
        "#]],
    );
}

#[test]
fn a_container_of_an_earlier_session_of_the_name_is_removed_first() {
    check(
        "want ann-one
         record ann-one port=8001 attempt=0
         container ann-one running port=8002 uid=stray",
        expect![[r#"
            ann-one is Preparing: container docket-ann-one-1 is of an earlier session of this name
              stop container c1 within 10s (Requested)
              remove container 1 c1
        "#]],
    );
}

/// Seed: sixty tries a second apart.
#[test]
fn a_started_container_has_its_whole_startup_budget() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one running port=8001 failing=20 probed=59",
        expect![[r#"
            ann-one is Starting: its container has not answered yet
        "#]],
    );
}

#[test]
fn f17_a_container_that_never_answers_is_stopped_at_the_budget() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one running port=8001 failing=30 probed=60",
        expect![[r#"
            ann-one is Restarting: StartupTimeout: no 200 within 60s: connection refused
              stop container c1 within 10s (StartupTimeout)
        "#]],
    );
}

#[test]
fn the_first_answer_is_noted() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
              note ready, generation 1
        "#]],
    );
}

#[test]
fn an_answer_is_not_believed_before_the_port_is_published() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one running port=8001 passing unbound",
        expect![[r#"
            ann-one is Starting: its port is not published as the engine sees it
        "#]],
    );
}

#[test]
fn a_session_without_a_port_is_ready_when_it_runs() {
    check(
        "class cport=0
         want ann-one
         record ann-one
         container ann-one running",
        expect![[r#"
            ann-one is Running
              note ready, generation 1
        "#]],
    );
}

#[test]
fn a_container_that_was_not_inspected_is_waited_for() {
    check(
        "want ann-one
         record ann-one port=8001
         container ann-one running port=8001 uninspected",
        expect![[r#"
            ann-one is Starting: its container was not inspected yet
        "#]],
    );
}

#[test]
fn an_engine_that_does_not_answer_holds_and_edits_go_on_being_stored() {
    check(
        "engine unseen
         want ann-one
         record ann-one port=8001 ready synced=11:50:00",
        expect![[r#"
            ann-one is Unknown: the engine is not seen: connection refused
              sync files
        "#]],
    );
}

#[test]
fn an_engine_that_does_not_answer_admits_nobody() {
    check(
        "engine unseen
         want ann-one",
        expect![[r#"
            ann-one is Unknown: the engine is not seen: connection refused
        "#]],
    );
}

#[test]
fn f11_a_missing_image_leaves_no_half_session() {
    check(
        "want ann-one
         record ann-one bare port=8001 fail=Image*2:ImageMissing@11:59:50+20",
        expect![[r#"
            ann-one is Preparing: ImageMissing: waits until 12:00:10 after 2 failures: it did not work
        "#]],
    );
}

#[test]
fn an_image_that_vanished_after_it_was_pinned_is_fetched_again() {
    check(
        "want ann-one
         record ann-one port=8001 fail=Create:ImageMissing@11:59:50+5",
        expect![[r#"
            ann-one is Starting: there is no container
              resolve image web
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn f15_a_container_removed_by_hand_is_made_again() {
    check(
        "want ann-one
         record ann-one port=8001 attempt=2 ready",
        expect![[r#"
            ann-one is Starting: there is no container
              note not ready
              create container 3 on port 8001
              start container
        "#]],
    );
}

#[test]
fn f16_a_paused_container_is_thawed() {
    check(
        "want ann-one
         record ann-one port=8001 ready
         container ann-one paused port=8001",
        expect![[r#"
            ann-one is Degraded: its container is paused
              unpause container c1
        "#]],
    );
}

#[test]
fn f18_limits_changed_by_hand_are_set_back() {
    check(
        "want ann-one
         record ann-one port=8001 ready
         container ann-one running port=8001 passing memory=9",
        expect![[r#"
            ann-one is Running
              change limits of container c1
        "#]],
    );
}

#[test]
fn f45_a_replaced_workspace_holds() {
    check(
        "want ann-one
         record ann-one port=8001 ready synced=11:00:00
         workspace ann-one replaced
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Degraded: WorkspaceReplaced: another directory stands where the workspace was
        "#]],
    );
}

#[test]
fn f45_a_missing_workspace_holds() {
    check(
        "want ann-one
         record ann-one port=8001 synced=11:00:00
         workspace ann-one missing
         container ann-one exited port=8001",
        expect![[r#"
            ann-one is Degraded: WorkspaceMissing: the workspace directory is gone
        "#]],
    );
}

#[test]
fn a_workspace_that_is_not_seen_starts_nothing() {
    check(
        "want ann-one
         record ann-one port=8001
         workspace ann-one unseen",
        expect![[r#"
            ann-one is Unknown: WorkspaceUnknown: the workspace is not seen: I/O error
        "#]],
    );
}

#[test]
fn a_workspace_twice_over_its_quota_is_frozen() {
    check(
        "want ann-one
         record ann-one port=8001 ready gib=21
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Degraded: DiskPressure: its workspace has 21.0 GiB, over twice its quota of 10.0 GiB
              pause container c1 (DiskPressure)
        "#]],
    );
}

#[test]
fn a_frozen_workspace_stays_frozen_while_it_is_over_its_quota() {
    check(
        "want ann-one
         record ann-one port=8001 gib=21 paused=DiskPressure
         container ann-one paused port=8001",
        expect![[r#"
            ann-one is Degraded: DiskPressure: its workspace has 21.0 GiB, over twice its quota of 10.0 GiB
        "#]],
    );
}

#[test]
fn a_frozen_workspace_is_thawed_when_there_is_space_again() {
    check(
        "want ann-one
         record ann-one port=8001 gib=1 paused=DiskPressure
         container ann-one paused port=8001",
        expect![[r#"
            ann-one is Degraded: its container is paused
              unpause container c1
        "#]],
    );
}

/// A neighbour within its quota goes on: it is not its doing.
#[test]
fn t12_below_the_floor_those_over_their_quota_are_frozen() {
    check(
        "space low
         want ann-one
         record ann-one port=8001 ready gib=11
         container ann-one running port=8001 passing
         want bob-two
         record bob-two port=8002 ready gib=9 synced=11:59:59
         container bob-two running port=8002 passing",
        expect![[r#"
            ann-one is Degraded: DiskPressure: 1.0 GiB are free, below minFree, and its workspace is over its quota
              pause container c1 (DiskPressure)
            bob-two is Running
        "#]],
    );
}

#[test]
fn t12_close_to_a_full_disk_everybody_is_frozen_and_files_still_go_out() {
    check(
        "space none
         want ann-one
         record ann-one port=8001 ready gib=1 synced=11:59:59
         container ann-one running port=8001 passing
         want bob-two
         record bob-two port=8002 paused=DiskPressure synced=11:59:00
         container bob-two paused port=8002",
        expect![[r#"
            ann-one is Degraded: DiskPressure: 300.0 MiB are free, less than a tenth of minFree
              pause container c1 (DiskPressure)
            bob-two is Degraded: DiskPressure: 300.0 MiB are free, less than a tenth of minFree
              sync files
        "#]],
    );
}

#[test]
fn t12_with_space_again_what_the_full_disk_froze_goes_on() {
    check(
        "want bob-two
         record bob-two port=8002 gib=11 paused=DiskPressure synced=11:59:59
         container bob-two paused port=8002",
        expect![[r#"
            bob-two is Degraded: its container is paused
              unpause container c1
        "#]],
    );
}

/// Seed: sync back, incremental and in the background.
#[test]
fn edits_are_stored_when_the_interval_is_over() {
    check(
        "want ann-one
         record ann-one port=8001 ready synced=11:59:30
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
              sync files
        "#]],
    );
}

#[test]
fn edits_are_not_stored_before_the_interval_is_over() {
    check(
        "want ann-one
         record ann-one port=8001 ready synced=11:59:31
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn a_sync_that_was_asked_for_comes_at_once() {
    check(
        "want ann-one
         record ann-one port=8001 ready
         container ann-one running port=8001 passing
         ask ann-one",
        expect![[r#"
            ann-one is Running
              sync files
        "#]],
    );
}

#[test]
fn a_sync_that_failed_waits_for_its_time_even_if_asked_for() {
    check(
        "want ann-one
         record ann-one port=8001 ready synced=11:00:00 fail=Sync*3:StoreUnavailable
         container ann-one running port=8001 passing
         ask ann-one",
        expect![[r#"
            ann-one is Running
        "#]],
    );
}

#[test]
fn f46_a_clock_that_went_back_blocks_no_gate() {
    check(
        "want ann-one
         record ann-one port=8001 fail=Create*3:CreateFailed@13:00:00+60 synced=13:00:00",
        expect![[r#"
            ann-one is Starting: there is no container
              create container 2 on port 8001
              start container
        "#]],
    );
}

#[test]
fn f46_a_clock_that_went_back_blocks_no_port() {
    check(
        "policy ports=8001-8001
         quarantine 8001 until=13:00:00
         want ann-one",
        expect![[r#"
            ann-one is Starting: there is no container
              admit
              lease port 8001
              resolve image web
              create workspace
              hydrate files
              create container 1 on port 8001
              start container
        "#]],
    );
}
