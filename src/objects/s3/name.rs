//! Names on their way to the store: buckets, keys under the configured prefix, endpoints. What a
//! server or something before it could read in two ways is refused here.

use rusoto_core::Region;

use crate::objects::s3::S3Config;

/// S3's own limit on a key, in bytes.
const KEY_MAX: usize = 1024;

/// Where objects live: checked once, used for every request.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) bucket: String,
    /// Empty, or ends in `/`.
    prefix: String,
    pub(super) region: Region,
    pub(super) path_style: bool,
}

impl Place {
    /// Reads the configuration; the error says which key of it is wrong.
    pub(super) fn parse(config: &S3Config) -> Result<Place, String> {
        let bucket = config.bucket.clone();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !(3..=255).contains(&bucket.len())
            || !bucket.chars().all(allowed)
            || bucket.contains("..")
            || bucket.starts_with('.')
        {
            return Err(format!("`{}` is not a bucket's name", bucket.escape_debug()));
        }
        let prefix = config.prefix.trim_matches('/');
        if !prefix.is_empty() && !is_plain(prefix) {
            return Err(format!("`{}` is not a prefix of keys", prefix.escape_debug()));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let endpoint = endpoint(config)?;
        let region = Region::Custom { name: config.region.clone(), endpoint };
        Ok(Place { bucket, prefix, region, path_style: config.path_style })
    }

    /// The key in the bucket.
    pub(super) fn full(&self, key: &str) -> Result<String, String> {
        let full = format!("{}{key}", self.prefix);
        if key.is_empty() || !is_plain(key) {
            return Err("a key has no empty and no dot segments and no NUL".to_owned());
        }
        if full.len() > KEY_MAX {
            return Err(format!("the key has {} bytes, at most {KEY_MAX}", full.len()));
        }
        Ok(full)
    }

    /// The beginning of keys in the bucket; an empty one is the store's whole prefix.
    pub(super) fn full_prefix(&self, prefix: &str) -> Result<String, String> {
        let segments = prefix.trim_end_matches('/');
        if !segments.is_empty() && !is_plain(segments) {
            return Err("a prefix has no empty and no dot segments and no NUL".to_owned());
        }
        Ok(format!("{}{prefix}", self.prefix))
    }

    /// The store's own key of a key in the bucket.
    pub(super) fn relative<'a>(&self, full: &'a str) -> Option<&'a str> {
        full.strip_prefix(&self.prefix)
    }

    /// Whether requests travel in the clear.
    pub(super) fn is_plain_http(&self) -> bool {
        matches!(&self.region, Region::Custom { endpoint, .. } if endpoint.starts_with("http://"))
    }
}

/// Servers and proxies that tidy paths would take `a/../b` for `b`: another tenant's object.
fn is_plain(key: &str) -> bool {
    !key.contains('\0')
        && key.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

fn endpoint(config: &S3Config) -> Result<String, String> {
    let region = &config.region;
    if region.is_empty() || !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(format!("`{}` is not a region", region.escape_debug()));
    }
    if config.endpoint.is_empty() {
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        return Ok(format!("https://s3.{region}.amazonaws.com{china}"));
    }
    let endpoint = config.endpoint.trim_end_matches('/');
    let bad = || format!("`{}` is not http(s)://host[:port]", endpoint.escape_debug());
    let uri: hyper::Uri = endpoint.parse().map_err(|_| bad())?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().ok_or_else(bad)?;
    if !known || authority.as_str().contains('@') || uri.query().is_some() {
        return Err(bad());
    }
    Ok(endpoint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            bucket: "bucket".to_owned(),
            prefix: "a/b".to_owned(),
            endpoint: "http://localhost:9000".to_owned(),
            region: "us-east-1".to_owned(),
            path_style: true,
            ca_file: None,
            max_bandwidth: 0,
            max_concurrent: 0,
        }
    }

    #[test]
    fn keys_stand_under_the_prefix_and_come_back_without_it() {
        let place = Place::parse(&config()).unwrap();
        assert_eq!(place.full("ann/one/manifest.json").unwrap(), "a/b/ann/one/manifest.json");
        assert_eq!(place.relative("a/b/ann/x"), Some("ann/x"));
        assert_eq!(place.relative("a/bc"), None);
        assert_eq!(place.full_prefix("").unwrap(), "a/b/");
        assert_eq!(place.full_prefix("ann/").unwrap(), "a/b/ann/");
    }

    #[test]
    fn a_key_that_a_proxy_could_tidy_into_another_is_refused() {
        let place = Place::parse(&config()).unwrap();
        for bad in ["", "/a", "a/", "a//b", "a/../b", "..", "./a", "a/.", "a\0b"] {
            assert!(place.full(bad).is_err(), "{bad:?}");
        }
        assert!(place.full(&"x".repeat(1021)).is_err());
        assert!(place.full(&"x".repeat(1020)).is_ok());
        assert!(place.full_prefix("a/../b/").is_err());
    }

    #[test]
    fn what_is_wrong_in_the_configuration_is_named() {
        let parse = |change: fn(&mut S3Config)| {
            let mut config = config();
            change(&mut config);
            Place::parse(&config).unwrap_err()
        };
        assert!(parse(|c| c.bucket = "a b".to_owned()).contains("bucket"));
        assert!(parse(|c| c.bucket = "a/../b".to_owned()).contains("bucket"));
        assert!(parse(|c| c.prefix = "a/../b".to_owned()).contains("prefix"));
        assert!(parse(|c| c.region = "a\nb".to_owned()).contains("region"));
        assert!(parse(|c| c.endpoint = "ftp://x".to_owned()).contains("http(s)"));
        assert!(parse(|c| c.endpoint = "http://me:secret@x".to_owned()).contains("http(s)"));
    }

    #[test]
    fn without_an_endpoint_it_is_amazon_in_that_region() {
        let mut config = config();
        config.endpoint = String::new();
        config.region = "eu-central-1".to_owned();
        assert_eq!(endpoint(&config).unwrap(), "https://s3.eu-central-1.amazonaws.com");
        config.region = "cn-north-1".to_owned();
        assert_eq!(endpoint(&config).unwrap(), "https://s3.cn-north-1.amazonaws.com.cn");
    }
}
