//! `servers credentials`: what a server is logged in to with, beside its own role and password.

use clap::Subcommand;
use rpc::server::v1::{
    DeletePersonalCredentialRequest, DeleteReadOnlyCredentialRequest, GetPersonalCredentialRequest,
    PersonalCredential, SetPersonalCredentialRequest, SetReadOnlyCredentialRequest,
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::context::Context;
use crate::error::ClientError;
use crate::output::record::{Record, text, time};
use crate::password::PasswordOptions;
use crate::server_name;

/// What a server is logged in to with, beside its own role and password.
#[derive(Debug, Clone, Subcommand)]
pub enum Credentials {
    /// Show the credential of your own that you have on a server
    Show {
        /// The server: its name, id, display name, or group/name
        server: String,
    },
    /// Log in to a server as a role of your own; asks for its password
    SetPersonal {
        /// The server: its name, id, display name, or group/name
        server: String,
        /// The PostgreSQL role
        #[arg(long, value_name = "NAME")]
        role: String,
        #[command(flatten)]
        password: PasswordOptions,
    },
    /// Forget the credential of your own that you have on a server
    DeletePersonal {
        /// The server: its name, id, display name, or group/name
        server: String,
    },
    /// Have everybody's read-only sessions log in as this role; asks for its password
    SetReadOnly {
        /// The server: its name, id, display name, or group/name
        server: String,
        /// The PostgreSQL role
        #[arg(long, value_name = "NAME")]
        role: String,
        #[command(flatten)]
        password: PasswordOptions,
    },
    /// Have read-only sessions log in as any other does
    DeleteReadOnly {
        /// The server: its name, id, display name, or group/name
        server: String,
    },
}

impl Credentials {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::Show { server } => {
                let request = GetPersonalCredentialRequest {
                    name: server_name::resolve(context, &server).await?,
                };
                let client = context.connection()?.servers();
                let answer = context
                    .read(async || client.clone().get_personal_credential(request.clone()).await)
                    .await?;
                let found = answer.credential;
                context
                    .show(&found.ok_or(ClientError::Incomplete { field: "credential" })?)
                    .await
            }
            Self::SetPersonal {
                server,
                role,
                password,
            } => {
                let password = existing(context, &password, &role, &server).await?;
                let request = SetPersonalCredentialRequest {
                    name: server_name::resolve(context, &server).await?,
                    role,
                    password: password.expose_secret().to_owned(),
                };
                let client = context.connection()?.servers();
                context
                    .read(async || client.clone().set_personal_credential(request.clone()).await)
                    .await?;
                context
                    .notes
                    .line(&format!("you log in to {server} as {} from now on", request.role));
                Ok(())
            }
            Self::DeletePersonal { server } => {
                let request = DeletePersonalCredentialRequest {
                    name: server_name::resolve(context, &server).await?,
                };
                let client = context.connection()?.servers();
                context
                    .read(async || client.clone().delete_personal_credential(request.clone()).await)
                    .await?;
                context
                    .notes
                    .line(&format!("forgot your own credential of {server}"));
                Ok(())
            }
            Self::SetReadOnly {
                server,
                role,
                password,
            } => {
                let name = server_name::resolve(context, &server).await?;
                let password = existing(context, &password, &role, &server).await?;
                set_read_only(context, name, role, &password).await
            }
            Self::DeleteReadOnly { server } => {
                let request = DeleteReadOnlyCredentialRequest {
                    name: server_name::resolve(context, &server).await?,
                };
                let client = context.connection()?.servers();
                context
                    .read(async || client.clone().delete_read_only_credential(request.clone()).await)
                    .await?;
                context
                    .notes
                    .line(&format!("forgot the read-only credential of {server}"));
                Ok(())
            }
        }
    }
}

/// Stores what read-only sessions of a server log in with.
async fn set_read_only(
    context: &mut Context,
    name: String,
    role: String,
    password: &SecretString,
) -> Result<(), ClientError> {
    let request = SetReadOnlyCredentialRequest {
        name,
        role,
        password: password.expose_secret().to_owned(),
    };
    let client = context.connection()?.servers();
    context
        .read(async || client.clone().set_read_only_credential(request.clone()).await)
        .await?;
    let role = &request.role;
    context
        .notes
        .line(&format!("read-only sessions log in as {role} from now on"));
    Ok(())
}

async fn existing(
    context: &mut Context,
    options: &PasswordOptions,
    role: &str,
    server: &str,
) -> Result<SecretString, ClientError> {
    let question = format!("password of {role} at {server}: ");
    let password = options.existing(context, &question).await?;
    if password.expose_secret().is_empty() {
        return Err(ClientError::usage("the password is empty"));
    }
    Ok(password)
}

impl Record for PersonalCredential {
    const MESSAGE: &'static str = "pgmoor.server.v1.PersonalCredential";
    const COLUMNS: &'static [&'static str] = &["role", "create_time"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![text(&self.role), time(self.create_time.as_ref())]
    }
}
