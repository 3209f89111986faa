//! A script with everything the settings decide filled in, as the pooler wants it.

use domain::settings::{self, Kind, PAGE_SIZE, Settings};
use rpc::query::v1::{OnError, OnLimit, Script, ScriptMode};

use crate::duration;
use crate::error::{Error, Violations};

/// Longest script.
const MAX_SQL_BYTES: usize = 16 * 1024 * 1024;
/// Most parameters of a statement: the protocol counts them in 16 bits (PostgreSQL manual, 55.7, Bind).
const MAX_PARAMETERS: usize = 65_535;

/// Checks a script and fills in what it leaves open.
pub(crate) fn fill(script: Option<Script>, settings: &Settings) -> Result<Script, Error> {
    let Some(mut script) = script else {
        return Err(Error::invalid("script", "must be given"));
    };
    let mut violations = Violations::default();
    if script.sql.len() > MAX_SQL_BYTES {
        violations.add("script.sql", "must be at most 16 MiB long");
    }
    if script.sql.contains('\0') {
        violations.add(
            "script.sql",
            "must not contain NUL, which PostgreSQL's protocol cannot carry",
        );
    }
    if script.parameters.len() > MAX_PARAMETERS {
        violations.add(
            "script.parameters",
            format_args!("must be at most {MAX_PARAMETERS}"),
        );
    }
    fill_mode(&mut script, settings, &mut violations);
    match OnError::try_from(script.on_error) {
        Ok(OnError::Unspecified) => script.set_on_error(match settings.on_error() {
            settings::OnError::Stop => OnError::Stop,
            settings::OnError::Continue => OnError::Continue,
        }),
        Ok(OnError::Stop | OnError::Continue) => {}
        Err(_) => violations.add("script.on_error", "is not a known value"),
    }
    if OnLimit::try_from(script.on_limit).is_err() {
        violations.add("script.on_limit", "is not a known value");
    }
    match script.statement_timeout {
        Some(timeout) => {
            violations.check("script.statement_timeout", duration::decode(timeout));
        }
        None => {
            script.statement_timeout =
                Some(duration::encode(settings.statement_timeout().unwrap_or_default()));
        }
    }
    match script.max_rows {
        Some(rows) if rows < 0 => violations.add("script.max_rows", "must not be negative"),
        Some(_) => {}
        None => {
            let limit = settings.row_limit().unwrap_or(0);
            script.max_rows = Some(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }
    match script.max_bytes {
        Some(bytes) if bytes < 0 => violations.add("script.max_bytes", "must not be negative"),
        Some(_) => {}
        None => {
            let limit = settings.byte_limit().unwrap_or(0);
            script.max_bytes = Some(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }
    match script.page_size {
        0 => script.page_size = settings.page_size(),
        wish if wish < 0 => violations.add("script.page_size", "must not be negative"),
        wish => script.page_size = wish.min(largest_page()),
    }
    violations.done()?;
    Ok(script)
}

fn fill_mode(script: &mut Script, settings: &Settings, violations: &mut Violations) {
    match ScriptMode::try_from(script.mode) {
        // Data for COPY, parameters and portals decide the mode: only a split script can have them.
        Ok(ScriptMode::Unspecified)
            if !script.copy_input.is_empty()
                || !script.parameters.is_empty()
                || script.on_limit() == OnLimit::Suspend =>
        {
            script.set_mode(ScriptMode::Split);
        }
        Ok(ScriptMode::Unspecified) => script.set_mode(match settings.script_mode() {
            settings::ScriptMode::Split => ScriptMode::Split,
            settings::ScriptMode::OneMessage => ScriptMode::OneMessage,
        }),
        Ok(ScriptMode::OneMessage) if !script.copy_input.is_empty() => {
            violations.add("script.copy_input", "needs SCRIPT_MODE_SPLIT");
        }
        Ok(ScriptMode::Split | ScriptMode::OneMessage) => {}
        Err(_) => violations.add("script.mode", "is not a known value"),
    }
}

/// Most rows a message may be asked to hold.
pub(super) fn largest_page() -> i32 {
    match PAGE_SIZE.kind {
        Kind::Int { max, .. } => i32::try_from(max).unwrap_or(i32::MAX),
        _ => i32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::settings::{Layer, SettingValue, find};

    use super::*;

    fn settings(choices: &[(&str, SettingValue)]) -> Settings {
        let mut layer = Layer::default();
        for (name, value) in choices {
            layer.choose(find(name).unwrap(), value.clone(), 1).unwrap();
        }
        Settings::new(Arc::default(), Arc::new(layer))
    }

    fn chosen() -> Settings {
        settings(&[
            ("query.row_limit", SettingValue::Int(7)),
            ("query.byte_limit", SettingValue::Int(9)),
            ("query.page_size", SettingValue::Int(3)),
            ("query.script_mode", SettingValue::text("ONE_MESSAGE")),
            ("query.on_error", SettingValue::text("CONTINUE")),
            (
                "query.statement_timeout",
                SettingValue::Duration(std::time::Duration::from_secs(9)),
            ),
        ])
    }

    #[test]
    fn settings_decide_what_the_request_leaves_open() {
        let script = fill(Some(Script::default()), &chosen()).unwrap();
        assert_eq!(
            (script.mode(), script.on_error()),
            (ScriptMode::OneMessage, OnError::Continue)
        );
        assert_eq!((script.max_rows, script.page_size), (Some(7), 3));
        assert_eq!(script.max_bytes, Some(9));
        assert_eq!(script.statement_timeout.unwrap().seconds, 9);
    }

    #[test]
    fn request_wins_over_settings() {
        let mut wish = Script {
            max_rows: Some(0),
            max_bytes: Some(0),
            page_size: i32::MAX,
            ..Script::default()
        };
        wish.set_mode(ScriptMode::Split);
        wish.set_on_error(OnError::Stop);
        wish.statement_timeout = Some(prost_types::Duration::default());
        let script = fill(Some(wish), &chosen()).unwrap();
        assert_eq!(
            (script.mode(), script.on_error()),
            (ScriptMode::Split, OnError::Stop)
        );
        assert_eq!((script.max_rows, script.page_size), (Some(0), 10_000));
        assert_eq!(script.max_bytes, Some(0));
        assert_eq!(script.statement_timeout.unwrap().seconds, 0);
    }

    #[test]
    fn data_for_copy_needs_a_split_script() {
        let data = Script {
            copy_input: vec![bytes::Bytes::from_static(b"1\n")],
            ..Script::default()
        };
        assert_eq!(
            fill(Some(data.clone()), &chosen()).unwrap().mode(),
            ScriptMode::Split
        );
        let mut wrong = data;
        wrong.set_mode(ScriptMode::OneMessage);
        assert!(matches!(fill(Some(wrong), &chosen()), Err(Error::Invalid(_))));
    }

    #[test]
    fn statement_that_is_to_be_suspended_is_sent_by_itself_whatever_the_setting() {
        let wish = Script {
            on_limit: OnLimit::Suspend.into(),
            ..Script::default()
        };
        assert_eq!(fill(Some(wish), &chosen()).unwrap().mode(), ScriptMode::Split);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let wrong = Script {
            sql: "SELECT '\0'".to_owned(),
            mode: 99,
            on_error: -1,
            max_rows: Some(-1),
            max_bytes: Some(-1),
            on_limit: 7,
            page_size: -1,
            statement_timeout: Some(prost_types::Duration {
                seconds: -1,
                nanos: 0,
            }),
            ..Script::default()
        };
        let Err(Error::Invalid(violations)) = fill(Some(wrong), &chosen()) else {
            panic!("must be refused")
        };
        assert_eq!(violations.len(), 8, "{violations:?}");
    }
}
