//! The guard between the wire and rusoto's parsers: what an answer is, decided by status and
//! `<Code>`, and whether its XML is whole. rusoto's generated parsers loop for ever on broken XML
//! and take an `<Error>` inside a 200 for an empty success; nothing reaches them unchecked.

use std::time::Duration;

use xml::reader::{EventReader, ParserConfig, XmlEvent};

use crate::world::StoreErrorKind;

/// Nesting beyond this is no S3 answer.
const DEPTH_MAX: usize = 16;
/// A document type may declare entities that grow without end. It stands before the root.
const DOCTYPE: &[u8] = b"<!DOCTYPE";
const HEAD: usize = 4096;
/// Longest message of a store that is passed on.
const WORDS_MAX: usize = 200;

/// Why a request failed, with what the caller's own handling needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) kind: StoreErrorKind,
    /// The HTTP status, if there was an answer.
    pub(super) status: Option<u16>,
    /// S3's `<Code>`, empty if it gave none.
    pub(super) code: String,
    /// One line, nothing secret.
    pub(super) message: String,
    /// Whether another attempt at once may help.
    pub(super) again: bool,
    /// How long the store asks us to stay away.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without an answer.
    pub(super) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            status: None,
            code: String::new(),
            message: message.into(),
            again: false,
            retry_after: None,
        }
    }

    /// A failure that another attempt may mend.
    pub(super) fn passing(kind: StoreErrorKind, message: impl Into<String>) -> Failure {
        Failure { again: true, ..Failure::new(kind, message) }
    }

    /// A condition of a conditional request did not hold.
    pub(super) fn is_precondition(&self) -> bool {
        self.status == Some(412) || self.code == "PreconditionFailed"
    }

    /// A refusal that does not say why: answers to HEAD have no body.
    pub(super) fn is_mute(&self) -> bool {
        matches!(self.status, Some(400 | 403)) && self.code.is_empty()
    }

    /// The store says that we ask for too much at once.
    pub(super) fn is_too_much(&self) -> bool {
        matches!(self.status, Some(429 | 503)) || self.code == "SlowDown"
    }

    /// The store does not know the request or a header of it.
    pub(super) fn is_not_implemented(&self) -> bool {
        self.status == Some(501) || self.code == "NotImplemented"
    }

    /// Credentials that were good and are not any more.
    pub(super) fn is_stale_credentials(&self) -> bool {
        matches!(
            self.code.as_str(),
            "ExpiredToken"
                | "ExpiredTokenException"
                | "InvalidToken"
                | "TokenRefreshRequired"
                | "InvalidAccessKeyId"
        )
    }
}

/// The outline of an XML answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// Name of the root element.
    pub(super) root: String,
    /// Texts of the root's own children and grandchildren: (element, text).
    pub(super) texts: Vec<(String, String)>,
}

impl Outline {
    /// The text of the first element of that name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(element, _)| element == name).map(|(_, text)| text.as_str())
    }
}

/// An answer without the white space that keeps a connection alive during a long completion.
pub(super) fn trimmed(body: &[u8]) -> &[u8] {
    body.trim_ascii()
}

/// Reads the whole document with the parser that rusoto uses. What passes here cannot make
/// rusoto's readers spin: they spin on the errors of that parser only.
pub(super) fn outline(body: &[u8]) -> Result<Outline, String> {
    let config = ParserConfig::new().trim_whitespace(false);
    let mut path: Vec<String> = Vec::new();
    let mut outline = Outline { root: String::new(), texts: Vec::new() };
    let mut head = body[..body.len().min(HEAD)].windows(DOCTYPE.len());
    if head.any(|word| word.eq_ignore_ascii_case(DOCTYPE)) {
        return Err("it declares its own type".to_owned());
    }
    for event in EventReader::new_with_config(body, config) {
        match event.map_err(|error| error.msg().to_owned())? {
            XmlEvent::StartElement { name, .. } => {
                if path.is_empty() {
                    if !outline.root.is_empty() {
                        return Err("it has two roots".to_owned());
                    }
                    outline.root.clone_from(&name.local_name);
                }
                path.push(name.local_name);
                if path.len() > DEPTH_MAX {
                    return Err("nested too deeply".to_owned());
                }
            }
            XmlEvent::EndElement { .. } => {
                path.pop();
            }
            XmlEvent::Characters(text) | XmlEvent::CData(text)
                if (2..=4).contains(&path.len()) && outline.texts.len() < 64 =>
            {
                outline.texts.extend(path.last().map(|name| (name.clone(), text)));
            }
            XmlEvent::ProcessingInstruction { .. } => return Err("not an S3 answer".to_owned()),
            _ => {}
        }
    }
    if outline.root.is_empty() { Err("no element at all".to_owned()) } else { Ok(outline) }
}

