//! `/metrics`, drawn anew at each scrape from what the operator shows anyway. Sums are for
//! everybody; what names a session is for a known reader.

mod metered;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::model::{ConditionType, Operation, Origin, OriginState, Timestamp, Truth, Usage};
use crate::operator::handle::{Numbers, Snapshot, TopView};
use crate::world::Meter;

use super::reader::Reader;

type Labels = Vec<(String, String)>;
type Whole = Family<Labels, Gauge>;
type Real = Gauge<f64, AtomicU64>;
type Reals = Family<Labels, Real>;

/// What a scrape sees.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) sessions: Snapshot,
    pub(super) top: Vec<TopView>,
    pub(super) last_pass: Option<Timestamp>,
    /// Events so far.
    pub(super) events: u64,
    /// The repository that specs come from, if they do.
    pub(super) origin: Option<Origin>,
    /// How things stand; `None`: the loop did not say in time.
    pub(super) numbers: Option<Numbers>,
    /// What was counted.
    pub(super) meter: Arc<Meter>,
}

/// The forms that a scrape may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `text/plain; version=0.0.4`: what everything that scrapes can read.
    Classic,
    /// OpenMetrics 1.0, for who asks for it.
    OpenMetrics,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text of a scrape.
pub(super) fn text(seen: &Seen, reader: Reader, form: Form) -> String {
    let text = open_metrics(seen, reader);
    match form {
        Form::Classic => classic(&text),
        Form::OpenMetrics => text,
    }
}

/// The same in the older form: there a counter is described by the name of its sample, units are
/// no words of their own, and nothing marks the end.
fn classic(text: &str) -> String {
    let counters: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut told = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].iter().find_map(|mark| {
            let (name, rest) = line.strip_prefix(mark)?.split_once(' ')?;
            counters.contains(name).then(|| format!("{mark}{name}_total {rest}"))
        });
        told.push_str(described.as_deref().unwrap_or(line));
        told.push('\n');
    }
    told
}

