//! Each test is a picture: the world before, what is told of it after.

mod rules;

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::{Facts, Transitions, Viewed, view};
use crate::model::{Condition, ConditionType, ContainerPrefix, Phase, Reason, Timestamp, Truth};
use crate::plan::Plan;
use crate::plan::tests::world::{World, at};

fn look(world: &World, busy: Option<&str>) -> Vec<Viewed> {
    look_amid(world, &world.plan(), busy)
}

/// What is told while this plan's steps are under way.
fn look_amid(world: &World, plan: &Plan, busy: Option<&str>) -> Vec<Viewed> {
    look_with(world, plan, busy, Trouble::default())
}

/// What keeps docket itself from doing anything.
#[derive(Default)]
struct Trouble<'a> {
    unkept: Option<&'a str>,
    broken: Option<&'a str>,
}

fn look_with(world: &World, plan: &Plan, busy: Option<&str>, trouble: Trouble<'_>) -> Vec<Viewed> {
    let input = world.input();
    let prefix = ContainerPrefix::parse("docket").unwrap();
    let remembered = Transitions::new();
    let facts = Facts {
        progress: None,
        bind: [127, 0, 0, 1].into(),
        prefix: &prefix,
        workspace: "/w/ann/active/one",
        busy,
        stubs: None,
        revision: "",
        unkept: trouble.unkept,
        broken: trouble.broken,
        next_pass: None,
        remembered: &remembered,
    };
    let draw = |(name, one)| view(&input, name, one, &plan[name], &facts);
    world.sessions.iter().map(draw).collect()
}

/// The conditions and what else is remarkable, as text.
fn draw(viewed: &Viewed) -> String {
    let status = &viewed.view.status;
    let mut text = format!("{} {}\n", viewed.view.metadata.name, status.phase);
    for condition in &status.conditions {
        let Condition { kind, status, reason, message, .. } = condition;
        let colon = if message.is_empty() { "" } else { ": " };
        writeln!(text, "  {kind:?} {status:?} {reason}{colon}{message}").unwrap();
    }
    if let Some(lifetime) = status.lifetime {
        let clock = |at: Timestamp| at.format("%H:%M:%S").to_string();
        let over = lifetime.expires_at.map(|at| format!(" over {}", clock(at)));
        let idle = lifetime.idle.map(|idle| {
            let (used, ends) = (clock(idle.used_at), clock(idle.ends_at));
            format!(" {:?} {used}, idle {ends}", idle.used_by)
        });
        let (over, idle) = (over.unwrap_or_default(), idle.unwrap_or_default());
        writeln!(text, "  lifetime{over}{idle}").unwrap();
    }
    if !status.retry.operation.is_empty() {
        let retry = &status.retry;
        let until =
            retry.not_before.map_or("ever".to_owned(), |t| t.format("%H:%M:%S").to_string());
        writeln!(text, "  retry {} after {}, not before {until}", retry.operation, retry.failures)
            .unwrap();
    }
    text
}

#[expect(clippy::needless_pass_by_value, reason = "reads as `check(world, expect![..])`")]
fn check(world: &str, expected: Expect) {
    let text: String = look(&World::parse(world), None).iter().map(draw).collect();
    expected.assert_eq(&text);
}

