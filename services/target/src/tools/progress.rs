//! What a line of `--verbose` says about progress (messages of the C locale).

/// A step a program reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// pg_dump reads a table's rows.
    Dumping,
    /// pg_restore makes an object, or fills it.
    Restoring,
}

/// The step a line reports, if it reports one.
#[must_use]
pub fn step(line: &str) -> Option<Step> {
    let (program, message) = line.split_once(": ")?;
    // The program is printed by its path or its name.
    let program = program.rsplit('/').next()?;
    match program {
        "pg_dump" if message.starts_with("dumping contents of table ") => Some(Step::Dumping),
        "pg_restore"
            if [
                "creating ",
                "processing data for table ",
                "executing ",
                "restoring large object",
            ]
            .iter()
            .any(|prefix| message.starts_with(prefix)) =>
        {
            Some(Step::Restoring)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steps_are_steps() {
        assert_eq!(
            step("pg_dump: dumping contents of table \"s.t\""),
            Some(Step::Dumping)
        );
        for line in [
            "creating TABLE \"s.t\"",
            "processing data for table \"s.t\"",
            "executing SEQUENCE SET s.q",
        ] {
            assert_eq!(
                step(&format!("pg_restore: {line}")),
                Some(Step::Restoring),
                "{line}"
            );
        }
        for line in [
            "",
            "pg_dump: reading schemas",
            "pg_restore: connecting to database for restore",
            "creating TABLE x",
        ] {
            assert_eq!(step(line), None, "{line}");
        }
    }
}
