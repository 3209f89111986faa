//! What inspections of a server let pass, and who may ask.

use rpc::errors::v1::ErrorReason;
use rpc::server::v1::{
    CreateServerRequest, Endpoint, GetInspectionPolicyRequest, InspectServerRequest, InspectionPolicy,
    Server, UpdateInspectionPolicyRequest,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::world::{ADMIN, Caller, World, assert_fails};

async fn create(caller: &Caller) -> String {
    let server = Server {
        display_name: "one".to_owned(),
        username: "app".to_owned(),
        endpoints: vec![Endpoint {
            host: "db.example.com".to_owned(),
            port: 0,
        }],
        ..Server::default()
    };
    let request = CreateServerRequest {
        server: Some(server),
        ..CreateServerRequest::default()
    };
    let response = caller.servers().create_server(request).await.unwrap();
    response.into_inner().server.unwrap().name
}

fn update(name: &str, functions: &[&str]) -> UpdateInspectionPolicyRequest {
    UpdateInspectionPolicyRequest {
        name: name.to_owned(),
        policy: Some(InspectionPolicy {
            trusted_functions: functions.iter().map(|&name| name.to_owned()).collect(),
        }),
    }
}

#[tokio::test]
async fn inspection_policy_is_kept_and_known_to_every_instance() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let name = create(&admin).await;
    let get = GetInspectionPolicyRequest { name: name.clone() };
    let policy = admin.servers().get_inspection_policy(get.clone()).await.unwrap();
    assert_eq!(policy.into_inner().policy, Some(InspectionPolicy::default()));
    for functions in [&["public.f(integer)", "extension:dblink"][..], &[]] {
        let request = update(&name, functions);
        let wanted = request.policy.clone();
        let updated = admin.servers().update_inspection_policy(request).await.unwrap();
        assert_eq!(updated.into_inner().policy, wanted);
        let elsewhere = world.b.login(ADMIN).await;
        let policy = elsewhere
            .servers()
            .get_inspection_policy(get.clone())
            .await
            .unwrap();
        assert_eq!(policy.into_inner().policy, wanted);
    }
    let odd = update(&name, &["a\u{1f}b"]);
    let refused = admin.servers().update_inspection_policy(odd).await.unwrap_err();
    let fields: Vec<_> = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["policy.trusted_functions"]);
}

#[tokio::test]
async fn servers_of_others_are_not_inspected() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let member = world.member("bob").await;
    // Only an administrator makes the instance.
    create(&admin).await;
    let own = create(&member.caller).await;
    let inspect = InspectServerRequest {
        name: own.clone(),
        ..InspectServerRequest::default()
    };
    let found = member
        .caller
        .servers()
        .inspect_server(inspect.clone())
        .await
        .unwrap();
    assert_eq!(found.into_inner().inspection.unwrap().server, own);
    let foreign = admin.servers().inspect_server(inspect).await;
    assert_fails(foreign, Code::NotFound, ErrorReason::ResourceNotFound);
    let foreign = admin.servers().update_inspection_policy(update(&own, &[])).await;
    assert_fails(foreign, Code::NotFound, ErrorReason::ResourceNotFound);
    let get = GetInspectionPolicyRequest { name: own };
    let foreign = admin.servers().get_inspection_policy(get).await;
    assert_fails(foreign, Code::NotFound, ErrorReason::ResourceNotFound);
}
