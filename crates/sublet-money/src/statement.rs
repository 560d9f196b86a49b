//! What a bank says came in: rows of a statement, read from CSV.
//!
//! The first line names the columns: `transaction_id`, `amount`, `currency` and `reference` in any order; others are
//! passed over. Cells may be quoted (RFC 4180), separated by commas or semicolons. Amounts have a point and no
//! thousands. One wrong cell refuses the whole file and is named by its line, so that nothing is taken in by halves.
//!
//! Deliberately absent: ISO 20022 camt.053 and banks' own dialects; banks' portals and a few lines of script make this
//! out of them.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Currency, Nanos};

/// Most rows of one statement.
pub const ROWS_MAX: usize = 1_000;
/// Longest transaction id, in characters.
pub const TRANSACTION_ID_MAX_CHARS: usize = 128;
/// Longest text that came with a transfer, in characters: four lines of 140 and some.
pub const REMITTANCE_MAX_CHARS: usize = 1_000;

/// One transaction of a bank account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BankTransaction {
    /// The bank's own name of it, which no other one has.
    pub id: String,
    /// Negative where it went out.
    pub amount: Nanos,
    pub currency: Currency,
    /// What the payer wrote.
    pub reference: String,
}

const COLUMNS: [&str; 4] = ["transaction_id", "amount", "currency", "reference"];

/// Reads a statement.
pub fn read(text: &str) -> Result<Vec<BankTransaction>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let separator = if text.lines().next().unwrap_or_default().contains(';') { ';' } else { ',' };
    let mut rows = Cells { rest: text, separator, line: 1 };
    let head = rows.next_row()?.ok_or_else(|| wrong(1, "the file is empty"))?;
    let place = |name: &str| {
        let mut places = head.cells.iter().enumerate().filter(|(_, cell)| cell.trim().eq_ignore_ascii_case(name));
        match (places.next(), places.next()) {
            (Some((place, _)), None) => Ok(place),
            (None, _) => Err(wrong(1, &format!("there is no column '{name}'"))),
            (Some(_), Some(_)) => Err(wrong(1, &format!("there are two columns '{name}'"))),
        }
    };
    let [id, amount, currency, reference] = COLUMNS.map(place);
    let places = [id?, amount?, currency?, reference?];
    let mut transactions = Vec::new();
    while let Some(row) = rows.next_row()? {
        if row.cells.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if transactions.len() == ROWS_MAX {
            return Err(wrong(row.line, &format!("a statement has at most {ROWS_MAX} rows")).alternative("split the file"));
        }
        transactions.push(transaction(&row, places)?);
    }
    Ok(transactions)
}

fn transaction(row: &Row, places: [usize; 4]) -> Result<BankTransaction> {
    let cell = |place: usize| row.cells.get(place).map(|cell| cell.trim()).ok_or_else(|| wrong(row.line, "cells are missing"));
    let [id, amount, currency, reference] = [cell(places[0])?, cell(places[1])?, cell(places[2])?, cell(places[3])?];
    let on_line = |error: Error| wrong(row.line, error.message());
    if id.is_empty() || id.chars().count() > TRANSACTION_ID_MAX_CHARS || id.chars().any(char::is_control) {
        return Err(wrong(row.line, &format!("a transaction id has 1 to {TRANSACTION_ID_MAX_CHARS} printable characters")));
    }
    if reference.chars().count() > REMITTANCE_MAX_CHARS {
        return Err(wrong(row.line, &format!("a reference has at most {REMITTANCE_MAX_CHARS} characters")));
    }
    Ok(BankTransaction {
        id: id.to_owned(),
        amount: amount.parse().map_err(on_line)?,
        currency: currency.parse().map_err(on_line)?,
        reference: reference.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect(),
    })
}

fn wrong(line: usize, what: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("line {line} of the statement: {what}"))
        .param("content")
        .alternative(format!("a first line '{}' and a row for each transaction", COLUMNS.join(",")))
}

struct Row {
    /// The line it begins on.
    line: usize,
    cells: Vec<String>,
}

struct Cells<'a> {
    rest: &'a str,
    separator: char,
    line: usize,
}

