//! The name of a database in a request.

use domain::name::Identifier;

use crate::error::Error;

/// Checks the name of a database; empty means the server's maintenance database.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Ok(());
    }
    name.parse::<Identifier>()
        .map(drop)
        .map_err(|error| Error::invalid("database", error))
}
