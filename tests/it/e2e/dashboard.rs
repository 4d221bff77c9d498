//! The dashboard in a real browser, on a real engine: what a person sees while sessions live.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::browser::Browser;

use super::rig::{Rig, class, condition, http, run, session, stored};

/// A rig that also listens, and where.
fn listening(name: &str) -> (Rig, String) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (Rig::with(name, &format!("listen: \"{address}\"")), format!("http://{address}/"))
}

fn enter(browser: &Browser, rig: &Rig, url: &str) {
    browser.goto(url);
    browser.until("the form", |b| b.text("#enter").contains("Token"));
    browser.enter("#token", rig.ok(&["token"]).trim());
    browser.see("#link", "live");
}

/// The row of a session, in words.
fn row(browser: &Browser, name: &str) -> String {
    let script = format!(
        "const row = [...document.querySelectorAll('#rows tr')].find((one) => \
         one.querySelector('button').innerText === '{name}'); return row ? row.innerText : ''"
    );
    browser.js(&script).as_str().unwrap_or_default().replace(['\n', '\t'], " ")
}

fn container(view: &Value) -> String {
    view["status"]["container"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_session_is_seen_to_come_break_heal_stop_and_go() {
    let (mut rig, url) = listening("dash");
    rig.start();
    let browser = Browser::open();
    browser.goto(&url);
    browser.until("the form", |b| b.text("#enter").contains("Token"));
    browser.enter("#token", "wrong");
    browser.see("#said", "docket token");
    enter(&browser, &rig, &url);
    browser.see("#empty", "No session yet");

    // Appears and gets ready, and nobody loads the page again.
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    browser.until("a row that is ready", |b| row(b, "a").contains("Running yes 127.0.0.1:"));
    browser.until("what it uses", |b| row(b, "a").contains("iB"));
    browser.click("#rows button");
    browser.see("#one", "Why, and what happens next");
    browser.see("#events", "Ready");
    assert_eq!(browser.js("return document.activeElement.id"), "one");

    // Drift is shown, and that it healed.
    let before = rig.ready("a");
    run("docker", &["rm", "-f", &container(&before)]);
    browser.see("#events", &format!("container {}-a-2", rig.installation));
    browser.until("a row that is ready again", |b| row(b, "a").contains("Running yes"));
    browser.see("#facts", "-a-2");

    // Why it is not what its file says.
    rig.write("a.yaml", &session("a", "ann", "one", "  stat: Stopped"));
    browser.see("#conditions", "unknown field `stat`");
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    browser.until("that it is right again", |b| !b.text("#conditions").contains("unknown field"));

    // The log as it comes.
    browser.click("#log summary");
    let view = rig.ready("a");
    let (status, _) = http(&view, "GET", "/", "");
    assert_eq!(status, 200);
    browser.see("#lines", "serving");

    browser.press("actions", "Stop");
    browser.until("a row that is stopped", |b| row(b, "a").contains("Stopped"));
    browser.press("actions", "Start");
    browser.until("a row that runs", |b| row(b, "a").contains("Running yes"));

    // The operator dies, and comes back.
    rig.kill();
    browser.see("#link", "does not answer");
    rig.start();
    browser.see("#link", "live");
    browser.until("the row as it was", |b| row(b, "a").contains("Running yes"));
    browser.picture("session");

    rig.remove("a.yaml");
    browser.see("#said", "a is gone");
    browser.see("#empty", "No session yet");
}

#[test]
fn deleting_unsynced_work_asks_first_and_stores_it() {
    let (mut rig, url) = listening("dashdel");
    rig.write(
        "slow.yaml",
        &class("legal", "").replace("sync: {interval: 1s}", "sync: {interval: 1h}"),
    );
    rig.remove("legal.yaml");
    rig.start();
    rig.seen("slow.yaml");
    let file = rig.path("b.yaml");
    std::fs::write(&file, session("b", "bob", "two", "")).unwrap();
    rig.ok(&["apply", "-f", file.to_str().unwrap()]);
    let view = rig.ready("b");
    let (status, _) = http(&view, "POST", "/write?path=notes.txt", "an edit");
    assert!(status < 300, "{status}");
    let browser = Browser::open();
    enter(&browser, &rig, &url);
    browser.until("an edit that waits", |b| {
        let unsynced = row(b, "b");
        unsynced.contains('(') && unsynced.contains("Running yes")
    });
    browser.click("#rows button");
    browser.press("actions", "Delete");
    browser.see("#ask-text", "not stored yet");
    browser.press("ask", "Cancel");
    assert_eq!(condition(&rig.get("b").unwrap(), "Ready").0, "True");
    browser.press("actions", "Delete");
    browser.press("ask", "Delete");
    browser.until("no row", |b| row(b, "b").is_empty());
    rig.gone("b");
    assert_eq!(stored(&rig, "bob", "two", "notes.txt").as_deref(), Some("an edit"));
}

#[test]
fn files_are_fetched_from_the_page() {
    let (mut rig, url) = listening("dashfiles");
    let case = rig.path("objects/ann/one/files/exhibits");
    std::fs::create_dir_all(&case).unwrap();
    std::fs::write(case.join("scan.pdf"), vec![7_u8; 8 << 20]).unwrap();
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    rig.start();
    let view = rig.ready("a");
    assert_eq!(view["status"]["files"]["lazy"], 1, "{view}");
    let browser = Browser::open();
    enter(&browser, &rig, &url);
    browser.click("#rows button");
    browser.click("#files summary");
    browser.see("#file-rows", "lazy\t8.0 MiB\texhibits/scan.pdf");
    browser.click("#hydrate");
    browser.see("#file-rows", "local\t8.0 MiB\texhibits/scan.pdf");
    browser.until("nothing more to fetch", |b| b.text("#hydrate").is_empty());
}
