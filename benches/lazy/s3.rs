//! An S3 server of the tests' own, and two plain clients of it.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt as _;
use rusoto_core::{HttpClient, Region};
use rusoto_credential::{AwsCredentials, StaticProvider};
use rusoto_s3::util::{PreSignedRequest as _, PreSignedRequestOption};
use rusoto_s3::{CreateBucketRequest, GetObjectRequest, PutObjectRequest, S3 as _, S3Client};

pub const BUCKET: &str = "docket-bench";
/// Those of `scripts/s3-server`.
pub const CREDENTIALS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AKIADOCKETTEST"), ("AWS_SECRET_ACCESS_KEY", "docket-test-secret")];

fn keys() -> AwsCredentials {
    let [(_, id), (_, secret)] = CREDENTIALS;
    AwsCredentials::new(id, secret, None, None)
}

/// The server, with its objects on a tmpfs: its disk is not what is measured.
pub struct Server {
    pub endpoint: String,
    process: Child,
    runtime: tokio::runtime::Runtime,
    region: Region,
    client: S3Client,
}

impl Server {
    pub fn start() -> Server {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3-server");
        let installed =
            Command::new(script).args(["install", "s3s"]).stdout(Stdio::null()).status();
        assert!(installed.unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(script)
            .args(["run", "s3s", &address])
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        while TcpStream::connect(&address).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let endpoint = format!("http://{address}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let region = Region::Custom { name: "us-east-1".to_owned(), endpoint: endpoint.clone() };
        let [(_, key), (_, secret)] = CREDENTIALS;
        let provider = StaticProvider::new(key.to_owned(), secret.to_owned(), None, None);
        let client = S3Client::new_with(HttpClient::new().unwrap(), provider, region.clone());
        let bucket = CreateBucketRequest { bucket: BUCKET.to_owned(), ..Default::default() };
        runtime.block_on(client.create_bucket(bucket)).unwrap();
        Server { endpoint, process, runtime, region, client }
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        let request = PutObjectRequest {
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            body: Some(bytes.to_vec().into()),
            ..Default::default()
        };
        self.runtime.block_on(self.client.put_object(request)).unwrap();
    }

    /// A download by curl, a process of its own.
    pub fn curl(&self, key: &str, to: &Path) {
        let request = GetObjectRequest {
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        let url =
            request.get_presigned_url(&self.region, &keys(), &PreSignedRequestOption::default());
        let status = Command::new("curl").args(["-sS", "--fail", "-o"]).arg(to).arg(url).status();
        assert!(status.unwrap().success(), "curl {key}");
    }

    /// A download by the plainest loop there is.
    pub fn download(&self, key: &str, to: &Path) {
        let request = GetObjectRequest {
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        let mut file = std::fs::File::create(to).unwrap();
        self.runtime.block_on(async {
            let mut body = self.client.get_object(request).await.unwrap().body.unwrap();
            while let Some(bytes) = body.next().await {
                file.write_all(&bytes.unwrap()).unwrap();
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}
