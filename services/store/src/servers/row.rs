//! The row of a server.

use domain::access::ServerPolicy;
use domain::id::{GroupId, InstanceId, ServerId, UserId};
use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Server;
use crate::destination::DestinationRow;
use crate::error::Inconsistency;
use crate::etag::Etag;

#[derive(sqlx::FromRow)]
pub(super) struct ServerRow {
    id: Uuid,
    owner_id: Uuid,
    owner_group_id: Option<Uuid>,
    policy: Json<Value>,
    group_name: String,
    display_name: String,
    instance_id: Uuid,
    #[sqlx(flatten)]
    destination: DestinationRow,
    maintenance_database: String,
    username: String,
    comment: String,
    pub(super) version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
    has_password: bool,
    read_only_role: Option<String>,
}

impl TryFrom<ServerRow> for Server {
    type Error = Inconsistency;

    fn try_from(row: ServerRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("servers", column, row.id);
        Ok(Self {
            id: ServerId::from_uuid(row.id),
            owner_id: UserId::from_uuid(row.owner_id),
            owner_group: row.owner_group_id.map(GroupId::from_uuid),
            policy: ServerPolicy::from_json(&row.policy.0).ok_or_else(|| wrong("policy"))?,
            group: row.group_name.parse().map_err(|_| wrong("group_name"))?,
            display_name: row.display_name.parse().map_err(|_| wrong("display_name"))?,
            instance_id: InstanceId::from_uuid(row.instance_id),
            destination: row.destination.parse("servers", row.id)?,
            maintenance_database: row
                .maintenance_database
                .parse()
                .map_err(|_| wrong("maintenance_database"))?,
            username: row.username.parse().map_err(|_| wrong("username"))?,
            comment: row.comment,
            has_password: row.has_password,
            read_only_role: row
                .read_only_role
                .map(|role| role.parse())
                .transpose()
                .map_err(|_| wrong("read_only_role"))?,
            create_time: row.create_time,
            update_time: row.update_time,
            etag: Etag::of(row.version),
        })
    }
}
