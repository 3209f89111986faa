//! `login` with a provider: the person goes on in a browser, and the tokens are collected here.

use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use data_encoding::BASE64URL_NOPAD;
use rpc::auth::v1::start_login_request::Flow;
use rpc::auth::v1::{
    BrowserFlow, DeviceFlow, GetLoginOptionsRequest, LoginProvider, PollLoginRequest, StartLoginRequest,
    StartLoginResponse,
};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use crate::connection::{Call, Connection};
use crate::context::Context;
use crate::error::ClientError;
use crate::profile::{Credentials, Profile, ProfileError};

/// A poll may be this long on the way, beyond the 20 s the server waits.
const POLL_DEADLINE: Duration = Duration::from_secs(40);
/// What opens an address in the user's browser.
const OPENERS: [&str; 2] = ["xdg-open", "open"];

/// Options of a login with a provider.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProviderOptions {
    /// Log in with this provider; without it the profile's, or the server's if it has one only
    #[arg(long, value_name = "ID", conflicts_with_all = ["user", "password_stdin", "password_file"])]
    provider: Option<String>,
    /// Enter a code on another device instead of logging in in a browser here
    #[arg(long, conflicts_with_all = ["user", "password_stdin", "password_file"])]
    device: bool,
    /// Print the address instead of opening a browser
    #[arg(long)]
    no_browser: bool,
}

/// Which provider to log in with; none for a password.
pub(crate) async fn choose(
    options: &ProviderOptions,
    profile: &Profile,
    context: &mut Context,
) -> Result<Option<LoginProvider>, ClientError> {
    let asked = options.provider.is_some() || options.device;
    let remembered = profile.provider.clone();
    if !asked && remembered.is_none() && profile.user.is_some() {
        return Ok(None);
    }
    let connection = context.anonymous_connection()?;
    let client = connection.auth();
    let call = Call::repeatable(context.globals.timeout());
    let known = connection
        .call(call, async || {
            client.clone().get_login_options(GetLoginOptionsRequest {}).await
        })
        .await?
        .providers;
    let wanted = options.provider.clone().or(remembered);
    let ids: Vec<&str> = known.iter().map(|provider| provider.id.as_str()).collect();
    let names = ids.join(", ");
    match wanted {
        Some(wanted) => match known.iter().find(|provider| provider.id == wanted) {
            Some(provider) => Ok(Some(provider.clone())),
            None if ids.is_empty() => Err(ClientError::usage(
                "the server has no providers; log in with --user and a password",
            )),
            None => Err(ClientError::usage(format!(
                "the server has no provider {wanted:?}; it has {names}"
            ))),
        },
        None => match known.as_slice() {
            [only] => Ok(Some(only.clone())),
            [] if asked => Err(ClientError::usage(
                "the server has no providers; log in with --user and a password",
            )),
            [] => Ok(None),
            _ => Err(ClientError::usage(format!(
                "choose a provider with --provider ({names}), or name the user with --user"
            ))),
        },
    }
}

/// Logs in with a provider.
pub(crate) async fn run(
    options: ProviderOptions,
    provider: LoginProvider,
    profile: Profile,
    context: &mut Context,
) -> Result<(), ClientError> {
    let store = profile.credentials.clone().ok_or(ProfileError::NoHome)?;
    let connection = context.anonymous_connection()?;
    // 64 characters of 256 random bits.
    let verifier = format!("{}{}", context.request_id(), context.request_id());
    let flow = if options.device {
        Flow::Device(DeviceFlow {})
    } else {
        Flow::Browser(BrowserFlow::default())
    };
    let request = StartLoginRequest {
        provider: provider.id.clone(),
        code_challenge: BASE64URL_NOPAD.encode(&Sha256::digest(&verifier)),
        flow: Some(flow),
    };
    let client = connection.auth();
    let started = connection
        .call(Call::once(context.globals.timeout()), async || {
            client.clone().start_login(request.clone()).await
        })
        .await?;
    tell(&started, &provider, !options.no_browser, context);
    let request = PollLoginRequest {
        login_id: started.login_id.clone(),
        code_verifier: verifier,
        redirect_code: String::new(),
    };
    let (tokens, username) = wait(&connection, &started, request).await?;
    let lock = store.lock().await?;
    store.write(&Credentials::of(&profile.url, &username, tokens), &lock)?;
    profile.remember(&username, Some(&provider.id))?;
    context.notes.line(&format!(
        "logged in to {} as {username} (profile {})",
        profile.url, profile.name
    ));
    Ok(())
}

/// Polls until the login has ended.
async fn wait(
    connection: &Connection,
    started: &StartLoginResponse,
    request: PollLoginRequest,
) -> Result<(rpc::auth::v1::TokenPair, String), ClientError> {
    let interval = started.poll_interval.as_ref();
    let interval = interval.map_or(1, |interval| interval.seconds.clamp(1, 60));
    // The server ends the login after ten minutes; this is for one that does not answer.
    let end = Instant::now() + Duration::from_secs(15 * 60);
    let client = connection.auth();
    loop {
        let answer = connection
            .call(Call::repeatable(POLL_DEADLINE), async || {
                client.clone().poll_login(request.clone()).await
            })
            .await?;
        if let Some(tokens) = answer.tokens {
            return Ok((tokens, answer.username));
        }
        if Instant::now() >= end {
            return Err(ClientError::usage(
                "the login did not end in time; begin it again",
            ));
        }
        sleep(Duration::from_secs(u64::try_from(interval).unwrap_or(1))).await;
    }
}

/// Says what to do, and opens a browser where there is one.
fn tell(started: &StartLoginResponse, provider: &LoginProvider, open: bool, context: &mut Context) {
    let name = &provider.display_name;
    if started.authorization_url.is_empty() {
        let notes = &mut context.notes;
        notes.line(&format!("log in with {name} on another device: open"));
        notes.line(&format!("  {}", started.verification_uri));
        notes.line(&format!("and enter the code {}", started.user_code));
        return;
    }
    let url = &started.authorization_url;
    let opened = open && context.environment.has_display && open_browser(url);
    if opened {
        context.notes.line(&format!(
            "your browser opens to log in with {name}; if it does not, open"
        ));
    } else {
        context.notes.line(&format!("to log in with {name}, open"));
    }
    context.notes.line(&format!("  {url}"));
    context.notes.line(&format!(
        "the page at the end has to show the code {}",
        started.confirmation_code
    ));
}

/// True where a program took the address. What it writes is not ours to show.
fn open_browser(url: &str) -> bool {
    // What a server sends is opened in a browser only.
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return false;
    }
    OPENERS.iter().any(|opener| {
        Command::new(opener)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .is_ok()
    })
}
