//! Placeholders: what a file stands for whose content did not come yet, and how such files come.

use std::fmt;
use std::time::Duration;

use super::file::Sha256;

/// What a placeholder stands for, as its inode says it (`trusted.docket.stub`). As long as the
/// inode says it, this is the truth about its content, whatever its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// Full key in the store: `{user}/{case}/...`.
    pub key: String,
    /// Bytes of the object.
    pub size: u64,
    /// Modification time the placeholder was made with, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Contents; `None`: a foreign manifest did not say.
    pub sha256: Option<Sha256>,
    /// Longest wait of one `open()`.
    pub deadline: Duration,
}

impl Stub {
    /// As it is written on the inode.
    pub fn render(&self) -> String {
        let sum = self.sha256.map_or("-".to_owned(), |sum| sum.hex());
        let deadline = self.deadline.as_millis();
        format!("1 {deadline} {} {} {sum} {}", self.size, self.mtime_ns, self.key)
    }

    /// Reads what [`Stub::render`] wrote; `None` for anything else.
    pub fn parse(bytes: &[u8]) -> Option<Stub> {
        let mut words = std::str::from_utf8(bytes).ok()?.splitn(6, ' ');
        if words.next() != Some("1") {
            return None;
        }
        let deadline = Duration::from_millis(words.next()?.parse().ok()?);
        let size = words.next()?.parse().ok()?;
        let mtime_ns = words.next()?.parse().ok()?;
        let sha256 = match words.next()? {
            "-" => None,
            sum => Some(Sha256::parse(sum)?),
        };
        let key = words.next()?.to_owned();
        Some(Stub { key, size, mtime_ns, sha256, deadline })
    }
}

/// How large files come in a workspaces root, found out when the operator starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LazyMode {
    /// Opening a placeholder fetches it.
    OnAccess,
    /// Stub files stand for them, because of this.
    Stub {
        /// Why files cannot come when they are opened, for people.
        reason: String,
    },
}

impl fmt::Display for LazyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LazyMode::OnAccess => f.write_str("OnAccess"),
            LazyMode::Stub { reason } => write!(f, "Stub: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_on_an_inode_is_read_back() {
        let mut stub = Stub {
            key: "ann/one/files/a file@1".to_owned(),
            size: 7,
            mtime_ns: -1,
            sha256: None,
            deadline: Duration::from_secs(60),
        };
        assert_eq!(stub.render(), "1 60000 7 -1 - ann/one/files/a file@1");
        assert_eq!(Stub::parse(stub.render().as_bytes()), Some(stub.clone()));
        stub.sha256 = Some(Sha256([7; 32]));
        assert_eq!(Stub::parse(stub.render().as_bytes()), Some(stub));
        for odd in ["", "1", "2 60000 7 -1 - a", "1 x 7 -1 - a", "1 1 7 -1 00 a"] {
            assert_eq!(Stub::parse(odd.as_bytes()), None, "{odd}");
        }
    }
}
