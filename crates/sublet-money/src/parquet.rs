//! Apache Parquet files, as far as our tables need them: flat, in groups of rows, without compression.
//!
//! Text is kept once per group, in a dictionary; what is absent takes no room. A group is written when it is full, so
//! memory grows with the columns and not with the rows, but for some sixty bytes of each column of each group, which the
//! end of the file has to name. The format is that of the project's `parquet.thrift`, in Thrift's compact protocol.
//!
//! Deliberately absent: reading, nesting, statistics, compression.

use std::collections::BTreeMap;

use sublet_core::error::{Error, Result};

use crate::table::{Cell, Column, DECIMAL_PRECISION, DECIMAL_SCALE, Kind};
use crate::thrift::{Field, List, Struct};

/// Rows of a group.
pub const GROUP_ROWS: usize = 20_000;

const MAGIC: &[u8] = b"PAR1";
const DECIMAL_BYTES: i32 = 16;
/// Encodings of pages.
const PLAIN: i32 = 0;
const RLE: i32 = 3;
const RLE_DICTIONARY: i32 = 8;
/// Kinds of pages.
const DATA_PAGE: i32 = 0;
const DICTIONARY_PAGE: i32 = 2;

/// A file being written.
pub struct ParquetWriter {
    schema: Vec<Schema>,
    columns: Vec<Values>,
    rows: usize,
    rows_before: i64,
    groups: Vec<Vec<u8>>,
    /// Bytes of the file so far.
    position: i64,
}

struct Schema {
    name: &'static str,
    kind: Kind,
    is_optional: bool,
}

/// The cells of a column in the group that is not full.
#[derive(Default)]
struct Values {
    is_there: Vec<bool>,
    dictionary: BTreeMap<String, u32>,
    /// Of texts, in the order of their numbers.
    texts: Vec<u8>,
    numbers: Vec<u32>,
    plain: Vec<u8>,
}

impl ParquetWriter {
    pub fn new<R>(columns: &[&Column<R>]) -> Self {
        let schema: Vec<Schema> =
            columns.iter().map(|column| Schema { name: column.name, kind: column.kind, is_optional: column.is_optional }).collect();
        let columns = schema.iter().map(|_| Values::default()).collect();
        Self { schema, columns, rows: 0, rows_before: 0, groups: Vec::new(), position: 0 }
    }

    pub fn begin(&mut self) -> Vec<u8> {
        self.position = length(MAGIC);
        MAGIC.to_vec()
    }

    /// One row; its cells are in the order of the columns.
    pub fn add<'r>(&mut self, cells: impl Iterator<Item = Cell<'r>>) -> Result<()> {
        for ((values, schema), cell) in self.columns.iter_mut().zip(&self.schema).zip(cells) {
            values.add(schema, &cell)?;
        }
        self.rows += 1;
        Ok(())
    }

    /// The group that is full; nothing while it is not.
    pub fn take_full_group(&mut self) -> Result<Vec<u8>> {
        if self.rows < GROUP_ROWS { Ok(Vec::new()) } else { self.take_group() }
    }

    fn take_group(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut chunks = List::of_structs();
        for (schema, values) in self.schema.iter().zip(&mut self.columns) {
            let starts_at = self.position + length(&bytes);
            let values = std::mem::take(values);
            chunks.push(&values.write(schema, starts_at, &mut bytes)?);
        }
        let rows = i64::try_from(self.rows).map_err(|_| Error::internal("a group has too many rows"))?;
        let group = Struct::new().list(1, chunks).i64(2, length(&bytes)).i64(3, rows).end();
        self.groups.push(group);
        self.position += length(&bytes);
        self.rows_before += rows;
        self.rows = 0;
        Ok(bytes)
    }

    /// The last group, and what is where in the file.
    pub fn end(&mut self) -> Result<Vec<u8>> {
        let mut bytes = if self.rows == 0 { Vec::new() } else { self.take_group()? };
        let mut schema = List::of_structs();
        let columns = i32::try_from(self.schema.len()).map_err(|_| Error::internal("a table has too many columns"))?;
        schema.push(&Struct::new().text(4, "schema").i32(5, columns).end());
        for column in &self.schema {
            schema.push(&column.element());
        }
        let mut groups = List::of_structs();
        for group in &self.groups {
            groups.push(group);
        }
        let footer = Struct::new().i32(1, 2).list(2, schema).i64(3, self.rows_before).list(4, groups).text(6, "Sublet").end();
        let footer_bytes = u32::try_from(footer.len()).map_err(|_| Error::internal("a file has too many groups"))?;
        bytes.extend(footer);
        bytes.extend(footer_bytes.to_le_bytes());
        bytes.extend(MAGIC);
        Ok(bytes)
    }
}

impl Schema {
    /// The number of the type in which cells are kept.
    const fn kept_as(&self) -> i32 {
        match self.kind {
            Kind::Count | Kind::Instant => 2,
            Kind::Text => 6,
            Kind::Decimal => 7,
        }
    }

