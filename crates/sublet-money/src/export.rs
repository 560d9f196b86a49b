//! The whole journal as beancount or hledger text, exact to the nano-unit.
//!
//! Entries are written as they come; memory grows with accounts, not with entries. At the end
//! every account's balance is asserted, so that either program recomputes the books. Both
//! programs are told to tolerate no difference.
//!
//! Formats: <https://beancount.github.io/docs/beancount_language_syntax.html> and
//! <https://hledger.org/hledger.html#journal>.
//!
//! Deliberately absent: the file. Anything that is [`fmt::Write`] will do.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::str::FromStr;

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Currency, DurationMs, Nanos, Timestamp};

use crate::account::LedgerAccount;
use crate::balance::TrialBalance;
use crate::invoice_text::nine_decimals;
use crate::posting::JournalEntry;

/// Every account is open from here on, so that entries may come in any order of time.
const OPEN_DATE: &str = "1970-01-01";

/// The programs whose text can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JournalFormat {
    Beancount,
    Hledger,
}

impl JournalFormat {
    pub const ALL: [Self; 2] = [Self::Beancount, Self::Hledger];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beancount => "beancount",
            Self::Hledger => "hledger",
        }
    }
}

impl fmt::Display for JournalFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JournalFormat {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "a journal is exported as beancount or hledger"))
    }
}

/// Writes a journal, entry by entry.
#[derive(Debug)]
pub struct JournalWriter<W> {
    out: W,
    format: JournalFormat,
    balance: TrialBalance,
    opened: BTreeSet<LedgerAccount>,
    currencies: BTreeSet<Currency>,
    latest: Timestamp,
}

impl<W: Write> JournalWriter<W> {
    /// Writes the head of the text.
    pub fn new(mut out: W, format: JournalFormat) -> Result<Self> {
        let head = match format {
            JournalFormat::Beancount => concat!(
                "; Ledger of a Sublet cloud. Exact to 9 decimals; check with: bean-check FILE\n",
                "option \"title\" \"Sublet ledger\"\n",
                "option \"inferred_tolerance_default\" \"*:0\"\n",
                "option \"tolerance_multiplier\" \"0\"\n",
            ),
            JournalFormat::Hledger => {
                "; Ledger of a Sublet cloud. Exact to 9 decimals; check with: hledger check --strict -f FILE\n"
            }
        };
        out.write_str(head).map_err(refused)?;
        Ok(Self {
            out,
            format,
            balance: TrialBalance::default(),
            opened: BTreeSet::new(),
            currencies: BTreeSet::new(),
            latest: Timestamp::EPOCH,
        })
    }

    /// Writes one entry. One that moved nothing becomes a comment.
    pub fn entry(&mut self, entry: &JournalEntry) -> Result<()> {
        self.balance.apply(entry)?;
        self.latest = self.latest.max(entry.at);
        if entry.transfers.is_empty() {
            return writeln!(self.out, "\n; {} {} {}: no amount", date(entry.at), entry.kind, entry.id).map_err(refused);
        }
        self.declare(entry).map_err(refused)?;
        match self.format {
            JournalFormat::Beancount => self.beancount_entry(entry),
            JournalFormat::Hledger => self.hledger_entry(entry),
        }
        .map_err(refused)
    }

    /// Writes the balance assertions and returns what was written to.
    pub fn finish(mut self) -> Result<W> {
        self.assertions()?;
        Ok(self.out)
    }

    fn declare(&mut self, entry: &JournalEntry) -> fmt::Result {
        let currency = entry.currency;
        let is_new_currency = self.currencies.insert(currency);
        if is_new_currency {
            match self.format {
                JournalFormat::Beancount => writeln!(self.out, "\n{OPEN_DATE} commodity {currency}")?,
                JournalFormat::Hledger => writeln!(self.out, "\ncommodity 1000.000000000 {currency}")?,
            }
        }
        let mut is_first = true;
        for account in entry.transfers.iter().flat_map(|transfer| [&transfer.debit, &transfer.credit]) {
            if self.opened.contains(account) {
                continue;
            }
            self.opened.insert(account.clone());
            if is_first && !is_new_currency {
                writeln!(self.out)?;
            }
            is_first = false;
            match self.format {
                // A customer's account holds one currency; the owner's hold whatever comes.
                JournalFormat::Beancount if account.organization().is_some() => {
                    writeln!(self.out, "{OPEN_DATE} open {} {currency}", BeancountName(account))?;
                }
                JournalFormat::Beancount => writeln!(self.out, "{OPEN_DATE} open {}", BeancountName(account))?,
                JournalFormat::Hledger => writeln!(self.out, "account {account}")?,
            }
        }
        Ok(())
    }

