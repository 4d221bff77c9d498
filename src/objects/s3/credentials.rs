//! Who we are to the store: environment, web identity, profile files, container endpoint,
//! instance metadata (version 2 only), in the order of AWS's own tools.
//!
//! 1. An error is never kept: the next request looks again. Those who waited while somebody else
//!    looked share what was found, good or bad, so a silent metadata server is asked once.
//! 2. Files are read again when they change; what expires is fetched anew five minutes before.
//! 3. No secret is in an error, a log line or a `Debug`.
#![expect(clippy::disallowed_methods, reason = "credentials expire by the clock and lie in files")]

mod profile;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use hyper::Request;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rusoto_credential::AwsCredentials;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::objects::s3::answer::{self, Failure};
use crate::objects::s3::transport::Transport;
use crate::world::StoreErrorKind;

use profile::Profiles;

/// Where settings are looked up by name: the process's environment, or a test's.
pub type Lookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How long before they expire credentials are fetched anew.
const EARLY: chrono::Duration = chrono::Duration::minutes(5);
/// How long a local endpoint may take, and one over the network.
const LOCAL: Duration = Duration::from_secs(2);
const REMOTE: Duration = Duration::from_secs(10);
/// Longest answer with credentials.
const ANSWER_MAX: usize = 64 << 10;
const IMDS: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";

/// The provider.
pub(super) struct Credentials {
    env: Lookup,
    region: String,
    forgotten: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<AwsCredentials>,
    had: bool,
    failed: Option<(Instant, Failure)>,
    profiles: Profiles,
}

/// Role and token file of a web identity.
struct WebIdentity {
    role: String,
    token_file: PathBuf,
    session: String,
}

impl Credentials {
    pub(super) fn new(env: Lookup, region: &str) -> Credentials {
        Credentials {
            env,
            region: region.to_owned(),
            forgotten: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    fn var(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.trim().is_empty())
    }

    /// The store refused what we have. Whether looking again could find something else.
    pub(super) fn forget(&self) -> bool {
        self.forgotten.store(true, Ordering::SeqCst);
        self.var("AWS_ACCESS_KEY_ID").is_none()
    }

    /// Credentials that are good for the next minutes.
    pub(super) async fn get(&self, transport: &Transport) -> Result<AwsCredentials, Failure> {
        if let Some(keys) = self.environment()? {
            return Ok(keys);
        }
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if self.forgotten.swap(false, Ordering::SeqCst) {
            state.kept = None;
            state.profiles.forget();
        }
        if let Some(kept) = state.kept.as_ref().filter(|kept| lasts(kept, EARLY)) {
            return Ok(kept.clone());
        }
        if let Some((when, failure)) = &state.failed
            && *when >= asked
        {
            return Err(failure.clone());
        }
        match self.look(&mut state, transport).await {
            Ok(keys) => {
                if keys.expires_at().is_some() {
                    state.kept = Some(keys.clone());
                    state.had = true;
                }
                Ok(keys)
            }
            Err(failure) => match &state.kept {
                Some(kept) if lasts(kept, chrono::Duration::seconds(10)) => Ok(kept.clone()),
                _ => {
                    state.failed = Some((Instant::now(), failure.clone()));
                    Err(failure)
                }
            },
        }
    }

    async fn look(
        &self,
        state: &mut State,
        transport: &Transport,
    ) -> Result<AwsCredentials, Failure> {
        if let Some(identity) = self.web_identity() {
            return self.assume(&identity, transport).await;
        }
        let section = state.profiles.read(&*self.env).map_err(denied)?;
        if let Some(keys) = section.keys() {
            return Ok(keys);
        }
        if let Some((role, token_file)) = section.web_identity() {
            let identity = WebIdentity { role, token_file, session: "docket".to_owned() };
            return self.assume(&identity, transport).await;
        }
        if let Some(foreign) = section.foreign() {
            return Err(denied(format!(
                "the AWS profile uses `{foreign}`, which docket does not read: give it keys, a \
                 web identity or a role of the machine"
            )));
        }
        if let Some((url, token)) = self.container()? {
            return self.container_keys(&url, token, transport).await;
        }
        if self.var("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Err(nothing(state.had));
        }
        self.instance_keys(transport, state.had).await
    }

    fn environment(&self) -> Result<Option<AwsCredentials>, Failure> {
        let Some(key) = self.var("AWS_ACCESS_KEY_ID") else { return Ok(None) };
        let secret = self
            .var("AWS_SECRET_ACCESS_KEY")
            .ok_or_else(|| denied("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"))?;
        Ok(Some(AwsCredentials::new(key, secret, self.var("AWS_SESSION_TOKEN"), None)))
    }

    fn web_identity(&self) -> Option<WebIdentity> {
        Some(WebIdentity {
            token_file: self.var("AWS_WEB_IDENTITY_TOKEN_FILE")?.into(),
            role: self.var("AWS_ROLE_ARN")?,
            session: self.var("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "docket".to_owned()),
        })
    }

    async fn assume(
        &self,
        identity: &WebIdentity,
        transport: &Transport,
    ) -> Result<AwsCredentials, Failure> {
        let token = std::fs::read_to_string(&identity.token_file).map_err(|error| {
            denied(format!("web identity token {}: {error}", identity.token_file.display()))
        })?;
        let endpoint = self
            .var("AWS_ENDPOINT_URL_STS")
            .unwrap_or_else(|| format!("https://sts.{}.amazonaws.com", self.region));
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &identity.role),
            ("RoleSessionName", &identity.session),
            ("WebIdentityToken", token.trim()),
        ];
        let form = form.map(|(name, value)| {
            format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
        });
        let request = Request::post(format!("{}/", endpoint.trim_end_matches('/')))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(form.join("&")));
        let body = fetch(transport, request, REMOTE, "STS").await?;
        let found = answer::outline(&body)
            .map_err(|why| unavailable(format!("STS gave no whole XML: {why}")))?;
        let text = |name: &str| found.text(name).map(|text| text.trim().to_owned());
        let keys = (|| {
            Some(AwsCredentials::new(
                text("AccessKeyId")?,
                text("SecretAccessKey")?,
                text("SessionToken"),
                Some(text("Expiration")?.parse().ok()?),
            ))
        })();
        keys.ok_or_else(|| unavailable("STS answered without credentials".to_owned()))
    }

    /// The container endpoint: (URL, authorization).
    fn container(&self) -> Result<Option<(String, Option<String>)>, Failure> {
        let url = if let Some(path) = self.var("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            format!("{CONTAINER}{path}")
        } else if let Some(url) = self.var("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            url
        } else {
            return Ok(None);
        };
        if !may_see_token(&url) {
            return Err(denied(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor on this machine",
            ));
        }
        let token = match self.var("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(path) => Some(std::fs::read_to_string(&path).map_err(|error| {
                denied(format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE {path}: {error}"))
            })?),
            None => self.var("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        Ok(Some((url, token)))
    }

    async fn container_keys(
        &self,
        url: &str,
        token: Option<String>,
        transport: &Transport,
    ) -> Result<AwsCredentials, Failure> {
        let mut request = Request::get(url);
        if let Some(token) = token {
            request = request.header("authorization", token.trim());
        }
        let request = request.body(Bytes::new());
        json_keys(&fetch(transport, request, LOCAL, "the container endpoint").await?)
    }

    async fn instance_keys(
        &self,
        transport: &Transport,
        had: bool,
    ) -> Result<AwsCredentials, Failure> {
        let what = "instance metadata";
        let base = self.var("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| IMDS.to_owned());
        let base = base.trim_end_matches('/');
        let request = Request::put(format!("{base}/latest/api/token"))
            .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
            .body(Bytes::new());
        // Nobody there: this machine has no such thing.
        let token = fetch(transport, request, LOCAL, what).await.map_err(|_| nothing(had))?;
        let ask = |path: String| {
            Request::get(format!("{base}/latest/meta-data/iam/security-credentials/{path}"))
                .header("x-aws-ec2-metadata-token", token.as_ref())
                .body(Bytes::new())
        };
        let roles = fetch(transport, ask(String::new()), LOCAL, what).await?;
        let role = String::from_utf8_lossy(&roles).lines().next().unwrap_or_default().to_owned();
        if role.is_empty() {
            return Err(denied("this instance has no role"));
        }
        json_keys(&fetch(transport, ask(role), LOCAL, what).await?)
    }
}

