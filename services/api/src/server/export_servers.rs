//! ExportServers.

use rpc::server::v1::{ExportServersRequest, ExportServersResponse};
use store::{PageRequest, PageSize};

use super::pgadmin;
use crate::context::{Call, Context};
use crate::error::Error;

/// Writes the caller's servers as a pgAdmin servers.json.
pub(super) async fn export_servers(
    api: &Context,
    call: Call<ExportServersRequest>,
) -> Result<ExportServersResponse, Error> {
    let mut servers = Vec::new();
    let mut request = PageRequest {
        size: PageSize::new(u32::MAX),
        after: None,
    };
    loop {
        let page = api.store.servers().list(call.caller.user, &request).await?;
        servers.extend(page.items);
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    Ok(ExportServersResponse {
        document: pgadmin::document(&servers).into(),
    })
}
