//! What happens in an execution, as the events of the contract: written from the server's bytes, handed to a reader.

mod rows;
mod server_message;
mod type_name;
mod writer;

pub(crate) use server_message::{columns, row_count, server_message};
pub(crate) use writer::EventWriter;
