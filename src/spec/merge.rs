//! What a session may change of its class: the rules one by one, each with its refusal.

use std::collections::{BTreeMap, BTreeSet};

use super::Refusal;
use super::text::{Glob, ImageRef, shown};
use super::value::{Map, Text};
use crate::model::Reason;

/// A merge under way and what was refused in it.
#[derive(Debug, Default)]
pub(super) struct Merge {
    pub refusals: Vec<Refusal>,
}

impl Merge {
    fn over(&mut self, message: String) {
        self.refusals.push(Refusal { reason: Reason::LimitExceeded, message });
    }

    /// The class's value; a session may repeat it and not change it.
    #[expect(clippy::needless_pass_by_value, reason = "every caller takes the two apart anyway")]
    pub fn class_only<T: PartialEq>(
        &mut self,
        field: &str,
        session: Option<T>,
        class: Option<T>,
    ) -> Option<T> {
        if session.is_some() && session != class {
            self.over(format!("{field}: only the class may set it"));
        }
        class
    }

    /// A hardening switch: a session may turn it on and not off.
    pub fn only_true(&mut self, field: &str, session: Option<bool>, class: bool) -> bool {
        if class && session == Some(false) {
            self.over(format!("{field}: the class has it true, and a session may not loosen it"));
        }
        class || session.unwrap_or(false)
    }

    /// A resource up to the class's limit. The class itself is not bound by the limit it gives to
    /// its sessions; a default is.
    pub fn up_to(
        &mut self,
        field: &str,
        session: Option<u64>,
        class: Option<u64>,
        default: u64,
        limit: u64,
        show: impl Fn(u64) -> String,
    ) -> u64 {
        let base = class.unwrap_or(default.min(limit));
        let Some(wanted) = session else { return base };
        if wanted > limit.max(base) {
            self.over(format!(
                "spec.container.resources.{field}: {} is over the class's limit of {}",
                show(wanted),
                show(limit.max(base))
            ));
        }
        wanted
    }

    /// The session's image if the class lets it name that one.
    pub fn image(
        &mut self,
        session: Option<&Text<ImageRef>>,
        class: Option<&Text<ImageRef>>,
        allowed: Option<&[Text<Glob>]>,
    ) -> String {
        let class = class.map(|image| image.0.0.clone()).unwrap_or_default();
        let Some(Text(ImageRef(wanted))) = session else { return class };
        let matches = |glob: &Text<Glob>| {
            globset::Glob::new(&glob.0.0).is_ok_and(|glob| glob.compile_matcher().is_match(wanted))
        };
        if *wanted != class && !allowed.is_none_or(|globs| globs.iter().any(matches)) {
            let globs: Vec<&str> =
                allowed.unwrap_or_default().iter().map(|glob| glob.0.0.as_str()).collect();
            self.over(format!(
                "spec.container.image: `{wanted}` is not one of the class's limits.images: {}",
                shown(&globs.join(", "))
            ));
        }
        wanted.clone()
    }

    /// Capabilities added: those of both, without those the session drops by name.
    pub fn fewer_capabilities(
        session: Option<BTreeSet<String>>,
        class: BTreeSet<String>,
        dropped: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let kept = match session {
            None => class,
            Some(wanted) => wanted.intersection(&class).cloned().collect(),
        };
        kept.into_iter().filter(|one| !dropped.contains(one)).collect()
    }
}

/// A checked map as plain text.
pub(super) fn texts<K: Ord, V>(
    map: Option<Map<K, Text<V>>>,
    key: impl Fn(K) -> String,
    value: impl Fn(V) -> String,
) -> BTreeMap<String, String> {
    map.unwrap_or_default().0.into_iter().map(|(k, v)| (key(k), value(v.0))).collect()
}
