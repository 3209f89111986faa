//! Writes the messages of a client into a buffer.
//!
//! A message is either appended whole or not at all: everything that can be refused is checked first.

use std::io;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;

use crate::error::SendError;

/// What Describe and Close are about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Statement,
    Portal,
}

impl Target {
    fn code(self) -> u8 {
        match self {
            Target::Statement => b'S',
            Target::Portal => b'P',
        }
    }

    fn what(self) -> &'static str {
        match self {
            Target::Statement => "statement name",
            Target::Portal => "portal name",
        }
    }
}

fn no_nul(what: &'static str, text: &str) -> Result<(), SendError> {
    if text.as_bytes().contains(&0) {
        Err(SendError::NulByte { what })
    } else {
        Ok(())
    }
}

/// Appends one message; takes it back when the encoder refuses it, which after the NUL checks means length.
fn append<E>(
    out: &mut BytesMut,
    message: &'static str,
    encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
) -> Result<(), SendError> {
    let before = out.len();
    encode(out).map_err(|_| {
        out.truncate(before);
        SendError::TooLong { message }
    })
}

pub(crate) fn startup(out: &mut BytesMut, parameters: &[(&str, &str)]) -> Result<(), SendError> {
    for (name, value) in parameters {
        no_nul("start-up parameter", name)?;
        no_nul("start-up parameter", value)?;
    }
    append(out, "StartupMessage", |out| {
        frontend::startup_message(parameters.iter().copied(), out)
    })
}

pub(crate) fn password(out: &mut BytesMut, password: &str) -> Result<(), SendError> {
    no_nul("password", password)?;
    append(out, "PasswordMessage", |out| {
        frontend::password_message(password.as_bytes(), out)
    })
}

pub(crate) fn sasl_initial(out: &mut BytesMut, mechanism: &str, data: &[u8]) -> Result<(), SendError> {
    append(out, "SASLInitialResponse", |out| {
        frontend::sasl_initial_response(mechanism, data, out)
    })
}

pub(crate) fn sasl_response(out: &mut BytesMut, data: &[u8]) -> Result<(), SendError> {
    append(out, "SASLResponse", |out| frontend::sasl_response(data, out))
}

/// A CancelRequest with a secret of any length: four bytes in protocol 3.0, up to 256 in 3.2.
pub(crate) fn cancel_request(out: &mut BytesMut, process_id: i32, secret: &[u8]) {
    const CANCEL_REQUEST_CODE: i32 = 80_877_102;
    // Bounded by the decoder of BackendKeyData, so the length always fits.
    out.put_u32(u32::try_from(12 + secret.len()).unwrap_or(u32::MAX));
    out.put_i32(CANCEL_REQUEST_CODE);
    out.put_i32(process_id);
    out.put_slice(secret);
}

pub(crate) fn query(out: &mut BytesMut, sql: &str) -> Result<(), SendError> {
    no_nul("query", sql)?;
    append(out, "Query", |out| frontend::query(sql, out))
}

pub(crate) fn parse(
    out: &mut BytesMut,
    name: &str,
    sql: &str,
    parameter_types: &[u32],
) -> Result<(), SendError> {
    no_nul("statement name", name)?;
    no_nul("query", sql)?;
    append(out, "Parse", |out| {
        frontend::parse(name, sql, parameter_types.iter().copied(), out)
    })
}

/// All parameters and all results in text format.
pub(crate) fn bind<'p>(
    out: &mut BytesMut,
    portal: &str,
    statement: &str,
    parameters: impl IntoIterator<Item = Option<&'p [u8]>>,
) -> Result<(), SendError> {
    no_nul("portal name", portal)?;
    no_nul("statement name", statement)?;
    let parameter = |value: Option<&[u8]>, out: &mut BytesMut| match value {
        Some(value) => {
            out.put_slice(value);
            Ok(IsNull::No)
        }
        None => Ok(IsNull::Yes),
    };
    append(out, "Bind", |out| {
        frontend::bind(portal, statement, [], parameters, parameter, [], out)
    })
}

pub(crate) fn describe(out: &mut BytesMut, target: Target, name: &str) -> Result<(), SendError> {
    no_nul(target.what(), name)?;
    append(out, "Describe", |out| {
        frontend::describe(target.code(), name, out)
    })
}

pub(crate) fn close(out: &mut BytesMut, target: Target, name: &str) -> Result<(), SendError> {
    no_nul(target.what(), name)?;
    append(out, "Close", |out| frontend::close(target.code(), name, out))
}

pub(crate) fn execute(out: &mut BytesMut, portal: &str, max_rows: i32) -> Result<(), SendError> {
    no_nul("portal name", portal)?;
    append(out, "Execute", |out| frontend::execute(portal, max_rows, out))
}

pub(crate) fn copy_data(out: &mut BytesMut, data: &[u8]) -> Result<(), SendError> {
    append(out, "CopyData", |out| {
        frontend::CopyData::new(data)?.write(out);
        Ok::<(), io::Error>(())
    })
}

pub(crate) fn copy_fail(out: &mut BytesMut, message: &str) -> Result<(), SendError> {
    no_nul("copy failure message", message)?;
    append(out, "CopyFail", |out| frontend::copy_fail(message, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_message_leaves_the_buffer_as_it_was() {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(
            query(&mut out, "select\0 1"),
            Err(SendError::NulByte { what: "query" })
        );
        assert_eq!(
            parse(&mut out, "a\0", "", &[]),
            Err(SendError::NulByte {
                what: "statement name"
            })
        );
        assert_eq!(
            bind(&mut out, "\0", "", []),
            Err(SendError::NulByte { what: "portal name" })
        );
        let many = vec![None; 65_536];
        assert_eq!(
            bind(&mut out, "", "", many),
            Err(SendError::TooLong { message: "Bind" })
        );
        assert_eq!(
            parse(&mut out, "", "", &[0; 65_536]),
            Err(SendError::TooLong { message: "Parse" })
        );
        assert_eq!(out, &b"before"[..]);
    }

    #[test]
    fn a_bound_parameter_may_hold_any_byte() {
        let mut out = BytesMut::new();
        bind(&mut out, "", "", [Some(&b"a\0\xff"[..]), None]).unwrap();
        let expected = b"B\0\0\0\x17\0\0\0\0\0\x02\0\0\0\x03a\0\xff\xff\xff\xff\xff\0\0";
        assert_eq!(out, &expected[..]);
    }

    #[test]
    fn a_cancel_request_carries_secrets_of_any_length() {
        let mut out = BytesMut::new();
        cancel_request(&mut out, 7, &[1, 2, 3, 4]);
        assert_eq!(out, &b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\x01\x02\x03\x04"[..]);
        out.clear();
        cancel_request(&mut out, 7, &[9; 32]);
        assert_eq!((out.len(), out[3]), (44, 44));
    }
}
