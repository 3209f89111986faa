//! Ending the connections of a pooler that is gone, or that has been silent for long.
//!
//! Only their own role may end them: it is logged in as with the credential that they were made with. But that one is not there any
//! more is seen by every role: where theirs cannot log in, because its server is not registered any more or its password is wrong,
//! any other on the instance can tell. Somebody's own is taken only where no other can be used, and that of a disabled user
//! for nothing but to end what was opened with it.
//!
//! A password that the server refused is not tried again before it is set anew: attempts that go on for ever lock accounts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::credential::CredentialKind;
use domain::id::{CredentialId, ServerId, UserId};
use store::servers::{Credential, Server};
use store::succession::{Connection, Forerunner as Left};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Pooler;
use super::opening::Dialed;
use crate::error::{PoolerError, TargetError};
use crate::facts::{one_row, text};
use crate::instances::Instance;
use crate::ledger::{Claim, Class};
use crate::status::store_error;

/// How long connections may take to end that are told to.
const ENDING: Duration = Duration::from_secs(10);
/// Between two looks at whether they have.
const LOOK: Duration = Duration::from_millis(100);
/// Other credentials tried at a time.
const MOST_WITNESSES: u32 = 4;
/// Before a credential that was of no use is tried again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A credential of a server.
type Login = (ServerId, CredentialKind);

/// A credential that was of no use.
#[derive(Debug, Clone, Copy)]
struct Failed {
    /// Which it was, as far as it was found.
    credential: Option<CredentialId>,
    fault: Fault,
    again: Instant,
    pause: Duration,
}

/// Whose fault it was that a credential was of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The server refused it.
    Refused,
    /// Its own, in another way.
    Own,
    /// No other would have fared better.
    NotItsOwn,
}

impl Fault {
    fn of(error: &PoolerError) -> Self {
        match error {
            PoolerError::Target(TargetError::Authentication { .. }) => Self::Refused,
            PoolerError::Target(error) if error.is_of_the_server() => Self::NotItsOwn,
            PoolerError::ConfigDatabase | PoolerError::Moved { .. } | PoolerError::ShuttingDown => {
                Self::NotItsOwn
            }
            _ => Self::Own,
        }
    }
}

/// Credentials that were of no use, and when to try each of them again.
#[derive(Debug, Default)]
pub(crate) struct Useless(HashMap<Login, Failed>);

impl Useless {
    fn is_worth_a_try(&self, login: Login, now: Instant) -> bool {
        self.0.get(&login).is_none_or(|failed| failed.again <= now)
    }

    /// True where the server refused just this credential.
    fn was_refused(&self, login: Login, credential: CredentialId) -> bool {
        self.0
            .get(&login)
            .is_some_and(|failed| failed.fault == Fault::Refused && failed.credential == Some(credential))
    }

    /// Those that cannot be used now, through their own fault.
    fn unusable(&self, now: Instant) -> Vec<CredentialId> {
        let unusable = self.0.values().filter(|failed| match failed.fault {
            Fault::Refused => true,
            Fault::Own => failed.again > now,
            Fault::NotItsOwn => false,
        });
        unusable.filter_map(|failed| failed.credential).collect()
    }

    fn failed(&mut self, login: Login, credential: Option<CredentialId>, fault: Fault, now: Instant) {
        let known = self.0.get(&login).map(|failed| failed.pause * 2);
        let pause = known.unwrap_or(FIRST_PAUSE).min(LONGEST_PAUSE);
        let failed = Failed {
            credential,
            fault,
            again: now + pause,
            pause,
        };
        self.0.insert(login, failed);
    }

    fn was_of_use(&mut self, login: Login) {
        self.0.remove(&login);
    }
}

/// What is done about connections that are still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// They are told to end.
    End,
    /// Nothing: they are another role's.
    Look,
}

