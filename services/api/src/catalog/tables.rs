//! ListTables.

use domain::name::Identifier;
use rpc::catalog::v1::{ListTablesRequest, ListTablesResponse, Table, TableKind};

use super::rows::Listing;
use crate::context::{Call, Context};
use crate::error::Error;

pub(super) const SQL: &str = "\
SELECT c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner), c.reltuples::int8,
       coalesce(pg_catalog.pg_total_relation_size(c.oid), 0)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text::name AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
  AND c.relname > $2::text::name
ORDER BY c.relname
LIMIT $3::text::int8";

/// Lists the relations of a schema by name.
pub(crate) async fn list_tables(
    api: &Context,
    call: Call<ListTablesRequest>,
) -> Result<ListTablesResponse, Error> {
    // A longer name would be cut by the server and mean another schema.
    call.message
        .schema
        .parse::<Identifier>()
        .map_err(|error| Error::invalid("schema", error))?;
    let listing = Listing {
        server: &call.message.server,
        database: &call.message.database,
        sql: SQL,
        arguments: &[&call.message.schema],
        method: "ListTables",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
    };
    let (rows, next_page_token) = listing.page(api, &call).await?;
    let tables = rows
        .into_iter()
        .map(|mut row| Table {
            name: row.text(0),
            kind: kind(&row.text(1)).into(),
            owner: row.text(2),
            estimated_rows: row.number(3).unwrap_or(-1),
            size_bytes: row.number(4).unwrap_or(0),
        })
        .collect();
    Ok(ListTablesResponse {
        tables,
        next_page_token,
    })
}

/// The kinds of `pg_class.relkind` (PostgreSQL manual, 53.11).
fn kind(relkind: &str) -> TableKind {
    match relkind {
        "r" => TableKind::Table,
        "p" => TableKind::PartitionedTable,
        "v" => TableKind::View,
        "m" => TableKind::MaterializedView,
        "f" => TableKind::ForeignTable,
        "S" => TableKind::Sequence,
        _ => TableKind::Unspecified,
    }
}
