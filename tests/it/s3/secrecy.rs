//! Nothing secret is said: not in the log at its most talkative, not in an error, not in a `Debug`.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use docket::model::Timestamp;
use docket::objects::s3::S3;
use docket::world::Objects;

use super::wire::{Reply, Wire, answer, error};
use super::{body, config, env, limits, soon, sum};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_or_in_an_error() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let secrets = ["very-secret-key", "very-secret-token"];
    let wire = Wire::answering(|asked| match asked.number % 3 {
        0 => Reply::Send(error(503, "SlowDown")),
        1 => Reply::Send(answer(200, &[("etag", "\"e\"")], "<html>")),
        _ => Reply::Cut(Vec::new()),
    })
    .await;
    let lookup = env(&[
        ("AWS_ACCESS_KEY_ID", "AKIAX"),
        ("AWS_SECRET_ACCESS_KEY", secrets[0]),
        ("AWS_SESSION_TOKEN", secrets[1]),
    ]);
    let store = S3::with(&config(&wire.endpoint, "bucket", ""), limits(), lookup).unwrap();
    let mut said = format!("{store:?}");
    let failures = [
        soon(store.list("")).await.map(drop).err(),
        soon(store.put_new("k", body(b"x"), 1, sum(b"x"))).await.err(),
        soon(store.put_if("k", b"x".to_vec(), Some("e"), Timestamp::UNIX_EPOCH))
            .await
            .map(drop)
            .err(),
        soon(store.head("k")).await.map(drop).err(),
    ];
    assert!(failures[0].is_some());
    for failed in failures.into_iter().flatten() {
        write!(said, "{failed:?} {failed}").unwrap();
    }
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(!logged.is_empty(), "the log is not read");
    said += &logged;
    let signatures = wire.asked().into_iter().filter_map(|asked| {
        let header = asked.header("authorization")?;
        header.split("Signature=").nth(1).map(str::to_owned)
    });
    let signatures: Vec<String> = signatures.collect();
    assert!(!signatures.is_empty());
    for secret in secrets.into_iter().map(str::to_owned).chain(signatures) {
        assert!(!said.contains(&secret), "{said}");
    }
}
