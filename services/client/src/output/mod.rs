//! What a command shows: data on the standard output, in the form the user chose; the rest on the standard
//! error.

pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod record;
pub(crate) mod sink;
pub(crate) mod table;
