//! Connects to a server once and reports what answered.

use std::time::Duration;

use ::sessions::UserToken;
use domain::access::Permission;
use domain::endpoint::SslMode;
use rpc::server::v1::{ReplicationRole, RoleCapabilities, TestServerRequest, TestServerResponse};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Pooler;
use super::opening::Wish;
use crate::error::{PoolerError, TargetError};
use crate::facts::{self, RoleFacts};
use crate::inspection::Subject;
use crate::ledger::Class;
use crate::request;
use crate::status::internal;

const QUEUE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(10);

impl Pooler {
    pub(super) async fn test_server(
        &self,
        token: &UserToken,
        request: TestServerRequest,
    ) -> Result<TestServerResponse, PoolerError> {
        let caller = self.caller(token, Permission::ServersUse).await?;
        self.takes_new()?;
        let database = request::database(&request.database)?;
        let permission = Permission::ServersUse;
        let kind = request::credential(request.credential, caller.user)?;
        let (server, rights) = self
            .admitted(&caller, &request.name, permission, database.as_ref(), None)
            .await?;
        let credential = match kind {
            Some(kind) => {
                Box::pin(self.may_name(token, &request.name, database.as_ref(), &server, kind)).await?;
                Box::pin(self.login_of(&server, kind)).await?
            }
            None => Box::pin(self.login(&server, caller.user, rights.access())).await?,
        };
        let subject = Subject::new(&server, &credential, database.as_ref());
        let opened = Box::pin(self.open(Wish {
            user: caller.user,
            server: &server,
            credential,
            database: database.as_ref(),
            parameters: Vec::new(),
            class: Class::Interactive,
            holder: format!("servers/{}/test", server.id),
            queue_timeout: QUEUE,
            insist: true,
        }))
        .await?;
        // In a task of its own: a caller who goes away must not take the goodbye along.
        let (reply, answer) = oneshot::channel();
        let mut backend = opened.backend;
        let known = self.0.inspections.of(subject);
        let (pooler, tested, subject) = (self.clone(), server.clone(), known.subject.clone());
        self.0.tasks.spawn(async move {
            let role = timeout(ANSWER, facts::role(&mut backend.connection)).await;
            let finding = match &role {
                Ok(Ok(_)) => pooler.look_on(&mut backend, &tested, &known).await.ok(),
                _ => None,
            };
            backend.close().await;
            // Nobody may wait any more.
            let _ = reply.send((role, finding));
        });
        let (role, finding) = answer.await.map_err(|error| internal(&error))?;
        let role = role.map_err(|_| TargetError::Unreachable {
            reason: "the server did not answer in time".into(),
        })??;
        let facts = opened.facts;
        let replication = if facts.in_recovery {
            ReplicationRole::Standby
        } else {
            ReplicationRole::Primary
        };
        Ok(TestServerResponse {
            server_version: facts.server_version,
            replication_role: replication.into(),
            system_identifier: facts.system_identifier.unwrap_or_default(),
            pooler_in_front: facts.is_pooler,
            role: Some(capabilities(role)),
            // Every other mode refuses a connection that is not.
            encrypted: server.destination.tls().mode() != SslMode::Disable,
            server_max_connections: facts.max_connections,
            instance: format!("instances/{}", opened.instance.id),
            // Absent where a pooler in front, or the role's rights, do not let it be known.
            inspection: finding.map(|finding| finding.describe(&subject)),
        })
    }
}

fn capabilities(role: RoleFacts) -> RoleCapabilities {
    RoleCapabilities {
        name: role.name,
        superuser: role.superuser,
        create_database: role.create_database,
        create_role: role.create_role,
        replication: role.replication,
        bypass_row_security: role.bypass_row_security,
        connection_limit: role.connection_limit,
        monitor: role.monitor,
    }
}
