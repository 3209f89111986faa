//! Result sets on their way to the standard output, in one of four forms.
//!
//! Invariant: memory is bounded, however many rows come and however large a value is. A value that comes in
//! pieces is written through where its turn has come, and put aside in an unlinked temporary file where it
//! has not.

mod csv;
mod json;
mod spool;
mod table;
mod unaligned;

use rpc::query::v1::{Column, Row, ValueChunk};

use crate::error::ClientError;
use crate::output::sink::Sink;

pub(crate) use csv::{CsvResults, csv_format};
pub(crate) use json::JsonResults;
pub(crate) use spool::{Spool, Spools};
pub(crate) use table::TableResults;
pub(crate) use unaligned::UnalignedResults;

/// The form of results, with what is known of the result set that is being written.
#[derive(Debug)]
pub(crate) enum Results {
    Table(TableResults),
    Csv(CsvResults),
    Json(JsonResults),
    Unaligned(UnalignedResults),
}

impl Results {
    /// A result set begins.
    pub(crate) async fn columns(&mut self, columns: &[Column], out: &mut Sink) -> Result<(), ClientError> {
        match self {
            Self::Table(results) => results.columns(columns),
            Self::Csv(results) => results.columns(columns, &mut out.block),
            Self::Json(results) => results.columns(columns),
            Self::Unaligned(results) => results.columns(columns, &mut out.block),
        }
        out.pass().await
    }

    /// Rows of it.
    pub(crate) async fn rows(&mut self, rows: &[Row], out: &mut Sink) -> Result<(), ClientError> {
        match self {
            Self::Table(results) => results.rows(rows, &mut out.block)?,
            Self::Csv(results) => results.rows(rows, out).await?,
            Self::Json(results) => results.rows(rows, out).await?,
            Self::Unaligned(results) => results.rows(rows, out).await?,
        }
        out.pass().await
    }

    /// A piece of a large value of the row to come.
    pub(crate) async fn chunk(&mut self, chunk: &ValueChunk, out: &mut Sink) -> Result<(), ClientError> {
        match self {
            Self::Table(results) => results.chunk(chunk),
            Self::Csv(results) => results.chunk(chunk, &mut out.block)?,
            Self::Json(results) => results.chunk(chunk)?,
            Self::Unaligned(results) => results.chunk(chunk, &mut out.block)?,
        }
        out.pass().await
    }

    /// The result set has ended: well, or `cut` off by an error.
    pub(crate) async fn end(&mut self, cut: bool, out: &mut Sink) -> Result<(), ClientError> {
        match self {
            Self::Table(results) => results.end(cut, &mut out.block),
            Self::Csv(results) => results.end(&mut out.block),
            Self::Json(results) => results.end(),
            Self::Unaligned(results) => results.end(cut, &mut out.block),
        }
        out.pass().await
    }
}

/// True for the built-in types whose values are numbers.
pub(crate) fn is_numeric(column: &Column) -> bool {
    matches!(
        column.type_name.as_str(),
        "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "oid" | "money"
    )
}

#[cfg(test)]
mod tests;
