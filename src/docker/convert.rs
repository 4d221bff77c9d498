//! The engine's containers in our words. A container whose labels are not whole is not ours.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use bollard::models::{
    ContainerInspectResponse, ContainerState as RawState, ContainerStateStatusEnum,
    ContainerSummary, ContainerSummaryStateEnum, HostConfig, NetworkSettings,
};

use crate::model::{
    Container, ContainerDetail, ContainerId, ContainerState, Resources, SessionName, Timestamp, Uid,
};
use crate::world::{
    LABEL_ATTEMPT, LABEL_CASE, LABEL_INSTALLATION, LABEL_SESSION, LABEL_SPEC_HASH, LABEL_UID,
    LABEL_USER,
};

/// Why a container of the engine cannot be told in our words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Odd {
    /// It is not this installation's, or its labels are broken: foreign, never touched.
    #[error("{0}")]
    Foreign(String),
    /// The engine's answer makes no sense: nothing may follow from it.
    #[error("the engine's answer {0}")]
    Senseless(&'static str),
}

type Labels = HashMap<String, String>;

/// One row of LIST.
pub(super) fn from_summary(row: ContainerSummary, installation: &str) -> Result<Container, Odd> {
    let id = row.id.filter(|id| !id.is_empty()).ok_or(Odd::Senseless("names no container id"))?;
    let state = match row.state {
        Some(ContainerSummaryStateEnum::CREATED) => ContainerState::Created,
        Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::STOPPING) => {
            ContainerState::Running
        }
        Some(ContainerSummaryStateEnum::PAUSED) => ContainerState::Paused,
        Some(ContainerSummaryStateEnum::RESTARTING) => ContainerState::Restarting,
        Some(ContainerSummaryStateEnum::EXITED) => ContainerState::Exited,
        Some(ContainerSummaryStateEnum::REMOVING) => ContainerState::Removing,
        Some(ContainerSummaryStateEnum::DEAD) => ContainerState::Dead,
        Some(ContainerSummaryStateEnum::EMPTY) | None => {
            return Err(Odd::Senseless("says no state"));
        }
    };
    // Others are names that links give, `/other/alias`.
    let names = row.names.unwrap_or_default();
    let name = names.iter().filter_map(|name| name.strip_prefix('/'));
    let name = name.filter(|name| !name.contains('/')).map(str::to_owned).next();
    build(id, name.unwrap_or_default(), &row.labels.unwrap_or_default(), installation, state)
}

/// One inspected container, with its detail.
pub(super) fn from_inspect(
    found: ContainerInspectResponse,
    installation: &str,
) -> Result<Container, Odd> {
    let id = found.id.filter(|id| !id.is_empty()).ok_or(Odd::Senseless("names no container id"))?;
    let raw = found.state.ok_or(Odd::Senseless("says no state"))?;
    let state = state_of(&raw)?;
    let name = found.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned();
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let network = found.network_settings.unwrap_or_default();
    let detail = ContainerDetail {
        image_id: found.image.unwrap_or_default(),
        started_at: raw.started_at.as_deref().and_then(moment),
        finished_at: raw.finished_at.as_deref().and_then(moment).filter(|_| !is_alive(state)),
        exit_code: raw.exit_code.filter(|_| has_ended(state)),
        oom_killed: raw.oom_killed.unwrap_or_default(),
        error: super::failure::one_line(raw.error.as_deref().unwrap_or_default()),
        pid: raw.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
        published: published(&network),
        inner: inner(&network),
        resources: resources(&found.host_config.unwrap_or_default()),
    };
    let mut container = build(id, name, &labels, installation, state)?;
    container.detail = Some(detail);
    Ok(container)
}

fn build(
    id: String,
    name: String,
    labels: &Labels,
    installation: &str,
    state: ContainerState,
) -> Result<Container, Odd> {
    let foreign = |why: String| Odd::Foreign(format!("container `{name}` {why}"));
    let label = |key: &str| {
        let value = labels.get(key).map(String::as_str);
        value.ok_or_else(|| foreign(format!("has no label {key}")))
    };
    if label(LABEL_INSTALLATION)? != installation {
        return Err(foreign("is another installation's".to_owned()));
    }
    let bad = |key: &str| foreign(format!("has a broken label {key}"));
    let session = SessionName::parse(label(LABEL_SESSION)?).map_err(|_| bad(LABEL_SESSION))?;
    let uid = Uid::parse(label(LABEL_UID)?).map_err(|_| bad(LABEL_UID))?;
    let attempt: u32 = label(LABEL_ATTEMPT)?.parse().map_err(|_| bad(LABEL_ATTEMPT))?;
    let spec_hash = label(LABEL_SPEC_HASH)?.to_owned();
    let user = label(LABEL_USER)?.to_owned();
    let case = label(LABEL_CASE)?.to_owned();
    let id = ContainerId(id);
    Ok(Container { id, name, session, uid, attempt, spec_hash, user, case, state, detail: None })
}