fn open_metrics(seen: &Seen, reader: Reader) -> String {
    let mut registry = Registry::with_prefix("docket");
    operator(&mut registry, seen);
    if let Some(origin) = &seen.origin {
        repository(&mut registry, origin);
    }
    sessions(&mut registry, seen);
    usage(&mut registry, seen);
    if let Some(numbers) = &seen.numbers {
        standing(&mut registry, numbers);
    }
    metered::register(&mut registry, &seen.meter);
    if reader == Reader::Known {
        each(&mut registry, seen);
    }
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        // A String takes everything.
        Err(std::fmt::Error) => String::new(),
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn operator(registry: &mut Registry, seen: &Seen) {
    let build = Whole::default();
    build.get_or_create(&labels(&[("version", env!("CARGO_PKG_VERSION"))])).set(1);
    registry.register("build_info", "The docket that runs", build);
    let pass = Real::default();
    pass.set(seen.last_pass.map_or(0.0, |at| at.timestamp_millis() as f64 / 1000.0));
    let help = "When everything was last seen, in seconds since 1970; 0: not yet";
    registry.register_with_unit("last_pass_timestamp", help, Unit::Seconds, pass);
    let events = Counter::<u64>::default();
    events.inc_by(seen.events);
    registry.register("events", "Events since the state was new", events);
}

/// How far the repository of the specs is followed.
fn repository(registry: &mut Registry, origin: &Origin) {
    let states = Whole::default();
    for state in OriginState::ALL {
        let is_it = i64::from(state == origin.state);
        states.get_or_create(&labels(&[("state", &state.to_string())])).set(is_it);
    }
    let help = "1: the state of the repository that specs come from";
    registry.register("repository_state", help, states);
    let answered = Real::default();
    let at = origin.answered_at.map_or(0.0, |at| at.timestamp_millis() as f64 / 1000.0);
    answered.set(at);
    let help = "When the repository last answered, in seconds since 1970; 0: not yet";
    registry.register_with_unit("repository_answer_timestamp", help, Unit::Seconds, answered);
}

fn sessions(registry: &mut Registry, seen: &Seen) {
    let (phases, conditions, files) = (Whole::default(), Whole::default(), Whole::default());
    let unsynced = Gauge::<i64>::default();
    let restarts = Gauge::<i64>::default();
    for view in seen.sessions.values() {
        let status = &view.status;
        phases.get_or_create(&labels(&[("phase", &status.phase.to_string())])).inc();
        for condition in &status.conditions {
            let (kind, truth) =
                (format!("{:?}", condition.kind), format!("{:?}", condition.status));
            conditions.get_or_create(&labels(&[("type", &kind), ("status", &truth)])).inc();
        }
        let all = &status.files;
        for (state, count) in [
            ("local", all.local),
            ("lazy", all.lazy),
            ("unsynced", all.unsynced),
            ("skipped", all.skipped),
            ("conflict", all.conflicts),
        ] {
            files.get_or_create(&labels(&[("state", state)])).inc_by(count as i64);
        }
        unsynced.inc_by(all.unsynced_bytes as i64);
        restarts.inc_by(status.container.as_ref().map_or(0, |c| i64::from(c.restarts)));
    }
    registry.register("sessions", "Sessions by phase", phases);
    registry.register("session_conditions", "Sessions by condition and its value", conditions);
    registry.register("files", "Files of all workspaces by state", files);
    let help = "Contents that are not known to be stored";
    registry.register_with_unit("unsynced", help, Unit::Bytes, unsynced);
    registry.register("container_restarts", "Restarts of the containers there are", restarts);
}

fn standing(registry: &mut Registry, numbers: &Numbers) {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let ports = Whole::default();
    for (state, count) in [
        ("free", numbers.ports_free),
        ("leased", numbers.ports_leased),
        ("quarantined", numbers.ports_quarantined),
    ] {
        ports.get_or_create(&labels(&[("state", state)])).set(whole(count));
    }
    registry.register("ports", "Ports of the range by state", ports);
    let waiting = Whole::default();
    for operation in Operation::ALL {
        let name = format!("{operation:?}");
        let count = numbers.backing_off.get(&name).copied().unwrap_or_default();
        waiting.get_or_create(&labels(&[("operation", &name)])).set(whole(count));
    }
    let help = "Sessions that wait before an operation is tried again";
    registry.register("sessions_backing_off", help, waiting);
    let singles = [
        ("queue_length", "Sessions that wait for a place or for leave to start", numbers.queued),
        ("sessions_working", "Sessions whose plan is being carried out", numbers.working),
    ];
    for (name, help, count) in singles {
        let gauge = Gauge::<i64>::default();
        gauge.set(whole(count));
        registry.register(name, help, gauge);
    }
}

fn usage(registry: &mut Registry, seen: &Seen) {
    let running: Vec<&Usage> = seen.top.iter().filter_map(|top| top.usage.as_ref()).collect();
    let sum = |of: fn(&Usage) -> u64| running.iter().map(|usage| of(usage)).sum::<u64>() as i64;
    let containers = Gauge::<i64>::default();
    containers.set(running.len() as i64);
    registry.register("containers_running", "Containers that run", containers);
    let cpu = Real::default();
    cpu.set(running.iter().map(|usage| usage.cpu_percent).sum());
    registry.register("cpu_percent", "Cpu of all sessions; 100 is one core", cpu);
    let bytes: [(&str, &str, i64); 4] = [
        ("memory_usage", "Memory of all sessions", sum(|usage| usage.memory_bytes)),
        ("network_receive", "Received by the containers there are", sum(|u| u.network_rx_bytes)),
        ("network_transmit", "Sent by the containers there are", sum(|u| u.network_tx_bytes)),
        ("disk", "Files of all workspaces", seen.top.iter().map(|t| t.disk_bytes as i64).sum()),
    ];
    for (name, help, value) in bytes {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        registry.register_with_unit(name, help, Unit::Bytes, gauge);
    }
}

/// The series that name a session.
fn each(registry: &mut Registry, seen: &Seen) {
    let ready = Whole::default();
    for (name, view) in seen.sessions.iter() {
        let holds = view
            .status
            .conditions
            .iter()
            .any(|c| c.kind == ConditionType::Ready && c.status == Truth::True);
        ready.get_or_create(&labels(&[("session", name.as_str())])).set(i64::from(holds));
    }
    registry.register("session_ready", "1: all that was asked for is there", ready);
    let cpu = Reals::default();
    let mut bytes: BTreeMap<&str, Whole> = BTreeMap::new();
    for top in &seen.top {
        let of = labels(&[("session", &top.name)]);
        let mut set = |name, value: u64| {
            bytes.entry(name).or_default().get_or_create(&of).set(value as i64);
        };
        set("session_disk", top.disk_bytes);
        let Some(usage) = &top.usage else { continue };
        set("session_memory_usage", usage.memory_bytes);
        set("session_memory_limit", usage.memory_limit_bytes);
        set("session_network_receive", usage.network_rx_bytes);
        set("session_network_transmit", usage.network_tx_bytes);
        cpu.get_or_create(&of).set(usage.cpu_percent);
    }
    registry.register("session_cpu_percent", "Cpu of a session; 100 is one core", cpu);
    for (name, family) in bytes {
        registry.register_with_unit(name, "As `docket top` has it", Unit::Bytes, family);
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Reader, Seen, classic, text};
    use crate::model::{Origin, OriginState};

    #[test]
    fn a_repository_is_told_of_only_where_there_is_one() {
        let origin = Origin {
            source: "git+https://host/repo.git".to_owned(),
            state: OriginState::Refused,
            revision: String::new(),
            newest: String::new(),
            answered_at: "1970-01-01T00:00:12Z".parse().ok(),
            fetched_at: None,
            next_look: None,
            failures: 0,
            errors: Vec::new(),
        };
        let told = |origin: Option<Origin>| {
            let seen = Seen {
                sessions: std::sync::Arc::default(),
                top: Vec::new(),
                last_pass: None,
                events: 0,
                origin,
                numbers: None,
                meter: std::sync::Arc::default(),
            };
            text(&seen, Reader::Anybody, Form::Classic)
        };
        let lines = told(Some(origin));
        for line in [
            "docket_repository_state{state=\"Refused\"} 1\n",
            "docket_repository_state{state=\"Current\"} 0\n",
            "docket_repository_answer_timestamp_seconds 12.0\n",
        ] {
            assert!(lines.contains(line), "{line}: {lines}");
        }
        assert!(!told(None).contains("repository"));
    }

    #[test]
    fn the_older_form_describes_a_counter_by_its_sample() {
        let newer = "# HELP docket_events Events.\n# TYPE docket_events counter\n\
                     docket_events_total 7\n# HELP docket_disk_bytes Files.\n\
                     # TYPE docket_disk_bytes gauge\n# UNIT docket_disk_bytes bytes\n\
                     docket_disk_bytes 1\n# EOF\n";
        let older = "# HELP docket_events_total Events.\n# TYPE docket_events_total counter\n\
                     docket_events_total 7\n# HELP docket_disk_bytes Files.\n\
                     # TYPE docket_disk_bytes gauge\ndocket_disk_bytes 1\n";
        assert_eq!(classic(newer), older);
    }
}
