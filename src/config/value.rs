//! One raw value into one field, with a complaint that says what is expected.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::git::Remote;
use crate::model::{ContainerPrefix, Installation};
use crate::plan::MinFree;

use super::{Config, HttpRead, Key, LogFormat, Raw, Store};

type Parsed<T> = Result<T, String>;

impl Config {
    /// Puts one value in its field; relative paths are relative to `base`.
    pub(super) fn assign(&mut self, key: &Key, raw: &Raw, base: &Path) -> Parsed<()> {
        if let Some(taken) = self.assign_list(key.path, raw, base) {
            return taken;
        }
        let text = match raw {
            Raw::Line(text) | Raw::Scalar(text) => text.trim(),
            Raw::List(_) => return Err("expected one value, not a list".to_owned()),
        };
        match key.path {
            "specs" if Remote::is_meant(text) => self.git.remote = Some(Remote::parse(text)?),
            "specs" => {
                self.git.remote = None;
                self.specs = path(text, base)?;
            }
            "git.interval" => self.git.interval = interval(text)?,
            "git.verify" if text.is_empty() => self.git.verify = None,
            "git.verify" => self.git.verify = Some(path(text, base)?),
            "git.credentials" if text.is_empty() => self.git.credentials = None,
            "git.credentials" => self.git.credentials = Some(path(text, base)?),
            "git.sshKey" if text.is_empty() => self.git.ssh_key = None,
            "git.sshKey" => self.git.ssh_key = Some(path(text, base)?),
            "git.knownHosts" if text.is_empty() => self.git.known_hosts = None,
            "git.knownHosts" => self.git.known_hosts = Some(path(text, base)?),
            "state" => self.state = path(text, base)?,
            "workspaces" => self.workspaces = path(text, base)?,
            "store" => self.store = store(text, base)?,
            "s3.endpoint" => self.s3.endpoint = endpoint(text)?,
            "s3.region" => text.clone_into(&mut self.s3.region),
            "s3.pathStyle" => self.s3.path_style = switch(text)?,
            "s3.caFile" if text.is_empty() => self.s3.ca_file = None,
            "s3.caFile" => self.s3.ca_file = Some(path(text, base)?),
            "s3.maxBandwidth" => self.s3.max_bandwidth = bandwidth(text)?,
            "s3.maxConcurrent" => self.s3.max_concurrent = parse(text, "a number of requests")?,
            "docker" => text.clone_into(&mut self.docker),
            "installation" => self.installation = named(text, Installation::parse)?,
            "ports" => self.ports = ports(text)?,
            "bind" => self.bind = parse::<IpAddr>(text, "an IP address, e.g. 127.0.0.1")?,
            "containerPrefix" => self.container_prefix = named(text, ContainerPrefix::parse)?,
            "tick" => self.tick = tick(text)?,
            "limits.sessions" => self.limits.sessions = number(text)?,
            "limits.perUser" => self.limits.per_user = number(text)?,
            "limits.concurrentStarts" => self.limits.concurrent_starts = number(text)?,
            "allow.dockerSocket" => self.allow.docker_socket = switch(text)?,
            "allow.unconfinedSeccomp" => self.allow.unconfined_seccomp = switch(text)?,
            "allow.loosenHardening" => self.allow.loosen_hardening = switch(text)?,
            "allow.writableSpecs" => self.allow.writable_specs = switch(text)?,
            "pruneGuard.atLeast" => self.prune_guard.at_least = number(text)?,
            "pruneGuard.percent" => self.prune_guard.percent = percent(text)?,
            "minFree" => self.min_free = min_free(text)?,
            "trash.keep" => self.trash_keep = duration(text)?,
            "listen" if text.is_empty() => self.listen = None,
            "listen" => {
                let expected = "an address and a port, e.g. 127.0.0.1:7070";
                self.listen = Some(parse::<SocketAddr>(text, expected)?);
            }
            "http.read" => self.http_read = http_read(text)?,
            "log.level" => self.log.level = level(text)?,
            "log.format" => self.log.format = log_format(text)?,
            other => return Err(format!("`{other}` is not a key")),
        }
        Ok(())
    }

    /// The keys that take several values; `None`: it is none of them.
    fn assign_list(&mut self, key: &str, raw: &Raw, base: &Path) -> Option<Parsed<()>> {
        let allow = &mut self.allow;
        Some(match key {
            "allow.hostPaths" => paths(raw, base).map(|list| allow.host_paths = list),
            "allow.seccompProfiles" => paths(raw, base).map(|list| allow.seccomp_profiles = list),
            "allow.secretFiles" => paths(raw, base).map(|list| allow.secret_files = list),
            "allow.networks" => items(raw).map(|list| allow.networks = list),
            "allow.capabilities" => {
                items(raw).map(|list| allow.capabilities = list.iter().map(|c| cap(c)).collect())
            }
            _ => return None,
        })
    }
}

fn items(raw: &Raw) -> Parsed<Vec<String>> {
    let list: Vec<String> = match raw {
        Raw::List(list) => list.clone(),
        Raw::Line(text) => text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect(),
        Raw::Scalar(text) => return Err(format!("expected a list, e.g. [{text}]")),
    };
    if list.iter().any(String::is_empty) {
        Err("an item of the list is empty".to_owned())
    } else {
        Ok(list)
    }
}

fn paths(raw: &Raw, base: &Path) -> Parsed<Vec<PathBuf>> {
    items(raw)?.iter().map(|item| path(item, base)).collect()
}

