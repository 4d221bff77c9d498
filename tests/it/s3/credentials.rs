//! Where credentials come from, against small servers in the place of Amazon's.

use std::sync::atomic::{AtomicUsize, Ordering};

use docket::objects::s3::{Lookup, S3};
use docket::world::{Objects, StoreErrorKind};

use super::wire::{Asked, Reply, Wire, answer, object};
use super::{config, env, limits, soon};

/// A store whose server notes who asks.
async fn asking(lookup: Lookup) -> (Wire, S3) {
    let wire = Wire::answering(|_| Reply::Send(object(b"x"))).await;
    let store = S3::with(&config(&wire.endpoint, "bucket", ""), limits(), lookup).unwrap();
    (wire, store)
}

/// (access key, session token) of each request.
fn askers(wire: &Wire) -> Vec<(String, Option<String>)> {
    let key = |asked: &Asked| {
        let header = asked.header("authorization").unwrap();
        let (_, rest) = header.split_once("Credential=").unwrap();
        let token = asked.header("x-amz-security-token").map(str::to_owned);
        (rest.split('/').next().unwrap().to_owned(), token)
    };
    wire.asked().iter().map(key).collect()
}

fn json(key: &str, minutes: i64) -> Vec<u8> {
    let end = chrono::Utc::now() + chrono::Duration::minutes(minutes);
    let body = format!(
        r#"{{"Code":"Success","AccessKeyId":"{key}","SecretAccessKey":"s","Token":"t-{key}","Expiration":"{}"}}"#,
        end.format("%Y-%m-%dT%H:%M:%SZ")
    );
    answer(200, &[], body)
}

/// A lookup on a machine that has nothing else.
fn only(more: &[(&str, &str)]) -> Lookup {
    let mut all = vec![
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent/credentials"),
        ("AWS_CONFIG_FILE", "/nonexistent/config"),
    ];
    all.extend(more);
    env(&all)
}

