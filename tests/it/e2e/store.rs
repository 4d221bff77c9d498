//! Sessions whose store is S3: real servers of different make, reached straight or through a
//! proxy that breaks what passes.

use std::sync::{Arc, Mutex};

use docket::objects::s3::S3;
use docket::world::Objects as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use super::rig::{Rig, http, session};
use crate::s3::limits;
use crate::s3::servers::{self, Server};
use crate::s3::wire::{Asked, Fault, Wire};

/// What a proxy does, decided by the request.
pub type Weather = Box<dyn Fn(&Asked) -> Fault + Send>;

/// A part of a bucket that is one rig's, and maybe a proxy before it.
pub struct Bucket {
    runtime: tokio::runtime::Runtime,
    straight: S3,
    server: &'static Server,
    prefix: String,
    weather: Arc<Mutex<Weather>>,
    wire: Option<Wire>,
}

impl Bucket {
    /// A rig whose operator keeps its files in this server.
    pub fn of(server: &'static Server, name: &str) -> (Rig, Bucket) {
        let rig = Rig::new(name);
        let bucket = Bucket::new(server, name);
        (bucket.given_to(rig, &server.endpoint), bucket)
    }

    /// The same through a proxy, with fair weather at first.
    pub fn behind_a_proxy(name: &str) -> (Rig, Bucket) {
        Bucket::with_weather(servers::strict(), name, |_| Fault::Pass)
    }

    /// The same before this server, with weather from the first request on.
    pub fn with_weather(
        server: &'static Server,
        name: &str,
        weather: impl Fn(&Asked) -> Fault + Send + 'static,
    ) -> (Rig, Bucket) {
        let rig = Rig::new(name);
        let mut bucket = Bucket::new(server, name);
        bucket.weather(weather);
        let weather = Arc::clone(&bucket.weather);
        let wire = bucket
            .runtime
            .block_on(Wire::before(server.address(), move |asked| weather.lock().unwrap()(asked)));
        let endpoint = wire.endpoint.clone();
        bucket.wire = Some(wire);
        (bucket.given_to(rig, &endpoint), bucket)
    }

    fn new(server: &'static Server, name: &str) -> Bucket {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let prefix = format!("x{}/{name}", std::process::id());
        let straight = server.store_below(&server.endpoint, &prefix, limits());
        let weather: Weather = Box::new(|_| Fault::Pass);
        let weather = Arc::new(Mutex::new(weather));
        Bucket { runtime, straight, server, prefix, weather, wire: None }
    }

    fn given_to(&self, mut rig: Rig, endpoint: &str) -> Rig {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        rig.env = self.server.environment();
        rig.env.push(set("DOCKET_STORE", &format!("s3://{}/{}", self.server.bucket, self.prefix)));
        rig.env.push(set("DOCKET_S3_ENDPOINT", endpoint));
        rig
    }

    /// From now on.
    pub fn weather(&self, weather: impl Fn(&Asked) -> Fault + Send + 'static) {
        *self.weather.lock().unwrap() = Box::new(weather);
    }

    /// Requests that passed the proxy so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.wire.as_ref().unwrap().asked()
    }

    /// Nobody listens at the endpoint any more.
    pub fn close(&mut self) {
        self.wire = None;
    }

    /// Somebody listens there again.
    pub fn open_again(&mut self, rig: &Rig) {
        let endpoint = &rig.env.iter().find(|(name, _)| name == "DOCKET_S3_ENDPOINT").unwrap().1;
        let address = endpoint.trim_start_matches("http://").to_owned();
        let weather = Arc::clone(&self.weather);
        self.wire = Some(self.runtime.block_on(Wire::before_at(
            &address,
            self.server.address(),
            move |asked| weather.lock().unwrap()(asked),
        )));
    }

    /// Puts an object there as another service would, below the store's prefix.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        use rusoto_s3::S3 as _;
        let request = rusoto_s3::PutObjectRequest {
            bucket: self.server.bucket.clone(),
            key: format!("{}/{key}", self.prefix),
            body: Some(bytes.to_vec().into()),
            ..Default::default()
        };
        self.runtime.block_on(self.server.plain().put_object(request)).unwrap();
    }

    /// Removes an object as another service would.
    pub fn remove(&self, key: &str) {
        self.runtime.block_on(self.straight.delete(key)).unwrap();
    }

    /// Every key that begins so.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let listed = self.runtime.block_on(self.straight.list(prefix)).unwrap();
        listed.into_iter().map(|meta| meta.key).collect()
    }

    /// An object's bytes.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.runtime.block_on(async {
            let (_, mut body) = self.straight.get(key).await.ok()?;
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes).await.ok()?;
            Some(bytes)
        })
    }

    /// A case's manifest.
    pub fn manifest(&self, case: &str) -> Vec<Value> {
        let bytes = self.get(&format!("{case}/manifest.json"));
        bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default()
    }

    /// What is stored of a file, through its case's manifest.
    pub fn stored(&self, case: &str, path: &str) -> Option<Vec<u8>> {
        let rows = self.manifest(case);
        let row = rows.iter().find(|row| row["logical_path"] == path)?;
        self.get(&format!("{case}/{}", row["storage_key"].as_str()?))
    }
}

