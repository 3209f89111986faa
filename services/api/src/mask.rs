//! Update masks: which fields of a resource a request changes.

use prost_types::FieldMask;

use crate::error::Violations;

/// The fields to change among those that can be: what the mask names (`*` for all), or without one what is
/// set.
pub(crate) fn paths<'a>(
    mask: Option<FieldMask>,
    fields: &[(&'a str, bool)],
    violations: &mut Violations,
) -> Vec<&'a str> {
    let Some(mask) = mask else {
        return fields
            .iter()
            .filter(|(_, set)| *set)
            .map(|(field, _)| *field)
            .collect();
    };
    let mut paths = Vec::new();
    for (index, path) in mask.paths.iter().enumerate() {
        match fields.iter().find(|(field, _)| field == path) {
            Some((field, _)) => paths.push(*field),
            None if path == "*" => paths.extend(fields.iter().map(|(field, _)| *field)),
            None => violations.add(
                format!("update_mask.paths[{index}]"),
                format_args!("must be one of {}", names(fields)),
            ),
        }
    }
    paths
}

fn names(fields: &[(&str, bool)]) -> String {
    fields
        .iter()
        .map(|(field, _)| *field)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [(&str, bool); 2] = [("a", true), ("b", false)];

    fn chosen(paths: Option<&[&str]>) -> Result<Vec<&'static str>, ()> {
        let mask = paths.map(|paths| FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        });
        let mut violations = Violations::default();
        let paths = super::paths(mask, &FIELDS, &mut violations);
        violations.done().map(|()| paths).map_err(drop)
    }

    #[test]
    fn without_a_mask_the_fields_that_are_set_change() {
        assert_eq!(chosen(None), Ok(vec!["a"]));
        assert_eq!(chosen(Some(&["b"])), Ok(vec!["b"]));
        assert_eq!(chosen(Some(&["*"])), Ok(vec!["a", "b"]));
    }

    #[test]
    fn unknown_path_is_refused() {
        assert_eq!(chosen(Some(&["a", "etag"])), Err(()));
    }
}
