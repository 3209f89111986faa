//! A world with one or two providers, and clients that log in with them.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use e2e::http::{Answer, Browser};
use e2e::provider::{CLIENT_ID, OpenIdProvider};
use e2e::secrets::Secrets;
use e2e::world::OidcOptions;
use e2e::{Client, World, WorldOptions};
use harness::{free_port, random};
use rpc::auth::v1::{
    PollLoginRequest, RefreshTokenRequest, StartLoginRequest, StartLoginResponse, TokenPair, WhoAmIResponse,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};
use tonic::Status;

pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// A world and its providers.
pub(crate) struct Arrangement {
    pub(crate) world: World,
    pub(super) providers: Vec<OpenIdProvider>,
    pub(super) external_port: u16,
}

/// A world without poolers and workers, which nobody logs in needs. `extra` are lines of each provider's table.
pub(super) async fn arrange(accounts: &[Value], oidc: &str, extra: &str) -> Arrangement {
    let options = WorldOptions {
        poolers: 0,
        workers: 0,
        ..WorldOptions::default()
    };
    arrange_in(options, accounts, oidc, extra).await
}

/// A world with one provider, at which there is Ann.
pub(super) async fn arrange_ann() -> Arrangement {
    let ann = json!({ "ann": { "preferred_username": "ann" } });
    arrange(&[ann], "", "auto_create = true").await
}

/// A world with that and providers.
pub(crate) async fn arrange_in(
    options: WorldOptions,
    accounts: &[Value],
    oidc: &str,
    extra: &str,
) -> Arrangement {
    let external_port = free_port();
    let secrets = Secrets::default();
    let mut providers = Vec::new();
    let mut section = format!("[oidc]\n{oidc}\n");
    for (index, accounts) in accounts.iter().enumerate() {
        let redirect_uri = OidcOptions::redirect_uri(external_port, &format!("idp-{index}"));
        let provider = OpenIdProvider::start(&redirect_uri, accounts.clone(), &secrets).await;
        section += &format!(
            "[[oidc.providers]]\nid = \"idp-{index}\"\ndisplay_name = \"Provider {index}\"\nissuer = {:?}\n\
             client_id = {CLIENT_ID:?}\nclient_secret = {:?}\nusername_claim = \"preferred_username\"\n\
             groups_claim = \"groups\"\n{extra}\n",
            provider.issuer(),
            provider.client_secret(),
        );
        providers.push(provider);
    }
    let world = World::start(WorldOptions {
        oidc: Some(OidcOptions {
            external_port,
            section,
        }),
        ..options
    })
    .await;
    for provider in &providers {
        world
            .secrets()
            .remember("a client secret", provider.client_secret());
    }
    Arrangement {
        world,
        providers,
        external_port,
    }
}

/// A login that a client has begun.
#[derive(Clone)]
pub(super) struct Begun {
    pub(super) verifier: String,
    pub(super) started: StartLoginResponse,
}

/// Begins a login in a browser.
pub(super) async fn begin(client: &Client, provider: &str) -> Result<Begun, Status> {
    begin_with(client, provider, None).await
}

/// The same with a flow.
pub(super) async fn begin_with(
    client: &Client,
    provider: &str,
    flow: Option<rpc::auth::v1::start_login_request::Flow>,
) -> Result<Begun, Status> {
    let verifier = format!("{}{}", random::password(), "v".repeat(43));
    let request = StartLoginRequest {
        provider: provider.to_owned(),
        code_challenge: BASE64URL_NOPAD.encode(&Sha256::digest(&verifier)),
        flow,
    };
    let started = client.auth().start_login(request).await?.into_inner();
    Ok(Begun { verifier, started })
}

/// Polls until the login has ended.
pub(super) async fn poll(client: &Client, begun: &Begun) -> Result<TokenPair, Status> {
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = poll_once(client, begun, "").await?;
        if let Some(tokens) = answer {
            return Ok(tokens);
        }
        assert!(Instant::now() < end, "the login does not end");
    }
}

