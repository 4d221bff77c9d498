//! Words for people that agree with their numbers.

/// A number of things: `1 file`, `3 files`.
pub fn many(count: impl Into<u64>, what: &str) -> String {
    let count = count.into();
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A thing with its article: `a class name`, `an installation name`.
pub fn a(what: &str) -> String {
    let n = if what.starts_with(['a', 'e', 'i', 'o']) { "n" } else { "" };
    format!("a{n} {what}")
}

#[cfg(test)]
mod tests {
    use super::{a, many};

    #[test]
    fn words_agree_with_what_they_stand_by() {
        assert_eq!([many(0_u32, "file"), many(1_u64, "file")], ["0 files", "1 file"]);
        assert_eq!([a("user"), a("installation name")], ["a user", "an installation name"]);
    }
}
