//! Who somebody is at a provider, and the user of pgmoor they are here.
//!
//! Invariant: issuer and subject say who it is. A login name never leads to a user that exists, and an address does only where
//! the caller says that it is verified and may. An administrator that a provider's groups made stops being one with them; one
//! that somebody made stays.

use std::time::Duration;

use domain::id::UserId;
use domain::name::DisplayName;
use domain::username::Username;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use uuid::Uuid;

use crate::counter::Counter;
use crate::error::{StoreError, store_variant, violated_constraint};
use crate::vouching::vouch;
use crate::{Store, administrators};

/// Somebody who logged in at a provider, whom its policy lets in.
#[derive(Debug, Clone)]
pub struct ProvenIdentity {
    /// The provider.
    pub provider: String,
    /// Its issuer.
    pub issuer: String,
    /// Who it is there.
    pub subject: String,
    /// A verified address that may link to a user who was invited by it, in lower case.
    pub email: Option<String>,
    /// The groups there, and the group of pgmoor each gives.
    pub groups: Vec<(String, Option<String>)>,
    /// Whether the groups make an administrator.
    pub administrator: bool,
    /// The user to make where there is none; `None` where none is made.
    pub new_user: Option<IdentityUser>,
    /// How long the word of the provider keeps the user's API tokens working.
    pub vouched_for: Duration,
}

/// A user to make for an identity.
#[derive(Debug, Clone)]
pub struct IdentityUser {
    /// The id.
    pub id: UserId,
    /// The login name.
    pub username: Username,
    /// What people call the user.
    pub display_name: DisplayName,
}

/// The user of an identity, and what became of them by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedIdentity {
    /// The user.
    pub user_id: UserId,
    /// What changed.
    pub changes: IdentityChanges,
}

/// What an identity's word changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityChanges {
    /// How the identity came to its user, where it had none before.
    pub begun: Option<Begun>,
    /// Groups that the user is in now.
    pub joined: Vec<Uuid>,
    /// Groups that the user is in no more.
    pub left: Vec<Uuid>,
    /// Whether the user became an administrator, or stopped being one.
    pub administrator: Option<bool>,
}

/// How an identity came to its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// The user was made for it.
    Created,
    /// The user had been invited.
    Linked,
}

/// Why an identity leads to no user.
#[derive(Debug, Error)]
pub enum ResolveIdentityError {
    /// There is no user of this identity, and none is to be made.
    #[error("no user belongs to the identity")]
    NotInvited,
    /// The login name is another user's, in this or another spelling.
    #[error("the username is taken")]
    UsernameTaken,
    /// The user may not log in.
    #[error("the user is disabled")]
    UserDisabled,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(ResolveIdentityError);

/// The identities. Made by [`Store::identities`].
#[derive(Debug, Clone, Copy)]
pub struct Identities<'a> {
    store: &'a Store,
}

impl Store {
    /// Who users are at providers.
    #[must_use]
    pub fn identities(&self) -> Identities<'_> {
        Identities { store: self }
    }
}

