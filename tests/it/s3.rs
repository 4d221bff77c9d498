//! The S3 door against real servers of different make, against a proxy that breaks what passes,
//! and against servers that answer as no server should.
//!
//! `DOCKET_TEST_S3=http://host:port` adds one more server (credentials from the usual variables,
//! bucket `DOCKET_TEST_S3_BUCKET` or `docket-test`, made if it is missing).

mod contract;
mod credentials;
mod faults;
mod pieces;
mod secrecy;
pub mod servers;
mod tls;
mod twelve;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use docket::model::Sha256;
use docket::objects::s3::{Limits, Lookup, S3, S3Config};
use docket::world::Body;
use sha2::Digest as _;

/// Credentials of the servers that `scripts/s3-server` starts.
pub const KEY: &str = "AKIADOCKETTEST";
pub const SECRET: &str = "docket-test-secret";

/// Settings as a lookup.
fn env(all: &[(&str, &str)]) -> Lookup {
    let all: BTreeMap<String, String> =
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(move |name| all.get(name).cloned())
}

fn keys() -> Lookup {
    env(&[("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)])
}

/// Impatient enough for tests; the smallest parts that S3 takes.
pub fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        idle: Duration::from_secs(10),
        total: Duration::from_secs(20),
        attempts: 4,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(50),
        elapsed: Duration::from_secs(20),
        part: 5 << 20,
        memory: 12 << 20,
        ..Limits::default()
    }
}

/// The door to a server that `scripts/s3-server` installs.
pub fn door(endpoint: &str, bucket: &str, prefix: &str) -> S3 {
    S3::with(&config(endpoint, bucket, prefix), limits(), keys()).unwrap()
}

fn config(endpoint: &str, bucket: &str, prefix: &str) -> S3Config {
    S3Config {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        path_style: true,
        ca_file: None,
        max_bandwidth: 0,
        max_concurrent: 0,
    }
}

/// A store at an endpoint that is nobody's.
fn store_at(endpoint: &str) -> S3 {
    S3::with(&config(endpoint, "bucket", "p"), limits(), keys()).unwrap()
}

pub fn sum(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

fn body(bytes: &[u8]) -> Body {
    Box::pin(std::io::Cursor::new(bytes.to_vec()))
}

/// Bytes that compress badly and differ from place to place.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A call that must end: rusoto's parsers could spin for ever, and a test must not wait for that.
async fn soon<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), call).await.expect("it hangs")
}