impl Pooler {
    /// Ends the connections of a pooler that is gone, or does not answer. True where none is left.
    pub(super) async fn bury(&self, instance: &Arc<Instance>, left: &Left) -> Result<bool, PoolerError> {
        let mut by_login: HashMap<Login, Vec<Connection>> = HashMap::new();
        for connection in &left.connections {
            let login = (connection.server_id, connection.credential);
            by_login.entry(login).or_default().push(*connection);
        }
        let mut gone = 0;
        for (login, connections) in by_login {
            let buried = match self.see_to(instance, login, &connections, Purpose::End).await {
                Some(buried) => buried,
                None => self.ask_witnesses(instance, login, &connections).await?,
            };
            gone += buried.len();
            let buried = self.0.store.succession().bury(left.incarnation, &buried).await;
            buried.map_err(store_error)?;
        }
        Ok(gone == left.connections.len())
    }

    /// Has other credentials on the instance tell which connections are gone.
    async fn ask_witnesses(
        &self,
        instance: &Arc<Instance>,
        login: Login,
        connections: &[Connection],
    ) -> Result<Vec<Connection>, PoolerError> {
        for witness in self.witnesses(instance).await? {
            if witness == login {
                continue;
            }
            if let Some(gone) = self.see_to(instance, witness, connections, Purpose::Look).await {
                return Ok(gone);
            }
        }
        Ok(Vec::new())
    }

    /// The credentials to try next. Somebody's own are among them only where all others are known to be of no use.
    async fn witnesses(&self, instance: &Instance) -> Result<Vec<Login>, PoolerError> {
        let unusable = instance.useless.lock().unusable(Instant::now());
        let servers = self.0.store.servers();
        for personal in [false, true] {
            let witnesses = servers.logins_on(instance.id, personal, &unusable, MOST_WITNESSES);
            let witnesses = witnesses.await.map_err(store_error)?;
            if !witnesses.is_empty() {
                return Ok(witnesses);
            }
        }
        Ok(Vec::new())
    }

    /// Looks at connections under the role of a credential, and returns those that are gone; nothing where that cannot be told.
    async fn see_to(
        &self,
        instance: &Arc<Instance>,
        login: Login,
        connections: &[Connection],
        purpose: Purpose,
    ) -> Option<Vec<Connection>> {
        if !instance.useless.lock().is_worth_a_try(login, Instant::now()) {
            return None;
        }
        let (server, credential) = match self.found(login).await {
            Ok(found) => found,
            Err(error) => return self.note_useless(instance, login, None, &error),
        };
        let id = credential.id;
        if instance.useless.lock().was_refused(login, id) {
            let now = Instant::now();
            instance
                .useless
                .lock()
                .failed(login, Some(id), Fault::Refused, now);
            return None;
        }
        match self
            .try_to_see_to(instance, &server, &credential, connections, purpose)
            .await
        {
            Ok(gone) => {
                instance.useless.lock().was_of_use(login);
                Some(gone)
            }
            Err(error) => self.note_useless(instance, login, Some(id), &error),
        }
    }

    fn note_useless<T>(
        &self,
        instance: &Instance,
        login: Login,
        credential: Option<CredentialId>,
        error: &PoolerError,
    ) -> Option<T> {
        let (fault, now) = (Fault::of(error), Instant::now());
        instance.useless.lock().failed(login, credential, fault, now);
        tracing::warn!(instance.id = %instance.id, server.id = %login.0, %error,
            "connections of another pooler cannot be looked at, and are counted");
        None
    }

    /// The server of a credential, and the credential as it is now.
    async fn found(&self, (server, kind): Login) -> Result<(Server, Credential), PoolerError> {
        let found = self.0.store.servers().get(server).await.map_err(store_error)?;
        let server = found.ok_or_else(|| PoolerError::NotFound {
            resource: format!("servers/{server}"),
        })?;
        let credential = self.login_of(&server, kind).await?;
        Ok((server, credential))
    }