impl Identities<'_> {
    /// The user of an identity: the one it belongs to, or was invited by its address, or is made now. Writes down its groups
    /// and what they give.
    ///
    /// # Errors
    /// [`ResolveIdentityError`] by cause.
    pub async fn resolve(&self, proven: ProvenIdentity) -> Result<ResolvedIdentity, ResolveIdentityError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        // Two first logins at once must not make two users.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 11))")
            .bind(format!("{}\n{}", proven.issuer, proven.subject))
            .execute(&mut *tx)
            .await?;
        let known: Option<Uuid> =
            sqlx::query_scalar("SELECT user_id FROM pgmoor.identities WHERE issuer = $1 AND subject = $2")
                .bind(&proven.issuer)
                .bind(&proven.subject)
                .fetch_optional(&mut *tx)
                .await?;
        let mut changes = IdentityChanges::default();
        let user = match known {
            Some(user) => user,
            None => {
                let (user, begun) = link_or_create(&mut tx, &proven).await?;
                changes.begun = Some(begun);
                user
            }
        };
        let disabled: bool = sqlx::query_scalar("SELECT disabled FROM pgmoor.users WHERE id = $1")
            .bind(user)
            .fetch_one(&mut *tx)
            .await?;
        if disabled {
            return Err(ResolveIdentityError::UserDisabled);
        }
        // Before anything else of the user is written: it may lock all administrators, in one order.
        changes.administrator = follow_administrator(&mut tx, user, &proven).await?;
        vouch(&mut tx, user, proven.vouched_for).await?;
        if known.is_some() {
            follow_provider(&mut tx, &proven).await?;
        }
        (changes.joined, changes.left) = write_groups(&mut tx, user, &proven).await?;
        if changes.administrator.is_some() || !changes.joined.is_empty() || !changes.left.is_empty() {
            // What is open is decided again.
            Counter::Policy.next(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(ResolvedIdentity {
            user_id: UserId::from_uuid(user),
            changes,
        })
    }
}

/// The identity goes by the name that its provider has now.
async fn follow_provider(tx: &mut PgConnection, proven: &ProvenIdentity) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE pgmoor.identities SET provider = $3 WHERE issuer = $1 AND subject = $2 AND provider <> $3",
    )
    .bind(&proven.issuer)
    .bind(&proven.subject)
    .bind(&proven.provider)
    .execute(tx)
    .await
    .map(drop)
}

async fn link_or_create(
    tx: &mut PgConnection,
    proven: &ProvenIdentity,
) -> Result<(Uuid, Begun), ResolveIdentityError> {
    let invited: Option<Uuid> = sqlx::query_scalar(
        // An invitation is taken up once: an address may be given to somebody else later.
        "SELECT id FROM pgmoor.users AS u WHERE email = $1 AND kind = 'person' AND NOT EXISTS \
             (SELECT FROM pgmoor.identities AS i WHERE i.user_id = u.id) FOR UPDATE",
    )
    .bind(&proven.email)
    .fetch_optional(&mut *tx)
    .await?;
    let (user, begun) = match (invited, &proven.new_user) {
        (Some(user), _) => (user, Begun::Linked),
        (None, Some(new)) => {
            let inserted = sqlx::query(
                "INSERT INTO pgmoor.users (id, username, username_key, display_name) VALUES ($1, $2, $3, $4)",
            )
            .bind(new.id.as_uuid())
            .bind(new.username.as_str())
            .bind(new.username.key())
            .bind(new.display_name.as_str())
            .execute(&mut *tx)
            .await;
            match inserted {
                Ok(_) => (new.id.as_uuid(), Begun::Created),
                Err(error) if violated_constraint(&error) == Some("users_username_key") => {
                    return Err(ResolveIdentityError::UsernameTaken);
                }
                Err(error) => return Err(error.into()),
            }
        }
        (None, None) => return Err(ResolveIdentityError::NotInvited),
    };
    sqlx::query("INSERT INTO pgmoor.identities (issuer, subject, user_id, provider) VALUES ($1, $2, $3, $4)")
        .bind(&proven.issuer)
        .bind(&proven.subject)
        .bind(user)
        .bind(&proven.provider)
        .execute(tx)
        .await?;
    Ok((user, begun))
}

/// Groups that somebody is in now, and those that they are in no more.
type JoinedAndLeft = (Vec<Uuid>, Vec<Uuid>);

