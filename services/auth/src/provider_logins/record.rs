//! What logins with providers leave in the audit trail beside the records of calls: what browsers came back with, and what became
//! of users by a provider's word. No call names these.

use ::audit::{Entry, Kind};
use domain::id::UserId;
use store::identities::{Begun, IdentityChanges};
use store::provider_sessions::ProviderSession;

use super::ProviderLogins;
use crate::login_failure::LoginFailure;

const OK: &str = "OK";

impl ProviderLogins {
    /// A record that says what happened, at which provider.
    fn event(&self, what: &str, provider: &str) -> Option<Entry> {
        let mut entry = self.parts.audit.as_ref()?.entry(Kind::Call);
        entry.method = format!("oidc/{what}");
        provider.clone_into(&mut entry.provider);
        OK.clone_into(&mut entry.outcome);
        Some(entry)
    }

    fn put(&self, entry: Entry) {
        if let Some(log) = &self.parts.audit {
            log.record(entry);
        }
    }

    /// What a browser came back with, or its person said.
    pub(super) fn record_browser(
        &self,
        what: &str,
        provider: &str,
        address: &str,
        user: Option<UserId>,
        failure: Option<&LoginFailure>,
    ) {
        let Some(log) = &self.parts.audit else { return };
        // Anybody may open these addresses, with anything.
        if failure.is_some() && !log.admits_denial(&domain::source_address::block(address)) {
            return;
        }
        let Some(mut entry) = self.event(what, provider) else {
            return;
        };
        address.clone_into(&mut entry.address);
        entry.user_id = user;
        if let Some(failure) = failure {
            fail(&mut entry, failure);
        }
        self.put(entry);
    }

    /// What became of a user by a provider's word: a record for each kind of change.
    pub(super) fn record_changes(&self, provider: &str, user: UserId, changes: &IdentityChanges) {
        let groups = |groups: &[uuid::Uuid]| -> Vec<String> {
            groups.iter().map(|group| format!("groups/{group}")).collect()
        };
        let begun = changes.begun.map(|begun| match begun {
            Begun::Created => "create-user",
            Begun::Linked => "link-user",
        });
        let administrator = changes.administrator.map(|is_one| {
            if is_one {
                "make-administrator"
            } else {
                "end-administrator"
            }
        });
        let joined = (!changes.joined.is_empty()).then_some("join-groups");
        let left = (!changes.left.is_empty()).then_some("leave-groups");
        for (what, groups) in [
            (begun, Vec::new()),
            (administrator, Vec::new()),
            (joined, groups(&changes.joined)),
            (left, groups(&changes.left)),
        ] {
            let Some(mut entry) = what.and_then(|what| self.event(what, provider)) else {
                continue;
            };
            entry.user_id = Some(user);
            entry.resources = vec![format!("users/{user}")];
            entry.resources.extend(groups);
            self.put(entry);
        }
    }

    /// A provider does not vouch for a login any more.
    pub(super) fn record_end(&self, session: &ProviderSession, failure: &LoginFailure) {
        let Some(mut entry) = self.event("end-login", &session.provider) else {
            return;
        };
        entry.user_id = Some(session.user_id);
        entry.credential = format!("logins/{}", session.login_id);
        entry.resources = vec![format!("users/{}", session.user_id)];
        fail(&mut entry, failure);
        self.put(entry);
    }
}

fn fail(entry: &mut Entry, failure: &LoginFailure) {
    let (code, reason) = failure.reason();
    rpc::error::code_name(code).clone_into(&mut entry.outcome);
    rpc::error::reason_name(reason).clone_into(&mut entry.reason);
}
