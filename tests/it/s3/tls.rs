//! TLS: a server whose authority only `s3.caFile` names is believed with it and not without.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use docket::objects::s3::{S3, S3Config};
use docket::world::{Objects, StoreErrorKind};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{config, keys, limits, soon, wire};

fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl is wanted to make certificates: apt-get install openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// An authority and a certificate of it for 127.0.0.1.
fn certificates(folder: &Path) {
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    openssl(folder, &format!("req {key} -keyout key.pem -out request.pem -subj /CN=localhost"));
    openssl(
        folder,
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 \
         -extfile names",
    );
}

/// Answers every request of every connection with an object; ends with the process.
fn serve(folder: &Path) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let tls = Arc::new(tls);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            let mut buffer = [0; 4096];
            // One small request is one read; a client that does not believe us fails here.
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                if stream.write_all(&wire::object(b"x")).is_err() {
                    break;
                }
            }
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_authority_is_believed_if_the_configuration_names_it() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let endpoint = serve(folder.path());
    let with = |ca_file: Option<&str>| {
        let ca_file = ca_file.map(|name| folder.path().join(name));
        let config = S3Config { ca_file, ..config(&endpoint, "bucket", "") };
        S3::with(&config, limits(), keys())
    };
    assert!(soon(with(Some("ca.pem")).unwrap().get("k")).await.is_ok());
    // This machine's own authorities do not know it.
    match with(None) {
        Ok(store) => {
            let failed = soon(store.get("k")).await.err().unwrap();
            assert_eq!(failed.kind, StoreErrorKind::Unavailable);
            assert!(failed.message.to_lowercase().contains("certificate"), "{failed}");
        }
        Err(none) => assert!(none.message.contains("certificate authority"), "{none}"),
    }
    for (file, words) in [("names", "no certificate"), ("missing.pem", "s3.caFile")] {
        let failed = with(Some(file)).err().unwrap();
        assert_eq!(failed.kind, StoreErrorKind::Invalid);
        assert!(failed.message.contains(words), "{failed}");
    }
}
