//! The faults of a document after its first. The typed reader stops at each; so the document is read
//! again and again, each time without the fields that were complained about, until nothing is left to
//! complain about or nothing more can be left out.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IgnoredAny,
    IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};

/// Keys and indices from the top.
type Path = Vec<String>;

/// Most faults of one document that are told.
const MOST: usize = 20;

/// What is wrong with a document, in the order in which it is met; `read` parses it anew each time.
pub(super) fn faults<'de, T, D>(mut read: impl FnMut() -> Option<D>) -> Vec<D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let mut skip: BTreeSet<Path> = BTreeSet::new();
    let mut found = Vec::new();
    while found.len() < MOST {
        let Some(deserializer) = read() else { break };
        let walk = Walk { trail: RefCell::default(), skip: &skip };
        let Err(error) = T::deserialize(Through { inner: deserializer, walk: &walk }) else {
            break;
        };
        let path = walk.trail.into_inner();
        // What was left out is missed afterwards: that is no fault of the document.
        if !misses_what_was_left_out(&error.to_string(), &path, &skip) {
            found.push(error);
        }
        if path.is_empty() || !skip.insert(path) {
            break;
        }
    }
    found
}

fn misses_what_was_left_out(message: &str, path: &Path, skip: &BTreeSet<Path>) -> bool {
    let Some((_, rest)) = message.split_once("missing field `") else { return false };
    let name = rest.split('`').next().unwrap_or_default();
    let missed: Path = path.iter().cloned().chain([name.to_owned()]).collect();
    skip.contains(&missed)
}

/// Where the reader is, and what it does not see.
struct Walk<'s> {
    trail: RefCell<Path>,
    skip: &'s BTreeSet<Path>,
}

impl Walk<'_> {
    fn push(&self, part: &str) {
        self.trail.borrow_mut().push(part.to_owned());
    }

    fn pop(&self) {
        self.trail.borrow_mut().pop();
    }

    fn skips(&self) -> bool {
        self.skip.contains(&*self.trail.borrow())
    }
}

/// A deserializer, visitor, access or seed with the walk through it.
struct Through<'w, 's, T> {
    inner: T,
    walk: &'w Walk<'s>,
}

impl<'w, 's, T> Through<'w, 's, T> {
    fn with<U>(&self, inner: U) -> Through<'w, 's, U> {
        Through { inner, walk: self.walk }
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {$(
        fn $name<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.with(visitor);
            self.inner.$name($($arg,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Through<'_, '_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_seq();
        deserialize_map();
        deserialize_identifier();
        deserialize_ignored_any();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($name:ident($kind:ty);)*) => {$(
        fn $name<E: de::Error>(self, value: $kind) -> Result<V::Value, E> {
            self.inner.$name(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Through<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = Items { access: self.with(access), at: 0 };
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.with(access);
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Through<'_, '_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Through<'_, '_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        loop {
            let key = Key { seed: &mut seed, walk: self.walk };
            match self.inner.next_key_seed(key)? {
                None => return Ok(None),
                Some(Some(key)) => return Ok(Some(key)),
                Some(None) => {
                    self.inner.next_value::<IgnoredAny>()?;
                    self.walk.pop();
                }
            }
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed);
        let value = self.inner.next_value_seed(seed)?;
        self.walk.pop();
        Ok(value)
    }
}

/// A key: it is put on the trail before it is judged. `None`: it is left out.
struct Key<'k, 'w, 's, K> {
    seed: &'k mut Option<K>,
    walk: &'w Walk<'s>,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, '_, '_, K> {
    type Value = Option<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for Key<'_, '_, '_, K> {
    type Value = Option<K::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        self.walk.push(name);
        if self.walk.skips() {
            return Ok(None);
        }
        match self.seed.take() {
            Some(seed) => seed.deserialize(name.into_deserializer()).map(Some),
            None => Ok(None),
        }
    }
}

/// The items of a list.
struct Items<'w, 's, A> {
    access: Through<'w, 's, A>,
    at: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, '_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        loop {
            self.access.walk.push(&self.at.to_string());
            self.at += 1;
            if !self.access.walk.skips() {
                break;
            }
            let left = self.access.inner.next_element::<IgnoredAny>()?;
            self.access.walk.pop();
            if left.is_none() {
                return Ok(None);
            }
        }
        let seed = self.access.with(seed);
        let item = self.access.inner.next_element_seed(seed)?;
        self.access.walk.pop();
        Ok(item)
    }
}
