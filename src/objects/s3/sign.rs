//! The signature of a request (AWS, version 4, in headers). rusoto has it too, but sums the body
//! for it again, and a body's sum is known here: it was found out when the body was read.

use rusoto_core::signature::SignedRequest;
use rusoto_credential::AwsCredentials;
use sha2::Digest as _;

use crate::model::{Sha256, Timestamp};

/// The block of sha256 in bytes. Source: FIPS 180-4.
const BLOCK: usize = 64;
/// What proxies may change, and what holds the signature. Source: rusoto, the AWS documentation.
const UNSIGNED: [&str; 3] = ["authorization", "content-length", "user-agent"];

/// The sum of a body.
pub(super) fn sum(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// Signs a request whose body has this sum: what arrives otherwise is refused by the store. Header
/// values must be free of white space that could be folded.
pub(super) fn sign(
    request: &mut SignedRequest,
    keys: &AwsCredentials,
    body: Sha256,
    now: Timestamp,
) {
    request.complement();
    let (time, day) = (now.format("%Y%m%dT%H%M%SZ").to_string(), now.format("%Y%m%d").to_string());
    let body = body.hex();
    set(request, "x-amz-date", &time);
    if let Some(token) = keys.token() {
        set(request, "x-amz-security-token", token);
    }
    set(request, "x-amz-content-sha256", &body);
    let (mut lines, mut names) = (String::new(), String::new());
    for (name, values) in request.headers() {
        if UNSIGNED.contains(&name.as_str()) {
            continue;
        }
        let texts: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
        lines += &format!("{name}:{}\n", texts.join(","));
        if !names.is_empty() {
            names.push(';');
        }
        names += name;
    }
    let (method, path) = (request.method(), request.canonical_uri());
    let query = request.canonical_query_string();
    let canonical = sum(format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body}").as_bytes());
    let (region, service) = (request.region_for_service(), request.service.clone());
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", canonical.hex());
    let mut key = format!("AWS4{}", keys.aws_secret_access_key()).into_bytes();
    for step in [&day, &region, &service, "aws4_request"] {
        key = hmac(&key, step.as_bytes()).0.to_vec();
    }
    let signature = hmac(&key, text.as_bytes()).hex();
    let id = keys.aws_access_key_id();
    let all = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
    );
    set(request, "authorization", &all);
}

/// Instead of what it may have been.
fn set(request: &mut SignedRequest, name: &str, value: &str) {
    request.remove_header(name);
    request.add_header(name, value);
}

/// Source: RFC 2104.
fn hmac(key: &[u8], text: &[u8]) -> Sha256 {
    let mut block = [0; BLOCK];
    match block.get_mut(..key.len()) {
        Some(front) => front.copy_from_slice(key),
        None => block[..32].copy_from_slice(&sum(key).0),
    }
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = sha2::Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256(sha2::Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into())
}

#[cfg(test)]
mod tests {
    use rusoto_core::Region;

    use super::*;

    /// rusoto's own signature is the one that servers are known to take.
    #[test]
    fn the_signature_is_rusotos() {
        let custom = |endpoint: &str| Region::Custom {
            name: "eu-west-1".to_owned(),
            endpoint: endpoint.to_owned(),
        };
        let regions =
            [custom("http://127.0.0.1:9000"), custom("https://s3.example:1/base"), Region::UsEast1];
        let secrets = ["S".to_owned(), "long ".repeat(30)];
        let bodies: [&'static [u8]; 2] = [b"", b"what is sent"];
        for (region, secret, body) in regions.iter().flat_map(|region| {
            let pairs = secrets.iter().zip(bodies);
            pairs.map(move |(secret, body)| (region, secret, body))
        }) {
            let token = body.is_empty().then(|| "token".to_owned());
            let keys = AwsCredentials::new("K", secret.as_str(), token, None);
            let make = || {
                let path = "/bucket/a b/~c+d\u{e4}@1";
                let mut request = SignedRequest::new("PUT", "s3", region, path);
                request.add_header("x-amz-meta-docket-sha256", "0123");
                request.add_header("if-none-match", "*");
                request.add_param("uploadId", "a/b c");
                request.add_param("partNumber", "7");
                if !body.is_empty() {
                    request.set_payload(Some(body.to_vec()));
                }
                request
            };
            let mut theirs = make();
            theirs.sign(&keys);
            let date = String::from_utf8(theirs.headers()["x-amz-date"][0].clone()).unwrap();
            let date = chrono::NaiveDateTime::parse_from_str(&date, "%Y%m%dT%H%M%SZ").unwrap();
            let mut ours = make();
            sign(&mut ours, &keys, sum(body), date.and_utc());
            assert_eq!(ours.headers(), theirs.headers());
        }
    }

    /// Source: RFC 4231, cases 2 and 6.
    #[test]
    fn hmacs_of_short_and_long_keys() {
        let short = hmac(b"Jefe", b"what do ya want for nothing?").hex();
        assert!(short.starts_with("5bdcc146bf60754e6a042426089575c7"), "{short}");
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let long = hmac(&[0xaa; 131], text).hex();
        assert!(long.starts_with("60e431591ee0b67f0d8a26aacbf5b77f"), "{long}");
    }
}
