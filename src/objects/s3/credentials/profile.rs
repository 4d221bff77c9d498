//! `~/.aws/credentials` and `~/.aws/config`: read again when they change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusoto_credential::AwsCredentials;

/// Keys of other ways to get credentials, which docket does not know.
const FOREIGN: [&str; 5] =
    ["sso_session", "sso_start_url", "credential_process", "source_profile", "credential_source"];

/// One profile's settings, both files together; the credentials file wins.
#[derive(Clone, Default)]
pub(super) struct Section(BTreeMap<String, String>);

impl Section {
    /// Its keys, if it has both.
    pub(super) fn keys(&self) -> Option<AwsCredentials> {
        let key = self.0.get("aws_access_key_id")?;
        let secret = self.0.get("aws_secret_access_key")?;
        let token = self.0.get("aws_session_token").cloned();
        Some(AwsCredentials::new(key.clone(), secret.clone(), token, None))
    }

    /// Its role and token file.
    pub(super) fn web_identity(&self) -> Option<(String, PathBuf)> {
        let role = self.0.get("role_arn")?;
        let file = self.0.get("web_identity_token_file")?;
        Some((role.clone(), file.into()))
    }

    /// The first setting that asks for something docket cannot do.
    pub(super) fn foreign(&self) -> Option<&'static str> {
        FOREIGN.into_iter().find(|name| self.0.contains_key(*name))
    }
}

/// What was read last, and what the files looked like then.
#[derive(Default)]
pub(super) struct Profiles {
    read: Option<(Vec<Stamp>, Section)>,
}

/// (path, time of change and length; nothing if there is no such file).
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

impl Profiles {
    /// Reads again next time, changed or not.
    pub(super) fn forget(&mut self) {
        self.read = None;
    }

    /// The profile that the environment names, or `default`; empty if there is none.
    pub(super) fn read(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<Section, String> {
        let var = |name: &str| env(name).filter(|value| !value.is_empty());
        let home = |name: &str| var("HOME").map(|home| Path::new(&home).join(".aws").join(name));
        let path = |name: &str, file: &str| var(name).map(PathBuf::from).or_else(|| home(file));
        let keys = path("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let config = path("AWS_CONFIG_FILE", "config");
        let stamps = [&config, &keys]
            .into_iter()
            .flatten()
            .map(|path| stamp(path))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some((before, section)) = &self.read
            && *before == stamps
        {
            return Ok(section.clone());
        }
        let named = var("AWS_PROFILE");
        let name = named.clone().unwrap_or_else(|| "default".to_owned());
        let mut found = false;
        let mut section = Section::default();
        for (path, heads) in [
            (config, [format!("profile {name}"), name.clone()]),
            (keys, [name.clone(), name.clone()]),
        ] {
            let Some(text) = path.as_deref().map(text_of).transpose()?.flatten() else { continue };
            for (head, key, value) in settings(&text) {
                if heads.contains(&head) {
                    found = true;
                    section.0.insert(key, value);
                }
            }
        }
        if named.is_some() && !found {
            return Err(format!("there is no AWS profile `{}`", name.escape_debug()));
        }
        self.read = Some((stamps, section.clone()));
        Ok(section)
    }
}

fn stamp(path: &Path) -> Result<Stamp, String> {
    match std::fs::metadata(path) {
        Ok(meta) => {
            let changed = meta.modified().map_err(|error| unreadable(path, &error))?;
            Ok((path.to_owned(), Some((changed, meta.len()))))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((path.to_owned(), None)),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn text_of(path: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// (section, key, value) of each line of an INI file.
fn settings(text: &str) -> Vec<(String, String, String)> {
    let mut head = String::new();
    let mut all = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            head = name.split_whitespace().collect::<Vec<_>>().join(" ");
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().to_ascii_lowercase();
            all.push((head.clone(), key, value.trim().to_owned()));
        }
    }
    all
}
