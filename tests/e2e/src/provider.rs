//! A real OpenID provider: the certified npm package `oidc-provider`, run by node on loopback.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Process, eventually, free_port, programs};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::http::{self, Answer, Browser};
use crate::secrets::Secrets;

const DEADLINE: Duration = Duration::from_secs(60);
/// What pgmoor is called there.
pub const CLIENT_ID: &str = "pgmoor";

/// A running provider.
#[derive(Debug)]
pub struct OpenIdProvider {
    process: Process,
    port: u16,
    client_secret: String,
}

impl OpenIdProvider {
    /// Starts a provider that knows these accounts (`{"ann": {"groups": ["dba"]}}`) and sends browsers back to `redirect_uri`.
    ///
    /// # Panics
    /// When node or the package is not there, or it does not start.
    pub async fn start(redirect_uri: &str, accounts: Value, secrets: &Secrets) -> Self {
        let directory = package().await;
        let (port, client_secret) = (free_port(), harness::random::password());
        secrets.remember("a client secret", &client_secret);
        let options = json!({
            "port": port,
            "client": {
                "client_id": CLIENT_ID,
                "client_secret": client_secret,
                "redirect_uris": [redirect_uri],
            },
            "accounts": accounts,
        });
        // Everybody sees an argument.
        let options_file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(options_file.path(), options.to_string()).expect("the provider's options");
        let node =
            programs::on_path("node").expect("node is not installed (Debian: apt-get install nodejs npm)");
        let process = Process::builder(node)
            .arg(directory.join("provider.mjs"))
            .arg(options_file.path())
            .current_dir(&directory)
            .name("oidc-provider")
            .spawn();
        eventually(DEADLINE, "the provider serves", async || {
            let connected = TcpStream::connect(("127.0.0.1", port)).await;
            connected
                .map(drop)
                .map_err(|error| format!("{error}; it wrote: {}", process.log_text()))
        })
        .await;
        Self {
            process,
            port,
            client_secret,
        }
    }

    /// Its issuer URL.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The secret of pgmoor there.
    #[must_use]
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// What it wrote.
    #[must_use]
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }

    /// Changes it: `accounts`, `forget`, `skewSeconds`, `rotateKey`, `rotateTokens`, `failUserinfo`, `resetRequests`. Answers how often each path was asked for.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn control(&self, order: Value) -> Value {
        let url = format!("{}/control", self.issuer());
        let answer = http::request("POST", &url, "", Some(("application/json", &order.to_string()))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("the control answers JSON")
    }

    /// Stops it where it is: it takes connections and answers nothing.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Logs an account in with the provider's forms, without a browser. Returns where it sends the browser at the end.
    ///
    /// # Panics
    /// When a form is not as expected.
    pub async fn fill_forms(&self, authorization_url: &str, login: &str) -> String {
        let mut browser = Browser::default();
        let mut answer = browser.get(authorization_url).await;
        for _ in 0..12 {
            let Some(location) = answer.header("location") else {
                panic!(
                    "the provider sends nowhere: {answer:?}; it wrote: {}",
                    self.log_text()
                );
            };
            let url = absolute(&self.issuer(), location);
            if !url.starts_with(&self.issuer()) {
                return url;
            }
            answer = browser.get(&url).await;
            if answer.header("location").is_none() {
                let form = match prompt(&answer) {
                    "login" => format!("prompt=login&login={login}&password=x"),
                    other => format!("prompt={other}"),
                };
                answer = browser.post(&url, &form).await;
            }
        }
        panic!("the provider sends around in circles: {answer:?}");
    }
}

fn prompt(answer: &Answer) -> &str {
    for prompt in ["login", "consent"] {
        if answer
            .body
            .contains(&format!("name=\"prompt\" value=\"{prompt}\""))
        {
            return prompt;
        }
    }
    panic!("not a form of the provider: {answer:?}");
}

fn absolute(issuer: &str, location: &str) -> String {
    if location.starts_with('/') {
        format!("{issuer}{location}")
    } else {
        location.to_owned()
    }
}

/// The directory with the package, installed once beneath `target/`.
async fn package() -> PathBuf {
    static PACKAGE: OnceCell<PathBuf> = OnceCell::const_new();
    PACKAGE.get_or_init(install).await.clone()
}

async fn install() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc-provider");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/oidc-provider");
    std::fs::create_dir_all(&directory).expect("a directory for the provider");
    let lock = |directory: &Path| std::fs::read_to_string(directory.join("package-lock.json")).ok();
    let installed =
        directory.join("node_modules/oidc-provider").is_dir() && lock(&source) == lock(&directory);
    for file in ["package.json", "package-lock.json", "provider.mjs"] {
        std::fs::copy(source.join(file), directory.join(file)).expect("the provider's files");
    }
    if !installed {
        let npm =
            programs::on_path("npm").expect("npm is not installed (Debian: apt-get install nodejs npm)");
        let process = Process::builder(npm)
            .args(["ci", "--no-fund", "--no-audit", "--loglevel=error"])
            .current_dir(&directory)
            .spawn();
        let exit = process.wait_exit(Duration::from_secs(300)).await;
        assert!(exit.success(), "npm ci ended with {exit}: {}", process.log_text());
    }
    directory
}