impl Cells<'_> {
    fn next_row(&mut self) -> Result<Option<Row>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut row = Row { line: self.line, cells: Vec::new() };
        loop {
            let (cell, end) = if self.rest.starts_with('"') { self.quoted(row.line)? } else { self.plain() };
            row.cells.push(cell);
            match end {
                Some(end) if end == self.separator => {}
                _ => {
                    self.line += 1;
                    return Ok(Some(row));
                }
            }
        }
    }

    /// A cell without quotes, and what ended it; `None` is the end of the text.
    fn plain(&mut self) -> (String, Option<char>) {
        let found = self.rest.char_indices().find(|(_, letter)| *letter == self.separator || *letter == '\n');
        let (at, end) = found.map_or((self.rest.len(), None), |(at, letter)| (at, Some(letter)));
        let cell = self.rest.get(..at).unwrap_or_default().trim_end_matches('\r').to_owned();
        self.rest = self.rest.get(at + end.map_or(0, char::len_utf8)..).unwrap_or_default();
        (cell, end)
    }

    fn quoted(&mut self, line: usize) -> Result<(String, Option<char>)> {
        let mut cell = String::new();
        let mut rest = self.rest.strip_prefix('"').unwrap_or(self.rest);
        loop {
            let Some((part, after)) = rest.split_once('"') else { return Err(wrong(line, "a quote is not closed")) };
            cell.push_str(part);
            self.line += part.matches('\n').count();
            match after.strip_prefix('"') {
                Some(more) => {
                    cell.push('"');
                    rest = more;
                }
                None => {
                    self.rest = after;
                    break;
                }
            }
        }
        let (between, end) = self.plain();
        if between.trim().is_empty() { Ok((cell, end)) } else { Err(wrong(line, "there is text behind a closed quote")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(id: &str, amount: i64, currency: &str, reference: &str) -> BankTransaction {
        let (id, reference) = (id.to_owned(), reference.to_owned());
        BankTransaction { id, amount: Nanos::new(amount), currency: currency.parse().unwrap(), reference }
    }

    #[test]
    fn rows_are_read_whatever_the_order_of_columns() {
        let text = "booked;Currency;reference;amount;transaction_id\r\n2026-05-01;EUR;\"RF18; \"\"May\"\"\";12.50;t1\r\n\r\n\
                    2026-05-02;JPY;;-700;t2";
        let expected = [row("t1", 12_500_000_000, "EUR", "RF18; \"May\""), row("t2", -700_000_000_000, "JPY", "")];
        assert_eq!(read(text).unwrap(), expected);
        let lines = "transaction_id,amount,currency,reference\nt1,1,EUR,\"two\nlines\"\nt2,2,EUR,x\n";
        assert_eq!(read(lines).unwrap()[0], row("t1", 1_000_000_000, "EUR", "two lines"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        let head = "transaction_id,amount,currency,reference\n";
        for (body, line, what) in [
            ("t1,1.000.00,EUR,x\n", 2, ""),
            ("t1,1,EUR,x\nt2,2,XXX,x\n", 3, "currency"),
            ("t1,1,EUR,\"a\nb\"\n,2,EUR,x\n", 4, "transaction id"),
            ("t1,1,EUR\n", 2, "missing"),
            ("t1,1,EUR,\"x\n", 2, "quote"),
            ("t1,1,EUR,\"x\"y\n", 2, "quote"),
        ] {
            let error = read(&format!("{head}{body}")).unwrap_err();
            assert!(error.message().starts_with(&format!("line {line} ")) && error.message().contains(what), "{error}");
        }
        assert!(read("").is_err() && read("transaction_id,amount,currency\n").is_err());
        assert!(read("amount,amount,transaction_id,currency,reference\n").is_err());
        let many: String = (0..=ROWS_MAX).map(|number| format!("t{number},1,EUR,x\n")).collect();
        assert!(read(&format!("{head}{many}")).unwrap_err().message().contains("at most"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[a-z,;\"\r\n0-9.]{0,200}") {
            read(&format!("transaction_id,amount,currency,reference\n{text}")).ok();
            read(&text).ok();
        }
    }
}
