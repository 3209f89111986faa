//! Whether the config database answers, has our schema, and knows the role we log in as.

use config::{Config, Role};
use store::Store;

use super::Finding;
use crate::database;

const SUBJECT: &str = "config database";

/// Connects; hands the connection on for other checks where the schema is ours.
pub(crate) async fn look(config: &Config, role: Option<Role>) -> (Option<Store>, Vec<Finding>) {
    let store = match database::connect_unchecked(&config.config_database, "pgmoor check").await {
        Ok(store) => store,
        Err(error) => return (None, vec![Finding::failed(SUBJECT, format!("{error:#}"))]),
    };
    let mut findings = vec![Finding::fine(SUBJECT, "answers and takes writes")];
    if let Err(error) = store.check_schema().await {
        findings.push(Finding::failed("schema", error.to_string()));
        store.close().await;
        return (None, findings);
    }
    findings.push(Finding::fine("schema", "can be used by this program"));
    findings.push(match store.group_roles().await {
        Ok(groups) => judge(&groups, role),
        Err(error) => Finding::failed("database role", error.to_string()),
    });
    (Some(store), findings)
}

/// A process's login should have the rights of its own group role, and no other's.
fn judge(groups: &[String], role: Option<Role>) -> Finding {
    let subject = "database role";
    let listed = groups.join(", ");
    let Some(role) = role else {
        return match groups {
            [] => Finding::failed(
                subject,
                "the login has the rights of no role: GRANT pgmoor_api, pgmoor_pooler or pgmoor_worker TO it",
            ),
            [_] => Finding::fine(subject, format!("the login has the rights of {listed}")),
            _ => Finding::notice(
                subject,
                format!("the login has the rights of {listed}: give each role a login of its own"),
            ),
        };
    };
    let wanted = format!("pgmoor_{role}");
    match groups {
        [only] if *only == wanted => Finding::fine(subject, format!("the login has the rights of {wanted}")),
        several if several.contains(&wanted) => Finding::notice(
            subject,
            format!("the login has the rights of {listed}: {wanted} would do"),
        ),
        _ => Finding::failed(
            subject,
            format!("the login lacks the rights of {wanted}: GRANT {wanted} TO it"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(groups: &[&str], role: Option<Role>) -> String {
        let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        judge(&groups, role).to_string()
    }

    #[test]
    fn login_with_its_own_rights_only_is_fine() {
        assert!(line(&["pgmoor_api"], Some(Role::Api)).starts_with("ok"));
        assert!(line(&["pgmoor_api"], None).starts_with("ok"));
    }

    #[test]
    fn login_with_more_rights_is_noticed() {
        let all = ["pgmoor_api", "pgmoor_pooler", "pgmoor_worker"];
        assert!(line(&all, Some(Role::Api)).starts_with("notice"));
        assert!(line(&all, None).starts_with("notice"));
    }

    #[test]
    fn login_without_the_rights_fails() {
        assert!(line(&[], None).starts_with("FAILED"));
        assert!(line(&["pgmoor_api"], Some(Role::Pooler)).contains("GRANT pgmoor_pooler"));
    }
}
