//! Streaming standbys of a test cluster.

use std::time::Duration;

use super::{Cluster, DEADLINE, layout};
use crate::database::SUPERUSER;
use crate::eventually;

impl Cluster {
    /// A streaming standby of `primary`, copied by pg_basebackup: read-only, with the same superuser
    /// password. It has caught up to what the primary had written when this was called.
    ///
    /// # Panics
    /// When the copy fails or the standby does not start or catch up.
    pub async fn standby_of(primary: &Self) -> Self {
        let directory = layout::directory();
        let endpoint = &primary.endpoint;
        let copy = layout::tool(directory.path(), "pg_basebackup")
            .args(["--host", &endpoint.host, "--port", &endpoint.port.to_string(), "--username", SUPERUSER])
            // `--write-recovery-conf` stores the password in the standby's own settings.
            .args(["--no-password", "--no-sync", "--checkpoint=fast"])
            .args(["--wal-method=stream", "--write-recovery-conf"])
            .arg("-D")
            .arg(layout::data(directory.path()))
            .env("PGPASSWORD", &endpoint.password);
        layout::run(copy).await;
        let options = primary.options.clone();
        let standby = Self::first_start(directory, options, endpoint.password.clone()).await;
        standby.catch_up_with(primary).await;
        standby
    }

    /// Waits until this standby has replayed what `primary` has written so far.
    ///
    /// # Panics
    /// When it has not within a minute.
    pub async fn catch_up_with(&self, primary: &Self) {
        let primary = primary.connect().await;
        let row = primary
            .query_one("SELECT pg_current_wal_lsn()::text", &[])
            .await
            .expect("a primary has a position");
        let position: String = row.get(0);
        let standby = self.connect().await;
        eventually(DEADLINE, &format!("the standby replays {position}"), async || {
            let query = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{position}'::pg_lsn, false)");
            standby.query_one(&query, &[]).await.is_ok_and(|row| row.get(0))
        })
        .await;
    }

    /// Makes this standby a primary and waits until it takes writes. It does not stop the old primary.
    ///
    /// # Panics
    /// When it is no standby or does not become writable.
    pub async fn promote(&self) {
        let standby = self.connect().await;
        standby
            .query_one("SELECT pg_promote(wait => false)", &[])
            .await
            .expect("a standby can be promoted");
        eventually(
            Duration::from_secs(60),
            "the promoted standby takes writes",
            async || {
                let writable = standby.query_one("SELECT NOT pg_is_in_recovery()", &[]).await;
                writable.is_ok_and(|row| row.get(0))
            },
        )
        .await;
    }
}
