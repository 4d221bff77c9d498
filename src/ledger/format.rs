//! How facts become keys and bytes. Pure: nothing here touches a disk.
//!
//! A name such as `record/{uid}` is kept in parts of a few kilobytes, because sled puts what is
//! larger than an eighth of a megabyte into files of its own, which it never syncs. A page holds at
//! most 17 entries, so parts keep pages below that too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::{Base, Event, RECORD_VERSION, Record, Uid};
use crate::world::{REBUILT, Write};

pub(super) const RECORD: &str = "record/";
pub(super) const BASE: &str = "base/";
pub(super) const APPLIED: &str = "applied/";
pub(super) const FACT: &str = "fact/";
pub(super) const EVENT: &str = "event/";
/// Where a damaged store went, or `new`, until all was rebuilt from elsewhere.
pub(super) const REBUILDING: &str = "rebuilding";
/// The one key that is not in parts and not in its own checksum.
pub(super) const META: &[u8] = b"meta";

/// The format of a kept [`Base`].
const BASE_VERSION: u32 = 1;
/// Bytes of a part.
const PART: usize = 6 * 1024;

/// Keys and what is to be there: `None`: nothing.
pub(super) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// One fact to keep or to drop, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Put(String, Vec<u8>),
    Drop(String),
}

/// What a value is worth; a newer format is held and neither read nor rewritten.
#[derive(Debug, PartialEq)]
pub(super) enum Read<T> {
    Known(Box<T>),
    /// Written by a newer program, or not readable by this one; why.
    Unknown(String),
}

/// The count and the sum of all keys, written with every batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The format of the whole store.
    pub version: u32,
    /// Counts the batches.
    pub epoch: u64,
    /// How many keys there are beside this one.
    pub count: u64,
    /// The sum of their [`digest`]s, as hex digits.
    #[serde(with = "hex")]
    pub sum: u128,
}

/// The only format of the store so far.
pub(super) const STORE_VERSION: u32 = 1;

/// The facts that a batch changes, in order.
///
/// # Errors
/// What cannot be written as JSON, or a name that cannot be a key.
pub(super) fn facts(batch: Vec<Write>) -> Result<Vec<Fact>, String> {
    let mut facts = Vec::with_capacity(batch.len());
    for write in batch {
        match write {
            Write::Record(record) => {
                facts.push(Fact::Put(record_name(&record.uid), json(&*record)?));
            }
            Write::DropRecord(uid) => {
                facts.push(Fact::Drop(record_name(&uid)));
                facts.push(Fact::Drop(base_name(&uid)));
            }
            Write::Base(uid, base) => {
                let kept = KeptBase { version: BASE_VERSION, base: *base };
                facts.push(Fact::Put(base_name(&uid), json(&kept)?));
            }
            Write::Applied(name, text) => {
                facts.push(Fact::Put(format!("{APPLIED}{name}"), text.into_bytes()));
            }
            Write::DropApplied(name) => facts.push(Fact::Drop(format!("{APPLIED}{name}"))),
            Write::Fact(name, text) => {
                if name == REBUILT {
                    facts.push(Fact::Drop(REBUILDING.to_owned()));
                }
                facts.push(Fact::Put(format!("{FACT}{name}"), text.into_bytes()));
            }
            Write::Event(event) => facts.push(Fact::Put(event_name(event.seq), json(&event)?)),
        }
    }
    match facts.iter().find(|fact| fact.name().contains('\0')) {
        Some(fact) => Err(format!("{:?} holds a NUL byte", fact.name())),
        None => Ok(facts),
    }
}

impl Fact {
    pub(super) fn name(&self) -> &str {
        match self {
            Fact::Put(name, _) | Fact::Drop(name) => name,
        }
    }

