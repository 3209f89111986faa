//! `pgmoor login` with a provider.

use std::time::Duration;

use harness::{Process, pgmoor_binary};
use serde_json::json;

use super::arrangement::{Arrangement, arrange};

struct Terminal<'a> {
    here: &'a Arrangement,
    home: tempfile::TempDir,
}

impl Terminal<'_> {
    fn start(&self, words: &[&str]) -> Process {
        Process::builder(pgmoor_binary())
            .args(words)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PGMOOR_URL", self.here.world.url())
            .spawn()
    }

    async fn run(&self, words: &[&str]) -> String {
        let process = self.start(words);
        let exit = process.wait_exit(Duration::from_secs(60)).await;
        let log = process.log_text();
        assert!(exit.success(), "{words:?} ended with {exit}: {log}");
        log
    }
}

#[tokio::test]
async fn terminal_prints_the_address_and_the_code_and_has_the_tokens_afterwards() {
    let here = arrange(
        &[json!({ "ann": { "preferred_username": "ann" } })],
        "",
        "auto_create = true",
    )
    .await;
    let terminal = Terminal {
        here: &here,
        home: tempfile::tempdir().unwrap(),
    };
    // There is one provider: it need not be named.
    let login = terminal.start(&["login"]);
    let text = harness::eventually(
        super::arrangement::DEADLINE,
        "the address is printed",
        async || {
            let text = login.log_text();
            if text.contains("show the code") {
                Ok(text)
            } else {
                Err(text)
            }
        },
    )
    .await;
    let line = text
        .lines()
        .find(|line| line.trim().starts_with("http://"))
        .unwrap();
    let code = text.split("show the code ").nth(1).unwrap().trim().to_owned();
    let back = here.providers[0].fill_forms(line.trim(), "ann").await;
    let page = e2e::http::request("GET", &back, "", None).await;
    assert!(page.body.contains(&code), "{code}: {page:?}");
    let exit = login.wait_exit(Duration::from_secs(60)).await;
    assert!(exit.success(), "{}", login.log_text());
    assert!(login.log_text().contains("as ann"), "{}", login.log_text());
    let who = terminal.run(&["whoami", "--format", "json"]).await;
    assert!(who.contains("\"ann\""), "{who}");
    let config = std::fs::read_to_string(terminal.home.path().join(".config/pgmoor/config.toml")).unwrap();
    assert!(config.contains("provider = \"idp-0\""), "{config}");

    let logins = terminal.run(&["logins", "list", "--format", "json"]).await;
    let logins: serde_json::Value = serde_json::from_str(&logins).unwrap();
    let [login] = logins.as_array().unwrap().as_slice() else {
        panic!("{logins}");
    };
    assert_eq!(
        (login["provider"].as_str(), login["current"].as_bool()),
        (Some("idp-0"), Some(true))
    );
    terminal
        .run(&["logins", "revoke", login["name"].as_str().unwrap()])
        .await;
    harness::eventually(super::arrangement::DEADLINE, "the login has ended", async || {
        let process = terminal.start(&["whoami"]);
        !process.wait_exit(Duration::from_secs(60)).await.success()
    })
    .await;
}