/// The container's token goes to this machine or over TLS.
fn may_see_token(url: &str) -> bool {
    let Ok(url) = url.parse::<hyper::Uri>() else { return false };
    let host = url.host().unwrap_or_default();
    let local = ["localhost", "127.0.0.1", "[::1]", "169.254.170.2", "169.254.170.23"];
    url.scheme_str() == Some("https")
        || local.contains(&host)
        || host == "[fd00:ec2::23]" && url.scheme_str() == Some("http")
}

fn lasts(keys: &AwsCredentials, for_: chrono::Duration) -> bool {
    keys.expires_at().is_none_or(|end| end - for_ > Utc::now())
}

/// What container endpoint and instance metadata answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JsonKeys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<DateTime<Utc>>,
}

fn json_keys(body: &[u8]) -> Result<AwsCredentials, Failure> {
    // serde's own words could quote the secret.
    let keys: JsonKeys = serde_json::from_slice(body)
        .map_err(|_| unavailable("the answer holds no credentials".to_owned()))?;
    // Without an end they would be asked for with every request.
    let end = keys.expiration.unwrap_or_else(|| Utc::now() + chrono::Duration::minutes(15));
    Ok(AwsCredentials::new(keys.access_key_id, keys.secret_access_key, keys.token, Some(end)))
}

async fn fetch(
    transport: &Transport,
    request: Result<Request<Bytes>, hyper::http::Error>,
    within: Duration,
    what: &str,
) -> Result<Bytes, Failure> {
    let request = request.map_err(|_| denied(format!("{what}: a setting cannot be sent")))?;
    let asked = tokio::time::timeout(within, async {
        let (head, body) = transport.send(request).await?.into_parts();
        Ok::<_, super::transport::TransportError>((
            head.status.as_u16(),
            transport.whole(body, ANSWER_MAX).await?,
        ))
    });
    let (status, body) = match asked.await {
        Err(_) => return Err(unavailable(format!("{what}: no answer within {within:?}"))),
        Ok(Err(error)) => return Err(unavailable(format!("{what}: {error}"))),
        Ok(Ok(answer)) => answer,
    };
    match status {
        200..=299 => Ok(body),
        429 | 500..=599 => Err(unavailable(format!("{what} answered {status}"))),
        _ => {
            let found = answer::outline(&body).ok();
            let code = found.as_ref().and_then(|found| found.text("Code")).unwrap_or_default();
            Err(denied(format!("{what} answered {status} {}", answer::words(code))))
        }
    }
}

fn denied(text: impl AsRef<str>) -> Failure {
    Failure::new(StoreErrorKind::Denied, text.as_ref().trim_end())
}

fn unavailable(text: String) -> Failure {
    Failure::passing(StoreErrorKind::Unavailable, text)
}

fn nothing(had: bool) -> Failure {
    if had {
        return unavailable("the credentials ran out and nobody gives new ones".to_owned());
    }
    denied(
        "no AWS credentials: neither in the environment (AWS_ACCESS_KEY_ID) nor in a profile file \
         nor from web identity, container endpoint or instance metadata",
    )
}
