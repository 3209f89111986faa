//! CSV as the user's settings `csv.*` say, row by row.

use domain::csv::{CsvColumn, CsvFormat, CsvWriter};
use domain::settings::{CsvDelimiter, CsvLineEnding, CsvQuoting};
use rpc::query::v1::value::Kind;
use rpc::query::v1::{Column, Row, ValueChunk};
use rpc::settings::v1::Setting;
use rpc::settings::v1::setting_value::Kind as SettingKind;

use super::{Spools, is_numeric};
use crate::error::ClientError;
use crate::output::sink::Sink;

/// The form that the settings in force say.
pub(crate) fn csv_format(settings: &[Setting]) -> CsvFormat {
    let kind = |name: &str| {
        let setting = settings.iter().find(|setting| setting.name == name)?;
        setting.value.as_ref()?.kind.as_ref()
    };
    let text = |name: &str| match kind(name) {
        Some(SettingKind::StringValue(text)) => text.as_str(),
        _ => "",
    };
    CsvFormat {
        delimiter: CsvDelimiter::from_word(text("csv.delimiter")),
        line_ending: CsvLineEnding::from_word(text("csv.line_ending")),
        quoting: CsvQuoting::from_word(text("csv.quoting")),
        null_text: text("csv.null_text").to_owned(),
        header: !matches!(kind("csv.header"), Some(SettingKind::BoolValue(false))),
    }
}

/// A result set as CSV.
#[derive(Debug)]
pub(crate) struct CsvResults {
    format: CsvFormat,
    columns: Vec<CsvColumn>,
    spools: Spools,
    /// Values of the row to come that are written already.
    written: usize,
    /// True in the middle of a value that is written through.
    within: bool,
}

impl CsvResults {
    pub(crate) fn new(format: CsvFormat) -> Self {
        Self {
            format,
            columns: Vec::new(),
            spools: Spools::default(),
            written: 0,
            within: false,
        }
    }

    pub(super) fn columns(&mut self, columns: &[Column], block: &mut Vec<u8>) {
        self.columns = columns
            .iter()
            .map(|column| CsvColumn {
                name: column.name.clone(),
                numeric: is_numeric(column),
            })
            .collect();
        let header = CsvWriter::new(self.format.clone(), &self.columns).finish();
        block.extend_from_slice(header.as_bytes());
    }

    pub(super) async fn rows(&mut self, rows: &[Row], out: &mut Sink) -> Result<(), ClientError> {
        let plain = |row: &Row| {
            row.values
                .iter()
                .all(|value| matches!(value.kind, Some(Kind::Text(_) | Kind::Null(_)) | None))
        };
        let mut rest = rows;
        while !rest.is_empty() {
            let count = if self.written == 0 {
                rest.iter().take_while(|row| plain(row)).count()
            } else {
                0
            };
            let (run, after) = rest.split_at(count);
            if !run.is_empty() {
                let format = CsvFormat {
                    header: false,
                    ..self.format.clone()
                };
                let mut writer = CsvWriter::new(format, &self.columns);
                for row in run {
                    writer.row(row.values.iter().map(|value| match &value.kind {
                        Some(Kind::Text(text)) => Some(text.as_str()),
                        _ => None,
                    }));
                }
                out.block.extend_from_slice(writer.finish().as_bytes());
                out.pass().await?;
            }
            let Some((row, after)) = after.split_first() else {
                break;
            };
            self.row(row, out).await?;
            rest = after;
        }
        Ok(())
    }

    /// A row with values that are large or no text.
    async fn row(&mut self, row: &Row, out: &mut Sink) -> Result<(), ClientError> {
        for (index, value) in row.values.iter().enumerate().skip(self.written) {
            self.delimit(index, &mut out.block);
            match &value.kind {
                Some(Kind::Text(text)) => self.text(index, text, &mut out.block),
                Some(Kind::Binary(bytes)) => {
                    out.block.push(b'"');
                    escaped(bytes, &mut out.block);
                    out.block.push(b'"');
                }
                Some(Kind::Null(_)) | None => out.block.extend_from_slice(self.format.null_text.as_bytes()),
                Some(Kind::Streamed(_)) => {
                    out.block.push(b'"');
                    if let Some(mut spool) = self.spools.take(index)? {
                        loop {
                            let piece = spool.read()?;
                            if piece.is_empty() {
                                break;
                            }
                            escaped(&piece, &mut out.block);
                            out.pass().await?;
                        }
                    }
                    out.block.push(b'"');
                }
            }
        }
        self.end_line(&mut out.block);
        Ok(())
    }

    pub(super) fn chunk(&mut self, chunk: &ValueChunk, block: &mut Vec<u8>) -> Result<(), ClientError> {
        let column = usize::try_from(chunk.column_index).unwrap_or_default();
        if column != self.written {
            return self.spools.push(chunk);
        }
        if !self.within {
            self.delimit(column, block);
            // Whether it needs quotes is not known before its end; with them it is right in any case.
            block.push(b'"');
            self.within = true;
        }
        escaped(&chunk.data, block);
        if chunk.last {
            block.push(b'"');
            self.within = false;
            self.written += 1;
        }
        Ok(())
    }

    /// A row that will not come any more is ended, so that what follows stands on a line of its own.
    pub(super) fn end(&mut self, block: &mut Vec<u8>) {
        if self.within {
            block.push(b'"');
        }
        if self.within || self.written > 0 {
            self.end_line(block);
        }
        self.spools.clear();
    }

    fn delimit(&self, index: usize, block: &mut Vec<u8>) {
        if index > 0 {
            let mut buffer = [0; 4];
            block.extend_from_slice(self.format.delimiter.char().encode_utf8(&mut buffer).as_bytes());
        }
    }

    fn end_line(&mut self, block: &mut Vec<u8>) {
        block.extend_from_slice(match self.format.line_ending {
            CsvLineEnding::Crlf => b"\r\n",
            CsvLineEnding::Lf => b"\n",
        });
        self.written = 0;
        self.within = false;
    }

    /// A value as the writer of whole rows would write it.
    fn text(&self, index: usize, text: &str, block: &mut Vec<u8>) {
        let format = CsvFormat {
            header: false,
            line_ending: CsvLineEnding::Lf,
            ..self.format.clone()
        };
        let column = self.columns.get(index).cloned().unwrap_or(CsvColumn {
            name: String::new(),
            numeric: false,
        });
        let mut writer = CsvWriter::new(format, &[column]);
        writer.row([Some(text)]);
        let line = writer.finish();
        block.extend_from_slice(line.strip_suffix('\n').unwrap_or(&line).as_bytes());
    }
}

fn escaped(bytes: &[u8], block: &mut Vec<u8>) {
    for byte in bytes {
        if *byte == b'"' {
            block.push(b'"');
        }
        block.push(*byte);
    }
}
