//! Instances on the wire.

use rpc::server::v1 as proto;
use store::instances::Instance;

use super::limits;
use crate::duration::timestamp;
use crate::server::{endpoints_message, tls_message};

/// An instance.
pub(super) fn instance(instance: &Instance) -> proto::Instance {
    let facts = instance.facts.as_ref();
    proto::Instance {
        name: format!("instances/{}", instance.id),
        endpoints: endpoints_message(&instance.destination),
        tls: Some(tls_message(&instance.destination)),
        max_connections: i32::from(instance.budget.max_connections),
        reserved_connections: i32::from(instance.budget.reserved_connections),
        system_identifier: facts
            .map(|facts| facts.system_identifier.clone())
            .unwrap_or_default(),
        server_version: facts
            .map(|facts| facts.server_version.clone())
            .unwrap_or_default(),
        create_time: Some(timestamp(instance.create_time)),
        etag: instance.etag.to_string(),
        limits: Some(limits::message(&instance.limits)),
    }
}
