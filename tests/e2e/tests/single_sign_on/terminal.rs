//! `pgmoor login` with a provider.

use std::time::Duration;

use harness::{Process, pgmoor_binary};

use super::arrangement::{Arrangement, Returned, arrange_ann};

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
    let here = arrange_ann().await;
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
            if text.contains("shows the code") {
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
    let code = text.split("shows the code ").nth(1).unwrap().trim().to_owned();
    let back = here.providers[0].fill_forms(line.trim(), "ann").await;
    let mut returned = Returned::open(&back).await;
    assert!(returned.page.body.contains(&code), "{code}: {:?}", returned.page);
    assert!(returned.page.body.contains("pgmoor"), "{:?}", returned.page);
    returned.answer("confirm").await;
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

#[tokio::test]
async fn browser_on_the_same_machine_brings_the_login_home_and_nobody_compares_a_code() {
    let here = arrange_ann().await;
    let home = tempfile::tempdir().unwrap();
    // What opens an address: it writes it down, for the test to go there.
    let opened = home.path().join("opened");
    let opener = home.path().join("xdg-open");
    std::fs::write(
        &opener,
        format!("#!/bin/sh\nprintf %s \"$1\" > {}\n", opened.display()),
    )
    .unwrap();
    std::fs::set_permissions(&opener, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let login = Process::builder(pgmoor_binary())
        .args(["login"])
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", home.path())
        .env("DISPLAY", ":0")
        .env("PGMOOR_URL", here.world.url())
        .spawn();
    let url = harness::eventually(
        super::arrangement::DEADLINE,
        "the browser is opened",
        async || {
            let url = std::fs::read_to_string(&opened).unwrap_or_default();
            if url.is_empty() {
                Err(login.log_text())
            } else {
                Ok(url)
            }
        },
    )
    .await;
    assert!(!login.log_text().contains("code "), "{}", login.log_text());
    let back = here.providers[0].fill_forms(&url, "ann").await;
    let page = e2e::http::request("GET", &back, "", None).await;
    assert_eq!(page.status, 303, "{page:?}");
    let home_again = page.header("location").unwrap();
    // Whoever asks for something else does not end it.
    let port = home_again.split('/').nth(2).unwrap();
    let other = e2e::http::request("GET", &format!("http://{port}/?code=evil"), "", None).await;
    assert_eq!(other.status, 404, "{other:?}");
    let end = e2e::http::request("GET", home_again, "", None).await;
    assert_eq!(end.status, 200, "{end:?}");
    let exit = login.wait_exit(Duration::from_secs(60)).await;
    assert!(exit.success(), "{}", login.log_text());
    assert!(login.log_text().contains("as ann"), "{}", login.log_text());
}