fn path(text: &str, base: &Path) -> Parsed<PathBuf> {
    if text.is_empty() {
        return Err("expected a path, got nothing".to_owned());
    }
    if text.contains('\0') {
        return Err("a path holds no NUL byte".to_owned());
    }
    // `a/./b` and a trailing slash would make one directory look like two.
    Ok(base.join(text).components().collect())
}

fn cap(text: &str) -> String {
    let text = text.to_ascii_uppercase();
    text.strip_prefix("CAP_").unwrap_or(&text).to_owned()
}

fn parse<T: FromStr>(text: &str, expected: &str) -> Parsed<T> {
    text.parse().map_err(|_| format!("`{}` is not {expected}", text.escape_debug()))
}

fn named<T>(text: &str, parse: fn(&str) -> Result<T, crate::model::BadName>) -> Parsed<T> {
    parse(text).map_err(|bad| bad.to_string())
}

fn number(text: &str) -> Parsed<u32> {
    parse(text, "a whole number from 0")
}

fn percent(text: &str) -> Parsed<u32> {
    let bare = text.strip_suffix('%').unwrap_or(text);
    match bare.parse() {
        Ok(share @ 0..=100) => Ok(share),
        _ => Err(format!("`{}` is not a share from 0 to 100 per cent", text.escape_debug())),
    }
}

fn switch(text: &str) -> Parsed<bool> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("`{}` is not true or false", text.escape_debug())),
    }
}

fn duration(text: &str) -> Parsed<Duration> {
    humantime::parse_duration(text).map_err(|_| {
        format!(
            "`{}` is not a duration: a number and a unit, e.g. 30s, 8h, 7d",
            text.escape_debug()
        )
    })
}

fn tick(text: &str) -> Parsed<Duration> {
    let shortest = Duration::from_millis(100);
    match duration(text)? {
        tick if tick < shortest => Err(format!("{text} is too short: at least 100ms")),
        tick => Ok(tick),
    }
}

fn interval(text: &str) -> Parsed<Duration> {
    match duration(text)? {
        short if short < Duration::from_secs(1) => Err(format!("{text} is too short: at least 1s")),
        interval => Ok(interval),
    }
}

fn ports(text: &str) -> Parsed<(u16, u16)> {
    let wrong = || {
        format!("`{}` is not a range of ports from 1 to 65535, e.g. 8001-8999", text.escape_debug())
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(wrong()),
    }
}

fn endpoint(text: &str) -> Parsed<String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    if text.is_empty() || host.is_some_and(|host| !host.is_empty()) {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("`{}` is not a URL, e.g. https://s3.example.com", text.escape_debug()))
}

fn store(text: &str, base: &Path) -> Parsed<Store> {
    if let Some(rest) = text.strip_prefix("file:") {
        // file:/path, file:///path and file:relative
        let rest = rest.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(rest);
        return path(rest, base).map(Store::Directory);
    }
    let expected = || format!("`{}` is not file:/path or s3://bucket/prefix", text.escape_debug());
    let rest = text.strip_prefix("s3://").ok_or_else(expected)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=255).contains(&bucket.len()) || !bucket.bytes().all(letters) {
        return Err(expected());
    }
    let prefix = prefix.trim_matches('/');
    let odd = |part: &str| matches!(part, "." | "..") || part.chars().any(char::is_control);
    if !prefix.is_empty() && prefix.split('/').any(|part| part.is_empty() || odd(part)) {
        return Err(format!("the prefix of `{}` has an empty or odd part", text.escape_debug()));
    }
    Ok(Store::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn min_free(text: &str) -> Parsed<MinFree> {
    if let Some(share) = text.strip_suffix('%') {
        return match share.trim().parse::<f64>() {
            Ok(share) if (0.0..=100.0).contains(&share) => Ok(MinFree::Percent(share)),
            _ => Err(format!("`{}` is not a share from 0% to 100%", text.escape_debug())),
        };
    }
    bytes(text).map(MinFree::Bytes)
}

fn bandwidth(text: &str) -> Parsed<u64> {
    let wrong = |_| format!("`{}` is not a number of bytes, e.g. 20Mi", text.escape_debug());
    bytes(text).map_err(wrong)
}

/// A Kubernetes quantity of bytes: `5Gi`, `1.5G`, `100`.
fn bytes(text: &str) -> Parsed<u64> {
    const UNITS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    let wrong = || format!("`{}` is not a share or a size, e.g. 5% or 10Gi", text.escape_debug());
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .ok_or_else(wrong)?;
    if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(wrong());
    }
    let size = digits.parse::<f64>().map_err(|_| wrong())? * unit;
    if size < u64::MAX as f64 { Ok(size as u64) } else { Err(wrong()) }
}

fn http_read(text: &str) -> Parsed<HttpRead> {
    match text {
        "token" => Ok(HttpRead::Token),
        "open" => Ok(HttpRead::Open),
        _ => Err(format!("`{}` is not token or open", text.escape_debug())),
    }
}

fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{}` is not text or json", text.escape_debug())),
    }
}

fn level(text: &str) -> Parsed<String> {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let known = |directive: &str| {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        levels.contains(&level.trim().to_ascii_lowercase().as_str())
    };
    if text.split(',').all(known) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("`{}` is not error, warn, info, debug, trace or off", text.escape_debug()))
    }
}

/// The known name that is nearest to a word, if one is near.
pub(super) fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    names
        .iter()
        .map(|name| (distance(&word, &name.to_ascii_lowercase()), *name))
        .filter(|(far, name)| *far <= 1 + name.len() / 4)
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// Levenshtein's: how many letters must be put in, left out or exchanged.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
