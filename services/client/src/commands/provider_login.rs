//! `login` with a provider: the person goes on in a browser, and the tokens are collected here.

use std::pin::pin;
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
use crate::loopback::Loopback;
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

/// How a login goes on that has begun.
struct Begun {
    started: StartLoginResponse,
    verifier: String,
    /// Where a browser on this machine comes back; nowhere where there is none.
    loopback: Option<Loopback>,
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
    let begun = begin(&options, &provider, &connection, context).await?;
    let (tokens, username) = wait(&connection, begun).await?;
    let lock = store.lock().await?;
    store.write(&Credentials::of(&profile.url, &username, tokens), &lock)?;
    profile.remember(&username, Some(&provider.id))?;
    context.notes.line(&format!(
        "logged in to {} as {username} (profile {})",
        profile.url, profile.name
    ));
    Ok(())
}

/// Begins the login and says what to do. Where a browser opens here it comes back here, and nobody needs to compare a code.
async fn begin(
    options: &ProviderOptions,
    provider: &LoginProvider,
    connection: &Connection,
    context: &mut Context,
) -> Result<Begun, ClientError> {
    let opens_here = !options.device && !options.no_browser && context.environment.has_display;
    if opens_here && let Ok(loopback) = Loopback::bind(&context.request_id()).await {
        let flow = Flow::Browser(BrowserFlow {
            redirect_uri: loopback.redirect_uri().to_owned(),
        });
        let (started, verifier) = start(flow, provider, connection, context).await?;
        if open_browser(&started.authorization_url) {
            tell_of_browser(&started, provider, context);
            return Ok(Begun {
                started,
                verifier,
                loopback: Some(loopback),
            });
        }
        // No browser here: the one that the person goes on with may be on another machine.
    }
    let flow = if options.device {
        Flow::Device(DeviceFlow {})
    } else {
        Flow::Browser(BrowserFlow::default())
    };
    let (started, verifier) = start(flow, provider, connection, context).await?;
    tell(&started, provider, context);
    Ok(Begun {
        started,
        verifier,
        loopback: None,
    })
}

/// Begins a login. Returns the secret too, with which its tokens are collected.
async fn start(
    flow: Flow,
    provider: &LoginProvider,
    connection: &Connection,
    context: &Context,
) -> Result<(StartLoginResponse, String), ClientError> {
    // 64 characters of 256 random bits.
    let verifier = format!("{}{}", context.request_id(), context.request_id());
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
    Ok((started, verifier))
}

/// Polls until the login has ended.
async fn wait(
    connection: &Connection,
    begun: Begun,
) -> Result<(rpc::auth::v1::TokenPair, String), ClientError> {
    let Begun {
        started,
        verifier,
        loopback,
    } = begun;
    let mut request = PollLoginRequest {
        login_id: started.login_id.clone(),
        code_verifier: verifier,
        redirect_code: String::new(),
    };
    let interval = started.poll_interval.as_ref();
    let interval = interval.map_or(1, |interval| interval.seconds.clamp(1, 60));
    let interval = Duration::from_secs(u64::try_from(interval).unwrap_or(1));
    // The server ends the login after ten minutes; this is for one that does not answer.
    let end = Instant::now() + Duration::from_secs(15 * 60);
    let client = connection.auth();
    // One wait for all polls: a browser that is being answered is not hung up on.
    let mut code = pin!(async {
        match &loopback {
            Some(loopback) => loopback.code().await,
            None => std::future::pending().await,
        }
    });
    loop {
        // Polled while the browser is away too, to learn of a refusal.
        let poll = async {
            let answer = connection
                .call(Call::repeatable(POLL_DEADLINE), async || {
                    client.clone().poll_login(request.clone()).await
                })
                .await;
            if answer.as_ref().is_ok_and(|answer| answer.tokens.is_none()) {
                sleep(interval).await;
            }
            answer
        };
        let answer = tokio::select! {
            code = &mut code, if request.redirect_code.is_empty() => {
                request.redirect_code = code;
                continue;
            }
            answer = poll => answer?,
        };
        if let Some(tokens) = answer.tokens {
            return Ok((tokens, answer.username));
        }
        if Instant::now() >= end {
            return Err(ClientError::usage(
                "the login did not end in time; begin it again",
            ));
        }
    }
}

/// Says that a browser opens here.
fn tell_of_browser(started: &StartLoginResponse, provider: &LoginProvider, context: &mut Context) {
    let notes = &mut context.notes;
    notes.line(&format!(
        "your browser opens to log in with {}; if it does not, open on this machine",
        provider.display_name
    ));
    notes.line(&format!("  {}", started.authorization_url));
    notes.line("(with a browser on another machine, log in with --no-browser)");
}

/// Says what to do.
fn tell(started: &StartLoginResponse, provider: &LoginProvider, context: &mut Context) {
    let name = &provider.display_name;
    let notes = &mut context.notes;
    if started.authorization_url.is_empty() {
        notes.line(&format!("log in with {name} on another device: open"));
        notes.line(&format!("  {}", started.verification_uri));
        notes.line(&format!("and enter the code {}", started.user_code));
        return;
    }
    notes.line(&format!("to log in with {name}, open"));
    notes.line(&format!("  {}", started.authorization_url));
    notes.line(&format!(
        "and confirm the login there if the page shows the code {}",
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
