//! pg_dump's command line.

use domain::backup::BackupSelection;
use domain::name::Identifier;

/// How a dump is made. Always in custom format, to the standard output, without owners and privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpOptions {
    /// What is dumped.
    pub selection: BackupSelection,
    /// How hard to compress, 0 (not at all) to 9.
    pub compression: u8,
    /// True to take all large objects of the database along.
    pub large_objects: bool,
}

impl DumpOptions {
    /// The arguments, but for the database, for a pg_dump of major version `major`.
    #[must_use]
    pub fn arguments(&self, major: u32) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "--format=custom",
            "--no-owner",
            "--no-privileges",
            "--no-password",
            "--verbose",
            // A name without a match is an error, not an empty dump.
            "--strict-names",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--compress={}", self.compression.min(9)));
        let large_objects = match (self.large_objects, major) {
            (true, 16..) => "--large-objects",
            (true, _) => "--blobs",
            (false, 16..) => "--no-large-objects",
            (false, _) => "--no-blobs",
        };
        arguments.push(large_objects.to_owned());
        match &self.selection {
            BackupSelection::Schemas(schemas) => {
                arguments.extend(
                    schemas
                        .iter()
                        .map(|schema| format!("--schema={}", pattern(schema))),
                );
            }
            BackupSelection::Tables(tables) => arguments.extend(
                tables
                    .iter()
                    .map(|(schema, table)| format!("--table={}.{}", pattern(schema), pattern(table))),
            ),
        }
        arguments
    }
}

/// A pattern that matches one name: within double quotes nothing has a meaning but the double quote, which is doubled
/// (PostgreSQL manual, psql, "Patterns").
fn pattern(name: &Identifier) -> String {
    name.quoted()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Identifier {
        text.parse().unwrap()
    }

    fn options(selection: BackupSelection) -> DumpOptions {
        DumpOptions {
            selection,
            compression: 6,
            large_objects: true,
        }
    }

    #[test]
    fn names_become_quoted_patterns_in_one_argument_each() {
        let selection =
            BackupSelection::new(vec![name("a.b*"), name("--file=x"), name("q\"q")], vec![]).unwrap();
        let arguments = options(selection).arguments(15);
        for expected in [
            "--schema=\"a.b*\"",
            "--schema=\"--file=x\"",
            "--schema=\"q\"\"q\"",
        ] {
            assert!(
                arguments.iter().any(|argument| argument == expected),
                "{expected}: {arguments:?}"
            );
        }
        let tables = BackupSelection::new(vec![], vec![(name("S"), name("t?"))]).unwrap();
        assert!(
            options(tables)
                .arguments(15)
                .contains(&"--table=\"S\".\"t?\"".to_owned())
        );
    }

    #[test]
    fn options_are_spelled_as_the_version_knows_them() {
        let selection = BackupSelection::Schemas(vec![name("public")]);
        let with = |large_objects, major| {
            let arguments = DumpOptions {
                large_objects,
                ..options(selection.clone())
            }
            .arguments(major);
            arguments
                .into_iter()
                .find(|argument| argument.contains("blobs") || argument.contains("large-objects"))
        };
        assert_eq!(with(true, 15).as_deref(), Some("--blobs"));
        assert_eq!(with(true, 16).as_deref(), Some("--large-objects"));
        assert_eq!(with(false, 15).as_deref(), Some("--no-blobs"));
        assert_eq!(with(false, 18).as_deref(), Some("--no-large-objects"));
    }
}
