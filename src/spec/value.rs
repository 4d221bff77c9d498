//! The leaves of a spec: text, quantities, durations, counts. Each is checked while it is read,
//! because only there the parser knows line and column.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Something written as text that has to keep a rule.
pub(super) trait FromText: Sized {
    /// Name in the JSON Schema.
    const NAME: &'static str;
    /// The rule as a regular expression, where one says it.
    const PATTERN: Option<&'static str> = None;

    /// Reads it; the error says which rule the text breaks.
    fn from_text(text: &str) -> Result<Self, String>;
}

/// A [`FromText`] as it stands in a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<T>(pub T);

struct TextVisitor<T>(PhantomData<T>);

impl<T: FromText> Visitor<'_> for TextVisitor<T> {
    type Value = Text<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<T>, E> {
        T::from_text(text).map(Text).map_err(E::custom)
    }
}

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `deserialize_str`: for that one the YAML parser takes `A: 1` as text.
        deserializer.deserialize_any(TextVisitor(PhantomData))
    }
}

impl<T: FromText> JsonSchema for Text<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::NAME.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        match T::PATTERN {
            Some(pattern) => json_schema!({"type": "string", "pattern": pattern}),
            None => json_schema!({"type": "string"}),
        }
    }
}

/// A map without duplicate keys, keys checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map<K: Ord, V>(pub BTreeMap<K, V>);

impl<K: Ord, V> Default for Map<K, V> {
    fn default() -> Self {
        Map(BTreeMap::new())
    }
}

struct MapVisitor<K, V>(PhantomData<(K, V)>);

/// Reads one key; a key that was seen is refused where it stands.
struct KeySeed<'a, K>(&'a BTreeSet<String>, PhantomData<K>);

impl<'de, K: FromText> DeserializeSeed<'de> for KeySeed<'_, K> {
    type Value = (String, K);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<K: FromText> Visitor<'_> for KeySeed<'_, K> {
    type Value = (String, K);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if self.0.contains(text) {
            return Err(E::custom(format_args!("duplicate key `{text}`")));
        }
        K::from_text(text).map(|key| (text.to_owned(), key)).map_err(E::custom)
    }
}

impl<'de, K: FromText + Ord, V: Deserialize<'de>> Visitor<'de> for MapVisitor<K, V> {
    type Value = Map<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut seen, mut map) = (BTreeSet::new(), BTreeMap::new());
        while let Some((text, key)) = access.next_key_seed(KeySeed(&seen, PhantomData))? {
            seen.insert(text);
            map.insert(key, access.next_value()?);
        }
        Ok(Map(map))
    }
}

impl<'de, K: FromText + Ord, V: Deserialize<'de>> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor(PhantomData))
    }
}

impl<K: FromText + Ord, V: JsonSchema> JsonSchema for Map<K, V> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values = generator.subschema_for::<V>();
        json_schema!({"type": "object", "additionalProperties": values})
    }
}

/// Parts of one in [`Decimal`].
const NANO: u128 = 1_000_000_000;

/// A Kubernetes quantity in billionths, whatever its unit.
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Decimal(u128);

impl Decimal {
    /// `4Gi`, `500m`, `1.5`, `1e3`. `None`: not a quantity. Below a billionth is rounded up.
    fn parse(text: &str) -> Option<Decimal> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_at);
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') {
            return None;
        }
        if whole.len() + part.len() > 30 {
            return None;
        }
        let mantissa: u128 = format!("{whole}{part}").parse().ok()?;
        let (factor, exponent) = unit_of(unit)?;
        let mut value = mantissa.checked_mul(factor)?;
        // The value is mantissa * factor * 10^exponent, and is wanted in billionths.
        let shift = exponent + 9 - i32::try_from(part.len()).ok()?;
        if shift >= 0 {
            for _ in 0..shift.min(64) {
                value = value.checked_mul(10)?;
            }
        } else {
            for _ in 0..shift.unsigned_abs().min(64) {
                value = value.div_ceil(10);
            }
        }
        Some(Decimal(value))
    }

    /// Whole units, rounded up; `None`: over 2^63.
    fn units(self) -> Option<u64> {
        i64::try_from(self.0.div_ceil(NANO)).ok().and_then(|units| u64::try_from(units).ok())
    }
}

