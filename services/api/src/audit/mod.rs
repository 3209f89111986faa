//! The audit trail, read: the handlers of AuditService.

mod convert;
mod export;
mod list;
mod watch;

use std::sync::Arc;

use rpc::audit::v1 as proto;
use rpc::audit::v1::audit_service_server::AuditService;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::rpcs::rpcs;
use crate::upheld::Upheld;

/// Serves `pgmoor.audit.v1.AuditService`.
#[derive(Debug)]
pub(crate) struct AuditRpcs(pub(crate) Arc<Context>);

rpcs! {
    AuditService for AuditRpcs {
        list::list_audit_records(ListAuditRecordsRequest) -> ListAuditRecordsResponse;
    }

    type WatchAuditRecordsStream = Upheld<proto::WatchAuditRecordsResponse>;

    async fn watch_audit_records(
        &self,
        request: Request<proto::WatchAuditRecordsRequest>,
    ) -> Result<Response<Self::WatchAuditRecordsStream>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(watch::watch_audit_records(&self.0, call).await)
    }

    type ExportAuditRecordsStream = Upheld<proto::ExportAuditRecordsResponse>;

    async fn export_audit_records(
        &self,
        request: Request<proto::ExportAuditRecordsRequest>,
    ) -> Result<Response<Self::ExportAuditRecordsStream>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(export::export_audit_records(&self.0, call))
    }
}
