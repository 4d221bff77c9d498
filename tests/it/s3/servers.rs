//! Real S3 servers, started once for all tests; each test has its own prefix in them.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use docket::objects::s3::{Limits, Lookup, S3};
use rusoto_core::{HttpClient, Region};
use rusoto_credential::StaticProvider;
use rusoto_s3::{CreateBucketRequest, S3 as _, S3Client};

use super::{KEY, SECRET, config, keys, limits};

/// A server that answers.
pub struct Server {
    pub name: &'static str,
    pub endpoint: String,
    pub bucket: String,
    credentials: Lookup,
    _process: Option<Child>,
}

impl Server {
    /// A store of its own in this server.
    pub fn store(&self) -> S3 {
        self.store_with(&self.endpoint, limits())
    }

    /// The same, reached through something else.
    pub fn store_with(&self, endpoint: &str, limits: Limits) -> S3 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("t{}-{number}/of tests", std::process::id());
        self.store_below(endpoint, &prefix, limits)
    }

    /// A store at a prefix.
    pub fn store_below(&self, endpoint: &str, prefix: &str, limits: Limits) -> S3 {
        let config = config(endpoint, &self.bucket, prefix);
        S3::with(&config, limits, self.credentials.clone()).unwrap()
    }

    /// What a process needs in its environment to be let in.
    pub fn environment(&self) -> Vec<(String, String)> {
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), (self.credentials)(name)?)))
            .collect()
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.endpoint.split("//").nth(1).unwrap().trim_end_matches('/').to_owned()
    }

    /// A plain client, to see the bucket with other eyes.
    pub fn plain(&self) -> S3Client {
        let get = |name: &str| (self.credentials)(name).unwrap_or_default();
        let token = (self.credentials)("AWS_SESSION_TOKEN");
        let keys = StaticProvider::new(
            get("AWS_ACCESS_KEY_ID"),
            get("AWS_SECRET_ACCESS_KEY"),
            token,
            None,
        );
        let region =
            Region::Custom { name: "us-east-1".to_owned(), endpoint: self.endpoint.clone() };
        S3Client::new_with(HttpClient::new().unwrap(), keys, region)
    }
}

/// All of them.
pub fn all() -> &'static [Server] {
    static ALL: OnceLock<Vec<Server>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = vec![started("s3s"), started("moto")];
        if let Ok(endpoint) = std::env::var("DOCKET_TEST_S3") {
            let bucket = std::env::var("DOCKET_TEST_S3_BUCKET");
            all.push(Server {
                name: "DOCKET_TEST_S3",
                endpoint,
                bucket: bucket.unwrap_or_else(|_| "docket-test".to_owned()),
                credentials: std::sync::Arc::new(|name: &str| std::env::var(name).ok()),
                _process: None,
            });
        }
        for server in &all {
            make_bucket(server);
        }
        all
    })
}

/// The one that checks signatures and sums.
pub fn strict() -> &'static Server {
    &all()[0]
}

fn started(name: &'static str) -> Server {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/s3-server");
    // Installing takes minutes the first time: not within the time a start may take.
    let installed = Command::new(&script).args(["install", name]).stdout(Stdio::null()).status();
    assert!(installed.unwrap().success(), "cannot install {name}");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let mut process = Command::new(&script)
        .args(["run", name, &address])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_mins(1);
    while std::net::TcpStream::connect(&address).is_err() {
        if process.try_wait().unwrap().is_some() || Instant::now() > end {
            let mut words = String::new();
            process.stderr.take().unwrap().read_to_string(&mut words).unwrap();
            panic!("{name} did not start: {words}");
        }
        std::thread::yield_now();
    }
    Server {
        name,
        endpoint: format!("http://{address}"),
        bucket: "docket-test".to_owned(),
        credentials: keys(),
        _process: Some(process),
    }
}

fn make_bucket(server: &Server) {
    let request = CreateBucketRequest { bucket: server.bucket.clone(), ..Default::default() };
    // Tests have a runtime each and run in any thread: one of its own, outside of theirs.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // Taken already is fine; what is really wrong the tests will say.
            let _ = runtime.block_on(server.plain().create_bucket(request));
        });
    });
}

#[test]
fn the_servers_credentials_are_those_of_the_script() {
    let script = std::fs::read_to_string("scripts/s3-server").unwrap();
    assert!(script.contains(KEY) && script.contains(SECRET));
}
