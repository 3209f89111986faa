//! `pgmoor admin create-user`: how a fresh config database gets its first administrator.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use auth::Passwords;
use clap::Args;
use config::Config;
use data_encoding::BASE32_NOPAD;
use domain::id::UserId;
use domain::name::DisplayName;
use domain::random::{self, Random, SystemRandom};
use domain::username::Username;
use secrecy::{ExposeSecret, SecretString};
use store::users::NewUser;

use crate::database;
use crate::exit::BadArgument;

/// Longest text read as a password.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

/// Arguments of `create-user`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The login name
    #[arg(long)]
    username: String,
    /// What people call the user; the login name unless given
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Let the user administer pgmoor
    #[arg(long)]
    administrator: bool,
    #[command(flatten)]
    password: PasswordSource,
}

/// Where the password comes from; without any, one is generated and printed once.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct PasswordSource {
    /// Read the password from the first line of a file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// Ask for the password on the terminal
    #[arg(long)]
    password_prompt: bool,
}

/// Makes the user.
///
/// # Errors
/// When a name or the password is not allowed, the login name is taken, or the database cannot be used.
pub(crate) async fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<()> {
    let username: Username = arguments
        .username
        .parse()
        .map_err(|error| bad("--username", error))?;
    let display_name = arguments.display_name.as_deref().unwrap_or(&arguments.username);
    let display_name: DisplayName = display_name
        .parse()
        .map_err(|error| bad("--display-name", error))?;
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let (password, generated) = match arguments.password.read()? {
        Some(password) => (password, false),
        None => (generate(random.as_ref()), true),
    };
    let hash = Passwords::new(random.clone(), 1)?
        .hash(&password)
        .await
        .context("the password cannot be used")?;
    let store = database::connect(&config.config_database, "pgmoor admin").await?;
    let new = NewUser {
        id: UserId::generate(random.as_ref()),
        username,
        display_name,
        password_hash: Some(hash),
        administrator: arguments.administrator,
    };
    let user = store.users().create(new).await.context("the user was not made")?;
    store.close().await;

    let mut out = std::io::stdout().lock();
    let kind = if user.administrator {
        "administrator"
    } else {
        "user"
    };
    writeln!(out, "made the {kind} {} (users/{})", user.username, user.id)?;
    if generated {
        writeln!(out, "password: {}", password.expose_secret())?;
    }
    Ok(())
}

fn bad(argument: &'static str, reason: impl std::fmt::Display) -> BadArgument {
    BadArgument {
        argument,
        reason: reason.to_string(),
    }
}

/// 120 random bits, as 24 letters and digits.
pub(crate) fn generate(random: &dyn Random) -> SecretString {
    SecretString::from(BASE32_NOPAD.encode(&random::bytes::<15>(random)).to_lowercase())
}

impl PasswordSource {
    /// The password, where there is a source.
    pub(crate) fn read(&self) -> anyhow::Result<Option<SecretString>> {
        let text = if let Some(path) = &self.password_file {
            let file = std::fs::File::open(path)
                .with_context(|| format!("the password file {} cannot be read", path.display()))?;
            first_line(file)
                .with_context(|| format!("the password file {} cannot be used", path.display()))?
        } else if self.password_stdin {
            first_line(std::io::stdin().lock()).context("no password came on standard input")?
        } else if self.password_prompt {
            prompt()?
        } else {
            return Ok(None);
        };
        Ok(Some(text))
    }
}

fn first_line(source: impl Read) -> anyhow::Result<SecretString> {
    let mut text = String::new();
    source.take(MAX_INPUT_BYTES).read_to_string(&mut text)?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(SecretString::from(line)),
        _ => bail!("its first line is empty"),
    }
}

fn prompt() -> anyhow::Result<SecretString> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask for the password on; use --password-stdin or --password-file");
    }
    let password = SecretString::from(rpassword::prompt_password("Password: ")?);
    let again = SecretString::from(rpassword::prompt_password("Again: ")?);
    if password.expose_secret() != again.expose_secret() {
        bail!("the two passwords differ");
    }
    Ok(password)
}
