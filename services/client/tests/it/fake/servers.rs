use std::sync::atomic::Ordering;

use rpc::server::v1::server_service_server::ServerService;
use rpc::server::v1::*;
use tonic::{Request, Response, Status, async_trait};

use super::{Service, not_offered};

#[async_trait]
impl ServerService for Service {
    async fn list_servers(
        &self,
        request: Request<ListServersRequest>,
    ) -> Result<Response<ListServersResponse>, Status> {
        self.0.counts.list_servers.fetch_add(1, Ordering::SeqCst);
        self.0.admit(&request)?;
        self.0.available()?;
        let server = |id: &str, group: &str, name: &str| Server {
            name: format!("servers/{id}"),
            group: group.into(),
            display_name: name.into(),
            endpoints: vec![Endpoint {
                host: "db".into(),
                port: 0,
            }],
            ..Server::default()
        };
        // Two pages, so that whoever reads only the first finds too little.
        let first = request.get_ref().page_token.is_empty();
        let (servers, next) = if first {
            (vec![server("1", "prod", "shop")], "more".to_owned())
        } else {
            (
                vec![server("2", "test", "shop"), server("3", "test", "wiki")],
                String::new(),
            )
        };
        Ok(Response::new(ListServersResponse {
            servers,
            next_page_token: next,
        }))
    }

    async fn import_servers(
        &self,
        request: Request<ImportServersRequest>,
    ) -> Result<Response<ImportServersResponse>, Status> {
        self.0.admit(&request)?;
        assert!(request.get_ref().validate_only);
        let entry = |key: &str, outcome: ImportOutcome, error: &str| ImportedServer {
            key: key.into(),
            display_name: format!("server {key}"),
            outcome: outcome.into(),
            error: error.into(),
            ..ImportedServer::default()
        };
        let servers = vec![
            entry("1", ImportOutcome::Created, ""),
            entry("2", ImportOutcome::Refused, "SSLCert names a file"),
        ];
        Ok(Response::new(ImportServersResponse { servers }))
    }

    not_offered! {
        create_server(CreateServerRequest) -> CreateServerResponse;
        get_server(GetServerRequest) -> GetServerResponse;
        update_server(UpdateServerRequest) -> UpdateServerResponse;
        delete_server(DeleteServerRequest) -> DeleteServerResponse;
        set_server_password(SetServerPasswordRequest) -> SetServerPasswordResponse;
        set_personal_credential(SetPersonalCredentialRequest) -> SetPersonalCredentialResponse;
        get_personal_credential(GetPersonalCredentialRequest) -> GetPersonalCredentialResponse;
        delete_personal_credential(DeletePersonalCredentialRequest) -> DeletePersonalCredentialResponse;
        set_read_only_credential(SetReadOnlyCredentialRequest) -> SetReadOnlyCredentialResponse;
        delete_read_only_credential(DeleteReadOnlyCredentialRequest) -> DeleteReadOnlyCredentialResponse;
        test_server(TestServerRequest) -> TestServerResponse;
        inspect_server(InspectServerRequest) -> InspectServerResponse;
        get_inspection_policy(GetInspectionPolicyRequest) -> GetInspectionPolicyResponse;
        update_inspection_policy(UpdateInspectionPolicyRequest) -> UpdateInspectionPolicyResponse;
        export_servers(ExportServersRequest) -> ExportServersResponse;
    }
}
