//! What the meter counted, drawn. One table says what each is called and which values of its
//! labels are told before they first happen: what can happen is there with a zero.

use std::collections::BTreeMap;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::model::Reason;
use crate::world::{BUCKETS, Count, Histogram, Labels as Values, Meter, Timed};

use super::{Labels, labels};

/// A counter: what, its name, its help, its label, the values that are told from the beginning.
type Counted = (Count, &'static str, &'static str, &'static str, &'static [&'static str]);

const COUNTED: [Counted; 6] = [
    (
        Count::EventsMissed,
        "engine_events_missed",
        "Changes of containers that a listing found before an event told of them",
        "",
        &[""],
    ),
    (
        Count::EventStreams,
        "engine_event_streams",
        "Times that the engine's stream of events began or lost some",
        "",
        &[""],
    ),
    (
        Count::Drift,
        "drift_corrected",
        "What was changed from outside and put right",
        "reason",
        &["Ended", "Late", "Paused", "Removed", "Resized"],
    ),
    (
        Count::Restarts,
        "restarts",
        "Containers started again, by how the one before ended",
        "reason",
        &[
            Reason::Completed.word(),
            Reason::EngineRestart.word(),
            Reason::Error.word(),
            Reason::Killed.word(),
            Reason::OutOfMemory.word(),
            Reason::Requested.word(),
            Reason::StartupTimeout.word(),
            Reason::Unhealthy.word(),
        ],
    ),
    (
        Count::Transferred,
        "store_transferred_bytes",
        "Bytes of files given to the store and taken from it",
        "direction",
        &["received", "sent"],
    ),
    (Count::Conflicts, "conflicts", "Files that were changed on both sides", "", &[""]),
];

/// A histogram of seconds, as a counter is described, with two labels.
type Timing = (Timed, &'static str, &'static str, (&'static str, &'static str), &'static [Values]);

const TIMED: [Timing; 6] = [
    (Timed::Pass, "pass_duration", "Deciding, one pass", ("", ""), &[("", "")]),
    (
        Timed::Reconcile,
        "reconcile_duration",
        "Carrying out the plan of a session",
        ("result", ""),
        &[("done", ""), ("failed", ""), ("interrupted", "")],
    ),
    (
        Timed::EngineCall,
        "engine_call_duration",
        "Calls to the engine",
        ("operation", "outcome"),
        &[("list", "ok")],
    ),
    (
        Timed::StoreCall,
        "store_call_duration",
        "Calls to the store, without the time in which contents are read",
        ("operation", "outcome"),
        &[("head", "ok")],
    ),
    (
        Timed::Sync,
        "sync_duration",
        "Syncs of a session's files",
        ("kind", "result"),
        &[("background", "done"), ("final", "done"), ("pre_stop", "done")],
    ),
    (
        Timed::Hydration,
        "hydration_duration",
        "Fetching files, by what asked for them: the start of a session, an open, a command",
        ("cause", "result"),
        &[("open", "done"), ("request", "done"), ("start", "done")],
    ),
];

/// Histograms that somebody else filled, by labels.
#[derive(Clone, Debug, Default)]
struct Histograms(BTreeMap<Labels, Histogram>);

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (labels, Histogram { counts, sum }) in &self.0 {
            let ends = BUCKETS.into_iter().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = ends.zip(counts.iter().copied()).collect();
            let count = counts.iter().sum();
            if labels.is_empty() {
                encoder.encode_histogram::<NoLabelSet>(*sum, count, &buckets, None)?;
                continue;
            }
            let mut one = encoder.encode_family(labels)?;
            one.encode_histogram::<NoLabelSet>(*sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// All that was counted and timed.
pub(super) fn register(registry: &mut Registry, meter: &Meter) {
    let all = meter.counted();
    for (what, name, help, label, known) in COUNTED {
        let family = Family::<Labels, Counter>::default();
        let mut values: BTreeMap<&str, u64> = known.iter().map(|value| (*value, 0)).collect();
        let counted = all.iter().filter(|((counted, _), _)| *counted == what);
        values.extend(counted.map(|((_, (value, _)), count)| (*value, *count)));
        if label.is_empty() {
            let counter = Counter::<u64>::default();
            counter.inc_by(values.values().sum());
            registry.register(name, help, counter);
            continue;
        }
        for (value, count) in values {
            family.get_or_create(&labels(&[(label, value)])).inc_by(count);
        }
        match name.strip_suffix("_bytes") {
            Some(name) => registry.register_with_unit(name, help, Unit::Bytes, family),
            None => registry.register(name, help, family),
        }
    }
    let all = meter.timed();
    for (what, name, help, label, known) in TIMED {
        let mut values: BTreeMap<Values, Histogram> =
            known.iter().map(|values| (*values, Histogram::default())).collect();
        let timed = all.iter().filter(|((timed, _), _)| *timed == what);
        values.extend(timed.map(|((_, values), histogram)| (*values, *histogram)));
        let drawn = values.into_iter().map(|(values, drawn)| (named(label, values), drawn));
        let family = Histograms(drawn.collect());
        registry.register_with_unit(name, help, Unit::Seconds, family);
    }
}

fn named(keys: (&str, &str), values: Values) -> Labels {
    let pairs = [(keys.0, values.0), (keys.1, values.1)];
    let pairs: Vec<_> = pairs.into_iter().filter(|(key, _)| !key.is_empty()).collect();
    labels(&pairs)
}