/// Whether the login can be collected: asks for two seconds, in which the server looks four times.
pub(super) async fn can_be_collected(client: &Client, begun: &Begun) -> bool {
    let asked = timeout(Duration::from_secs(2), poll_once(client, begun, "")).await;
    asked.is_ok_and(|answer| answer.unwrap().is_some())
}

/// Polls once.
pub(super) async fn poll_once(
    client: &Client,
    begun: &Begun,
    redirect_code: &str,
) -> Result<Option<TokenPair>, Status> {
    let request = PollLoginRequest {
        login_id: begun.started.login_id.clone(),
        code_verifier: begun.verifier.clone(),
        redirect_code: redirect_code.to_owned(),
    };
    Ok(client.auth().poll_login(request).await?.into_inner().tokens)
}

impl Arrangement {
    /// An instance, without the balancer.
    pub(super) fn api(&self, index: usize) -> Client {
        Client::anonymous(&self.world.apis()[index].url())
    }

    /// Logs somebody in with the provider's forms and answers what the browser is shown when it comes back.
    pub(super) async fn browse(&self, provider: usize, begun: &Begun, login: &str) -> Returned {
        let provider = &self.providers[provider];
        let back = provider.fill_forms(&begun.started.authorization_url, login).await;
        Returned::open(&back).await
    }

    /// The same, and confirms the login where the page asks for it.
    pub(super) async fn browse_and_confirm(&self, provider: usize, begun: &Begun, login: &str) {
        let mut returned = self.browse(provider, begun, login).await;
        if returned.page.status == 200 {
            let done = returned.answer("confirm").await;
            assert!(done.body.contains("You are logged in"), "{done:?}");
        }
    }

    /// Logs somebody in, from beginning to tokens.
    pub(crate) async fn log_in(&self, provider: usize, login: &str) -> Result<TokenPair, Status> {
        let client = self.world.anonymous();
        let begun = begin(&client, &format!("idp-{provider}")).await?;
        self.browse_and_confirm(provider, &begun, login).await;
        poll(&client, &begun).await
    }

    /// Refreshes a login.
    pub(super) async fn refresh(&self, tokens: &TokenPair) -> Result<TokenPair, Status> {
        let request = RefreshTokenRequest {
            refresh_token: tokens.refresh_token.clone(),
        };
        let answer = self.world.anonymous().auth().refresh_token(request).await?;
        Ok(answer.into_inner().tokens.unwrap())
    }

    /// Who a token's holder is.
    pub(super) async fn who(&self, tokens: &TokenPair) -> WhoAmIResponse {
        let client = self.world.anonymous().with_token(&tokens.access_token);
        let who = client.auth().who_am_i(rpc::auth::v1::WhoAmIRequest {}).await;
        who.unwrap().into_inner()
    }
}

/// A browser that came back from a provider.
pub(super) struct Returned {
    pub(super) browser: Browser,
    pub(super) page: Answer,
    origin: String,
}

impl Returned {
    /// Opens the address that the provider sent the browser to.
    pub(super) async fn open(back: &str) -> Self {
        let mut browser = Browser::default();
        let page = browser.get(back).await;
        let origin = back.split("/oidc/").next().unwrap().to_owned();
        Self {
            browser,
            page,
            origin,
        }
    }

    /// The form that the page asks with, filled with an answer.
    pub(super) fn form(&self, answer: &str) -> String {
        let token = self.page.body.split("name=\"token\" value=\"").nth(1);
        let token = token.unwrap_or_else(|| panic!("the page does not ask: {:?}", self.page));
        let token = token.split('"').next().unwrap();
        format!("token={token}&answer={answer}")
    }

    /// Where the form goes.
    pub(super) fn confirm_url(&self) -> String {
        format!("{}/oidc/confirm", self.origin)
    }

    /// Answers the page.
    pub(super) async fn answer(&mut self, answer: &str) -> Answer {
        let (url, form) = (self.confirm_url(), self.form(answer));
        self.browser.post(&url, &form).await
    }
}