    fn beancount_entry(&mut self, entry: &JournalEntry) -> fmt::Result {
        writeln!(self.out, "\n{} * \"{}\" \"{}\"", date(entry.at), entry.kind, escaped(&entry.memo))?;
        writeln!(self.out, "  entry: \"{}\"\n  at: \"{}\"", entry.id, entry.at)?;
        for transfer in &entry.transfers {
            let amount = nine_decimals(transfer.amount);
            writeln!(self.out, "  {}  {amount} {}", BeancountName(&transfer.debit), entry.currency)?;
            writeln!(self.out, "  {}  -{amount} {}", BeancountName(&transfer.credit), entry.currency)?;
        }
        Ok(())
    }

    fn hledger_entry(&mut self, entry: &JournalEntry) -> fmt::Result {
        // A semicolon would begin a comment, in which hledger looks for tags and dates.
        let memo = entry.memo.replace(';', ",");
        writeln!(self.out, "\n{} * ({}) {} | {memo}", date(entry.at), entry.id, entry.kind)?;
        for transfer in &entry.transfers {
            let amount = nine_decimals(transfer.amount);
            writeln!(self.out, "    {}  {amount} {}", transfer.debit, entry.currency)?;
            writeln!(self.out, "    {}  -{amount} {}", transfer.credit, entry.currency)?;
        }
        Ok(())
    }

    fn assertions(&mut self) -> Result<()> {
        // Beancount asserts at the beginning of a day, so the day after the last entry.
        let after = date(self.latest.plus(DurationMs::from_hours(24)));
        let has_entries = self.balance.iter().next().is_some();
        if has_entries && self.format == JournalFormat::Hledger {
            writeln!(self.out, "\n{after} * balances").map_err(refused)?;
        } else {
            writeln!(self.out).map_err(refused)?;
        }
        for (currency, account, totals) in self.balance.iter() {
            let amount = nine_decimals(totals.debits.checked_sub(totals.credits)?);
            match self.format {
                JournalFormat::Beancount => {
                    writeln!(self.out, "{after} balance {}  {amount} ~ 0.000000000 {currency}", BeancountName(account))
                }
                JournalFormat::Hledger => {
                    writeln!(self.out, "    {account}  {} {currency} = {amount} {currency}", nine_decimals(Nanos::ZERO))
                }
            }
            .map_err(refused)?;
        }
        Ok(())
    }
}

/// Writes a whole journal.
pub fn write_journal<'a, W: Write>(
    out: W,
    format: JournalFormat,
    entries: impl IntoIterator<Item = &'a JournalEntry>,
) -> Result<W> {
    let mut writer = JournalWriter::new(out, format)?;
    for entry in entries {
        writer.entry(entry)?;
    }
    writer.finish()
}

/// The account's path in beancount's spelling: components begin with a capital letter and hold
/// letters, digits and dashes. Our paths hold no capitals and identifiers no dashes, so no two
/// accounts meet in one name.
struct BeancountName<'a>(&'a LedgerAccount);

impl fmt::Display for BeancountName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut starts_component = true;
        for letter in self.0.to_string().chars() {
            match letter {
                '_' => f.write_char('-')?,
                _ if starts_component => f.write_char(letter.to_ascii_uppercase())?,
                _ => f.write_char(letter)?,
            }
            starts_component = letter == ':';
        }
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

fn date(instant: Timestamp) -> String {
    instant.to_string().chars().take(10).collect()
}

fn refused(_: fmt::Error) -> Error {
    Error::internal("the destination of the journal's text could not be written")
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