/// Checks a 2xx answer that must be a document with this root; gives it back trimmed.
pub(super) fn whole_document<'a>(body: &'a [u8], root: &str) -> Result<&'a [u8], Failure> {
    let body = trimmed(body);
    let found = outline(body).map_err(|why| {
        Failure::passing(StoreErrorKind::Corrupt, format!("the answer is not whole XML: {why}"))
    })?;
    if found.root == "Error" {
        return Err(refusal(200, &found, None));
    }
    if found.root != root {
        let text = format!("the answer is <{}> and not <{root}>", words(&found.root));
        return Err(Failure::passing(StoreErrorKind::Corrupt, text));
    }
    Ok(body)
}

/// Checks a 2xx answer that says nothing beside its headers.
pub(super) fn no_error_inside(body: &[u8]) -> Result<(), Failure> {
    match outline(trimmed(body)) {
        Ok(found) if found.root == "Error" => Err(refusal(200, &found, None)),
        _ => Ok(()),
    }
}

/// What an answer that is not 2xx means. `bare`: the method's answers have no body (HEAD).
pub(super) fn classify(
    status: u16,
    body: &[u8],
    bare: bool,
    retry_after: Option<Duration>,
) -> Failure {
    if let Ok(found) = outline(trimmed(body))
        && found.root == "Error"
    {
        return refusal(status, &found, retry_after);
    }
    // A page of something between us and the store proves nothing, absence least of all.
    if status == 404 && !bare {
        let text = "404 without an S3 answer: is the endpoint an S3 server?";
        let failure = Failure::passing(StoreErrorKind::Unavailable, text);
        return Failure { status: Some(status), retry_after, ..failure };
    }
    failure(status, "", "", retry_after)
}

fn refusal(status: u16, found: &Outline, retry_after: Option<Duration>) -> Failure {
    let code = found.text("Code").unwrap_or_default().trim();
    let message = found.text("Message").unwrap_or_default();
    failure(status, code, message, retry_after)
}

fn failure(status: u16, code: &str, message: &str, retry_after: Option<Duration>) -> Failure {
    let (kind, again) = by_code(code).unwrap_or_else(|| by_status(status));
    let mut text = format!("{status} {}", words(code));
    if !message.is_empty() {
        text = format!("{}: {}", text.trim_end(), words(message));
    }
    if let Some(hint) = hint(status, code) {
        text = format!("{} ({hint})", text.trim_end());
    }
    Failure {
        kind,
        status: Some(status),
        code: code.to_owned(),
        message: text.trim_end().to_owned(),
        again,
        retry_after,
    }
}

fn by_code(code: &str) -> Option<(StoreErrorKind, bool)> {
    let decided = match code {
        "NoSuchKey" | "NoSuchUpload" | "NotFound" | "NoSuchVersion" => {
            (StoreErrorKind::NotFound, false)
        }
        "NoSuchBucket"
        | "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "AuthorizationHeaderMalformed"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "InvalidObjectState"
        | "NotSignedUp"
        | "PermanentRedirect"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TemporaryRedirect"
        | "TokenRefreshRequired" => (StoreErrorKind::Denied, false),
        "SlowDown"
        | "ServiceUnavailable"
        | "InternalError"
        | "RequestTimeout"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "XMinioServerNotInitialized" => (StoreErrorKind::Unavailable, true),
        "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "InvalidDigest" => {
            (StoreErrorKind::Corrupt, true)
        }
        "PreconditionFailed" | "NotImplemented" => (StoreErrorKind::Invalid, false),
        _ => return None,
    };
    Some(decided)
}

fn by_status(status: u16) -> (StoreErrorKind, bool) {
    match status {
        404 => (StoreErrorKind::NotFound, false),
        300..=399 | 401 | 403 => (StoreErrorKind::Denied, false),
        501 => (StoreErrorKind::Invalid, false),
        // In a success: the store changed its mind after it had begun to answer.
        200..=299 | 408 | 409 | 425 | 429 | 500..=599 => (StoreErrorKind::Unavailable, true),
        _ => (StoreErrorKind::Invalid, false),
    }
}

fn hint(status: u16, code: &str) -> Option<&'static str> {
    match (status, code) {
        (_, "NoSuchBucket") => Some("create the bucket or correct `store`"),
        (_, "RequestTimeTooSkewed") => Some("this machine's clock is wrong"),
        (_, "SignatureDoesNotMatch" | "InvalidAccessKeyId") => Some("check the credentials"),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect") => {
            Some("check `s3.region` and `s3.endpoint`")
        }
        (_, "ExpiredToken" | "ExpiredTokenException" | "InvalidToken" | "TokenRefreshRequired") => {
            Some("get new credentials")
        }
        (401 | 403, "" | "AccessDenied") => Some("check the credentials and what they may do"),
        (300..=399, _) => Some("redirects are not followed: check `s3.region` and `s3.endpoint`"),
        _ => None,
    }
}

/// A store's words as one short line.
pub(super) fn words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests;
