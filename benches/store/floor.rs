//! The floor: a plain loop over rusoto's own client that does nothing but the calls. It hashes
//! nothing, checks nothing, and syncs nothing to disk.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use rusoto_core::{ByteStream, HttpClient, Region};
use rusoto_credential::StaticProvider;
use rusoto_s3::{S3 as _, S3Client};

/// Requests in flight, and parts of a large file.
const FLIGHT: usize = 32;
const PARTS: usize = 8;
const PART: usize = 8 << 20;

pub struct Floor {
    client: S3Client,
    bucket: String,
}

impl Floor {
    pub fn new(endpoint: &str, bucket: &str) -> Floor {
        let key = |name| std::env::var(name).unwrap();
        let keys =
            StaticProvider::new_minimal(key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY"));
        let region = Region::Custom { name: "us-east-1".to_owned(), endpoint: endpoint.to_owned() };
        let client = S3Client::new_with(HttpClient::new().unwrap(), keys, region);
        Floor { client, bucket: bucket.to_owned() }
    }

    /// Every file beneath a directory, under a prefix.
    pub async fn up(self: &Arc<Self>, from: &Path, prefix: &str) -> usize {
        let mut files = Vec::new();
        walk(from, &mut files);
        let keys = files.iter().map(|file| key_of(prefix, file.strip_prefix(from).unwrap()));
        let all: Vec<(PathBuf, String)> = files.iter().cloned().zip(keys).collect();
        let this = Arc::clone(self);
        each(all, move |(path, key)| {
            let this = Arc::clone(&this);
            async move {
                if std::fs::metadata(&path).unwrap().len() > PART as u64 {
                    return this.parts(&path, key).await;
                }
                let request = rusoto_s3::PutObjectRequest {
                    bucket: this.bucket.clone(),
                    key,
                    body: Some(ByteStream::from(std::fs::read(&path).unwrap())),
                    ..Default::default()
                };
                this.client.put_object(request).await.unwrap();
            }
        })
        .await
    }

    async fn parts(&self, path: &Path, key: String) {
        let bucket = self.bucket.clone();
        let begin = rusoto_s3::CreateMultipartUploadRequest {
            bucket: bucket.clone(),
            key: key.clone(),
            ..Default::default()
        };
        let id = self.client.create_multipart_upload(begin).await.unwrap().upload_id.unwrap();
        let size = std::fs::metadata(path).unwrap().len() as usize;
        let file = std::fs::File::open(path).unwrap();
        let send = async |number: usize| {
            use std::os::unix::fs::FileExt as _;
            let at = number * PART;
            let mut bytes = vec![0; PART.min(size - at)];
            file.read_exact_at(&mut bytes, at as u64).unwrap();
            let request = rusoto_s3::UploadPartRequest {
                bucket: bucket.clone(),
                key: key.clone(),
                upload_id: id.clone(),
                part_number: number as i64 + 1,
                content_length: Some(bytes.len() as i64),
                body: Some(ByteStream::from(bytes)),
                ..Default::default()
            };
            let e_tag = self.client.upload_part(request).await.unwrap().e_tag;
            rusoto_s3::CompletedPart { e_tag, part_number: Some(number as i64 + 1) }
        };
        let sent = futures_util::stream::iter((0..size.div_ceil(PART)).map(send));
        let parts = sent.buffered(PARTS).collect().await;
        let complete = rusoto_s3::CompleteMultipartUploadRequest {
            bucket: bucket.clone(),
            key: key.clone(),
            upload_id: id.clone(),
            multipart_upload: Some(rusoto_s3::CompletedMultipartUpload { parts: Some(parts) }),
            ..Default::default()
        };
        self.client.complete_multipart_upload(complete).await.unwrap();
    }

    /// Everything under a prefix, into a directory.
    pub async fn down(self: &Arc<Self>, prefix: &str, into: &Path) -> usize {
        let (mut all, mut token) = (Vec::new(), None);
        loop {
            let request = rusoto_s3::ListObjectsV2Request {
                bucket: self.bucket.clone(),
                prefix: Some(format!("{prefix}/")),
                continuation_token: token,
                ..Default::default()
            };
            let page = self.client.list_objects_v2(request).await.unwrap();
            all.extend(page.contents.unwrap_or_default().into_iter().filter_map(|o| o.key));
            token = page.next_continuation_token;
            if token.is_none() {
                break;
            }
        }
        let (this, into, prefix) = (Arc::clone(self), into.to_owned(), format!("{prefix}/"));
        each(all, move |key| {
            let (this, path) = (Arc::clone(&this), into.join(key.strip_prefix(&prefix).unwrap()));
            async move {
                let bucket = this.bucket.clone();
                let request = rusoto_s3::GetObjectRequest { bucket, key, ..Default::default() };
                let mut body = this.client.get_object(request).await.unwrap().body.unwrap();
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let mut file = std::fs::File::create(path).unwrap();
                while let Some(bytes) = body.next().await {
                    file.write_all(&bytes.unwrap()).unwrap();
                }
            }
        })
        .await
    }
}

/// Works through all of them, so many beside each other. How many it were.
async fn each<T, F>(all: Vec<T>, work: impl Fn(T) -> F + Send + Sync + 'static) -> usize
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let (all, work, next) = (Arc::new(all), Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let tasks = (0..FLIGHT.min(all.len())).map(|_| {
        let (all, work, next) = (Arc::clone(&all), Arc::clone(&work), Arc::clone(&next));
        tokio::spawn(async move {
            while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(one.clone()).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    all.len()
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

fn key_of(prefix: &str, path: &Path) -> String {
    format!("{prefix}/{}", path.to_str().unwrap())
}
