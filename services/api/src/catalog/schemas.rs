//! ListSchemas.

use rpc::catalog::v1::{ListSchemasRequest, ListSchemasResponse, Schema};

use super::rows::Listing;
use crate::context::{Call, Context};
use crate::error::Error;

// Names that begin with pg_ are PostgreSQL's own (manual, 5.10.5).
pub(super) const SQL: &str = "\
SELECT n.nspname, pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.has_schema_privilege(n.oid, 'USAGE')
FROM pg_catalog.pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND n.nspname > $1::text::name
ORDER BY n.nspname
LIMIT $2::text::int8";

/// Lists the schemas of a database by name, without PostgreSQL's own.
pub(crate) async fn list_schemas(
    api: &Context,
    call: Call<ListSchemasRequest>,
) -> Result<ListSchemasResponse, Error> {
    let listing = Listing {
        server: &call.message.server,
        database: &call.message.database,
        sql: SQL,
        arguments: &[],
        method: "ListSchemas",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
    };
    let (rows, next_page_token) = listing.page(api, &call).await?;
    let schemas = rows
        .into_iter()
        .map(|mut row| Schema {
            name: row.text(0),
            owner: row.text(1),
            usable: row.flag(2),
        })
        .collect();
    Ok(ListSchemasResponse {
        schemas,
        next_page_token,
    })
}
