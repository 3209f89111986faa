//! What is in a server's databases, read by fixed queries as the server's own role.
//!
//! Invariant: nothing of a request is ever part of a query's text; it travels as bind parameters.

mod databases;
mod rows;
mod schemas;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rpc::catalog::v1 as proto;
use rpc::catalog::v1::catalog_service_server::CatalogService;

use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.catalog.v1.CatalogService`.
#[derive(Debug)]
pub(crate) struct CatalogRpcs(pub(crate) Arc<Context>);

rpcs! {
    CatalogService for CatalogRpcs {
        databases::list_databases(ListDatabasesRequest) -> ListDatabasesResponse;
        schemas::list_schemas(ListSchemasRequest) -> ListSchemasResponse;
        tables::list_tables(ListTablesRequest) -> ListTablesResponse;
    }
}
