//! RequestElevation.

use domain::access::{
    Denial, MAX_DATABASES, MAX_ELEVATION, MAX_REASON_CHARS, MIN_ELEVATION, Permission, decide,
};
use domain::id::ElevationId;
use domain::name::Identifier;
use domain::session::SessionName;
use rpc::access::v1 as proto;
use store::elevations::{ElevationError, ElevationWish};

use super::{cause, convert};
use crate::context::{Call, Context};
use crate::duration::decode_within;
use crate::error::{Error, Violations};
use crate::{access, resource};

/// Asks to write for a while.
pub(super) async fn request_elevation(
    api: &Context,
    call: Call<proto::RequestElevationRequest>,
) -> Result<proto::RequestElevationResponse, Error> {
    let server = resource::server("parent", &call.message.parent)?;
    let mut violations = Violations::default();
    let wish = wish(
        &call.message.parent,
        call.message.elevation.unwrap_or_default(),
        &mut violations,
    );
    let permission = Permission::ElevationsRequest;
    let accessed = access::accessed(api, &call.caller, server, permission).await?;
    let Some(wish) = wish else {
        return Err(violations.into_error());
    };
    let longest = accessed.facts.policy.max_elevation;
    let longest = longest.ok_or(Error::PolicyForbids { permission })?;
    if wish.duration > longest {
        let most = format_args!(
            "must be at most {} s, as the policy of the server says",
            longest.as_secs()
        );
        violations.add("elevation.duration", most);
    }
    violations.done()?;
    for database in &wish.databases {
        let decision = decide(&accessed.facts, Some(database), accessed.facts.read_time);
        let use_it = Permission::SessionsUse;
        decision.check(use_it).map_err(|denial| match denial {
            Denial::Database => Error::DatabaseNotAllowed {
                database: database.to_string(),
            },
            _ => auth::AuthError::PermissionMissing { permission: use_it }.into(),
        })?;
    }
    // Whoever decides reads it, and the audit trail names it: nobody names another's. The pooler knows whose it is.
    if let Ok(session) = wish.session.parse::<SessionName>() {
        api.sessions.get_session(&call.token, session).await?;
    }
    let id = ElevationId::generate(api.random.as_ref());
    let elevations = api.store.elevations();
    let made = elevations.request(id, server, call.caller.user, &wish).await;
    let made = made.map_err(|error| match error {
        ElevationError::NotFound => access::no_server(server),
        error => cause(error, server, id),
    })?;
    Ok(proto::RequestElevationResponse {
        elevation: Some(convert::elevation(&made)),
    })
}

/// Reads what is asked for; nothing with a note of each field that is wrong.
fn wish(server: &str, asked: proto::Elevation, violations: &mut Violations) -> Option<ElevationWish> {
    let chars = asked.reason.chars().count();
    let is_text = |text: &str| !text.chars().any(|char| char.is_control() && char != '\n');
    if asked.reason.trim().is_empty() || chars > MAX_REASON_CHARS || !is_text(&asked.reason) {
        let most = format_args!("must be 1 to {MAX_REASON_CHARS} characters");
        violations.add("elevation.reason", most);
    }
    let duration = asked.duration.ok_or_else(|| "must be given".to_owned());
    let duration = duration.and_then(|asked| decode_within(asked, MIN_ELEVATION, MAX_ELEVATION));
    let duration = duration.and_then(|asked| match asked.subsec_nanos() {
        0 => Ok(asked),
        _ => Err("must be in whole seconds".to_owned()),
    });
    let duration = violations.check("elevation.duration", duration);
    if asked.databases.len() > MAX_DATABASES {
        violations.add(
            "elevation.databases",
            format_args!("must be at most {MAX_DATABASES}"),
        );
        return None;
    }
    let databases = asked.databases.iter().enumerate().map(|(index, name)| {
        let field = format!("elevation.databases[{index}]");
        violations.check(&field, name.parse::<Identifier>())
    });
    let databases: Vec<_> = databases.collect();
    let session = asked.session.parse::<SessionName>().ok();
    let session = session.filter(|session| server == format!("servers/{}", session.server));
    if !asked.session.is_empty() && session.is_none() {
        violations.add("elevation.session", "must be a session on the server");
    }
    Some(ElevationWish {
        databases: databases.into_iter().collect::<Option<_>>()?,
        reason: asked.reason,
        duration: duration?,
        session: asked.session,
    })
}
