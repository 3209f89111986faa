//! One JSON object for each row, one on a line: what jq and log shippers read while it comes.
//!
//! Numbers, booleans and jsonb keep their JSON types; everything else is PostgreSQL's text. Bytes that are
//! not UTF-8 are
//! `{"binary": "<base64>"}`. A column whose name an earlier one has is called `name_2`, `name_3`, ….

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rpc::query::v1::value::Kind;
use rpc::query::v1::{Column, Row, ValueChunk};

use super::{Spool, Spools};
use crate::error::ClientError;
use crate::output::sink::Sink;

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Bool,
    Json,
}

/// A result set as JSON lines.
#[derive(Debug, Default)]
pub(crate) struct JsonResults {
    /// What stands before each value: `{"name":` or `,"name":`.
    keys: Vec<(Vec<u8>, Form)>,
    spools: Spools,
}

impl JsonResults {
    pub(super) fn columns(&mut self, columns: &[Column]) {
        self.spools.clear();
        let mut names: Vec<String> = Vec::new();
        for column in columns {
            let mut name = column.name.clone();
            let mut count = 1;
            while names.contains(&name) {
                count += 1;
                name = format!("{}_{count}", column.name);
            }
            names.push(name);
        }
        let key = |(index, name): (usize, &String)| {
            let mut key = vec![if index == 0 { b'{' } else { b',' }, b'"'];
            escape(name.as_bytes(), &mut key);
            key.extend_from_slice(b"\":");
            key
        };
        self.keys = names
            .iter()
            .enumerate()
            .map(key)
            .zip(columns.iter().map(form))
            .collect();
    }

    pub(super) async fn rows(&mut self, rows: &[Row], out: &mut Sink) -> Result<(), ClientError> {
        for row in rows {
            for (index, (value, (key, form))) in row.values.iter().zip(&self.keys).enumerate() {
                out.block.extend_from_slice(key);
                match &value.kind {
                    Some(Kind::Text(text)) => scalar(text, *form, &mut out.block),
                    Some(Kind::Binary(bytes)) => binary(bytes, &mut out.block),
                    Some(Kind::Null(_)) | None => out.block.extend_from_slice(b"null"),
                    Some(Kind::Streamed(_)) => match self.spools.take(index)? {
                        Some(spool) => large(spool, out).await?,
                        None => out.block.extend_from_slice(b"null"),
                    },
                }
            }
            // A row without columns is an object too.
            out.block
                .extend_from_slice(if self.keys.is_empty() { b"{}\n" } else { b"}\n" });
        }
        Ok(())
    }

    pub(super) fn chunk(&mut self, chunk: &ValueChunk) -> Result<(), ClientError> {
        // Whether it is text is known at its end only, so none is written through.
        self.spools.push(chunk)
    }

    pub(super) fn end(&mut self) {
        self.spools.clear();
    }
}

fn form(column: &Column) -> Form {
    match column.type_name.as_str() {
        "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "oid" => Form::Number,
        "bool" => Form::Bool,
        "json" | "jsonb" => Form::Json,
        _ => Form::Text,
    }
}

fn scalar(text: &str, form: Form, block: &mut Vec<u8>) {
    match (form, text) {
        (Form::Bool, "t") => block.extend_from_slice(b"true"),
        (Form::Bool, "f") => block.extend_from_slice(b"false"),
        // NaN and Infinity are numbers to PostgreSQL and not to JSON.
        (Form::Number, text) if is_number(text) => block.extend_from_slice(text.as_bytes()),
        // What PostgreSQL took for json is JSON; its line ends can only stand between tokens.
        (Form::Json, text) => block.extend(
            text.bytes()
                .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
        ),
        (_, text) => {
            block.push(b'"');
            escape(text.as_bytes(), block);
            block.push(b'"');
        }
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().next_back().is_some_and(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'))
}

fn binary(bytes: &[u8], block: &mut Vec<u8>) {
    block.extend_from_slice(b"{\"binary\":\"");
    block.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    block.extend_from_slice(b"\"}");
}

async fn large(mut spool: Spool, out: &mut Sink) -> Result<(), ClientError> {
    let text = spool.is_text();
    out.block
        .extend_from_slice(if text { b"\"" } else { b"{\"binary\":\"" });
    // Base64 is written in groups of three bytes; what is left over waits for the next piece.
    let mut rest = Vec::new();
    loop {
        let piece = spool.read()?;
        if piece.is_empty() {
            break;
        }
        if text {
            escape(&piece, &mut out.block);
        } else {
            rest.extend_from_slice(&piece);
            let whole = rest.len() - rest.len() % 3;
            let left = rest.split_off(whole);
            out.block.extend_from_slice(STANDARD.encode(&rest).as_bytes());
            rest = left;
        }
        out.pass().await?;
    }
    out.block.extend_from_slice(STANDARD.encode(&rest).as_bytes());
    out.block.extend_from_slice(if text { b"\"" } else { b"\"}" });
    Ok(())
}

/// The inside of a JSON string (RFC 8259, 7), byte by byte: what is not ASCII stays as it is.
fn escape(bytes: &[u8], block: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        match byte {
            b'"' => block.extend_from_slice(b"\\\""),
            b'\\' => block.extend_from_slice(b"\\\\"),
            b'\n' => block.extend_from_slice(b"\\n"),
            b'\r' => block.extend_from_slice(b"\\r"),
            b'\t' => block.extend_from_slice(b"\\t"),
            0..0x20 | 0x7f => {
                block.extend_from_slice(b"\\u00");
                block.push(HEX[usize::from(byte >> 4)]);
                block.push(HEX[usize::from(byte & 15)]);
            }
            byte => block.push(*byte),
        }
    }
}
