//! ListDatabases.

use rpc::catalog::v1::{Database, ListDatabasesRequest, ListDatabasesResponse};

use super::rows::Listing;
use crate::context::{Call, Context};
use crate::error::Error;

pub(super) const SQL: &str = "\
SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),
       c.connectable,
       CASE WHEN c.connectable OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
            THEN pg_catalog.pg_database_size(d.oid) END
FROM pg_catalog.pg_database d
CROSS JOIN LATERAL (SELECT pg_catalog.has_database_privilege(d.oid, 'CONNECT') AS connectable) c
WHERE d.datallowconn AND d.datname > $1::text::name
ORDER BY d.datname
LIMIT $2::text::int8";

/// Lists the databases that allow connections, by name.
pub(crate) async fn list_databases(
    api: &Context,
    call: Call<ListDatabasesRequest>,
) -> Result<ListDatabasesResponse, Error> {
    let listing = Listing {
        server: &call.message.server,
        database: "",
        sql: SQL,
        arguments: &[],
        method: "ListDatabases",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
    };
    let (rows, next_page_token) = listing.page(api, &call).await?;
    let databases = rows
        .into_iter()
        .map(|mut row| Database {
            name: row.text(0),
            owner: row.text(1),
            encoding: row.text(2),
            connectable: row.flag(3),
            size_bytes: row.number(4),
        })
        .collect();
    Ok(ListDatabasesResponse {
        databases,
        next_page_token,
    })
}