/// An instance's metadata server, version 2: without a token it says nothing.
fn metadata(asked: &Asked, keys: Vec<u8>) -> Vec<u8> {
    let path = "/latest/meta-data/iam/security-credentials/";
    if asked.method == "PUT" && asked.target == "/latest/api/token" {
        let ttl = asked.header("x-aws-ec2-metadata-token-ttl-seconds");
        return answer(if ttl.is_some() { 200 } else { 400 }, &[], "the-token");
    }
    if asked.header("x-aws-ec2-metadata-token") != Some("the-token") {
        return answer(401, &[], "");
    }
    match asked.target.strip_prefix(path) {
        Some("") => answer(200, &[], "the-role"),
        Some("the-role") => keys,
        _ => answer(404, &[], ""),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_an_instance_gives_its_role_by_the_second_protocol() {
    let imds = Wire::answering(|asked| Reply::Send(metadata(asked, json("ROLE", 60)))).await;
    let lookup = only(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.endpoint)]);
    let (wire, store) = asking(lookup).await;
    for _ in 0..3 {
        soon(store.get("k")).await.unwrap();
    }
    let expected = ("ROLE".to_owned(), Some("t-ROLE".to_owned()));
    assert_eq!(askers(&wire), vec![expected; 3]);
    assert_eq!(imds.asked().len(), 3, "token, role, keys: once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_what_is_about_to_expire_is_fetched_anew_and_kept_until_then() {
    let served = AtomicUsize::new(0);
    let imds = Wire::answering(move |asked| {
        // Keys for two minutes; from the second time on the server is broken.
        let keys = json("SHORT", 2);
        let reply = metadata(asked, keys);
        let first = served.fetch_add(1, Ordering::SeqCst) < 3;
        Reply::Send(if first { reply } else { answer(500, &[], "") })
    })
    .await;
    let lookup = only(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.endpoint)]);
    let (wire, store) = asking(lookup).await;
    for _ in 0..2 {
        soon(store.get("k")).await.unwrap();
    }
    assert_eq!(askers(&wire).len(), 2);
    assert!(imds.asked().len() > 3, "new ones were asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_a_failed_look_is_shared_by_those_who_waited_and_then_forgotten() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = std::sync::Arc::clone(&broken);
    let endpoint = Wire::answering(move |_| {
        Reply::Send(if state.load(Ordering::SeqCst) {
            answer(404, &[], "")
        } else {
            json("LATER", 60)
        })
    })
    .await;
    let url = format!("{}/keys", endpoint.endpoint);
    let (wire, store) = asking(only(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)])).await;
    let failed = soon(store.get("k")).await.err().unwrap();
    assert_eq!(failed.kind, StoreErrorKind::Denied, "{failed}");
    broken.store(false, Ordering::SeqCst);
    soon(store.get("k")).await.unwrap();
    assert_eq!(askers(&wire)[0].0, "LATER");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_a_container_gives_its_role_to_whoever_has_the_token() {
    let endpoint = Wire::answering(|asked| {
        let allowed = asked.header("authorization") == Some("the-token");
        Reply::Send(if allowed { json("TASK", 60) } else { answer(401, &[], "") })
    })
    .await;
    let url = format!("{}/keys", endpoint.endpoint);
    let lookup = only(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the-token"),
    ]);
    let (wire, store) = asking(lookup).await;
    soon(store.get("k")).await.unwrap();
    assert_eq!(askers(&wire)[0].0, "TASK");
    // Not to anybody in the clear.
    let lookup = only(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/keys")]);
    let (_wire, store) = asking(lookup).await;
    let failed = soon(store.get("k")).await.err().unwrap();
    assert!(failed.message.contains("neither https"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_a_web_identity_is_exchanged_for_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the+token/=\n").unwrap();
    let end = (chrono::Utc::now() + chrono::Duration::hours(1)).format("%Y-%m-%dT%H:%M:%SZ");
    let document = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>WEB</AccessKeyId>\
         <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
         <Expiration>{end}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    );
    let sts = Wire::answering(move |asked| {
        let form = String::from_utf8(asked.body.clone()).unwrap();
        let good = form.contains("Action=AssumeRoleWithWebIdentity")
            && form.contains("WebIdentityToken=the%2Btoken%2F%3D")
            && form.contains("RoleArn=arn%3Aaws");
        let denied =
            "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>";
        Reply::Send(if good { answer(200, &[], &document) } else { answer(400, &[], denied) })
    })
    .await;
    let path = file.to_str().unwrap();
    let settings = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/docket"),
        ("AWS_ENDPOINT_URL_STS", sts.endpoint.as_str()),
    ];
    let (wire, store) = asking(only(&settings)).await;
    soon(store.get("k")).await.unwrap();
    soon(store.get("k")).await.unwrap();
    assert_eq!(askers(&wire)[1], ("WEB".to_owned(), Some("t".to_owned())));
    assert_eq!(sts.asked().len(), 1);
    std::fs::write(&file, "another").unwrap();
    let (_wire, store) = asking(only(&settings)).await;
    let failed = soon(store.get("k")).await.err().unwrap();
    assert_eq!(failed.kind, StoreErrorKind::Denied);
    assert!(failed.message.contains("InvalidIdentityToken"), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_keys_that_the_store_calls_expired_are_looked_up_again() {
    let number = AtomicUsize::new(0);
    let endpoint = Wire::answering(move |_| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        Reply::Send(json(&format!("K{number}"), 60))
    })
    .await;
    let store_server = Wire::answering(|asked| {
        let old = asked.header("authorization").unwrap().contains("Credential=K0/");
        Reply::Send(if old { super::wire::error(400, "ExpiredToken") } else { object(b"x") })
    })
    .await;
    let url = format!("{}/keys", endpoint.endpoint);
    let lookup = only(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)]);
    let config = config(&store_server.endpoint, "bucket", "");
    let store = S3::with(&config, limits(), lookup).unwrap();
    soon(store.get("k")).await.unwrap();
    assert_eq!(askers(&store_server).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_12_profiles_are_read_by_name_and_what_they_cannot_give_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("credentials");
    let settings = folder.path().join("config");
    std::fs::write(
        &keys,
        "# comment\n[default]\naws_access_key_id = D\naws_secret_access_key = s\n\
         [ other ]\naws_access_key_id=O\naws_secret_access_key=s\naws_session_token=t\n",
    )
    .unwrap();
    std::fs::write(
        &settings,
        "[profile third]\naws_access_key_id=T\naws_secret_access_key=s\n\
         [profile sso]\nsso_session = x\n",
    )
    .unwrap();
    let at = |profile: &str| {
        env(&[
            ("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap()),
            ("AWS_CONFIG_FILE", settings.to_str().unwrap()),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_PROFILE", profile),
        ])
    };
    for (profile, key) in [("", "D"), ("default", "D"), ("other", "O"), ("third", "T")] {
        let (wire, store) = asking(at(profile)).await;
        soon(store.get("k")).await.unwrap();
        assert_eq!(askers(&wire)[0].0, key);
    }
    for (profile, words) in [("nobody", "no AWS profile `nobody`"), ("sso", "`sso_session`")] {
        let (_wire, store) = asking(at(profile)).await;
        let failed = soon(store.get("k")).await.err().unwrap();
        assert_eq!(failed.kind, StoreErrorKind::Denied);
        assert!(failed.message.contains(words), "{failed}");
    }
    let (_wire, store) = asking(env(&[("AWS_ACCESS_KEY_ID", "A")])).await;
    let failed = soon(store.get("k")).await.err().unwrap();
    assert!(failed.message.contains("AWS_SECRET_ACCESS_KEY is not"), "{failed}");
    let (_wire, store) = asking(only(&[("AWS_EC2_METADATA_DISABLED", "true")])).await;
    let failed = soon(store.get("k")).await.err().unwrap();
    assert!(failed.message.contains("no AWS credentials"), "{failed}");
}
