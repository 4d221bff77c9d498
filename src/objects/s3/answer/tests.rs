//! Answers as stores, proxies and accidents give them.

use super::*;

fn error(code: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so\n it is</Message></Error>"
    )
    .into_bytes()
}

#[test]
fn a_cut_document_is_refused_wherever_it_is_cut() {
    let whole = b"<?xml version=\"1.0\"?><R a=\"1\"><Size>12</Size><K>a &amp; b</K></R>";
    assert!(whole_document(whole, "R").is_ok());
    for end in 0..whole.len() {
        let failure = whole_document(&whole[..end], "R").unwrap_err();
        assert_eq!(failure.kind, StoreErrorKind::Corrupt, "cut at {end}");
    }
}

#[test]
fn pages_and_noise_are_no_documents() {
    for noise in [
        &b"<html><body>502<br></body></html>"[..],
        b"{}",
        b"",
        b"\0\0",
        b"<A></B>",
        b"<R/><R/>",
        b"<!DOCTYPE html><R/>",
    ] {
        assert!(whole_document(noise, "R").is_err(), "{}", String::from_utf8_lossy(noise));
    }
    let deep = format!("{}{}", "<R>".repeat(50), "</R>".repeat(50));
    assert!(whole_document(deep.as_bytes(), "R").is_err());
}

#[test]
fn an_entity_bomb_is_refused() {
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \
                \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">]><R>&b;</R>";
    assert!(whole_document(bomb.as_bytes(), "R").is_err());
}

#[test]
fn white_space_before_the_document_is_taken_away() {
    let body = b" \n\n  <?xml version=\"1.0\"?><R/>\n";
    assert_eq!(whole_document(body, "R").unwrap(), &body[5..body.len() - 1]);
}

#[test]
fn an_error_inside_a_success_is_an_error() {
    for (code, kind) in [
        ("InternalError", StoreErrorKind::Unavailable),
        ("SomethingNew", StoreErrorKind::Unavailable),
        ("NoSuchBucket", StoreErrorKind::Denied),
        ("NoSuchUpload", StoreErrorKind::NotFound),
    ] {
        let failure = whole_document(&error(code), "R").unwrap_err();
        assert_eq!((failure.kind, failure.code.as_str()), (kind, code));
        assert_eq!(no_error_inside(&error(code)).unwrap_err().kind, kind);
    }
    assert!(no_error_inside(b"").is_ok());
}

#[test]
fn kinds_come_from_status_and_code() {
    use StoreErrorKind::{Corrupt, Denied, Invalid, NotFound, Unavailable};
    let kind = |status, code: &str| {
        let body = if code.is_empty() { Vec::new() } else { error(code) };
        let failure = classify(status, &body, code.is_empty(), None);
        (failure.kind, failure.again)
    };
    for (status, code, expected) in [
        (404, "NoSuchKey", (NotFound, false)),
        (404, "NoSuchBucket", (Denied, false)),
        (404, "", (NotFound, false)),
        (403, "AccessDenied", (Denied, false)),
        (403, "", (Denied, false)),
        (400, "ExpiredToken", (Denied, false)),
        (301, "PermanentRedirect", (Denied, false)),
        (301, "", (Denied, false)),
        (503, "SlowDown", (Unavailable, true)),
        (503, "", (Unavailable, true)),
        (429, "", (Unavailable, true)),
        (500, "InternalError", (Unavailable, true)),
        (409, "ConditionalRequestConflict", (Unavailable, true)),
        (400, "RequestTimeout", (Unavailable, true)),
        (400, "BadDigest", (Corrupt, true)),
        (400, "KeyTooLongError", (Invalid, false)),
        (412, "PreconditionFailed", (Invalid, false)),
        (501, "NotImplemented", (Invalid, false)),
    ] {
        assert_eq!(kind(status, code), expected, "{status} {code}");
    }
}

#[test]
fn a_404_of_something_else_is_not_absence() {
    let page = b"<html><body>no such page</body></html>";
    assert_eq!(classify(404, page, false, None).kind, StoreErrorKind::Unavailable);
    assert_eq!(classify(404, b"", false, None).kind, StoreErrorKind::Unavailable);
}

#[test]
fn messages_are_one_line_and_say_what_to_do() {
    let failure = classify(403, &error("SignatureDoesNotMatch"), false, None);
    assert_eq!(failure.message, "403 SignatureDoesNotMatch: so it is (check the credentials)");
    let long = format!("<Error><Code>X</Code><Message>{}</Message></Error>", "y ".repeat(5000));
    assert!(classify(400, long.as_bytes(), false, None).message.len() < 300);
}