/// What a unit multiplies by: a factor and a power of ten.
fn unit_of(unit: &str) -> Option<(u128, i32)> {
    Some(match unit {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent: i32 = unit.strip_prefix(['e', 'E'])?.parse().ok()?;
            (1, Some(exponent).filter(|e| (-30..=30).contains(e))?)
        }
    })
}

/// What a [`Quantity`] counts and which values it may have.
pub(super) trait Rule {
    /// For people.
    const EXPECTED: &'static str;

    /// Billionths to what is kept.
    fn take(nanos: u128) -> Option<u64>;
}

/// Bytes, 0 too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnyBytes;
/// Bytes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SomeBytes;
/// Memory: less than 6 MiB is refused by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory;
/// Cores, in billionths: less than a hundredth is refused by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cpus;

fn bytes_from(least: u64, nanos: u128) -> Option<u64> {
    Decimal(nanos).units().filter(|bytes| *bytes >= least)
}

impl Rule for AnyBytes {
    const EXPECTED: &'static str = "bytes such as `1Mi`, `10Gi` or `0`";
    fn take(nanos: u128) -> Option<u64> {
        bytes_from(0, nanos)
    }
}

impl Rule for SomeBytes {
    const EXPECTED: &'static str = "bytes such as `1Mi` or `10Gi`, more than 0";
    fn take(nanos: u128) -> Option<u64> {
        bytes_from(1, nanos)
    }
}

impl Rule for Memory {
    const EXPECTED: &'static str = "memory such as `512Mi` or `4Gi`, at least 6Mi";
    fn take(nanos: u128) -> Option<u64> {
        bytes_from(6 << 20, nanos)
    }
}

impl Rule for Cpus {
    const EXPECTED: &'static str = "cores such as `2`, `0.5` or `500m`, at least 10m";
    fn take(nanos: u128) -> Option<u64> {
        let range = NANO / 100..=NANO * 100_000;
        range.contains(&nanos).then_some(nanos).and_then(|nanos| u64::try_from(nanos).ok())
    }
}

/// A quantity that keeps a [`Rule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity<R>(pub u64, PhantomData<R>);

struct QuantityVisitor<R>(PhantomData<R>);

impl<R: Rule> Visitor<'_> for QuantityVisitor<R> {
    type Value = Quantity<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(R::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity<R>, E> {
        Decimal::parse(text)
            .and_then(|decimal| R::take(decimal.0))
            .map(|value| Quantity(value, PhantomData))
            .ok_or_else(|| E::custom(format_args!("`{text}` is not {}", R::EXPECTED)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity<R>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity<R>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity<R>, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de, R: Rule> Deserialize<'de> for Quantity<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor(PhantomData))
    }
}

impl<R: Rule> JsonSchema for Quantity<R> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": R::EXPECTED,
            "anyOf": [
                {"type": "string", "pattern": "^[0-9.]+([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"},
                {"type": "number", "minimum": 0},
            ],
        })
    }
}

/// A duration; `ZERO` says whether none is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<const ZERO: bool>(pub Duration);

/// No duration is longer: a hundred years, so that adding one to a time never overflows.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

impl<const ZERO: bool> Span<ZERO> {
    const EXPECTED: &str = if ZERO {
        "a duration such as `30s`, `1h30m` or `0s`"
    } else {
        "a duration such as `30s` or `1h30m`, more than 0"
    };
}

impl<const ZERO: bool> Visitor<'_> for Span<ZERO> {
    type Value = Span<ZERO>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span<ZERO>, E> {
        humantime::parse_duration(text)
            .ok()
            .filter(|span| *span <= LONGEST && (ZERO || !span.is_zero()))
            .map(Span)
            .ok_or_else(|| E::custom(format_args!("`{text}` is not {}", Self::EXPECTED)))
    }

    /// Kubernetes takes 0 without a unit, and nothing else.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Span<ZERO>, E> {
        if ZERO && number == 0 {
            return Ok(Span(Duration::ZERO));
        }
        Err(E::custom(format_args!("`{number}` is not {}: give a unit", Self::EXPECTED)))
    }
}

