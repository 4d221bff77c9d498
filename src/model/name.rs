//! Names, parsed once. What becomes a path or a container name is one of these, so nothing
//! further in has to ask again whether a string is safe.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a text is not the name it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {}: expected {expected}", super::words::a(what))]
pub struct BadName {
    /// What the text was meant to be, for people.
    pub what: &'static str,
    /// The offending text, control characters escaped and cut at 80 characters.
    pub text: String,
    /// The rule it breaks.
    pub expected: &'static str,
}

/// A DNS-1123 label: lower-case letters, digits and `-`, no `-` at the ends.
/// Source: RFC 1123 section 2.1 as Kubernetes reads it.
fn is_dns_label(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `[A-Za-z0-9][A-Za-z0-9._@-]{0,62}` without `..`: safe as one path component.
fn is_owner_part(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-".contains(&b))
        && !text.contains("..")
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*` up to `longest`: what the engine takes as a container name.
fn is_engine_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Lower-case hex digits, 32 of them.
fn is_uid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Parses the name.
            ///
            /// # Errors
            /// [`BadName`] says which rule the text breaks.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    return Ok(Self(text.to_owned()));
                }
                let text = text.chars().take(80).flat_map(char::escape_debug).collect();
                Err(BadName { what: $what, text, expected: $expected })
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::parse(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A session's name: a DNS-1123 label of 1 to 52 characters.
    SessionName, "session name",
    "1 to 52 lower-case letters, digits and `-`, beginning and ending with a letter or digit",
    |text| is_dns_label(text, 52)
);
name!(
    /// A class's name: a DNS-1123 label of 1 to 63 characters.
    ClassName, "class name",
    "1 to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit",
    |text| is_dns_label(text, 63)
);
name!(
    /// Whose session it is: one path component.
    UserName, "user",
    "a letter or digit, then up to 62 of letters, digits and `._@-`, without `..`",
    is_owner_part
);
name!(
    /// Which case the session is about: one path component.
    CaseName, "case",
    "a letter or digit, then up to 62 of letters, digits and `._@-`, without `..`",
    is_owner_part
);
name!(
    /// Which docket on this engine: two installations never touch each other's containers.
    Installation, "installation name",
    "1 to 40 lower-case letters, digits and `-`, beginning and ending with a letter or digit",
    |text| is_dns_label(text, 40)
);
name!(
    /// What container names begin with.
    ContainerPrefix, "container prefix",
    "a letter or digit, then up to 62 of letters, digits and `_.-`",
    |text| is_engine_name(text, 63)
);
name!(
    /// A session's identity: made at admission, never used again. 32 hex digits.
    Uid, "uid", "32 lower-case hex digits", is_uid
);

impl Uid {
    /// The uid of 16 random bytes. Randomness is the caller's.
    pub fn from_bytes(bytes: [u8; 16]) -> Uid {
        Uid(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// The engine's id of a container: 64 hex digits, taken as given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId(pub String);

impl ContainerId {
    /// The first 12 digits, as `docker ps` shows them.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// The name of a session's container: `{prefix}-{session}-{attempt}`. Deterministic, so the
/// engine's own check for taken names is the lock against double creation.
pub fn container_name(prefix: &ContainerPrefix, session: &SessionName, attempt: u32) -> String {
    format!("{prefix}-{session}-{attempt}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What would be dangerous in a path or a container's name.
    fn is_harmless(text: &str) -> bool {
        !text.is_empty()
            && text.len() <= 63
            && !text.contains(['/', '\\', '\0', ' ', '\n'])
            && text.bytes().all(|b| b.is_ascii_graphic())
            && !text.starts_with(['.', '-', '_'])
            && !text.contains("..")
    }

    #[test]
    fn p2_names_that_lead_out_are_no_names() {
        let long = "a".repeat(300);
        for bad in ["", ".", "..", "a/b", "/etc", "a\0b", "../x", "a..b", "a b", "\u{e9}", &long] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
            assert!(CaseName::parse(bad).is_err(), "{bad:?}");
            assert!(SessionName::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn p2_whatever_is_a_name_is_one_harmless_component(
            text in "[a-zA-Z0-9._@/\\\\\0\n -]{0,12}|\\PC{0,300}|[a-z0-9-]{0,70}"
        ) {
            for name in [
                UserName::parse(&text).map(|name| name.to_string()),
                CaseName::parse(&text).map(|name| name.to_string()),
                SessionName::parse(&text).map(|name| name.to_string()),
            ] {
                match name {
                    Ok(name) => prop_assert!(name == text && is_harmless(&text), "{text:?}"),
                    Err(bad) => prop_assert!(
                        bad.text.chars().count() <= 1000 && !bad.text.chars().any(char::is_control),
                        "{bad:?}"
                    ),
                }
            }
        }
    }
}
