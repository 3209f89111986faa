//! As whom this process is connected to the config database, and where that is.

use std::net::SocketAddr;

use crate::Store;
use crate::connection::address::Host;
use crate::error::StoreError;
use crate::migrate::GROUP_ROLES;

impl Store {
    /// The group roles of pgmoor's whose rights this login has: one for a process, all for a superuser.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn group_roles(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.acquire().await?;
        let sql = "SELECT rolname::text FROM pg_catalog.pg_roles \
                   WHERE rolname = ANY ($1) AND pg_has_role(current_user, oid, 'USAGE') ORDER BY rolname";
        Ok(sqlx::query_scalar(sql)
            .bind(GROUP_ROLES)
            .fetch_all(&mut *connection)
            .await?)
    }

    /// The addresses of the config database's hosts, the standbys' too: where no instance may be. Hosts over
    /// a Unix-domain socket have none.
    ///
    /// # Errors
    /// When a name cannot be resolved.
    pub async fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        for host in self.connections.hosts() {
            if let Host::Tcp { name, port } = host {
                addresses.extend(tokio::net::lookup_host((name.as_str(), *port)).await?);
            }
        }
        Ok(addresses)
    }
}
