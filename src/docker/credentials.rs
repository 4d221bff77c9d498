//! Who pulls: what `docker login` left for a registry, found as the Docker command finds it.
//!
//! `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, its `auths`, `credHelpers` and
//! `credsStore`. Source: <https://docs.docker.com/reference/cli/docker/login/>

use std::time::Duration;

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError as Miss, DockerCredential};

/// A helper is a program, and may ask somebody who does not answer.
const HELPER: Duration = Duration::from_secs(20);
/// By what name Docker Hub is logged in to.
const HUB: &str = "https://index.docker.io/v1/";

/// The credentials for the registry of an image; `None`: nobody logged in, or it cannot be told,
/// and the pull is tried without as the Docker command does.
pub(super) async fn of(reference: &str) -> Option<DockerCredentials> {
    let server = server_of(reference).to_owned();
    let asked = server.clone();
    let asking = tokio::task::spawn_blocking(move || docker_credential::get_credential(&asked));
    let found = match tokio::time::timeout(HELPER, asking).await {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(miss))) => {
            if let Some(why) = worth_telling(&miss) {
                tracing::warn!(%server, why, "no credentials for this registry; pulling without");
            }
            return None;
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(%server, "its credential helper does not answer; pulling without");
            return None;
        }
    };
    let serveraddress = Some(server);
    Some(match found {
        DockerCredential::IdentityToken(token) => {
            DockerCredentials { identitytoken: Some(token), serveraddress, ..Default::default() }
        }
        DockerCredential::UsernamePassword(user, password) => DockerCredentials {
            username: Some(user),
            password: Some(password),
            serveraddress,
            ..Default::default()
        },
    })
}

/// The registry in a reference: its first part, if that can be a host.
/// Source: github.com/distribution/reference, `splitDockerDomain`.
fn server_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => match host {
            "docker.io" | "index.docker.io" => HUB,
            host => host,
        },
        _ => HUB,
    }
}

/// Why credentials that were meant to be there are not; what a helper printed is not told: it may
/// be a secret.
fn worth_telling(miss: &Miss) -> Option<&'static str> {
    match miss {
        Miss::NoCredentialConfigured | Miss::ConfigNotFound => None,
        // Also what a file that is not there is told by.
        Miss::ConfigReadError if !has_config() => None,
        Miss::ConfigReadError => Some("config.json of the Docker command cannot be read"),
        // Source: github.com/docker/docker-credential-helpers, `errCredentialsNotFoundMessage`.
        Miss::HelperFailure { stdout, .. } if stdout.contains("credentials not found") => None,
        Miss::HelperFailure { .. } => Some("its credential helper failed"),
        Miss::HelperCommunicationError => Some("its credential helper cannot be started"),
        Miss::MalformedHelperResponse => Some("its credential helper answers nonsense"),
        Miss::CredentialDecodingError => {
            Some("its entry in config.json is not base64 of user:password")
        }
        Miss::CredentialMismatchError => Some("its entry in config.json contradicts itself"),
    }
}

fn has_config() -> bool {
    let folder = std::env::var_os("DOCKER_CONFIG").map(std::path::PathBuf::from);
    let home = || Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
    folder
        .or_else(home)
        .is_some_and(|folder| matches!(folder.join("config.json").try_exists(), Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::{HUB, server_of};

    #[test]
    fn the_registry_is_the_first_part_if_that_can_be_a_host() {
        for (reference, server) in [
            ("legal-workspace:latest", HUB),
            ("library/debian:12", HUB),
            ("docker.io/library/debian", HUB),
            ("registry.example.org/team/legal@sha256:0123", "registry.example.org"),
            ("localhost/legal", "localhost"),
            ("127.0.0.1:5000/legal:v1", "127.0.0.1:5000"),
            ("team:v1", HUB),
        ] {
            assert_eq!(server_of(reference), server, "{reference}");
        }
    }
}
