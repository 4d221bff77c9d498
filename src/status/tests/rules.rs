//! What is true of the status of any world at all.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Lines that may or may not stand in a world of one session.
#[expect(clippy::too_many_lines, reason = "a list")]
fn any_world() -> impl Strategy<Value = String> {
    let engine = select(vec!["", "engine unseen\n", "engine since=11:59:00\n"]);
    let space = select(vec!["", "space low\n", "policy ports=8001-8001\n", "policy starts=1\n"]);
    let class = select(vec![
        "",
        "class strategy=Never\n",
        "class strategy=Recreate\n",
        "class restart=Never\n",
        "class restart=OnFailure\n",
        "class cport=0\n",
        "class maxage=60\n",
        "class hold rollout=Immediate\n",
    ]);
    let want = select(vec![
        "want ann-one",
        "want ann-one image=web2",
        "want ann-one class-image=web2",
        "want ann-one state=Stopped",
        "want ann-one suspend",
        "want ann-one memory=8",
        "want ann-one hostport=8001",
        "refused ann-one LimitExceeded",
        "held ann-one PruneGuard prune",
        "held ann-one InvalidSpec",
        "held ann-one SourceUnreadable",
        "gone ann-one",
    ]);
    let record = proptest::option::of(proptest::collection::vec(
        select(vec![
            "port=8001",
            "port=8002",
            "ready",
            "bare",
            "unpinned",
            "empty",
            "generation=2",
            "was-ready=1",
            "good=web",
            "bad=web2",
            "fail=Run*4:Error@11:59:59+60",
            "fail1=Image:ImageMissing",
            "fail2=Sync:StoreUnavailable",
            "terminal=Start:CommandInvalid",
            "noted=Error:1",
            "noted=Completed:0",
            "retired=Expired",
            "paused=DiskPressure",
            "gib=30",
            "restart-after=1",
            "override=Stopped",
            "ending=",
            "ending=presynced,stored",
            "ending=discard",
            "suspend",
            "state=Stopped",
            "memory=8",
            "image=web2",
            "unsynced=2",
            "fail3=Start:PortConflict",
            "fail4=Update:CreateFailed",
            "unseen",
        ]),
        0..6,
    ));
    let workspace = select(vec![
        "",
        "",
        "",
        "",
        "workspace ann-one missing\n",
        "workspace ann-one replaced\n",
        "workspace ann-one unseen\n",
    ]);
    let container = proptest::option::of((
        select(vec!["running", "created", "paused", "exited", "removing", "dead"]),
        proptest::collection::vec(
            select(vec![
                "passing",
                "failing=1",
                "failing=4",
                "probed=90",
                "port=8001",
                "port=8001",
                "attempt=2",
                "uninspected",
                "unbound",
                "exit=0",
                "oom",
                "uid=stray",
                "image=web2",
            ]),
            0..5,
        ),
    ));
    (engine, space, class, want, record, workspace, container).prop_map(
        |(engine, space, class, want, record, workspace, container)| {
            let record = record.map_or(String::new(), |words| {
                format!("record ann-one {}\n{workspace}", words.join(" "))
            });
            let container = container.map_or(String::new(), |(state, words)| {
                format!("container ann-one {state} {}\n", words.join(" "))
            });
            format!("{engine}{space}{class}{want}\n{record}{container}ask ann-one")
        },
    )
}

/// The rules that hold for whatever world there is.
fn assert_rules(viewed: &Viewed) {
    let status = &viewed.view.status;
    let of = |kind| status.conditions.iter().find(|c| c.kind == kind);
    let is = |kind, truth| of(kind).is_some_and(|c| c.status == truth);
    let always = [
        ConditionType::Ready,
        ConditionType::Accepted,
        ConditionType::WorkspaceReady,
        ConditionType::FilesReady,
        ConditionType::PortReady,
        ConditionType::ImageReady,
        ConditionType::ContainerReady,
        ConditionType::Healthy,
        ConditionType::UpToDate,
        ConditionType::FilesSynced,
    ];
    for kind in always {
        assert_eq!(status.conditions.iter().filter(|c| c.kind == kind).count(), 1, "{kind:?}");
    }
    for passing in status.conditions.iter().filter(|c| !always.contains(&c.kind)) {
        assert_eq!(passing.status, Truth::True, "{:?} stands only while true", passing.kind);
    }
    for condition in &status.conditions {
        assert!(!condition.message.contains('\n'));
        let held = condition.reason == Reason::Converged;
        assert!(!held || condition.status == Truth::True, "Converged and not True: {condition:?}");
    }
    if is(ConditionType::Ready, Truth::True) {
        assert!(is(ConditionType::ContainerReady, Truth::True), "ready without a container");
        assert!(is(ConditionType::Healthy, Truth::True), "ready and not healthy");
        assert!(is(ConditionType::WorkspaceReady, Truth::True), "ready without a workspace");
        assert!(is(ConditionType::PortReady, Truth::True), "ready without its port");
        assert!(status.container.is_some());
        assert!(
            matches!(
                status.phase,
                Phase::Running
                    | Phase::Degraded
                    | Phase::Updating
                    | Phase::Suspended
                    | Phase::Restarting
                    | Phase::Preparing
            ),
            "ready and {}",
            status.phase
        );
    }
    let stalled = of(ConditionType::Stalled).is_some();
    assert!(!(stalled && of(ConditionType::Reconciling).is_some()), "stalled and reconciling");
    if status.phase == Phase::Running {
        assert!(is(ConditionType::ContainerReady, Truth::True), "running without a container");
    }
    let settled = is(ConditionType::Ready, Truth::True)
        || stalled
        || of(ConditionType::RuntimeUnresponsive).is_some()
        || of(ConditionType::Reconciling).is_some()
        || matches!(status.phase, Phase::Stopped | Phase::Suspended | Phase::Unknown)
        || viewed.view.metadata.uid.is_empty();
    assert!(settled, "nothing says why it is not ready");
    assert_eq!(viewed.transitions.len(), status.conditions.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn conditions_keep_their_rules_in_any_world(text in any_world(), busy in any::<bool>()) {
        let world = World::parse(&text);
        for viewed in look(&world, busy.then_some("start container")) {
            assert_rules(&viewed);
        }
    }
}
