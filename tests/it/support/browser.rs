//! Debian's Chromium without a screen, driven as a person would: it clicks what can be seen and
//! waits for what appears.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// How long anything may take to appear on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    runtime: tokio::runtime::Runtime,
    client: Option<Client>,
    driver: Child,
    axe: PathBuf,
}

impl Browser {
    /// A window of a desk's size.
    pub fn open() -> Browser {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/browser");
        let installed = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(installed.status.success(), "{script} failed");
        let axe = PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim());
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines.next().expect("chromedriver ended").unwrap();
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // Read on: a full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let arguments = [
            "--headless=new",
            "--no-sandbox", // it runs as root, in tests alone
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--window-size=1400,900",
        ];
        let wanted = json!({"goog:chromeOptions": {"args": arguments}});
        let client = runtime.block_on(
            ClientBuilder::new(HttpConnector::new())
                .capabilities(wanted.as_object().unwrap().clone())
                .connect(&format!("http://127.0.0.1:{port}")),
        );
        Browser { runtime, client: Some(client.unwrap()), driver, axe }
    }

    fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    pub fn goto(&self, url: &str) {
        self.runtime.block_on(self.client().goto(url)).unwrap();
    }

    pub fn resize(&self, width: u32, height: u32) {
        self.runtime.block_on(self.client().set_window_size(width, height)).unwrap();
    }

    /// What a script returns.
    pub fn js(&self, script: &str) -> Value {
        self.runtime.block_on(self.client().execute(script, Vec::new())).unwrap()
    }

    /// The text of what is seen there; empty if it is not there or not seen.
    pub fn text(&self, css: &str) -> String {
        self.js(&format!(
            "const one = document.querySelector({}); return one && one.checkVisibility() ? one.innerText : ''",
            json!(css)
        ))
        .as_str()
        .unwrap_or_default()
        .to_owned()
    }

    /// Looks until it is so.
    #[track_caller]
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Browser) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            let page = || self.text("body");
            assert!(began.elapsed() < PATIENCE, "never came: {what}\n{}", page());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for text to be seen there.
    #[track_caller]
    pub fn see(&self, css: &str, part: &str) {
        self.until(&format!("`{part}` in {css}"), |b| b.text(css).contains(part));
    }

    /// Clicks what is there, as a person could: it must be visible and not covered.
    #[track_caller]
    pub fn click(&self, css: &str) {
        self.runtime.block_on(async {
            let found = self.client().wait().for_element(Locator::Css(css)).await;
            found.unwrap().click().await.unwrap();
        });
    }

    /// Clicks the button that says this.
    #[track_caller]
    pub fn press(&self, inside: &str, label: &str) {
        let path = format!("//*[@id='{inside}']//button[normalize-space()='{label}']");
        self.runtime.block_on(async {
            let found = self.client().wait().for_element(Locator::XPath(&path)).await;
            found.unwrap().click().await.unwrap();
        });
    }

    /// Types into a field, and Enter.
    pub fn enter(&self, css: &str, text: &str) {
        self.runtime.block_on(async {
            let field = self.client().find(Locator::Css(css)).await.unwrap();
            field.send_keys(&format!("{text}{}", char::from(Key::Enter))).await.unwrap();
        });
    }

    /// Presses a key where the focus is.
    pub fn key(&self, key: Key) {
        self.runtime.block_on(async {
            let focused = self.client().active_element().await.unwrap();
            focused.send_keys(&String::from(char::from(key))).await.unwrap();
        });
    }

    /// What axe-core finds wrong with what is shown, in a line each.
    pub fn violations(&self) -> Vec<String> {
        let axe = std::fs::read_to_string(&self.axe).unwrap();
        let _nothing = self.js(&axe);
        let script = "const done = arguments[arguments.length - 1];
            axe.run(document).then((found) => done(found.violations), (error) => done([{id: String(error), nodes: []}]));";
        let found = self.runtime.block_on(self.client().execute_async(script, Vec::new())).unwrap();
        let line = |one: &Value| {
            let places: Vec<_> =
                one["nodes"].as_array().unwrap().iter().map(|n| n["html"].to_string()).collect();
            format!("{}: {} {}", one["id"], one["help"], places.join(" "))
        };
        found.as_array().unwrap().iter().map(line).collect()
    }

    /// A picture of the window, beside the other results of tests.
    pub fn picture(&self, name: &str) {
        let bytes = self.runtime.block_on(self.client().screenshot()).unwrap();
        let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join(format!("{name}.png")), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _gone_already = self.runtime.block_on(client.close());
        }
        let _gone_already = self.driver.kill();
        let _gone_already = self.driver.wait();
    }
}
