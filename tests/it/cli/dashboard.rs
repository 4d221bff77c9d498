//! The dashboard in a real browser, on made-up sessions: many of them, and who cannot see or has
//! no mouse.

use fantoccini::key::Key;
use serde_json::json;

use crate::support::browser::Browser;

use super::{Fake, view};

fn enter(browser: &Browser, fake: &Fake) {
    browser.goto(&format!("http://{}/", fake.tcp));
    browser.until("the form", |b| b.text("#enter").contains("Token"));
    browser.enter("#token", &fake.token);
    browser.see("#link", "live");
}

/// Goes on by the keyboard, a few steps at most.
#[track_caller]
fn tab_to(browser: &Browser, label: &str) {
    let mut passed = Vec::new();
    for _step in 0..4 {
        browser.key(Key::Tab);
        let here = browser.js("return document.activeElement.innerText");
        if here == label {
            return;
        }
        passed.push(here);
    }
    panic!("{label} was not among {passed:?}");
}

#[test]
fn a_checker_finds_nothing_that_keeps_anybody_out() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    fake.put(view("bob-two", "CrashLoop", "False"));
    fake.happen(7, "ann-one", "first");
    let browser = Browser::open();
    browser.goto(&format!("http://{}/", fake.tcp));
    browser.until("the form", |b| b.text("#enter").contains("Token"));
    let mut found = browser.violations();
    enter(&browser, &fake);
    browser.see("#rows", "ann-one");
    found.extend(browser.violations());
    browser.click("#rows button");
    browser.click("#files summary");
    browser.click("#log summary");
    found.extend(browser.violations());
    browser.press("actions", "Delete");
    browser.see("#ask", "Delete ann-one?");
    found.extend(browser.violations());
    browser.press("ask", "Cancel");
    for scheme in ["dark", "light"] {
        let _nothing =
            browser.js(&format!("document.documentElement.style.colorScheme = '{scheme}'"));
        found.extend(browser.violations().into_iter().map(|one| format!("{scheme}: {one}")));
        browser.picture(scheme);
    }
    browser.resize(390, 844);
    found.extend(browser.violations());
    browser.picture("phone");
    let wide = browser.js("return document.documentElement.scrollWidth > window.innerWidth");
    assert_eq!(wide, json!(false), "it is wider than a phone");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_session_s_details_tell_the_commit_its_spec_is_from() {
    let fake = Fake::start();
    let mut one = view("ann-one", "Running", "True");
    one.status.source_revision = Some("01952d84e2b13041c544456b8dd752cdec3b38d6".to_owned());
    fake.put(one);
    fake.put(view("bob-two", "Running", "True"));
    let browser = Browser::open();
    enter(&browser, &fake);
    browser.see("#rows", "bob-two");
    browser.click("#rows button");
    browser.see("#facts", "Revision\n01952d84e2b1\n");
    browser.click("#rows tr:nth-child(2) button");
    browser.see("#one-title", "bob-two");
    assert!(!browser.text("#facts").contains("Revision"), "it is of no repository");
}

#[test]
fn a_keyboard_is_enough() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    let browser = Browser::open();
    browser.goto(&format!("http://{}/", fake.tcp));
    browser.until("the form", |b| b.text("#enter").contains("Token"));
    // The field has the focus from the beginning.
    browser.until("the focus", |b| b.js("return document.activeElement.id") == "token");
    browser.enter("#token", &fake.token);
    browser.see("#rows", "ann-one");
    let _nothing = browser.js("document.querySelector('#filter').focus()");
    tab_to(&browser, "ann-one");
    browser.key(Key::Enter);
    browser.see("#one", "Conditions");
    assert_eq!(browser.js("return document.activeElement.id"), "one");
    tab_to(&browser, "Stop");
    browser.key(Key::Enter);
    browser.see("#said", "stop recorded");
    let _nothing = browser.js("document.querySelector('#close').focus()");
    browser.key(Key::Enter);
    // Back to where one came from.
    assert_eq!(browser.js("return document.activeElement.innerText"), "ann-one");
}

#[test]
fn five_hundred_sessions_are_drawn_once_and_only_changes_after_that() {
    let fake = Fake::start();
    for number in 0..500 {
        fake.put(view(&format!("s-{number:03}"), "Running", "True"));
    }
    let browser = Browser::open();
    enter(&browser, &fake);
    browser.see("#sum", "500 sessions: 500 Running");
    let _nothing =
        browser.js("window.touched = 0; new MutationObserver((all) => { for (const one of all) \
         window.touched += one.type === 'childList' && one.target.id === 'rows' ? 1000 : 1; })\
         .observe(document.querySelector('#rows'), {childList: true, subtree: true});");
    fake.put(view("s-250", "CrashLoop", "False"));
    browser.see("#sum", "1 CrashLoop, 499 Running");
    let touched = browser.js("return window.touched").as_u64().unwrap();
    assert!((1..100).contains(&touched), "{touched} changes for one session");
    browser.enter("#filter", "crashloop");
    browser.until("one row", |b| {
        b.js("return [...document.querySelectorAll('#rows tr')].filter((one) => one.checkVisibility()).length") == 1
    });
}

#[test]
fn what_comes_from_outside_is_text_and_progress_is_shown() {
    let fake = Fake::start();
    let mut one = view("ann-one", "Running", "True");
    one.status.plan = "<img src=x onerror=\"document.title='taken'\">".to_owned();
    one.status.files.lazy = 2;
    one.status.files.progress =
        Some(docket::model::Progress { files: 1, files_total: 2, bytes: 30, bytes_total: 120 });
    fake.put(one);
    let browser = Browser::open();
    enter(&browser, &fake);
    browser.click("#rows button");
    browser.see("#why", "onerror");
    assert_eq!(browser.js("return document.title"), "docket");
    browser.click("#files summary");
    assert_eq!(browser.js("return document.querySelector('#progress').value"), 0.25);
    browser.see("#one", "Fetch all files now");
}
