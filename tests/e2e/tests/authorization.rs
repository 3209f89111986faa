//! Every public method, called by nobody, by somebody who has nothing there, by somebody who may see and not act, and by
//! who may: on a real API instance and pooler.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes};
use e2e::{Client, World, reason};
use futures::StreamExt as _;
use http::uri::PathAndQuery;
use prost::Message;
use rpc::access::v1::{self as access, AccessLevel, Grant};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{self as query, Script};
use rpc::server::v1 as server;
use rpc::user::v1::{GetUserRequest, User};
use rpc::{audit, auth, backup, catalog, operation, pool, settings, storage, user};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::worlds::shared;

/// Bytes as they are: a message of any type.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

/// Calls a method, whatever it streams, and says how it began.
async fn call(client: &Client, method: &str, request: Bytes) -> Code {
    let mut grpc = Grpc::new(client.channel());
    grpc.ready().await.unwrap();
    let mut message = Request::new(futures::stream::iter([request]));
    message.set_timeout(std::time::Duration::from_secs(20));
    if let Some(token) = client.token() {
        let value = format!("Bearer {token}").parse().unwrap();
        message.metadata_mut().insert("authorization", value);
    }
    let path = PathAndQuery::from_maybe_shared(format!("/{method}")).unwrap();
    let mut answer = match grpc.streaming(message, path, Raw).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status.code(),
    };
    match tokio::time::timeout(std::time::Duration::from_secs(2), answer.next()).await {
        Ok(Some(Err(status))) => status.code(),
        // It answers, has nothing to say, or has not yet.
        Ok(Some(Ok(())) | None) | Err(_) => Code::Ok,
    }
}

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Right {
    /// Who owns the server and what came of it.
    Owner,
    /// An administrator.
    Administrator,
    /// Anybody, without a token.
    Anybody,
}

/// A method, what is sent, and what each caller gets.
struct Row {
    method: &'static str,
    request: Bytes,
    /// Who has nothing there.
    stranger: Code,
    /// Who has the role `auditor` everywhere.
    auditor: Code,
    right: (Right, Code),
}

/// What the requests name.
struct Names {
    owner: String,
    server: String,
    instance: String,
    session: String,
    execution: String,
    operation: String,
    backup: String,
    grant: String,
    elevation: String,
    group: String,
    role: String,
    binding: String,
    database: String,
    /// The role that the server is used as, and its password.
    login: String,
    password: String,
    /// A server on an instance that is not known yet.
    unknown: server::Server,
    /// A session of the owner's that is killed.
    killed: String,
}

fn row(
    method: &'static str,
    request: &impl Message,
    stranger: Code,
    auditor: Code,
    right: (Right, Code),
) -> Row {
    Row {
        method,
        request: Bytes::from(request.encode_to_vec()),
        stranger,
        auditor,
        right,
    }
}

/// A name as a request gives it.
macro_rules! named {
    ($package:ident :: $request:ident, $name:expr) => {
        $package::$request {
            name: $name.clone(),
            ..Default::default()
        }
    };
}

