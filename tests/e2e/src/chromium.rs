//! Debian's Chromium without a window, driven by chromedriver (W3C WebDriver).

use std::time::Duration;

use harness::{Process, eventually, free_port, programs};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::http;

const DEADLINE: Duration = Duration::from_secs(60);
/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser.
#[derive(Debug)]
pub struct Chromium {
    // Declared before the directory: the browser stops before its profile goes.
    driver: Process,
    session: String,
    _directory: TempDir,
}

impl Chromium {
    /// Starts a browser with an empty profile.
    ///
    /// # Panics
    /// When chromium or chromedriver is not installed, or does not start.
    pub async fn start() -> Self {
        let missing = "chromium is not installed (Debian: apt-get install chromium chromium-driver)";
        let (chromium, chromedriver) = (
            programs::on_path("chromium").expect(missing),
            programs::on_path("chromedriver").expect(missing),
        );
        let directory = tempfile::Builder::new()
            .prefix("pgmoor-chromium-")
            .tempdir()
            .expect("a temporary directory");
        let port = free_port();
        let driver = Process::builder(chromedriver)
            .arg(format!("--port={port}"))
            .env("HOME", directory.path())
            .name("chromedriver")
            .spawn();
        eventually(DEADLINE, "chromedriver serves", async || {
            let connected = TcpStream::connect(("127.0.0.1", port)).await;
            connected
                .map(drop)
                .map_err(|error| format!("{error}; it wrote: {}", driver.log_text()))
        })
        .await;
        let profile = directory.path().join("profile");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // Nothing but loopback is asked for anything.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "pageLoadStrategy": "eager",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
        } } });
        let url = format!("http://127.0.0.1:{port}/session");
        let made = command("POST", &url, &capabilities).await;
        let made = made.unwrap_or_else(|error| panic!("{error}; chromedriver wrote: {}", driver.log_text()));
        let id = made["sessionId"].as_str().expect("a session id").to_owned();
        Self {
            driver,
            session: format!("{url}/{id}"),
            _directory: directory,
        }
    }

    /// Opens an address.
    ///
    /// # Panics
    /// When the browser cannot.
    pub async fn open(&self, url: &str) {
        let opened = self.post("url", json!({ "url": url })).await;
        opened.unwrap_or_else(|error| panic!("opening {url}: {error}; {}", self.driver.log_text()));
    }

    /// Types a text into the field that a CSS selector names, once it is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        let typed = self
            .post(&format!("element/{element}/value"), json!({ "text": text }))
            .await;
        typed.unwrap_or_else(|error| panic!("typing into {selector}: {error}"));
    }

    /// Clicks what a CSS selector names, once it is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        let clicked = self.post(&format!("element/{element}/click"), json!({})).await;
        clicked.unwrap_or_else(|error| panic!("clicking {selector}: {error}"));
    }

    /// Waits until there is nothing any more that a CSS selector names.
    ///
    /// # Panics
    /// When it stays.
    pub async fn element_gone(&self, selector: &str) {
        let wish = json!({ "using": "css selector", "value": selector });
        eventually(DEADLINE, &format!("{selector} is gone"), async || {
            self.post("element", wish.clone()).await.is_err()
        })
        .await;
    }

    /// The text of what a CSS selector names, once it is there.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn text(&self, selector: &str) -> String {
        let element = self.element(selector).await;
        let text = command(
            "GET",
            &format!("{}/element/{element}/text", self.session),
            &Value::Null,
        )
        .await;
        let text = text.unwrap_or_else(|error| panic!("reading {selector}: {error}"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// The address it shows.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn address(&self) -> String {
        let url = command("GET", &format!("{}/url", self.session), &Value::Null).await;
        url.ok()
            .and_then(|url| url.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    async fn element(&self, selector: &str) -> String {
        let wish = json!({ "using": "css selector", "value": selector });
        eventually(DEADLINE, &format!("{selector} is there"), async || {
            match self.post("element", wish.clone()).await {
                Ok(found) => Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned()),
                Err(error) => Err(format!("{error} at {}", self.address().await)),
            }
        })
        .await
    }

    async fn post(&self, what: &str, body: Value) -> Result<Value, String> {
        command("POST", &format!("{}/{what}", self.session), &body).await
    }
}

async fn command(method: &str, url: &str, body: &Value) -> Result<Value, String> {
    let text = body.to_string();
    let body = (method == "POST").then_some(("application/json", text.as_str()));
    let answer = http::request(method, url, "", body).await;
    let value: Value =
        serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
    if answer.status == 200 {
        Ok(value["value"].clone())
    } else {
        Err(format!("{} {}", answer.status, value["value"]["message"]))
    }
}