#[test]
fn a_session_that_ends_by_itself_says_when_and_what_keeps_it() {
    check(
        "class     idletimeout=60 maxage=86400
         want      ann-one
         record    ann-one port=8001 ready active=11:00:00
         container ann-one running port=8001 passing idle=20 used=11:59:40",
        expect![[r#"
            ann-one Running
              Ready True Converged
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate True Converged
              FilesSynced True Synced
              lifetime over 11:00:00 Network 11:59:40, idle 12:00:40
        "#]],
    );
}

/// F27: a disk without room under the state.
#[test]
fn what_cannot_be_written_down_is_told_whatever_the_session_waits_for() {
    let world = World::parse(
        "want      ann-one
         want      bob-one
         record    bob-one port=8001",
    );
    let unkept = Some("the ledger cannot commit: no space");
    let trouble = Trouble { unkept, broken: None };
    let viewed = look_with(&world, &world.plan(), None, trouble);
    let text: String = viewed.iter().map(draw).collect();
    expect![[r#"
        ann-one Starting
          Ready False LedgerFailed: the ledger cannot commit: no space
          Accepted True Accepted
          WorkspaceReady False InProgress
          FilesReady False InProgress
          PortReady False InProgress
          ImageReady False InProgress
          ContainerReady False InProgress
          Healthy Unknown Waiting: there is no container
          UpToDate False InProgress
          FilesSynced Unknown NotStarted: there are no files yet
          Reconciling True LedgerFailed: the ledger cannot commit: no space
        bob-one Starting
          Ready False LedgerFailed: the ledger cannot commit: no space
          Accepted True Accepted
          WorkspaceReady True Converged
          FilesReady True Converged
          PortReady True Converged
          ImageReady True Converged: pinned to sha256:web
          ContainerReady False InProgress
          Healthy Unknown Waiting: its container does not run
          UpToDate False InProgress
          FilesSynced True Synced
          Reconciling True LedgerFailed: the ledger cannot commit: no space
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_session_that_an_assertion_stopped_says_so_and_that_docket_must_start_again() {
    let world = World::parse(
        "want      ann-one
         record    ann-one port=8001 ready
         container ann-one exited port=8001 exit=1
         want      bob-one",
    );
    let trouble = Trouble { unkept: None, broken: Some("1 is not 2") };
    let viewed = look_with(&world, &world.plan(), None, trouble);
    let text: String = viewed.iter().map(draw).collect();
    expect![[r#"
        ann-one Restarting
          Ready False InternalError: 1 is not 2
          Accepted True Accepted
          WorkspaceReady True Converged
          FilesReady True Converged
          PortReady True Converged
          ImageReady True Converged: pinned to sha256:web
          ContainerReady False InProgress: it ended
          Healthy Unknown Waiting: its container does not run
          UpToDate True Converged
          FilesSynced True Synced
          Stalled True InternalError: an assertion failed, and it stands still until docket starts again: 1 is not 2
        bob-one Starting
          Ready False InternalError: 1 is not 2
          Accepted True Accepted
          WorkspaceReady False InProgress
          FilesReady False InProgress
          PortReady False InProgress
          ImageReady False InProgress
          ContainerReady False InProgress
          Healthy Unknown Waiting: there is no container
          UpToDate False InProgress
          FilesSynced Unknown NotStarted: there are no files yet
          Stalled True InternalError: an assertion failed, and it stands still until docket starts again: 1 is not 2
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_healthy_session_is_ready() {
    check(
        "want      ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Running
              Ready True Converged
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate True Converged
              FilesSynced True Synced
        "#]],
    );
}

/// What is told of a world while the steps planned in an earlier one are under way.
#[expect(clippy::needless_pass_by_value, reason = "reads as `check(world, expect![..])`")]
fn check_after(before: &str, world: &str, expected: Expect) {
    let plan = World::parse(before).plan();
    let viewed = look_amid(&World::parse(world), &plan, Some("sync files before the stop"));
    let text: String = viewed.iter().map(draw).collect();
    expected.assert_eq(&text);
}

/// `docket stop` and at once `docket start`: the stop is under way, and its container still answers.
#[test]
fn a_session_whose_container_is_being_stopped_is_not_ready() {
    check_after(
        "want      ann-one
         record    ann-one port=8001 ready override=Stopped
         container ann-one running port=8001 passing",
        "want      ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Stopped
              Ready False InProgress: its container is being stopped
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady False InProgress: its container is being stopped
              Healthy True Converged
              UpToDate True Converged
              FilesSynced True Synced
              Reconciling True InProgress: sync files before the stop
        "#]],
    );
}

/// Its container is what it was, but a spec that says otherwise is on its way into force.
#[test]
fn a_session_that_is_to_stop_by_a_new_spec_is_not_ready() {
    check(
        "want      ann-one state=Stopped
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Updating
              Ready False Updating: a new spec is being taken into force
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate False Updating: a new spec is being taken into force
              FilesSynced True Synced
              Reconciling True InProgress: its spec changed
        "#]],
    );
}

#[test]
fn a_new_session_is_on_its_way() {
    check(
        "want ann-one",
        expect![[r#"
        ann-one Starting
          Ready False InProgress: there is no container
          Accepted True Accepted
          WorkspaceReady False InProgress
          FilesReady False InProgress
          PortReady False InProgress
          ImageReady False InProgress
          ContainerReady False InProgress
          Healthy Unknown Waiting: there is no container
          UpToDate False InProgress
          FilesSynced Unknown NotStarted: there are no files yet
          Reconciling True InProgress: there is no container
    "#]],
    );
}

#[test]
fn a_starting_session_waits_for_its_first_answer() {
    check(
        "want      ann-one
         record    ann-one port=8001
         container ann-one running port=8001 failing=2 probed=5",
        expect![[r#"
            ann-one Starting
              Ready False ProbeFailing: 2 probes failed in a row: connection refused
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy False ProbeFailing: 2 probes failed in a row: connection refused
              UpToDate True Converged
              FilesSynced True Synced
              Reconciling True Waiting: its container has not answered yet
        "#]],
    );
}

#[test]
fn a_missing_image_says_so_and_when_it_is_tried_again() {
    check(
        "want   ann-one
         record ann-one bare port=8001 fail=Image*2:ImageMissing@11:59:50+20",
        expect![[r#"
            ann-one Preparing
              Ready False ImageMissing: waits until 12:00:10 after 2 failures: it did not work
              Accepted True Accepted
              WorkspaceReady False Waiting: ImageMissing comes first
              FilesReady False Waiting: ImageMissing comes first
              PortReady True Converged
              ImageReady False ImageMissing: it did not work
              ContainerReady False Waiting: ImageMissing comes first
              Healthy Unknown Waiting: its container does not run
              UpToDate False Waiting: ImageMissing comes first
              FilesSynced Unknown NotStarted: there are no files yet
              Reconciling True ImageMissing: waits until 12:00:10 after 2 failures: it did not work
              retry Image after 2, not before 12:00:10
        "#]],
    );
}

#[test]
fn a_refused_edit_keeps_the_last_good_spec_serving() {
    check(
        "refused   ann-one LimitExceeded
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Running
              Ready True Converged
              Accepted False LimitExceeded: it may not be; the last good spec stays in force
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate False LimitExceeded: it may not be; the last good spec stays in force
              FilesSynced True Synced
              Stalled True LimitExceeded: it may not be; the last good spec stays in force
        "#]],
    );
}

#[test]
fn a_refused_new_session_is_rejected() {
    check(
        "refused ann-one ClassNotFound",
        expect![[r#"
        ann-one Rejected
          Ready False ClassNotFound: it may not be
          Accepted False ClassNotFound: it may not be
          WorkspaceReady False Waiting: ClassNotFound comes first
          FilesReady False Waiting: ClassNotFound comes first
          PortReady False Waiting: ClassNotFound comes first
          ImageReady False Waiting: ClassNotFound comes first
          ContainerReady False Waiting: ClassNotFound comes first
          Healthy Unknown Waiting: there is no container
          UpToDate False Waiting: ClassNotFound comes first
          FilesSynced Unknown NotStarted: there are no files yet
          Stalled True ClassNotFound: it may not be
    "#]],
    );
}

#[test]
fn duplicates_without_a_record_are_rejected() {
    check(
        "held ann-one DuplicateName",
        expect![[r#"
        ann-one Rejected
          Ready False DuplicateName: as it was
          Accepted False DuplicateName: as it was
          WorkspaceReady False Waiting: DuplicateName comes first
          FilesReady False Waiting: DuplicateName comes first
          PortReady False Waiting: DuplicateName comes first
          ImageReady False Waiting: DuplicateName comes first
          ContainerReady False Waiting: DuplicateName comes first
          Healthy Unknown Waiting: there is no container
          UpToDate False Waiting: DuplicateName comes first
          FilesSynced Unknown NotStarted: there are no files yet
          Stalled True DuplicateName: as it was
    "#]],
    );
}

#[test]
fn a_held_prune_shows_and_serves_on() {
    check(
        "held      ann-one PruneGuard prune
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Running
              Ready True Converged
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate True Converged
              FilesSynced True Synced
              PruneHeld True PruneGuard: as it was
        "#]],
    );
}

#[test]
fn an_engine_that_does_not_answer_makes_unknown_and_not_false() {
    check(
        "engine    unseen
         want      ann-one
         record    ann-one port=8001 ready",
        expect![[r#"
            ann-one Unknown
              Ready Unknown EngineUnreachable: the engine is not seen: connection refused
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady Unknown EngineUnreachable: the engine is not seen: connection refused
              Healthy Unknown ProbeUnknown: no probe was answered yet
              UpToDate Unknown EngineUnreachable
              FilesSynced True Synced
              RuntimeUnresponsive True EngineUnreachable: connection refused
        "#]],
    );
}

#[test]
fn a_crash_loop_says_how_often_and_why() {
    check(
        "want      ann-one
         record    ann-one port=8001 fail=Run*4:Error@11:59:50+60 noted=Error:1 restarts=3
         container ann-one exited port=8001 exit=1",
        expect![[r#"
            ann-one CrashLoop
              Ready False CrashLoopBackOff: it did not work, 4 times in a row
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady False CrashLoopBackOff: it did not work, 4 times in a row
              Healthy Unknown Waiting: its container does not run
              UpToDate True Converged
              FilesSynced True Synced
              Reconciling True Error: waits until 12:00:50 after 4 failures: it did not work
              retry Run after 4, not before 12:00:50
        "#]],
    );
}

#[test]
fn a_replaced_workspace_stalls() {
    check(
        "want      ann-one
         record    ann-one port=8001 ready
         workspace ann-one replaced
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Degraded
              Ready False WorkspaceReplaced: another directory stands where the workspace was
              Accepted True Accepted
              WorkspaceReady False WorkspaceReplaced: another directory stands where the workspace was
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate True Converged
              FilesSynced False WorkspaceReplaced: another directory stands where the workspace was
              Stalled True WorkspaceReplaced: another directory stands where the workspace was
        "#]],
    );
}

#[test]
fn a_stopped_session_is_at_rest() {
    check(
        "want   ann-one state=Stopped
         record ann-one port=8001 state=Stopped",
        expect![[r#"
            ann-one Stopped
              Ready False Stopped: no container is wanted
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady False Stopped: no container is wanted
              Healthy Unknown Waiting: its container does not run
              UpToDate True Stopped: no container is wanted
              FilesSynced True Synced
        "#]],
    );
}

#[test]
fn a_suspended_session_is_left_alone() {
    check(
        "want      ann-one suspend
         record    ann-one port=8001 suspend
         container ann-one exited port=8001",
        expect![[r#"
            ann-one Suspended
              Ready False Suspended: left alone on request
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady False InProgress: it ended
              Healthy Unknown Waiting: its container does not run
              UpToDate True Converged
              FilesSynced True Synced
              Suspended True Suspended: left alone on request
        "#]],
    );
}

#[test]
fn a_class_edit_that_waits_for_the_next_start_is_told() {
    check(
        "want      ann-one class-image=web2
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Running
              Ready True Converged
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate False PendingNextStart: its class changed: comes with the next start
              FilesSynced True Synced
        "#]],
    );
}

#[test]
fn an_own_edit_is_not_ready_before_it_is_in_force() {
    check(
        "want      ann-one image=web2
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Updating
              Ready False Updating: a new spec is being taken into force
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate False Updating: a new spec is being taken into force
              FilesSynced True Synced
              Reconciling True InProgress: its spec changed
        "#]],
    );
}

#[test]
fn a_rolled_back_session_serves_and_says_why() {
    check(
        "want      ann-one image=web2
         record    ann-one port=8001 ready bad=web2
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Running
              Ready True Converged
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate False RolledBack: it never got ready
              FilesSynced True Synced
        "#]],
    );
}

#[test]
fn a_failing_sync_degrades() {
    check(
        "want      ann-one
         record    ann-one port=8001 ready unsynced=3 fail=Sync*2:StoreUnavailable
         container ann-one running port=8001 passing",
        expect![[r#"
            ann-one Degraded
              Ready True Converged
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady True Converged
              Healthy True Converged
              UpToDate True Converged
              FilesSynced False StoreUnavailable: it did not work
              retry Sync after 2, not before 12:00:59
        "#]],
    );
}

#[test]
fn an_ending_session_held_up_by_the_store_says_so() {
    check(
        "gone      ann-one
         record    ann-one port=8001 ending=presynced fail=Sync*2:StoreUnavailable
         container ann-one exited port=8001",
        expect![[r#"
            ann-one Terminating
              Ready False Terminating: its file is gone
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady False InProgress: it ended
              Healthy Unknown Waiting: its container does not run
              UpToDate False Terminating
              FilesSynced False StoreUnavailable: it did not work
              Reconciling True StoreUnavailable: waits until 12:00:59 after 2 failures: it did not work
              retry Sync after 2, not before 12:00:59
        "#]],
    );
}

#[test]
fn a_full_house_shows_the_place_in_the_queue() {
    let world = World::parse(
        "policy    sessions=1
         want      ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing
         want      bob-two
         want      cid-three",
    );
    let viewed = look(&world, None);
    assert_eq!(viewed[1].view.status.queue_position, Some(1));
    assert_eq!(viewed[2].view.status.queue_position, Some(2));
    assert_eq!(viewed[2].view.status.phase, Phase::Pending);
}

#[test]
fn a_terminal_failure_stalls() {
    check(
        "want      ann-one
         record    ann-one port=8001 terminal=Start:CommandInvalid
         container ann-one created port=8001",
        expect![[r#"
            ann-one Failed
              Ready False CommandInvalid: it did not work
              Accepted True Accepted
              WorkspaceReady True Converged
              FilesReady True Converged
              PortReady True Converged
              ImageReady True Converged: pinned to sha256:web
              ContainerReady False CommandInvalid: it did not work
              Healthy Unknown Waiting: its container does not run
              UpToDate True Converged
              FilesSynced True Synced
              Stalled True CommandInvalid: holds until the spec changes: it did not work
              retry Start after 1, not before ever
        "#]],
    );
}

#[test]
fn a_condition_keeps_its_time_while_its_value_stays() {
    let mut world = World::parse(
        "want      ann-one
         record    ann-one port=8001 ready
         container ann-one running port=8001 passing",
    );
    let first = look(&world, None).remove(0);
    let record = world.sessions.values_mut().next().unwrap().record.as_mut().unwrap();
    record.transitions = first.transitions;
    world.now = at("12:10:00");
    world.sessions.values_mut().next().unwrap().health = crate::model::Health::Unknown;
    let second = look(&world, None).remove(0);
    let since = |kind| second.transitions[&kind].1;
    assert_eq!(since(ConditionType::ContainerReady), at("12:00:00"));
    assert_eq!(since(ConditionType::Healthy), at("12:10:00"));
}

#[test]
fn the_object_has_the_promised_names() {
    let world = World::parse(
        "want      ann-one
         record    ann-one port=8001 ready restarts=1 noted=Error:1
         container ann-one running port=8001 passing id=2a469a8f67ef0123",
    );
    let viewed = look(&world, None).remove(0);
    let json = serde_json::to_value(&viewed.view).unwrap();
    let status = &json["status"];
    assert_eq!(json["apiVersion"], "docket.dev/v1");
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["container"]["id"], "2a469a8f67ef");
    assert_eq!(status["container"]["name"], "docket-ann-one-1");
    assert_eq!(status["container"]["attempt"], 1);
    assert_eq!(status["container"]["restarts"], 1);
    assert_eq!(status["container"]["lastTermination"]["reason"], "Error");
    assert_eq!(status["container"]["lastTermination"]["exitCode"], 1);
    assert_eq!(status["port"], 8001);
    assert_eq!(status["address"], "127.0.0.1:8001");
    assert_eq!(status["workspace"], "/w/ann/active/one");
    assert_eq!(status["retry"]["operation"], "");
    assert_eq!(status["retry"]["notBefore"], serde_json::Value::Null);
    assert_eq!(status["conditions"][0]["type"], "Ready");
    assert_eq!(status["conditions"][0]["status"], "True");
    assert_eq!(status["conditions"][0]["reason"], "Converged");
    assert!(status["conditions"][0]["lastTransitionTime"].is_string());
    assert_eq!(status["conditions"][0]["observedGeneration"], 1);
}