#[rustfmt::skip]
#[allow(clippy::too_many_lines, clippy::needless_update, reason = "it is a table")]
fn table(n: &Names) -> Vec<Row> {
    use Code::{Aborted, FailedPrecondition, InvalidArgument, NotFound, Ok, PermissionDenied, Unauthenticated};
    use Right::{Administrator, Anybody, Owner};
    use audit::v1 as audit;
    use auth::v1 as auth;
    use backup::v1 as backup;
    use catalog::v1 as catalog;
    use operation::v1 as operation;
    use pool::v1 as pool;
    use settings::v1 as settings;
    use storage::v1 as storage;
    use user::v1 as user;

    let stale = || "stale".to_owned();
    let at_server = || n.server.clone();
    let nowhere = "00000000-0000-4000-8000-000000000000";
    let no_instance = format!("instances/{nowhere}");
    let mine = format!("{}/files/nothing", n.owner);
    // What would carry a thing out is sent with an etag that is not current, or names nothing: who gets that far may.
    vec![
        row("pgmoor.auth.v1.AuthService/LoginWithPassword", &auth::LoginWithPasswordRequest::default(), Unauthenticated, Unauthenticated, (Anybody, Unauthenticated)),
        row("pgmoor.auth.v1.AuthService/RefreshToken", &auth::RefreshTokenRequest::default(), Unauthenticated, Unauthenticated, (Anybody, Unauthenticated)),
        row("pgmoor.auth.v1.AuthService/GetLoginOptions", &auth::GetLoginOptionsRequest {}, Ok, Ok, (Anybody, Ok)),
        row("pgmoor.auth.v1.AuthService/StartLogin", &auth::StartLoginRequest::default(), InvalidArgument, InvalidArgument, (Anybody, InvalidArgument)),
        row("pgmoor.auth.v1.AuthService/PollLogin", &auth::PollLoginRequest::default(), InvalidArgument, InvalidArgument, (Anybody, InvalidArgument)),
        row("pgmoor.auth.v1.AuthService/ExchangeToken", &auth::ExchangeTokenRequest::default(), Unauthenticated, Unauthenticated, (Anybody, Unauthenticated)),
        row("pgmoor.auth.v1.AuthService/ListLogins", &auth::ListLoginsRequest { user: n.owner.clone(), ..Default::default() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.auth.v1.AuthService/RevokeLogin", &auth::RevokeLoginRequest { name: format!("{}/logins/{nowhere}", n.owner) }, NotFound, NotFound, (Owner, NotFound)),
        row("pgmoor.auth.v1.AuthService/WhoAmI", &auth::WhoAmIRequest {}, Ok, Ok, (Owner, Ok)),
        row("pgmoor.auth.v1.AuthService/CreateApiToken", &auth::CreateApiTokenRequest::default(), InvalidArgument, InvalidArgument, (Owner, InvalidArgument)),
        row("pgmoor.auth.v1.AuthService/ListApiTokens", &auth::ListApiTokensRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.auth.v1.AuthService/RevokeApiToken", &auth::RevokeApiTokenRequest { name: format!("{}/apiTokens/{nowhere}", n.owner) }, NotFound, NotFound, (Owner, NotFound)),
        row("pgmoor.user.v1.UserService/CreateUser", &user::CreateUserRequest::default(), PermissionDenied, PermissionDenied, (Administrator, InvalidArgument)),
        row("pgmoor.user.v1.UserService/GetUser", &named!(user::GetUserRequest, n.owner), NotFound, Ok, (Administrator, Ok)),
        row("pgmoor.user.v1.UserService/ListUsers", &user::ListUsersRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.user.v1.UserService/UpdateUser", &user::UpdateUserRequest { user: Some(User { name: n.owner.clone(), display_name: "x".to_owned(), etag: stale(), ..User::default() }), update_mask: None }, PermissionDenied, PermissionDenied, (Administrator, Aborted)),
        row("pgmoor.user.v1.UserService/SetPassword", &named!(user::SetPasswordRequest, n.owner), NotFound, NotFound, (Administrator, InvalidArgument)),
        row("pgmoor.settings.v1.SettingsService/ListSettingDefinitions", &settings::ListSettingDefinitionsRequest {}, Ok, Ok, (Owner, Ok)),
        row("pgmoor.settings.v1.SettingsService/ListSettings", &settings::ListSettingsRequest { parent: n.owner.clone() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.settings.v1.SettingsService/GetSetting", &settings::GetSettingRequest { name: format!("{}/settings/session.idle_timeout", n.owner) }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.settings.v1.SettingsService/UpdateSettings", &settings::UpdateSettingsRequest { parent: n.owner.clone(), etag: stale(), ..Default::default() }, NotFound, NotFound, (Owner, InvalidArgument)),
        row("pgmoor.settings.v1.SettingsService/ResetSettings", &settings::ResetSettingsRequest { parent: n.owner.clone(), etag: stale(), ..Default::default() }, NotFound, NotFound, (Owner, Aborted)),
        row("pgmoor.settings.v1.SettingsService/WatchSettings", &settings::WatchSettingsRequest { parent: n.owner.clone(), ..Default::default() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.server.v1.InstanceService/GetInstance", &named!(server::GetInstanceRequest, n.instance), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.server.v1.InstanceService/ListInstances", &server::ListInstancesRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.server.v1.InstanceService/UpdateInstance", &server::UpdateInstanceRequest { instance: Some(server::Instance { name: n.instance.clone(), max_connections: 20, etag: stale(), ..Default::default() }), update_mask: None }, PermissionDenied, PermissionDenied, (Administrator, Aborted)),
        row("pgmoor.server.v1.ServerService/CreateServer", &server::CreateServerRequest { server: Some(n.unknown.clone()), validate_only: true, ..Default::default() }, PermissionDenied, PermissionDenied, (Administrator, Ok)),
        row("pgmoor.server.v1.ServerService/GetServer", &named!(server::GetServerRequest, n.server), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/ListServers", &server::ListServersRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/UpdateServer", &server::UpdateServerRequest { server: Some(server::Server { name: at_server(), comment: "x".to_owned(), etag: stale(), ..Default::default() }), update_mask: None }, NotFound, PermissionDenied, (Owner, Aborted)),
        row("pgmoor.server.v1.ServerService/DeleteServer", &server::DeleteServerRequest { name: at_server(), etag: stale() }, NotFound, PermissionDenied, (Owner, Aborted)),
        row("pgmoor.server.v1.ServerService/SetServerPassword", &server::SetServerPasswordRequest { name: at_server(), password: n.password.clone() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/SetPersonalCredential", &server::SetPersonalCredentialRequest { name: at_server(), role: n.login.clone(), password: n.password.clone() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/GetPersonalCredential", &named!(server::GetPersonalCredentialRequest, n.server), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/DeletePersonalCredential", &named!(server::DeletePersonalCredentialRequest, n.server), NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/SetReadOnlyCredential", &server::SetReadOnlyCredentialRequest { name: at_server(), role: n.login.clone(), password: n.password.clone() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/DeleteReadOnlyCredential", &named!(server::DeleteReadOnlyCredentialRequest, n.server), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/TestServer", &named!(server::TestServerRequest, n.server), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/InspectServer", &named!(server::InspectServerRequest, n.server), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/GetInspectionPolicy", &named!(server::GetInspectionPolicyRequest, n.server), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/UpdateInspectionPolicy", &named!(server::UpdateInspectionPolicyRequest, n.server), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.server.v1.ServerService/ImportServers", &server::ImportServersRequest::default(), InvalidArgument, InvalidArgument, (Owner, InvalidArgument)),
        row("pgmoor.server.v1.ServerService/ExportServers", &server::ExportServersRequest {}, Ok, Ok, (Owner, Ok)),
        row("pgmoor.access.v1.GrantService/CreateGrant", &access::CreateGrantRequest { parent: at_server(), grant: Some(Grant { member: "users/me".to_owned(), ..Default::default() }) }, NotFound, PermissionDenied, (Owner, InvalidArgument)),
        row("pgmoor.access.v1.GrantService/GetGrant", &named!(access::GetGrantRequest, n.grant), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.access.v1.GrantService/ListGrants", &access::ListGrantsRequest { parent: at_server(), ..Default::default() }, NotFound, Ok, (Owner, Ok)),
        row("pgmoor.access.v1.GrantService/UpdateGrant", &access::UpdateGrantRequest { grant: Some(Grant { name: n.grant.clone(), access: AccessLevel::ReadOnly.into(), etag: stale(), ..Default::default() }), update_mask: None }, NotFound, PermissionDenied, (Owner, Aborted)),
        row("pgmoor.access.v1.GrantService/DeleteGrant", &access::DeleteGrantRequest { name: n.grant.clone(), etag: stale() }, NotFound, PermissionDenied, (Owner, Aborted)),
        row("pgmoor.access.v1.GrantService/GetServerPolicy", &access::GetServerPolicyRequest { server: at_server() }, NotFound, Ok, (Owner, Ok)),
        row("pgmoor.access.v1.GrantService/UpdateServerPolicy", &access::UpdateServerPolicyRequest { server: at_server(), etag: stale(), ..Default::default() }, NotFound, PermissionDenied, (Owner, Aborted)),
        row("pgmoor.access.v1.ElevationService/RequestElevation", &access::RequestElevationRequest { parent: at_server(), ..Default::default() }, NotFound, PermissionDenied, (Owner, InvalidArgument)),
        row("pgmoor.access.v1.ElevationService/GetElevation", &named!(access::GetElevationRequest, n.elevation), NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.access.v1.ElevationService/ListElevations", &access::ListElevationsRequest { parent: at_server(), ..Default::default() }, Ok, Ok, (Owner, Ok)),
        row("pgmoor.access.v1.ElevationService/ApproveElevation", &access::ApproveElevationRequest { name: n.elevation.clone(), etag: stale() }, NotFound, NotFound, (Owner, Aborted)),
        row("pgmoor.access.v1.ElevationService/DenyElevation", &access::DenyElevationRequest { name: n.elevation.clone(), etag: stale() }, NotFound, NotFound, (Owner, Aborted)),
        row("pgmoor.access.v1.ElevationService/EndElevation", &access::EndElevationRequest { name: n.elevation.clone(), etag: stale() }, NotFound, NotFound, (Owner, Aborted)),
        row("pgmoor.access.v1.GroupService/CreateGroup", &access::CreateGroupRequest::default(), PermissionDenied, PermissionDenied, (Administrator, InvalidArgument)),
        row("pgmoor.access.v1.GroupService/GetGroup", &named!(access::GetGroupRequest, n.group), NotFound, Ok, (Administrator, Ok)),
        row("pgmoor.access.v1.GroupService/ListGroups", &access::ListGroupsRequest::default(), Ok, Ok, (Administrator, Ok)),
        row("pgmoor.access.v1.GroupService/UpdateGroup", &access::UpdateGroupRequest { group: Some(access::Group { name: n.group.clone(), display_name: "x".to_owned(), etag: stale(), ..Default::default() }) }, PermissionDenied, PermissionDenied, (Administrator, Aborted)),
        row("pgmoor.access.v1.GroupService/DeleteGroup", &access::DeleteGroupRequest { name: n.group.clone(), etag: stale() }, PermissionDenied, PermissionDenied, (Administrator, Aborted)),
        row("pgmoor.access.v1.GroupService/AddGroupMember", &access::AddGroupMemberRequest { group: n.group.clone(), user: n.owner.clone() }, PermissionDenied, PermissionDenied, (Administrator, Ok)),
        row("pgmoor.access.v1.GroupService/RemoveGroupMember", &access::RemoveGroupMemberRequest { group: n.group.clone(), user: n.owner.clone() }, PermissionDenied, PermissionDenied, (Administrator, Ok)),
        row("pgmoor.access.v1.GroupService/ListGroupMembers", &access::ListGroupMembersRequest { parent: n.group.clone(), ..Default::default() }, NotFound, Ok, (Administrator, Ok)),
        row("pgmoor.access.v1.RoleService/CreateRole", &access::CreateRoleRequest::default(), PermissionDenied, PermissionDenied, (Administrator, InvalidArgument)),
        row("pgmoor.access.v1.RoleService/GetRole", &named!(access::GetRoleRequest, n.role), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.access.v1.RoleService/ListRoles", &access::ListRolesRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.access.v1.RoleService/UpdateRole", &access::UpdateRoleRequest { role: Some(access::Role { name: n.role.clone(), display_name: "x".to_owned(), etag: stale(), ..Default::default() }), update_mask: None }, PermissionDenied, PermissionDenied, (Administrator, Aborted)),
        row("pgmoor.access.v1.RoleService/DeleteRole", &access::DeleteRoleRequest { name: n.role.clone(), etag: stale() }, PermissionDenied, PermissionDenied, (Administrator, Aborted)),
        row("pgmoor.access.v1.RoleService/CreateRoleBinding", &access::CreateRoleBindingRequest::default(), PermissionDenied, PermissionDenied, (Administrator, InvalidArgument)),
        row("pgmoor.access.v1.RoleService/GetRoleBinding", &named!(access::GetRoleBindingRequest, n.binding), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.access.v1.RoleService/ListRoleBindings", &access::ListRoleBindingsRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.access.v1.RoleService/DeleteRoleBinding", &access::DeleteRoleBindingRequest { name: format!("roleBindings/{nowhere}") }, PermissionDenied, PermissionDenied, (Administrator, NotFound)),
        row("pgmoor.access.v1.RoleService/ExplainAccess", &access::ExplainAccessRequest { principal: n.owner.clone(), resource: at_server(), permission: "servers.use".to_owned(), ..Default::default() }, PermissionDenied, Ok, (Owner, Ok)),
        row("pgmoor.pool.v1.PoolService/ListPools", &pool::ListPoolsRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.pool.v1.PoolService/ListClients", &pool::ListClientsRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.pool.v1.PoolService/ListBackends", &pool::ListBackendsRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.pool.v1.PoolService/ListBudgets", &pool::ListBudgetsRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.pool.v1.PoolService/ListStats", &pool::ListStatsRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.pool.v1.PoolService/ListPoolers", &pool::ListPoolersRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.pool.v1.PoolService/ListWaiters", &pool::ListWaitersRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.pool.v1.PoolService/PauseInstance", &named!(pool::PauseInstanceRequest, no_instance), PermissionDenied, PermissionDenied, (Administrator, NotFound)),
        row("pgmoor.pool.v1.PoolService/ResumeInstance", &named!(pool::ResumeInstanceRequest, no_instance), PermissionDenied, PermissionDenied, (Administrator, NotFound)),
        row("pgmoor.pool.v1.PoolService/ReconnectInstance", &named!(pool::ReconnectInstanceRequest, no_instance), PermissionDenied, PermissionDenied, (Administrator, NotFound)),
        row("pgmoor.pool.v1.PoolService/DrainPooler", &pool::DrainPoolerRequest { name: "poolers/60000".to_owned() }, PermissionDenied, PermissionDenied, (Administrator, NotFound)),
        row("pgmoor.pool.v1.PoolService/KillBackend", &pool::KillBackendRequest { name: format!("{}/backends/1", n.instance) }, PermissionDenied, PermissionDenied, (Administrator, NotFound)),
        row("pgmoor.query.v1.QueryService/OpenSession", &query::OpenSessionRequest { server: at_server(), mode: query::SessionMode::Auto.into(), ..Default::default() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/GetSession", &named!(query::GetSessionRequest, n.session), NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/ListSessions", &query::ListSessionsRequest { parent: "servers/-".to_owned(), ..Default::default() }, Ok, Ok, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/KeepSessionAlive", &named!(query::KeepSessionAliveRequest, n.session), NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/RunQuery", &query::RunQueryRequest { server: at_server(), script: Some(Script { sql: "SELECT 1".to_owned(), ..Default::default() }), ..Default::default() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/Execute", &query::ExecuteRequest { session: n.session.clone(), script: Some(Script { sql: "SELECT 1".to_owned(), ..Default::default() }), ..Default::default() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/FetchMore", &query::FetchMoreRequest { execution: n.execution.clone(), ..Default::default() }, NotFound, NotFound, (Owner, FailedPrecondition)),
        row("pgmoor.query.v1.QueryService/ResumeExecution", &named!(query::ResumeExecutionRequest, n.execution), NotFound, NotFound, (Owner, NotFound)),
        row("pgmoor.query.v1.QueryService/GetExecution", &query::GetExecutionRequest { name: format!("{}/executions/-", n.session) }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/GetTransactionOutcome", &query::GetTransactionOutcomeRequest { server: at_server(), transaction: Some(query::Transaction::default()) }, NotFound, PermissionDenied, (Owner, InvalidArgument)),
        row("pgmoor.query.v1.QueryService/CancelExecution", &named!(query::CancelExecutionRequest, n.execution), NotFound, NotFound, (Owner, NotFound)),
        row("pgmoor.query.v1.QueryService/BeginTransaction", &query::BeginTransactionRequest { session: n.session.clone(), ..Default::default() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/CommitTransaction", &query::CommitTransactionRequest { session: n.session.clone() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/RollbackTransaction", &query::RollbackTransactionRequest { session: n.session.clone() }, NotFound, NotFound, (Owner, FailedPrecondition)),
        row("pgmoor.query.v1.QueryService/WatchSession", &query::WatchSessionRequest { session: n.session.clone() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.query.v1.QueryService/CopyIn", &query::CopyInRequest { kind: Some(query::copy_in_request::Kind::Start(query::CopyInStart { session: n.session.clone(), sql: "SELECT 1".to_owned(), ..Default::default() })) }, NotFound, NotFound, (Owner, InvalidArgument)),
        row("pgmoor.pool.v1.PoolService/KillSession", &pool::KillSessionRequest { name: n.killed.clone() }, PermissionDenied, PermissionDenied, (Administrator, Ok)),
        row("pgmoor.query.v1.QueryService/CloseSession", &named!(query::CloseSessionRequest, n.session), NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.catalog.v1.CatalogService/ListDatabases", &catalog::ListDatabasesRequest { server: at_server(), ..Default::default() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.catalog.v1.CatalogService/ListSchemas", &catalog::ListSchemasRequest { server: at_server(), database: n.database.clone(), ..Default::default() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.catalog.v1.CatalogService/ListTables", &catalog::ListTablesRequest { server: at_server(), database: n.database.clone(), schema: "public".to_owned(), ..Default::default() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.storage.v1.StorageService/ListFiles", &storage::ListFilesRequest { parent: n.owner.clone(), ..Default::default() }, NotFound, NotFound, (Owner, Ok)),
        row("pgmoor.storage.v1.StorageService/WriteFile", &storage::WriteFileRequest { name: mine.clone(), offset: -1, ..Default::default() }, NotFound, NotFound, (Owner, InvalidArgument)),
        row("pgmoor.storage.v1.StorageService/UploadFile", &storage::UploadFileRequest { kind: Some(storage::upload_file_request::Kind::Start(storage::UploadStart { name: mine.clone(), size_bytes: Some(1), ..Default::default() })) }, NotFound, NotFound, (Owner, FailedPrecondition)),
        row("pgmoor.storage.v1.StorageService/DownloadFile", &named!(storage::DownloadFileRequest, n.backup), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.storage.v1.StorageService/DeleteFile", &named!(storage::DeleteFileRequest, mine), NotFound, NotFound, (Owner, NotFound)),
        row("pgmoor.operation.v1.OperationService/GetOperation", &named!(operation::GetOperationRequest, n.operation), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.operation.v1.OperationService/ListOperations", &operation::ListOperationsRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.operation.v1.OperationService/WaitOperation", &named!(operation::WaitOperationRequest, n.operation), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.operation.v1.OperationService/ReadOperationLog", &named!(operation::ReadOperationLogRequest, n.operation), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.operation.v1.OperationService/CancelOperation", &named!(operation::CancelOperationRequest, n.operation), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.operation.v1.OperationService/DeleteOperation", &named!(operation::DeleteOperationRequest, n.operation), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.backup.v1.BackupService/StartBackup", &backup::StartBackupRequest { server: at_server(), database: n.database.clone(), schemas: vec!["public".to_owned()], ..Default::default() }, NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.backup.v1.BackupService/GetBackup", &named!(backup::GetBackupRequest, n.backup), NotFound, Ok, (Owner, Ok)),
        row("pgmoor.backup.v1.BackupService/ListBackups", &backup::ListBackupsRequest::default(), Ok, Ok, (Owner, Ok)),
        row("pgmoor.backup.v1.BackupService/StartRestore", &backup::StartRestoreRequest { server: at_server(), ..Default::default() }, NotFound, PermissionDenied, (Owner, InvalidArgument)),
        row("pgmoor.backup.v1.BackupService/DeleteBackup", &named!(backup::DeleteBackupRequest, n.backup), NotFound, PermissionDenied, (Owner, Ok)),
        row("pgmoor.audit.v1.AuditService/ListAuditRecords", &audit::ListAuditRecordsRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.audit.v1.AuditService/WatchAuditRecords", &audit::WatchAuditRecordsRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.audit.v1.AuditService/ExportAuditRecords", &audit::ExportAuditRecordsRequest::default(), PermissionDenied, Ok, (Administrator, Ok)),
        row("pgmoor.auth.v1.AuthService/Logout", &auth::LogoutRequest {}, Ok, Ok, (Owner, Ok)),
    ]
}

async fn me(client: &Client) -> String {
    let request = GetUserRequest {
        name: "users/me".to_owned(),
    };
    let answer = client.users().get_user(request).await.unwrap();
    answer.into_inner().user.unwrap().name
}

/// Makes what the requests name.
async fn names(world: &World, owner: &Client, administrator: &Client, auditor: &Client) -> Names {
    let server = world.register_target(owner).await;
    let read = server::GetServerRequest { name: server.clone() };
    let read = owner.servers().get_server(read).await.unwrap().into_inner();
    let instance = read.server.unwrap().instance;
    let opened = query::OpenSessionRequest {
        server: server.clone(),
        mode: query::SessionMode::Auto.into(),
        ..Default::default()
    };
    let opened = owner.query().open_session(opened).await.unwrap().into_inner();
    let session = opened.session.unwrap().name;
    let killed = owner.open_auto(&server).await.unwrap().name;
    let start = backup::v1::StartBackupRequest {
        server: server.clone(),
        schemas: vec!["public".to_owned()],
        ..Default::default()
    };
    let started = owner.backups().start_backup(start).await.unwrap().into_inner();
    let operation = started.operation.unwrap().name;
    let ended = owner.operation_ended(&operation).await.unwrap();
    assert!(!ended.backup.is_empty() && ended.error.is_none(), "{ended:?}");
    let grant = access::CreateGrantRequest {
        parent: server.clone(),
        grant: Some(Grant {
            member: me(administrator).await,
            access: AccessLevel::ReadWrite.into(),
            ..Grant::default()
        }),
    };
    let grant = owner.grants().create_grant(grant).await.unwrap().into_inner();
    let policy = access::UpdateServerPolicyRequest {
        server: server.clone(),
        policy: Some(access::ServerPolicy {
            max_elevation: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    owner.grants().update_server_policy(policy).await.unwrap();
    // Of somebody who has a grant, so that the owner may decide.
    let elevation = access::RequestElevationRequest {
        parent: server.clone(),
        elevation: Some(access::Elevation {
            reason: "a test".to_owned(),
            duration: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..Default::default()
        }),
    };
    let elevation = administrator
        .elevations()
        .request_elevation(elevation)
        .await
        .unwrap();
    let group = access::CreateGroupRequest {
        group: Some(access::Group {
            display_name: harness::random::name("group"),
            ..Default::default()
        }),
    };
    let group = administrator.groups().create_group(group).await.unwrap();
    let role = access::CreateRoleRequest {
        role: Some(access::Role {
            display_name: harness::random::name("role"),
            permissions: vec!["servers.read".to_owned()],
            ..Default::default()
        }),
    };
    let role = administrator.roles().create_role(role).await.unwrap();
    let binding = access::CreateRoleBindingRequest {
        role_binding: Some(access::RoleBinding {
            role: "roles/auditor".to_owned(),
            member: me(auditor).await,
            ..Default::default()
        }),
    };
    let binding = administrator.roles().create_role_binding(binding).await.unwrap();
    Names {
        owner: me(owner).await,
        execution: format!("{session}/executions/00000000-0000-4000-8000-000000000000"),
        server,
        instance,
        session,
        operation,
        backup: ended.backup,
        grant: grant.grant.unwrap().name,
        elevation: elevation.into_inner().elevation.unwrap().name,
        group: group.into_inner().group.unwrap().name,
        role: role.into_inner().role.unwrap().name,
        binding: binding.into_inner().role_binding.unwrap().name,
        database: world.target().database().name().to_owned(),
        login: world.target().login().user.clone(),
        password: world.target().login().password.clone(),
        unknown: server::Server {
            endpoints: vec![server::Endpoint {
                host: "127.0.0.1".to_owned(),
                port: i32::from(world.dead_port()),
            }],
            ..world.target_server()
        },
        killed,
    }
}

#[tokio::test]
async fn every_method_answers_nobody_a_stranger_an_auditor_and_who_may_as_the_table_says() {
    let world = &shared().await.world;
    let administrator = world.create_administrator().await;
    let (owner, stranger, auditor) =
        tokio::join!(world.create_user(), world.create_user(), world.create_user());
    let (administrator, owner, stranger, auditor) = (administrator.a(), owner.a(), stranger.a(), auditor.a());
    let names = names(world, owner, administrator, auditor).await;
    // Roles that hold everywhere are known within seconds.
    harness::eventually(
        std::time::Duration::from_secs(5),
        "the auditor is one",
        async || {
            let roles = access::ListRolesRequest::default();
            auditor.roles().list_roles(roles).await.map(drop)
        },
    )
    .await;
    let table = table(&names);

    let policies = rpc::policy::PolicyTable::read(rpc::descriptors::PUBLIC).unwrap();
    let methods: BTreeSet<&str> = policies
        .iter()
        .map(|(path, _)| path.trim_start_matches('/'))
        .collect();
    let listed: BTreeSet<&str> = table.iter().map(|row| row.method).collect();
    assert_eq!(listed.len(), table.len(), "a method stands twice in the table");
    let missing: Vec<_> = methods.symmetric_difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "the table and the methods differ in {missing:?}"
    );

    let anonymous = world.apis()[0].url();
    let anonymous = Client::anonymous(&anonymous);
    let mut wrong = Vec::new();
    for row in &table {
        let mut check = async |who: &str, client: &Client, wanted: Code| {
            let got = call(client, row.method, row.request.clone()).await;
            if got != wanted {
                wrong.push(format!("{} by {who}: {got:?} instead of {wanted:?}", row.method));
            }
        };
        let without = match row.right {
            (Right::Anybody, code) => code,
            _ => Code::Unauthenticated,
        };
        check("nobody", &anonymous, without).await;
        check("a stranger", stranger, row.stranger).await;
        check("an auditor", auditor, row.auditor).await;
        let right = match row.right.0 {
            Right::Owner => owner,
            Right::Administrator => administrator,
            Right::Anybody => &anonymous,
        };
        check("who may", right, row.right.1).await;
    }
    println!(
        "the table has {} methods and {} answers",
        table.len(),
        table.len() * 4
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn grant_is_use_and_not_sight_and_ends_within_seconds_when_it_is_revoked() {
    let world = &shared().await.world;
    let (owner, friend) = tokio::join!(world.create_user(), world.create_user());
    let server = world.register_target(owner.a()).await;
    let get = || server::GetServerRequest { name: server.clone() };
    let unseen = friend.b().servers().get_server(get()).await;
    reason::expect(unseen, Code::NotFound, ErrorReason::ResourceNotFound);
    let grant = access::CreateGrantRequest {
        parent: server.clone(),
        grant: Some(Grant {
            member: me(friend.a()).await,
            access: AccessLevel::ReadWrite.into(),
            ..Grant::default()
        }),
    };
    let grant = owner.a().grants().create_grant(grant).await.unwrap().into_inner();
    let grant = grant.grant.unwrap().name;

    let seen = friend.b().servers().get_server(get()).await.unwrap().into_inner();
    assert_eq!(seen.server.unwrap().owner, me(owner.a()).await);
    let listed = friend
        .a()
        .servers()
        .list_servers(server::ListServersRequest::default())
        .await;
    let listed = listed.unwrap().into_inner().servers;
    assert!(listed.iter().any(|listed| listed.name == server));
    let others = access::ListGrantsRequest {
        parent: server.clone(),
        ..Default::default()
    };
    let refused = friend.a().grants().list_grants(others).await;
    let refused = reason::expect(refused, Code::PermissionDenied, ErrorReason::PermissionMissing);
    assert_eq!(
        reason::metadata(&refused, "permission").as_deref(),
        Some("grants.read")
    );
    let password = server::SetServerPasswordRequest {
        name: server.clone(),
        password: "mine".to_owned(),
    };
    let refused = friend.a().servers().set_server_password(password).await;
    reason::expect(refused, Code::PermissionDenied, ErrorReason::PermissionMissing);

    let open = query::OpenSessionRequest {
        server: server.clone(),
        mode: query::SessionMode::Auto.into(),
        ..Default::default()
    };
    let session = friend.a().query().open_session(open).await.unwrap().into_inner();
    let session = session.session.unwrap().name;
    let watch = query::WatchSessionRequest {
        session: session.clone(),
    };
    let mut watched = friend
        .b()
        .query()
        .watch_session(watch)
        .await
        .unwrap()
        .into_inner();
    let delete = access::DeleteGrantRequest {
        name: grant,
        etag: String::new(),
    };
    owner.b().grants().delete_grant(delete).await.unwrap();
    let within = std::time::Duration::from_secs(5);
    let ended = tokio::time::timeout(within, async { while let Some(Ok(_)) = watched.next().await {} });
    ended.await.expect("the stream ends");
    let get = query::GetSessionRequest { name: session };
    let lost = friend.a().query().get_session(get).await;
    let lost = reason::expect(lost, Code::NotFound, ErrorReason::SessionStateLost);
    assert_eq!(
        reason::metadata(&lost, "cause").as_deref(),
        Some("access_revoked")
    );
}