/// Replaces the groups of the provider. What did not change is not written again.
async fn write_groups(
    tx: &mut PgConnection,
    user: Uuid,
    proven: &ProvenIdentity,
) -> Result<JoinedAndLeft, sqlx::Error> {
    let (values, names): (Vec<&str>, Vec<Option<&str>>) = proven
        .groups
        .iter()
        .map(|(value, name)| (value.as_str(), name.as_deref()))
        .unzip();
    sqlx::query(
        "DELETE FROM pgmoor.identity_groups WHERE user_id = $1 AND provider = $2 AND NOT group_value = ANY ($3)",
    )
    .bind(user)
    .bind(&proven.provider)
    .bind(&values)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO pgmoor.identity_groups AS g (user_id, provider, group_value, group_name) \
         SELECT $1, $2, value, name FROM unnest($3::text[], $4::text[]) AS new (value, name) \
         ON CONFLICT ON CONSTRAINT identity_groups_pkey DO UPDATE SET group_name = excluded.group_name \
         WHERE g.group_name IS DISTINCT FROM excluded.group_name",
    )
    .bind(user)
    .bind(&proven.provider)
    .bind(&values)
    .bind(&names)
    .execute(&mut *tx)
    .await?;
    let mut groups: Vec<&str> = names.into_iter().flatten().collect();
    groups.sort_unstable();
    groups.dedup();
    follow_groups(tx, user, &format!("oidc:{}", proven.provider), &groups).await
}

/// Puts a user into the groups that a source gives them, and out of those it does not give any more. A group that nobody has
/// made yet is made: what it may do is bound to it.
async fn follow_groups(
    tx: &mut PgConnection,
    user: Uuid,
    source: &str,
    groups: &[&str],
) -> Result<JoinedAndLeft, sqlx::Error> {
    sqlx::query(
        "INSERT INTO pgmoor.groups (id, display_name) SELECT gen_random_uuid(), name FROM unnest($1::text[]) AS name \
         ON CONFLICT ON CONSTRAINT groups_display_name_key DO NOTHING",
    )
    .bind(groups)
    .execute(&mut *tx)
    .await?;
    let left: Vec<Uuid> = sqlx::query_scalar(
        "DELETE FROM pgmoor.group_members AS m USING pgmoor.groups AS g WHERE g.id = m.group_id \
         AND m.user_id = $1 AND m.source = $2 AND NOT g.display_name = ANY ($3) RETURNING g.id",
    )
    .bind(user)
    .bind(source)
    .bind(groups)
    .fetch_all(&mut *tx)
    .await?;
    let joined: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO pgmoor.group_members (group_id, user_id, source) \
         SELECT id, $1, $2 FROM pgmoor.groups WHERE display_name = ANY ($3) \
         ON CONFLICT ON CONSTRAINT group_members_pkey DO NOTHING RETURNING group_id",
    )
    .bind(user)
    .bind(source)
    .bind(groups)
    .fetch_all(tx)
    .await?;
    Ok((joined, left))
}

/// Makes an administrator of the user, or a member of one that this provider's groups had made. The last enabled administrator
/// stays one.
async fn follow_administrator(
    tx: &mut PgConnection,
    user: Uuid,
    proven: &ProvenIdentity,
) -> Result<Option<bool>, sqlx::Error> {
    if proven.administrator {
        let made = sqlx::query(
            "UPDATE pgmoor.users SET administrator = true, administrator_provider = $2, version = version + 1, \
             update_time = clock_timestamp() WHERE id = $1 AND NOT administrator",
        )
        .bind(user)
        .bind(&proven.provider)
        .execute(tx)
        .await?;
        return Ok((made.rows_affected() == 1).then_some(true));
    }
    let made: bool = sqlx::query_scalar(
        "SELECT coalesce(administrator_provider = $2, false) FROM pgmoor.users WHERE id = $1",
    )
    .bind(user)
    .bind(&proven.provider)
    .fetch_one(&mut *tx)
    .await?;
    if !made {
        return Ok(None);
    }
    if administrators::is_last(&administrators::locked(tx).await?, user) {
        tracing::warn!(user.id = %user, "the last administrator lost the group that makes one, and stays one");
        return Ok(None);
    }
    let ended = sqlx::query(
        "UPDATE pgmoor.users SET administrator = false, administrator_provider = NULL, version = version + 1, \
         update_time = clock_timestamp() WHERE id = $1 AND administrator_provider = $2",
    )
    .bind(user)
    .bind(&proven.provider)
    .execute(tx)
    .await?;
    Ok((ended.rows_affected() == 1).then_some(false))
}
