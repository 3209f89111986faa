//! No secret is seen where none may be, whatever is done with it.

use e2e::world::{SUPERUSER, create_server};
use e2e::{Client, leaks, reason};
use harness::random;
use rpc::auth::v1::{CreateApiTokenRequest, RefreshTokenRequest};
use rpc::server::v1::{
    DeletePersonalCredentialRequest, ExportServersRequest, GetPersonalCredentialRequest, GetServerRequest,
    SetPersonalCredentialRequest, SetReadOnlyCredentialRequest, SetServerPasswordRequest, TestServerRequest,
};
use rpc::user::v1::SetPasswordRequest;

use crate::worlds::shared;

#[tokio::test]
async fn passwords_and_tokens_are_in_no_log_reply_command_line_or_environment() {
    let world = &shared().await.world;
    let caller = world.create_administrator().await;
    let canary = |what: &str| {
        let secret = random::password();
        world.secrets().remember(what, &secret);
        secret
    };
    let mut replies = Vec::new();

    // Logins that fail, and tokens that are none.
    let wrong = canary("a wrong password");
    let failed = Client::anonymous(&world.url()).log_in(SUPERUSER, &wrong).await;
    replies.push(reason::text(&failed.map(drop).unwrap_err()));
    let wrong = canary("a wrong token");
    let failed = world
        .anonymous()
        .with_token(&wrong)
        .open_session("servers/x")
        .await;
    replies.push(reason::text(&failed.map(drop).unwrap_err()));
    let refresh_token = canary("a wrong refresh token");
    let mut auth = world.anonymous().auth();
    let failed = auth.refresh_token(RefreshTokenRequest { refresh_token }).await;
    replies.push(reason::text(&failed.map(drop).unwrap_err()));

    // Passwords of servers and users, good and bad.
    let wrong = canary("a wrong server password");
    let server = create_server(caller.a(), world.target_server(), &wrong)
        .await
        .unwrap();
    let request = TestServerRequest {
        name: server.clone(),
        database: String::new(),
        ..Default::default()
    };
    let failed = caller.b().servers().test_server(request).await;
    replies.push(reason::text(&failed.map(drop).unwrap_err()));
    let request = SetServerPasswordRequest {
        name: server.clone(),
        password: world.target().login().password.clone(),
    };
    replies.push(format!(
        "{:?}",
        caller.a().servers().set_server_password(request).await.unwrap()
    ));
    let request = SetServerPasswordRequest {
        name: "servers/no-such".to_owned(),
        password: canary("the password of no server"),
    };
    let failed = caller.a().servers().set_server_password(request).await;
    replies.push(reason::text(&failed.map(drop).unwrap_err()));
    let personal = SetPersonalCredentialRequest {
        name: server.clone(),
        role: world.target().login().user.clone(),
        password: canary("a wrong personal password"),
    };
    let set = caller
        .a()
        .servers()
        .set_personal_credential(personal)
        .await
        .unwrap();
    replies.push(format!("{set:?}"));
    let failed = caller.b().open_session(&server).await;
    replies.push(reason::text(&failed.map(drop).unwrap_err()));
    let get = GetPersonalCredentialRequest { name: server.clone() };
    let got = caller.b().servers().get_personal_credential(get).await.unwrap();
    replies.push(format!("{got:?}"));
    let delete = DeletePersonalCredentialRequest { name: server.clone() };
    caller
        .a()
        .servers()
        .delete_personal_credential(delete)
        .await
        .unwrap();
    let read_only = SetReadOnlyCredentialRequest {
        name: server.clone(),
        role: "nobody".to_owned(),
        password: canary("a wrong read-only password"),
    };
    let set = caller
        .a()
        .servers()
        .set_read_only_credential(read_only)
        .await
        .unwrap();
    replies.push(format!("{set:?}"));
    let session = caller.a().open_session(&server).await.unwrap();
    replies.push(format!("{session:?}"));
    caller.b().execute(&session.name, "SELECT nope").await.unwrap();
    caller.a().close_session(&session).await.unwrap();
    let request = GetServerRequest { name: server };
    replies.push(format!(
        "{:?}",
        caller.b().servers().get_server(request).await.unwrap()
    ));
    let exported = caller
        .b()
        .servers()
        .export_servers(ExportServersRequest {})
        .await
        .unwrap();
    let document = exported.into_inner().document;
    replies.push(String::from_utf8(document.to_vec()).unwrap());
    let request = SetPasswordRequest {
        name: "users/me".to_owned(),
        current_password: canary("a wrong current password"),
        new_password: canary("a new password"),
    };
    let failed = caller.a().users().set_password(request).await;
    replies.push(reason::text(&failed.map(drop).unwrap_err()));

    // A token that works.
    let request = CreateApiTokenRequest {
        display_name: "canary".to_owned(),
        lifetime: None,
        ..Default::default()
    };
    let made = caller
        .a()
        .auth()
        .create_api_token(request)
        .await
        .unwrap()
        .into_inner();
    world.secrets().remember("an API token", &made.token);
    let with_token = world.caller(&made.token);
    for client in &with_token.apis {
        client
            .auth()
            .who_am_i(rpc::auth::v1::WhoAmIRequest {})
            .await
            .unwrap();
    }

    assert!(world.secrets().count() > 12);
    for reply in replies {
        assert_eq!(world.secrets().found_in(&reply), Vec::<String>::new(), "{reply}");
    }
    assert_eq!(leaks::find(world), Vec::<String>::new());
}