impl<'de, const ZERO: bool> Deserialize<'de> for Span<ZERO> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Span::<ZERO>(Duration::ZERO))
    }
}

impl<const ZERO: bool> JsonSchema for Span<ZERO> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": Self::EXPECTED,
            "pattern": "^ *([0-9]+ *[a-zA-Z]+ *)+$",
        })
    }
}

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Visitor<'_> for Count<MIN, MAX> {
    type Value = Count<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        if (MIN..=MAX).contains(&number) {
            return Ok(Count(number));
        }
        Err(E::custom(format_args!("`{number}` is not a whole number from {MIN} to {MAX}")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => {
                Err(E::custom(format_args!("`{number}` is not a whole number from {MIN} to {MAX}")))
            }
        }
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Count::<MIN, MAX>(0))
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Count<MIN, MAX> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Count{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

/// Bytes with the largest unit that divides them, for people: `4Gi`, `1536Mi`.
pub(super) fn show_bytes(bytes: u64) -> String {
    for (unit, shift) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Billionths of a core for people: `2`, `500m`.
pub(super) fn show_cpus(nanos: u64) -> String {
    match nanos {
        n if n % 1_000_000_000 == 0 => (n / 1_000_000_000).to_string(),
        n if n % 1_000_000 == 0 => format!("{}m", n / 1_000_000),
        n => format!("{n}n"),
    }
}

/// A field that is read over: what `docket get` prints and nobody may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Ignored)
    }
}

impl JsonSchema for Ignored {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ignored".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> Option<u128> {
        Decimal::parse(text).map(|decimal| decimal.0)
    }

    #[test]
    fn quantities_read_as_kubernetes_writes_them() {
        assert_eq!(nanos("4Gi"), Some((4u128 << 30) * NANO));
        assert_eq!(nanos("500m"), Some(NANO / 2));
        assert_eq!(nanos("1.5"), Some(NANO * 3 / 2));
        assert_eq!(nanos("1.5Gi"), Some((3u128 << 29) * NANO));
        assert_eq!(nanos("1e3"), Some(1000 * NANO));
        assert_eq!(nanos("12E-1"), Some(NANO * 12 / 10));
        assert_eq!(nanos("1E"), Some(NANO * 1_000_000_000_000_000_000));
        assert_eq!(nanos(".5"), Some(NANO / 2));
        assert_eq!(nanos("1n"), Some(1));
        assert_eq!(nanos("0"), Some(0));
    }

    #[test]
    fn what_is_not_a_quantity_is_none() {
        for text in [
            "",
            "Gi",
            "4GiB",
            "-1",
            "+1",
            "1.2.3",
            ".",
            "1e99",
            "0x10",
            "4 Gi",
            "4gi",
            "NaN",
            "inf",
            "1e",
            "9999999999999999999999999999999",
            "1m5",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_over_what_a_signed_number_holds_are_refused() {
        assert_eq!(AnyBytes::take(nanos("7Ei").unwrap()), Some(7 << 60));
        assert_eq!(AnyBytes::take(nanos("8Ei").unwrap()), None);
        assert_eq!(AnyBytes::take(nanos("100m").unwrap()), Some(1));
        assert_eq!(Memory::take(nanos("6Mi").unwrap()), Some(6 << 20));
        assert_eq!(Memory::take(nanos("5Mi").unwrap()), None);
    }

    #[test]
    fn amounts_are_shown_short() {
        assert_eq!(show_bytes(4 << 30), "4Gi");
        assert_eq!(show_bytes(1536 << 20), "1536Mi");
        assert_eq!(show_bytes(1000), "1000");
        assert_eq!(show_cpus(2_000_000_000), "2");
        assert_eq!(show_cpus(500_000_000), "500m");
    }
}