    /// Bytes it takes, roughly.
    pub(super) fn size(&self) -> usize {
        match self {
            Fact::Put(name, value) => name.len() + value.len(),
            Fact::Drop(name) => name.len(),
        }
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

pub(super) fn record_name(uid: &Uid) -> String {
    format!("{RECORD}{uid}")
}

pub(super) fn base_name(uid: &Uid) -> String {
    format!("{BASE}{uid}")
}

fn event_name(seq: u64) -> String {
    format!("{EVENT}{seq:020}")
}

/// A record as it was kept. Fields that this program does not know are no reason to refuse: only
/// the version says that their meaning changed.
pub(super) fn record(bytes: &[u8]) -> Read<Record> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(bytes) {
        Ok(Version { version }) if version > RECORD_VERSION => Read::Unknown(format!(
            "format {version} is of a newer docket; this one knows up to {RECORD_VERSION}"
        )),
        Ok(_) => match serde_json::from_slice(bytes) {
            Ok(record) => Read::Known(Box::new(record)),
            Err(error) => Read::Unknown(error.to_string()),
        },
        Err(error) => Read::Unknown(error.to_string()),
    }
}

#[derive(Serialize, Deserialize)]
struct KeptBase {
    version: u32,
    base: Base,
}

/// A sync index as it was kept.
pub(super) fn base(bytes: &[u8]) -> Read<Base> {
    match serde_json::from_slice::<KeptBase>(bytes) {
        Ok(kept) if kept.version <= BASE_VERSION => Read::Known(Box::new(kept.base)),
        Ok(kept) => Read::Unknown(format!(
            "format {} is of a newer docket; this one knows up to {BASE_VERSION}",
            kept.version
        )),
        Err(error) => Read::Unknown(error.to_string()),
    }
}

/// An event as it was kept; `None` if it cannot be read: it is a courtesy.
pub(super) fn event(bytes: &[u8]) -> Option<Event> {
    serde_json::from_slice(bytes).ok()
}

/// What all keys of a name begin with.
pub(super) fn stem(name: &str) -> Vec<u8> {
    let mut stem = name.as_bytes().to_vec();
    stem.push(0);
    stem
}

/// The key of a part.
fn part_key(name: &str, number: u32) -> Vec<u8> {
    let mut key = stem(name);
    key.extend(number.to_be_bytes());
    key
}

/// The name a key belongs to, and which part of it.
pub(super) fn name_of(key: &[u8]) -> Option<(&str, u32)> {
    let (rest, number) = key.split_last_chunk::<4>()?;
    let name = std::str::from_utf8(rest.strip_suffix(&[0])?).ok()?;
    Some((name, u32::from_be_bytes(*number)))
}

/// A value as parts; the first begins with how many there are.
pub(super) fn parts(name: &str, value: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let chunks: Vec<&[u8]> =
        if value.is_empty() { vec![&[]] } else { value.chunks(PART).collect() };
    let count = chunks.len() as u32;
    let part = |(number, chunk): (usize, &&[u8])| {
        let head = if number == 0 { count.to_be_bytes().to_vec() } else { Vec::new() };
        (part_key(name, number as u32), [&head, *chunk].concat())
    };
    chunks.iter().enumerate().map(part).collect()
}

/// The value that parts in order make; `None` if one is missing or too many.
pub(super) fn whole<'a>(parts: impl IntoIterator<Item = (u32, &'a [u8])>) -> Option<Vec<u8>> {
    let mut parts = parts.into_iter();
    let (0, first) = parts.next()? else { return None };
    let (count, first) = first.split_first_chunk::<4>()?;
    let mut value = first.to_vec();
    let mut seen = 1;
    for (number, part) in parts {
        if number != seen {
            return None;
        }
        value.extend_from_slice(part);
        seen += 1;
    }
    (seen == u32::from_be_bytes(*count)).then_some(value)
}

/// What one key adds to the sum of all.
pub(super) fn digest(key: &[u8], value: &[u8]) -> u128 {
    let sum = Sha256::new()
        .chain_update((key.len() as u64).to_be_bytes())
        .chain_update(key)
        .chain_update(value)
        .finalize();
    sum.iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

mod hex {
    //! A sum as hex digits: JSON numbers do not hold 128 bits.

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(sum: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{sum:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
