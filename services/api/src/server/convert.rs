//! Servers between the domain and the wire.

use domain::access::Caller;
use domain::endpoint::{Destination, Endpoint, SslMode, TlsPolicy};
use domain::name::{DisplayName, Identifier};
use rpc::server::v1 as proto;
use store::servers::Server;

use crate::context::Context;
use crate::duration::timestamp;
use crate::error::{Error, Violations};

/// The group of a server that names none, as pgAdmin calls it.
pub(super) const DEFAULT_GROUP: &str = "Servers";
/// The maintenance database of a server that names none.
pub(super) const DEFAULT_DATABASE: &str = "postgres";
const MAX_COMMENT_CHARS: usize = 1024;

/// A server, as a caller sees it.
pub(super) async fn shown(api: &Context, caller: &Caller, server: &Server) -> Result<proto::Server, Error> {
    let servers = api.store.servers();
    let own = servers
        .with_personal_credential(caller.user, &[server.id])
        .await?;
    Ok(self::server(server, !own.is_empty()))
}

/// A server, and whether the caller has a credential of their own there.
pub(super) fn server(server: &Server, has_personal_credential: bool) -> proto::Server {
    proto::Server {
        name: format!("servers/{}", server.id),
        display_name: server.display_name.to_string(),
        group: server.group.to_string(),
        instance: format!("instances/{}", server.instance_id),
        endpoints: endpoints_message(&server.destination),
        tls: Some(tls_message(&server.destination)),
        maintenance_database: server.maintenance_database.to_string(),
        username: server.username.to_string(),
        has_password: server.has_password,
        comment: server.comment.clone(),
        owner: server.owner().to_string(),
        create_time: Some(timestamp(server.create_time)),
        update_time: Some(timestamp(server.update_time)),
        etag: server.etag.to_string(),
        has_read_only_credential: server.read_only_role.is_some(),
        read_only_role: server
            .read_only_role
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        has_personal_credential,
    }
}

/// Where a destination listens.
pub(crate) fn endpoints_message(destination: &Destination) -> Vec<proto::Endpoint> {
    let endpoint = |endpoint: &Endpoint| proto::Endpoint {
        host: endpoint.host.to_string(),
        port: i32::from(endpoint.port.get()),
    };
    destination.endpoints().iter().map(endpoint).collect()
}

/// What a destination demands of TLS.
pub(crate) fn tls_message(destination: &Destination) -> proto::TlsPolicy {
    let tls = destination.tls();
    proto::TlsPolicy {
        mode: match tls.mode() {
            SslMode::Disable => proto::SslMode::Disable,
            SslMode::Require => proto::SslMode::Require,
            SslMode::VerifyFull => proto::SslMode::VerifyFull,
        }
        .into(),
        root_certificates: tls.root_certificates().unwrap_or_default().to_owned(),
    }
}

/// Reads endpoints, with a note for each that is wrong.
pub(super) fn endpoints(given: &[proto::Endpoint], violations: &mut Violations) -> Option<Vec<Endpoint>> {
    let read: Vec<_> = given
        .iter()
        .enumerate()
        .map(|(index, endpoint)| {
            let read = Endpoint::new(&endpoint.host, i64::from(endpoint.port));
            violations.check(&format!("server.endpoints[{index}]"), read)
        })
        .collect();
    read.into_iter().collect()
}

/// Reads what is demanded of TLS.
pub(super) fn tls(given: Option<&proto::TlsPolicy>, violations: &mut Violations) -> Option<TlsPolicy> {
    let Some(given) = given else {
        return Some(TlsPolicy::default());
    };
    let mode = match proto::SslMode::try_from(given.mode) {
        Ok(proto::SslMode::Unspecified | proto::SslMode::VerifyFull) => SslMode::VerifyFull,
        Ok(proto::SslMode::Require) => SslMode::Require,
        Ok(proto::SslMode::Disable) => SslMode::Disable,
        Err(_) => {
            violations.add("server.tls.mode", "is not a known value");
            return None;
        }
    };
    let tls = checked_tls(mode, &given.root_certificates);
    violations.check("server.tls.root_certificates", tls)
}

/// What is demanded of TLS, in a form that can be stored.
pub(super) fn checked_tls(mode: SslMode, root_certificates: &str) -> Result<TlsPolicy, String> {
    if root_certificates.contains('\0') {
        return Err("must not contain NUL".to_owned());
    }
    TlsPolicy::new(mode, root_certificates).map_err(|error| error.to_string())
}

/// Reads a display name.
pub(super) fn display_name(given: &str, violations: &mut Violations) -> Option<DisplayName> {
    violations.check("server.display_name", given.parse())
}

/// Reads a group.
pub(super) fn group(given: &str, violations: &mut Violations) -> Option<DisplayName> {
    let given = if given.is_empty() { DEFAULT_GROUP } else { given };
    violations.check("server.group", given.parse())
}

/// Reads a maintenance database.
pub(super) fn maintenance_database(given: &str, violations: &mut Violations) -> Option<Identifier> {
    let given = if given.is_empty() { DEFAULT_DATABASE } else { given };
    violations.check("server.maintenance_database", given.parse())
}

/// Reads the name of a role.
pub(super) fn username(given: &str, violations: &mut Violations) -> Option<Identifier> {
    violations.check("server.username", given.parse())
}

/// Reads a comment.
pub(super) fn comment(given: String, violations: &mut Violations) -> Option<String> {
    violations.check("server.comment", checked_comment(given))
}

/// A comment that can be stored.
pub(super) fn checked_comment(given: String) -> Result<String, String> {
    if given.chars().count() > MAX_COMMENT_CHARS {
        return Err(format!("must have at most {MAX_COMMENT_CHARS} characters"));
    }
    if given.contains('\0') {
        return Err("must not contain NUL".to_owned());
    }
    Ok(given)
}
