//! Writing a table in a format, piece by piece: what was written is handed over, so memory does not grow with the file.

use std::str::FromStr;

use sublet_core::error::{Error, ErrorCode, Result};

use crate::parquet::ParquetWriter;
use crate::table::{Column, csv_header, write_csv};

/// A format of files with tables.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Format {
    #[default]
    Csv,
    Parquet,
}

impl Format {
    pub const ALL: [Self; 2] = [Self::Csv, Self::Parquet];

    /// As it is asked for, and how names of such files end.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

impl FromStr for Format {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("there is no export as '{shown}'"))
                .param("format")
                .alternative("ask for format csv or parquet")
        })
    }
}

/// One file being written. Its pieces, in their order, are the file.
pub struct Encoder<R: 'static> {
    columns: Vec<&'static Column<R>>,
    output: Output,
}

enum Output {
    Csv,
    Parquet(ParquetWriter),
}

impl<R> Encoder<R> {
    pub fn new(columns: Vec<&'static Column<R>>, format: Format) -> Self {
        let output = match format {
            Format::Csv => Output::Csv,
            Format::Parquet => Output::Parquet(ParquetWriter::new(&columns)),
        };
        Self { columns, output }
    }

    /// What the file begins with.
    pub fn begin(&mut self) -> Vec<u8> {
        match &mut self.output {
            Output::Csv => csv_header(&self.columns).into_bytes(),
            Output::Parquet(writer) => writer.begin(),
        }
    }

    /// What some more rows add; may be empty where a format writes many at once.
    pub fn add(&mut self, rows: &[R]) -> Result<Vec<u8>> {
        match &mut self.output {
            Output::Csv => {
                let mut text = String::new();
                for row in rows {
                    write_csv(&mut text, &self.columns, row);
                }
                Ok(text.into_bytes())
            }
            Output::Parquet(writer) => {
                let mut bytes = Vec::new();
                for row in rows {
                    writer.add(self.columns.iter().map(|column| (column.cell)(row)))?;
                    bytes.extend(writer.take_full_group()?);
                }
                Ok(bytes)
            }
        }
    }

    /// What the file ends with.
    pub fn end(&mut self) -> Result<Vec<u8>> {
        match &mut self.output {
            Output::Csv => Ok(Vec::new()),
            Output::Parquet(writer) => writer.end(),
        }
    }
}