fn state_of(raw: &RawState) -> Result<ContainerState, Odd> {
    Ok(match raw.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerState::Created,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => {
            ContainerState::Running
        }
        Some(ContainerStateStatusEnum::PAUSED) => ContainerState::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => ContainerState::Restarting,
        Some(ContainerStateStatusEnum::REMOVING) => ContainerState::Removing,
        Some(ContainerStateStatusEnum::EXITED) => ContainerState::Exited,
        Some(ContainerStateStatusEnum::DEAD) => ContainerState::Dead,
        Some(ContainerStateStatusEnum::EMPTY) | None => {
            return Err(Odd::Senseless("says no state"));
        }
    })
}

fn is_alive(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused)
}

/// A `created` container whose start failed has an exit code too, but no process ever had it.
fn has_ended(state: ContainerState) -> bool {
    matches!(state, ContainerState::Exited | ContainerState::Dead | ContainerState::Removing)
}

/// Go's zero time, year 1, is "never".
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&chrono::Utc);
    (time.timestamp() > 0).then_some(time)
}

/// Only one port is ever published.
fn published(network: &NetworkSettings) -> Option<SocketAddr> {
    let binding = network.ports.as_ref()?.values().flatten().flatten().next()?;
    let port = binding.host_port.as_deref()?.parse().ok().filter(|port| *port != 0)?;
    let ip: IpAddr = binding.host_ip.as_deref()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

fn inner(network: &NetworkSettings) -> Option<IpAddr> {
    let networks = network.networks.as_ref()?;
    networks.values().find_map(|end| end.ip_address.as_deref()?.parse().ok())
}

fn resources(host: &HostConfig) -> Resources {
    let count = |value: Option<i64>| u64::try_from(value.unwrap_or_default()).unwrap_or_default();
    Resources {
        nano_cpus: count(host.nano_cpus),
        memory: count(host.memory),
        pids: u32::try_from(count(host.pids_limit)).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(edit: &[(&str, &str)]) -> ContainerSummary {
        let mut labels: Labels = [
            (LABEL_INSTALLATION, "here"),
            (LABEL_SESSION, "ann"),
            (LABEL_UID, "00112233445566778899aabbccddeeff"),
            (LABEL_ATTEMPT, "3"),
            (LABEL_SPEC_HASH, "v1-abc"),
            (LABEL_USER, "ann"),
            (LABEL_CASE, "one"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        for (key, value) in edit {
            labels.insert((*key).to_owned(), (*value).to_owned());
            labels.retain(|_, value| !value.is_empty());
        }
        ContainerSummary {
            id: Some("1".repeat(64)),
            names: Some(vec!["/other/alias".to_owned(), "/docket-ann-3".to_owned()]),
            labels: Some(labels),
            state: Some(ContainerSummaryStateEnum::EXITED),
            ..Default::default()
        }
    }

    #[test]
    fn a_row_of_ours_is_read_whole() {
        let container = from_summary(row(&[]), "here").unwrap();
        assert_eq!(container.name, "docket-ann-3");
        assert_eq!((container.attempt, container.state), (3, ContainerState::Exited));
        assert_eq!(container.detail, None);
    }

    #[test]
    fn broken_or_missing_labels_make_a_container_foreign() {
        for edit in [
            (LABEL_INSTALLATION, "there"),
            (LABEL_SESSION, "Not A Name"),
            (LABEL_UID, "xyz"),
            (LABEL_ATTEMPT, "-1"),
            (LABEL_SPEC_HASH, ""),
            (LABEL_USER, ""),
        ] {
            let found = from_summary(row(&[edit]), "here");
            assert!(matches!(found, Err(Odd::Foreign(_))), "{edit:?}: {found:?}");
        }
    }

    #[test]
    fn a_row_without_a_state_makes_the_whole_answer_senseless() {
        let odd = ContainerSummary { state: None, ..row(&[]) };
        assert!(matches!(from_summary(odd, "here"), Err(Odd::Senseless(_))));
    }

    #[test]
    fn year_one_is_never() {
        assert_eq!(moment("0001-01-01T00:00:00Z"), None);
        assert!(moment("2026-11-24T02:18:21.123456789Z").is_some());
        assert_eq!(moment("yesterday"), None);
    }
}
