//! What is served beside the API itself: metrics, the dashboard, the API's own description.

use std::io::{Read as _, Write as _};

use super::{Fake, refers_to, view};

#[test]
fn metrics_are_sums_for_everybody_and_by_session_with_the_token() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    fake.put(view("bob-two", "Stopped", "False"));
    fake.happen(7, "ann-one", "first");
    let get =
        |lines: &str| fake.http(&format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n{lines}", fake.tcp));
    let (status, open) = get("X: y");
    assert_eq!(status, 200);
    for line in [
        "docket_sessions{phase=\"Running\"} 1\n",
        "docket_session_conditions{type=\"Ready\",status=\"False\"} 1\n",
        "docket_events_total 7\n",
        "docket_containers_running 0\n",
    ] {
        assert!(open.contains(line), "{line}: {open}");
    }
    let mut numbers = open.lines().filter(|line| !line.starts_with('#'));
    assert!(numbers.all(|line| line.starts_with("docket_")), "{open}");
    assert!(!open.contains("ann-one"), "{open}");
    let (_, known) = get(&format!("Authorization: Bearer {}", fake.token));
    assert!(known.contains("docket_session_ready{session=\"ann-one\"} 1\n"), "{known}");
    assert!(known.contains("docket_session_ready{session=\"bob-two\"} 0\n"), "{known}");
}

#[test]
fn every_number_that_is_served_is_in_the_book() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    let (_, text) = fake.http(&format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}",
        fake.tcp, fake.token
    ));
    let page = std::fs::read_to_string("docs/src/monitoring.md").unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<&str> = names.filter(|name| !page.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_dashboard_is_a_page_without_data_that_loads_nothing_from_elsewhere() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    let mut stream = std::net::TcpStream::connect(fake.tcp).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", fake.tcp);
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, page) = text.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/html"), "{head}");
    assert!(head.contains("default-src 'none'"), "{head}");
    assert!(head.contains("frame-ancestors 'none'"), "{head}");
    assert!(page.contains("<title>docket</title>") && !page.contains("ann-one"), "{page}");
    assert!(!head.contains("unsafe-inline") && head.contains("script-src 'sha256-"), "{head}");
    // The one address there is is a session's own.
    let page = page.replace("`http://${address}`", "");
    for from_elsewhere in ["http:", "https:", "src=", "innerHTML", "href=", "{{"] {
        assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
    }
}

#[test]
fn the_api_s_own_description_names_every_route_there_is() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    let token = &fake.token;
    let ask = |method: &str, path: &str| {
        fake.http(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nAuthorization: Bearer {token}",
            fake.tcp
        ))
    };
    let (status, text) = ask("GET", "/api/v1/openapi.json");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, document["openapi"].as_str()), (200, Some("3.1.0")));
    let mut references = Vec::new();
    refers_to(&document, &mut references);
    assert!(references.iter().all(|r| document.pointer(&r[1..]).is_some()), "{references:?}");
    let mut described = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let method = method.to_uppercase();
            described.push(format!("{method} {path}"));
            let (status, body) = ask(&method, &path.replace("{name}", "ann-one"));
            assert!(![404, 405].contains(&status), "{method} {path}: {status} {body}");
        }
    }
    let (status, body) = ask("PUT", "/api/v1/sessions/ann-one");
    assert!(status == 405 && body.contains("not for this path"), "{status} {body}");
    let declared = &document["paths"]["/api/v1/sessions/{name}"]["get"]["responses"]["405"];
    assert!(declared.is_object(), "{declared}");
    let view = &document["components"]["schemas"]["Status"]["properties"]["conditions"];
    assert_eq!(view["items"]["$ref"], "#/components/schemas/Condition", "{view}");
    let verbs = "stop start restart suspend resume sync hydrate";
    let mut promised: Vec<String> =
        verbs.split(' ').map(|verb| format!("POST /api/v1/sessions/{{name}}/{verb}")).collect();
    promised.extend(
        [
            "GET /api/v1/sessions",
            "GET /api/v1/sessions/{name}",
            "DELETE /api/v1/sessions/{name}",
            "GET /api/v1/events",
            "GET /api/v1/plan",
            "POST /api/v1/confirm-prune",
        ]
        .map(str::to_owned),
    );
    for one in promised {
        assert!(described.contains(&one), "{one}: {described:?}");
    }
}