pub fn local(rig: &Rig, user: &str, case: &str, path: &str) -> Option<String> {
    std::fs::read_to_string(rig.workspace(user, case).join(path)).ok()
}

fn comes_works_and_goes(server: &'static Server) {
    let (mut rig, bucket) =
        Bucket::of(server, &format!("s3-{}", server.name.to_lowercase().replace('_', "-")));
    bucket.put("ann/one/uploads/1.pdf", b"from elsewhere");
    bucket.put("ann/one/uploads/2 +%20.pdf", b"an odd key");
    let rows = json!([
        {"logical_path": "pleadings/a.pdf", "storage_key": "uploads/1.pdf"},
        {"logical_path": "motions/b.pdf", "storage_key": "uploads/2 +%20.pdf"},
        {"logical_path": "old.txt", "storage_key": "uploads/1.pdf"},
    ]);
    bucket.put("ann/one/manifest.json", rows.to_string().as_bytes());
    bucket.put("bob/two/files/notes.txt", b"bare");
    bucket.put("bob/two/files/deep/er/x.txt", b"bare too");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    // A manifest of a path and a key is enough, and so is no manifest.
    let ann = rig.ready("ann-one");
    let bob = rig.ready("bob-two");
    let read = |view: &Value, path: &str| http(view, "GET", &format!("/read?path={path}"), "").1;
    assert_eq!(read(&ann, "pleadings/a.pdf"), "from elsewhere");
    assert_eq!(read(&ann, "motions/b.pdf"), "an odd key");
    assert_eq!(read(&bob, "deep/er/x.txt"), "bare too");
    // Edits go to new keys; what was there stays what it was.
    http(&ann, "POST", "/write?path=drafts/new.txt", "new");
    http(&ann, "POST", "/write?path=pleadings/a.pdf", "edited");
    std::fs::remove_file(rig.workspace("ann", "one").join("old.txt")).unwrap();
    std::fs::write(rig.workspace("ann", "one").join("large.bin"), vec![7; 40 << 20]).unwrap();
    rig.ok(&["sync", "ann-one"]);
    let stored = |path: &str| bucket.stored("ann/one", path);
    assert_eq!(stored("drafts/new.txt").as_deref(), Some(&b"new"[..]));
    assert_eq!(stored("pleadings/a.pdf").as_deref(), Some(&b"edited"[..]));
    assert_eq!(stored("motions/b.pdf").as_deref(), Some(&b"an odd key"[..]));
    assert_eq!(stored("old.txt"), None);
    assert_eq!(bucket.get("ann/one/uploads/1.pdf").as_deref(), Some(&b"from elsewhere"[..]));
    assert!(stored("large.bin").unwrap() == vec![7; 40 << 20], "in parts");
    http(&bob, "POST", "/write?path=notes.txt", "edited while it ends");
    rig.remove("a.yaml");
    rig.remove("b.yaml");
    rig.gone("ann-one");
    rig.gone("bob-two");
    assert_eq!(
        bucket.stored("bob/two", "notes.txt").as_deref(),
        Some(&b"edited while it ends"[..])
    );
    assert_eq!(bucket.stored("bob/two", "deep/er/x.txt").as_deref(), Some(&b"bare too"[..]));
    assert!(!rig.workspace("ann", "one").exists());
    // And it comes back as it was left.
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let back = rig.ready("ann-one");
    assert_eq!(read(&back, "pleadings/a.pdf"), "edited");
    assert_eq!(read(&back, "drafts/new.txt"), "new");
    assert_eq!(local(&rig, "ann", "one", "old.txt"), None);
}

#[test]
fn seed_a_storage_services_manifest_brings_the_files_and_edits_go_back_to_it() {
    comes_works_and_goes(servers::strict());
}

#[test]
fn seed_another_storage_services_manifest_brings_the_files_and_edits_go_back_to_it() {
    for server in &servers::all()[1..] {
        comes_works_and_goes(server);
    }
}
