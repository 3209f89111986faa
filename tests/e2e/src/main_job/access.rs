//! Steps 11 and 12: a colleague who may only read, and writes for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::eventually;
use rpc::access::v1::{
    AccessLevel, ApproveElevationRequest, CreateGrantRequest, Elevation, EndElevationRequest, Grant,
    PolicyPreset, RequestElevationRequest, ServerPolicy, UpdateServerPolicyRequest,
};
use rpc::audit::v1::{AuditFilter, ListAuditRecordsRequest};
use rpc::auth::v1::WhoAmIRequest;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{GetSessionRequest, SessionAccess};
use rpc::server::v1::GetServerRequest;
use tonic::Code;

use super::MainJob;
use crate::{Client, reason};

const UPDATE: &str = "UPDATE sales.pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1";
const SOON: Duration = Duration::from_secs(30);

/// The colleague, and the session they have.
#[derive(Debug)]
pub(super) struct Colleague {
    client: Client,
    session: String,
}

pub(super) async fn share_to_read(job: &mut MainJob) -> anyhow::Result<String> {
    let (owner, server) = (job.balanced()?, job.registered()?);
    let colleague = job.world.create_user().await;
    let me = colleague
        .a()
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await?
        .into_inner();
    let get = GetServerRequest { name: server.clone() };
    let unseen = colleague.a().servers().get_server(get).await;
    ensure!(
        unseen
            .as_ref()
            .is_err_and(|status| status.code() == Code::NotFound),
        "before the grant: {unseen:?}"
    );
    let grant = CreateGrantRequest {
        parent: server.clone(),
        grant: Some(Grant {
            member: me.user,
            access: AccessLevel::ReadOnly.into(),
            ..Grant::default()
        }),
    };
    owner.grants().create_grant(grant).await?;
    set_policy(&owner, &server, PolicyPreset::Production).await?;

    let session = colleague.a().open_auto(&server).await?.name;
    let read = colleague
        .b()
        .execute(&session, "SELECT count(*) FROM sales.pgbench_tellers")
        .await?;
    let refused = colleague.b().execute(&session, UPDATE).await?;
    ensure!(refused.sqlstate() == "25006", "the UPDATE gave {refused:?}");
    let outcome = format!(
        "unseen before the grant; then {} rows read, and UPDATE refused (SQLSTATE {})",
        read.value(),
        refused.sqlstate()
    );
    job.colleague = Some(Colleague {
        client: colleague.balanced,
        session,
    });
    Ok(outcome)
}

pub(super) async fn write_for_a_while(job: &mut MainJob) -> anyhow::Result<String> {
    let (owner, server) = (job.b()?, job.registered()?);
    let Colleague { client, session } = job.colleague.as_ref().context("nobody else is there")?;
    let request = RequestElevationRequest {
        parent: server.clone(),
        elevation: Some(Elevation {
            reason: "a teller's balance is wrong".to_owned(),
            duration: Some(minute()),
            ..Elevation::default()
        }),
    };
    let asked = client.elevations().request_elevation(request).await?.into_inner();
    let asked = asked.elevation.context("no elevation was made")?;
    let approve = ApproveElevationRequest {
        name: asked.name.clone(),
        etag: asked.etag,
    };
    let own = client.elevations().approve_elevation(approve.clone()).await;
    let refused = own.err().map(|status| reason::of(&status).1);
    ensure!(
        refused == Some(ErrorReason::SelfApproval),
        "approving it oneself gave {refused:?}"
    );
    owner.elevations().approve_elevation(approve).await?;
    comes_to(client, session, SessionAccess::ReadWrite).await;
    let written = client.execute(session, UPDATE).await?;
    ensure!(written.tags == ["UPDATE 1"], "the UPDATE gave {written:?}");

    let end = EndElevationRequest {
        name: asked.name.clone(),
        etag: String::new(),
    };
    owner.elevations().end_elevation(end).await?;
    comes_to(client, session, SessionAccess::ReadOnly).await;
    let refused = eventually(SOON, "the session was told", async || {
        match client.execute(session, UPDATE).await {
            Ok(executed) => Ok(executed),
            // Once.
            Err(status) => Err(reason::text(&status)),
        }
    });
    let refused = refused.await;
    ensure!(
        refused.sqlstate() == "25006",
        "afterwards the UPDATE gave {refused:?}"
    );
    let trail = trail(&owner, &asked.name).await;
    set_policy(&owner, &server, PolicyPreset::Staging).await?;
    Ok(format!(
        "asked, not by oneself but by the owner approved, {} in the same session, ended: refused again; in the audit trail: {}",
        written.tags.join(", "),
        trail.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

async fn set_policy(owner: &Client, server: &str, preset: PolicyPreset) -> anyhow::Result<()> {
    let request = UpdateServerPolicyRequest {
        server: server.to_owned(),
        preset: preset.into(),
        policy: Some(ServerPolicy {
            max_elevation: Some(minute()),
            ..ServerPolicy::default()
        }),
        ..UpdateServerPolicyRequest::default()
    };
    owner.grants().update_server_policy(request).await?;
    Ok(())
}

fn minute() -> prost_types::Duration {
    prost_types::Duration {
        seconds: 60,
        nanos: 0,
    }
}

async fn comes_to(client: &Client, session: &str, access: SessionAccess) {
    eventually(SOON, "the session's access changes", async || {
        let name = session.to_owned();
        let session = client.query().get_session(GetSessionRequest { name }).await;
        let session = session
            .map_err(|status| reason::text(&status))?
            .into_inner()
            .session;
        match session.map(|session| session.access()) {
            Some(now) if now == access => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The methods that the trail has about an elevation, as soon as it has the last of them.
async fn trail(reader: &Client, elevation: &str) -> BTreeSet<String> {
    eventually(SOON, "the records are written", async || {
        let request = ListAuditRecordsRequest {
            filter: Some(AuditFilter {
                resource: elevation.to_owned(),
                ..AuditFilter::default()
            }),
            page_size: 100,
            ..ListAuditRecordsRequest::default()
        };
        let page = reader.audit().list_audit_records(request).await;
        let records = page.map_err(|status| reason::text(&status))?.into_inner().records;
        let methods: BTreeSet<String> = records
            .iter()
            .filter_map(|record| record.method.rsplit('/').next())
            .map(str::to_owned)
            .collect();
        match ["ApproveElevation", "EndElevation", "Execute"]
            .iter()
            .all(|method| methods.contains(*method))
        {
            true => Ok(methods),
            false => Err(format!("{methods:?}")),
        }
    })
    .await
}
