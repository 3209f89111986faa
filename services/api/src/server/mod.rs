//! Registrations of PostgreSQL servers: the handlers of ServerService.
//!
//! Invariant: a password leaves this process sealed and never comes back; and a server is its owner's, to
//! everybody else it is as good as missing.

mod convert;
mod create_server;
mod credentials;
mod delete_server;
mod export_servers;
pub(crate) mod first_look;
mod import_servers;
mod inspect_server;
mod inspection_policy;
mod owner;
mod password;
mod pgadmin;
mod place;
mod read;
mod set_password;
mod test_server;
mod update_server;

use std::sync::Arc;

use rpc::server::v1 as proto;
use rpc::server::v1::server_service_server::ServerService;

use crate::context::Context;
use crate::rpcs::rpcs;

pub(crate) use convert::{endpoints_message, tls_message};

/// Serves `pgmoor.server.v1.ServerService`.
#[derive(Debug)]
pub(crate) struct ServerRpcs(pub(crate) Arc<Context>);

rpcs! {
    ServerService for ServerRpcs {
        create_server::create_server(CreateServerRequest) -> CreateServerResponse;
        read::get_server(GetServerRequest) -> GetServerResponse;
        read::list_servers(ListServersRequest) -> ListServersResponse;
        update_server::update_server(UpdateServerRequest) -> UpdateServerResponse;
        delete_server::delete_server(DeleteServerRequest) -> DeleteServerResponse;
        set_password::set_server_password(SetServerPasswordRequest) -> SetServerPasswordResponse;
        credentials::set_personal_credential(SetPersonalCredentialRequest) -> SetPersonalCredentialResponse;
        credentials::get_personal_credential(GetPersonalCredentialRequest) -> GetPersonalCredentialResponse;
        credentials::delete_personal_credential(DeletePersonalCredentialRequest) -> DeletePersonalCredentialResponse;
        credentials::set_read_only_credential(SetReadOnlyCredentialRequest) -> SetReadOnlyCredentialResponse;
        credentials::delete_read_only_credential(DeleteReadOnlyCredentialRequest) -> DeleteReadOnlyCredentialResponse;
        test_server::test_server(TestServerRequest) -> TestServerResponse;
        inspect_server::inspect_server(InspectServerRequest) -> InspectServerResponse;
        inspection_policy::get_inspection_policy(GetInspectionPolicyRequest) -> GetInspectionPolicyResponse;
        inspection_policy::update_inspection_policy(UpdateInspectionPolicyRequest) -> UpdateInspectionPolicyResponse;
        import_servers::import_servers(ImportServersRequest) -> ImportServersResponse;
        export_servers::export_servers(ExportServersRequest) -> ExportServersResponse;
    }
}