    /// A `SchemaElement`.
    fn element(&self) -> Vec<u8> {
        let element = Struct::new().i32(1, self.kept_as());
        let repetition = i32::from(self.is_optional);
        match self.kind {
            Kind::Count => element.i32(3, repetition).text(4, self.name),
            Kind::Text => element.i32(3, repetition).text(4, self.name).i32(6, 0),
            Kind::Instant => element.i32(3, repetition).text(4, self.name).i32(6, 10),
            Kind::Decimal => element
                .i32(2, DECIMAL_BYTES)
                .i32(3, repetition)
                .text(4, self.name)
                .i32(6, 5)
                .i32(7, i32::from(DECIMAL_SCALE))
                .i32(8, i32::from(DECIMAL_PRECISION)),
        }
        .end()
    }
}

impl Values {
    fn add(&mut self, schema: &Schema, cell: &Cell<'_>) -> Result<()> {
        self.is_there.push(*cell != Cell::Absent);
        match (schema.kind, cell) {
            (_, Cell::Absent) if schema.is_optional => {}
            (Kind::Text, Cell::Text(text)) => self.add_text(text)?,
            (Kind::Decimal, Cell::Decimal(number)) => self.plain.extend(number.unscaled().to_be_bytes()),
            (Kind::Instant, Cell::Instant(at)) => self.plain.extend(at.micros().to_le_bytes()),
            (Kind::Count, Cell::Count(count)) => self.plain.extend(count.to_le_bytes()),
            (Kind::Text | Kind::Decimal | Kind::Instant | Kind::Count, _) => {
                return Err(Error::internal(format!("column {} has a cell of another kind", schema.name)));
            }
        }
        Ok(())
    }

    fn add_text(&mut self, text: &str) -> Result<()> {
        let number = match self.dictionary.get(text) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.dictionary.len()).map_err(|_| Error::internal("a group has too many texts"))?;
                let bytes = u32::try_from(text.len()).map_err(|_| Error::internal("a text is too long for a table"))?;
                self.dictionary.insert(text.to_owned(), number);
                self.texts.extend(bytes.to_le_bytes());
                self.texts.extend(text.as_bytes());
                number
            }
        };
        self.numbers.push(number);
        Ok(())
    }

    /// Appends the pages, and answers the `ColumnChunk` that says where they are.
    fn write(self, schema: &Schema, starts_at: i64, bytes: &mut Vec<u8>) -> Result<Vec<u8>> {
        let before = length(bytes);
        let is_text = schema.kind == Kind::Text;
        if is_text {
            let texts = count(self.dictionary.len())?;
            let header = Struct::new().i32(1, texts).i32(2, PLAIN).end();
            bytes.extend(page_header((DICTIONARY_PAGE, 7), &header, self.texts.len())?);
            bytes.extend(&self.texts);
        }
        let data_starts_at = starts_at + length(bytes) - before;
        let mut page = Vec::new();
        if schema.is_optional {
            let levels = runs(&self.is_there, 1, |is_there| u32::from(*is_there))?;
            let length = u32::try_from(levels.len()).map_err(|_| Error::internal("a page is too long"))?;
            page.extend(length.to_le_bytes());
            page.extend(levels);
        }
        if is_text {
            let largest = u32::try_from(self.dictionary.len().saturating_sub(1)).unwrap_or(u32::MAX);
            let bits = u8::try_from(u32::BITS - largest.leading_zeros()).unwrap_or(32);
            page.push(bits);
            page.extend(runs(&self.numbers, bits, |number| *number)?);
        } else {
            page.extend(&self.plain);
        }
        let encoding = if is_text { RLE_DICTIONARY } else { PLAIN };
        let cells = count(self.is_there.len())?;
        let header = Struct::new().i32(1, cells).i32(2, encoding).i32(3, RLE).i32(4, RLE).end();
        bytes.extend(page_header((DATA_PAGE, 5), &header, page.len())?);
        bytes.extend(&page);
        let size = length(bytes) - before;
        let mut encodings = List::of_i32();
        for used in [PLAIN, RLE, encoding] {
            encodings.push_i32(used);
        }
        let mut path = List::of_texts();
        path.push_text(schema.name);
        let mut about = Struct::new().i32(1, schema.kept_as()).list(2, encodings).list(3, path).i32(4, 0);
        about = about.i64(5, i64::from(cells)).i64(6, size).i64(7, size).i64(9, data_starts_at);
        if is_text {
            about = about.i64(11, starts_at);
        }
        Ok(Struct::new().i64(2, starts_at).structure(3, &about.end()).end())
    }
}

/// A `PageHeader`, whose own kind of header is in the field of that number.
fn page_header((kind, field): (i32, Field), header: &[u8], bytes: usize) -> Result<Vec<u8>> {
    let bytes = count(bytes)?;
    Ok(Struct::new().i32(1, kind).i32(2, bytes).i32(3, bytes).structure(field, header).end())
}

/// Equal values that follow each other, as runs of so many bits' values.
fn runs<T: PartialEq>(values: &[T], bits: u8, number: impl Fn(&T) -> u32) -> Result<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), values);
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|value| *value == first).count();
        crate::thrift::write_varint(&mut bytes, u64::try_from(same).map_err(|_| Error::internal("a run is too long"))? << 1);
        let value = number(first).to_le_bytes();
        bytes.extend(value.iter().take(usize::from(bits.div_ceil(8))));
        rest = rest.get(same..).unwrap_or_default();
    }
    Ok(bytes)
}

fn count(count: usize) -> Result<i32> {
    i32::try_from(count).map_err(|_| Error::internal("a page of a file is too long"))
}

fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}