    async fn try_to_see_to(
        &self,
        instance: &Arc<Instance>,
        server: &Server,
        credential: &Credential,
        connections: &[Connection],
        purpose: Purpose,
    ) -> Result<Vec<Connection>, PoolerError> {
        let instances = &self.0.instances;
        if instances.current(server.instance_id) != instances.current(instance.id) {
            // It leads elsewhere by now, where they are not.
            return Err(PoolerError::NotFound {
                resource: format!("servers/{}", server.id),
            });
        }
        // First in the search path, whatever the role or the database has it set to.
        let parameters = vec![("search_path".to_owned(), "pg_catalog".to_owned())];
        let connector = &self.0.connector;
        let config = connector.prepare(server, credential, None, parameters).await?;
        let claim = Claim {
            user: UserId::from_uuid(Uuid::nil()),
            class: Class::Monitoring,
            count: 1,
            holder: "a look at what another pooler left".to_owned(),
            pool: None,
        };
        let Some(slot) = instance.slots.look(claim, true) else {
            return Ok(Vec::new());
        };
        let login = (server.id, credential.kind);
        let dialed = self.dial(config, slot, Arc::clone(instance), login).await?;
        let mut untaken = match dialed {
            Dialed::Here(untaken, _) => untaken,
            Dialed::Elsewhere(_) => return Ok(Vec::new()),
        };
        // Untaken, so that it is closed as it should be wherever this ends.
        let gone = match untaken.connection() {
            Some(connection) => see(connection, connections, purpose).await,
            None => Ok(Vec::new()),
        };
        untaken.take().close().await;
        gone
    }
}

/// Returns those connections that are gone. Tells those of one's own role to end where that is the purpose, and waits a while.
async fn see(
    connection: &mut pgconn::Connection,
    connections: &[Connection],
    purpose: Purpose,
) -> Result<Vec<Connection>, PoolerError> {
    let wanted: Vec<String> = connections
        .iter()
        .map(|one| {
            let micros = one.backend_start.unix_timestamp_nanos() / 1000;
            format!("({},{micros})", one.backend_pid)
        })
        .collect();
    let pids: Vec<String> = connections
        .iter()
        .map(|one| one.backend_pid.to_string())
        .collect();
    // Who a pid belongs to now is told by when its backend started. Of another role's that is not shown: it may be the one.
    let sql = format!(
        "SELECT coalesce(string_agg(there.pid::text, ','), '') FROM (SELECT a.pid, \
         CASE WHEN {} AND a.backend_start IS NOT NULL THEN pg_terminate_backend(a.pid) END \
         FROM pg_stat_get_activity(NULL) AS a WHERE a.pid IN ({}) AND (a.backend_start IS NULL OR \
         (a.pid, round(date_part('epoch', a.backend_start)::numeric(20,6) * 1000000)::bigint) IN ({}))) AS there",
        purpose == Purpose::End,
        pids.join(","),
        wanted.join(",")
    );
    let give_up = Instant::now() + ENDING;
    loop {
        let row = one_row(connection, &sql, drop).await?;
        let there: Vec<i32> = text(&row, 0)
            .split(',')
            .filter_map(|pid| pid.parse().ok())
            .collect();
        if there.is_empty() || purpose == Purpose::Look || Instant::now() >= give_up {
            let gone = connections.iter().filter(|one| !there.contains(&one.backend_pid));
            return Ok(gone.copied().collect());
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SystemRandom;

    use super::*;

    #[test]
    fn refused_credential_is_not_tried_again_before_it_changes() {
        let (mut useless, now) = (Useless::default(), Instant::now());
        let login = (ServerId::generate(&SystemRandom), CredentialKind::Shared);
        let id = || CredentialId::generate(&SystemRandom);
        let (refused, next) = (id(), id());
        useless.failed(login, Some(refused), Fault::Refused, now);
        let later = now + LONGEST_PAUSE * 1000;
        assert!(useless.was_refused(login, refused) && !useless.was_refused(login, next));
        assert_eq!(useless.unusable(later), [refused]);
        // What failed in another way is tried again after a while, and is in nobody's stead where that was not its own fault.
        useless.failed(login, Some(next), Fault::Own, now);
        assert!(!useless.was_refused(login, next) && !useless.is_worth_a_try(login, now));
        assert_eq!(
            (useless.unusable(now), useless.unusable(later)),
            (vec![next], vec![])
        );
        useless.failed(login, Some(next), Fault::NotItsOwn, now);
        assert!(useless.unusable(now).is_empty() && !useless.is_worth_a_try(login, now));
    }
}
