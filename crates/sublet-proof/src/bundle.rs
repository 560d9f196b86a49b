//! An invoice with all its charges and prices in one file, and what checks it offline.
//!
//! The file is lines of text. The first is the header as canonical JSON: the invoice, its seal, the proof that the seal
//! is in the log, and the price lists. Every other line is one leaf: its hash in base64, a space, and its text. The hash
//! is there so that a line that was damaged can be named; what proves the leaves is the sealed root.
//!
//! Checked is that each charge is the rounded price of its line's quantity after it less that before it, that the
//! charges of a line follow each other without gap or overlap, that each is in the period, band and price list that its
//! instant says, that they add up to the invoice, and that the leaves are those that were sealed. Lines of use that came
//! late go on where an earlier invoice ended: where that was is the word of this one. Price lists by contract come with
//! the public lists and the terms that they were made from, and are made again. A file with any bit changed is refused.
//!
//! Memory grows with the lines of the invoice, not with its charges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{DurationMs, Nanos, Timestamp};
use sublet_money::canonical::canonical_json;
use sublet_money::commitment::CommitmentLine;
use sublet_money::contract::TermsVersion;
use sublet_money::contract_price::{Sources, verify_contract_prices};
use sublet_money::invoice::{InvoiceContent, InvoiceLine, LINES_MAX};
use sublet_money::period::{BillingCalendar, Interval, PeriodKey};
use sublet_money::price_book::{PriceEntry, PriceListVersion, PriceSource};
use sublet_money::rating::{LineState, rate};
use sublet_money::sku::Quantity;

use crate::leaf::{ChargeLeaf, leaf_hash};
use crate::merkle::{Frontier, Hash};
use crate::note::VerifierKey;
use crate::seal::{LogProof, Seal, SealDetails};

/// Names the meaning of a bundle; a change of meaning is a new name.
const SCHEMA: &str = "sublet-bundle/1";
/// Longest line of a leaf, in bytes.
pub const LEAF_LINE_MAX_BYTES: usize = 4 << 10;
/// Longest header, in bytes: the longest invoice, and its price lists.
pub const HEADER_MAX_BYTES: usize = 512 << 20;

/// How long before its price list took effect a use may be dated: clocks differ, and the books take what is dated so.
const CLOCKS_DIFFER: DurationMs = DurationMs::from_hours(24);

/// The first line of a bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleHeader {
    content: InvoiceContent,
    /// The canonical texts of the contract's terms that the invoice's part of it names.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    contract_terms: Vec<String>,
    details: SealDetails,
    log: LogProof,
    /// The canonical texts that the price versions are the hashes of, in the order of the versions.
    price_lists: Vec<String>,
    /// What the lists among them are made from that are by contract.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    price_sources: Option<PriceSources>,
    schema: String,
    seal: Seal,
}

/// What price lists by contract were made from.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSources {
    /// The canonical texts of public versions, in the order of these.
    pub lists: Vec<String>,
    /// The canonical texts of contracts' terms, in the order of their hashes.
    pub terms: Vec<String>,
}

impl PriceSources {
    /// The public versions, and the hashes of the terms, that lists were made from.
    pub fn named<'a>(lists: impl IntoIterator<Item = &'a PriceListVersion>) -> (BTreeSet<&'a PriceVersion>, BTreeSet<&'a str>) {
        let sources: Vec<&PriceSource> = lists.into_iter().filter_map(PriceListVersion::source).collect();
        let lists = sources.iter().flat_map(|source| std::iter::once(&source.list).chain(&source.protected)).collect();
        (lists, sources.iter().map(|source| source.terms.as_str()).collect())
    }
}

impl BundleHeader {
    /// `price_lists` are those that the lines name, `contract_terms` the texts that the contract's part names, and
    /// `price_sources` what [`PriceSources::named`] names.
    pub fn new(
        content: InvoiceContent,
        (seal, details): (Seal, SealDetails),
        log: LogProof,
        (price_lists, contract_terms, price_sources): (&[&PriceListVersion], Vec<String>, PriceSources),
    ) -> Self {
        let mut lists: Vec<_> = price_lists.to_vec();
        lists.sort_by(|a, b| a.version().cmp(b.version()));
        let price_lists = lists.into_iter().map(|list| list.canonical().to_owned()).collect();
        let price_sources = Some(price_sources).filter(|sources| *sources != PriceSources::default());
        Self { content, contract_terms, details, log, price_lists, price_sources, schema: SCHEMA.to_owned(), seal }
    }
    /// The line, without its end.
    pub fn text(&self) -> Result<String> {
        canonical_json(self)
    }
    pub const fn seal(&self) -> &Seal {
        &self.seal
    }
}

/// A leaf's line, without its end. The hash is [`leaf_hash`] of the text.
pub fn leaf_line((hash, text): (Hash, &str)) -> String {
    format!("{hash} {text}")
}

/// Where in a bundle something is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Header,
    /// Counted from 0.
    Leaf(u64),
    /// In what all leaves are together.
    Leaves,
}

/// What is wrong with a bundle, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub place: Place,
    pub problem: String,
}

impl Fault {
    fn header(problem: impl fmt::Display) -> Self {
        Self { place: Place::Header, problem: problem.to_string() }
    }
    fn leaves(problem: impl fmt::Display) -> Self {
        Self { place: Place::Leaves, problem: problem.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Header => write!(f, "the header is wrong: {}", self.problem),
            Place::Leaf(index) => write!(f, "leaf {index} is wrong: {}", self.problem),
            Place::Leaves => write!(f, "the leaves are wrong: {}", self.problem),
        }
    }
}

impl std::error::Error for Fault {}

/// What a bundle was found to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    pub seal: Seal,
    pub content: InvoiceContent,
    /// The log that the seal is in; it proves who sealed only to those who know it from elsewhere.
    pub log: VerifierKey,
    pub index: u64,
}

/// Checks a bundle line by line.
#[derive(Clone)]
pub struct Verifier {
    header: BundleHeader,
    log: VerifierKey,
    lines: BTreeMap<String, LineCheck>,
    tree: Frontier,
    sum: Nanos,
    /// Kept for its memory.
    name: String,
}

impl Verifier {
    /// Checks the header. `trusted` is the log's key as it is known from elsewhere, if it is.
    pub fn new(header: &str, trusted: Option<&VerifierKey>) -> Result<Self, Fault> {
        let parsed: BundleHeader =
            serde_json::from_str(header).map_err(|error| Fault::header(format!("it cannot be read: {error}")))?;
        if parsed.schema != SCHEMA {
            return Err(Fault::header(format!("a bundle of '{}' cannot be read; this program knows {SCHEMA}", parsed.schema)));
        }
        if parsed.text().map_err(Fault::header)? != header {
            return Err(Fault::header("it is not in canonical form"));
        }
        let seal = &parsed.seal;
        seal.check_schema().map_err(Fault::header)?;
        let log = parsed.log.check(seal.entry().map_err(Fault::header)?, trusted).map_err(Fault::header)?;
        seal.check_content(&parsed.details, &parsed.content).map_err(Fault::header)?;
        check_commitment(&parsed).map_err(Fault::header)?;
        let lines = lines_of(&parsed).map_err(Fault::header)?;
        Ok(Self { header: parsed, log, lines, tree: Frontier::default(), sum: Nanos::ZERO, name: String::new() })
    }

    /// How many leaves the seal says there are.
    pub fn leaves_sealed(&self) -> u64 {
        self.header.seal.leaves()
    }
    pub const fn leaves_checked(&self) -> u64 {
        self.tree.size()
    }

    /// Checks the next leaf's line, without its end.
    pub fn leaf(&mut self, line: &str) -> Result<(), Fault> {
        let place = Place::Leaf(self.tree.size());
        self.check_leaf(line).map_err(|problem| Fault { place, problem })
    }

    fn check_leaf(&mut self, line: &str) -> Result<(), String> {
        let (hash, text) = line.split_once(' ').ok_or("a leaf is its hash, a space, and its text")?;
        let found = leaf_hash(text);
        if !found.is_written(hash) {
            return Err(format!("its hash is {found} and not {hash}"));
        }
        let leaf: ChargeLeaf<'_> = serde_json::from_str(text).map_err(|error| format!("it cannot be read: {error}"))?;
        self.name.clear();
        for part in [&*leaf.period, " ", &leaf.project, " ", &leaf.price_version, " ", &leaf.sku, " "] {
            self.name.push_str(part);
        }
        self.name.push_str(leaf.band.as_deref().unwrap_or(""));
        let line = self.lines.get_mut(&self.name).ok_or_else(|| format!("the invoice has no line for {}", self.name))?;
        line.check(&leaf)?;
        self.sum = self.sum.checked_add(leaf.amount).map_err(|error| error.to_string())?;
        self.tree.push(found, |_, _| {}).map_err(|error| error.to_string())
    }

    /// Checks what only all leaves together show.
    pub fn finish(self) -> Result<Verified, Fault> {
        let Self { header, log, lines, tree, sum, .. } = self;
        let seal = &header.seal;
        if tree.size() != seal.leaves() {
            return Err(Fault::leaves(format!("there are {} of {}", tree.size(), seal.leaves())));
        }
        for (name, line) in &lines {
            line.finish().map_err(|problem| Fault::leaves(format!("the line {name}: {problem}")))?;
        }
        if sum != header.details.sum() {
            return Err(Fault::leaves(format!("they add up to {sum} and not {}", header.details.sum())));
        }
        if tree.root() != seal.root() {
            return Err(Fault::leaves("they are not those that were sealed"));
        }
        Ok(Verified { index: header.log.index, seal: header.seal, content: header.content, log })
    }
}

/// Computes the contract's part of the invoice again.
fn check_commitment(header: &BundleHeader) -> Result<(), Error> {
    let content = &header.content;
    let settled = content.commitment.iter().flat_map(CommitmentLine::named_terms);
    let named = settled.chain(content.advance.iter().map(|advance| advance.terms.as_str()));
    let hashes: Vec<&str> = named.collect();
    if hashes.len() != header.contract_terms.len() {
        return Err(Error::new(
            ErrorCode::LedgerMismatch,
            "the terms of a contract come with the part of an invoice that names them",
        ));
    }
    let texts = hashes.into_iter().zip(&header.contract_terms);
    let versions = texts.map(|(hash, text)| TermsVersion::from_canonical(text, hash)).collect::<Result<Vec<_>, Error>>()?;
    if let Some(other) = versions.iter().find(|version| version.terms.currency != content.account.currency) {
        let message = format!("the contract is in {}, and the account in {}", other.terms.currency, content.account.currency);
        return Err(Error::new(ErrorCode::CurrencyMismatch, message));
    }
    // What is billed in advance names its terms last.
    let (mut of_commitment, month) = (&versions[..], content.period.key);
    if let (Some(advance), Some((version, rest))) = (&content.advance, versions.split_last()) {
        advance.verify(version, month)?;
        of_commitment = rest;
    }
    let (Some(commitment), Some(version), Some(newest)) = (&content.commitment, of_commitment.first(), of_commitment.last()) else {
        return Ok(());
    };
    commitment.verify((version, newest), month, &content.lines)
}

/// What is checked for each line of the invoice, by the line's name.
fn lines_of(header: &BundleHeader) -> Result<BTreeMap<String, LineCheck>, String> {
    let content = &header.content;
    let versions = header.details.price_versions();
    if header.price_lists.len() != versions.len() || content.lines.len() > LINES_MAX {
        return Err("it has other price lists than the invoice names, or too many lines".to_owned());
    }
    let mut lists: BTreeMap<&PriceVersion, PriceListVersion> = BTreeMap::new();
    for (version, text) in versions.iter().zip(&header.price_lists) {
        let list = PriceListVersion::from_canonical(text, version).map_err(|error| error.to_string())?;
        if list.currency() != content.account.currency {
            return Err(format!("price list {} is in {}", version.0, list.currency()));
        }
        lists.insert(version, list);
    }
    let calendar = BillingCalendar::new(&content.account.zone).map_err(|error| error.to_string())?;
    if calendar.period(content.period.key).map_err(|error| error.to_string())? != content.period {
        return Err(format!("{} does not begin and end there in {}", content.period.key, content.account.zone));
    }
    check_sources(header.price_sources.as_ref(), &lists, &calendar)?;
    let mut lines = BTreeMap::new();
    for line in &content.lines {
        let period = line.late.map_or(content.period.key, |late| late.period);
        if line.late.is_some() && period >= content.period.key {
            return Err(format!("use of {period} is not late in {}", content.period.key));
        }
        let list = lists.get(&line.price_version).ok_or_else(|| format!("price list {} is missing", line.price_version.0))?;
        let check = LineCheck::new(line, list, period, &calendar).map_err(|error| error.to_string())?;
        let band = line.band.as_ref().map_or("", |band| band.as_str());
        let name = format!("{period} {} {} {} {band}", line.project, line.price_version.0, line.sku);
        if lines.insert(name, check).is_some() {
            return Err(format!("the line of {} is there twice", line.sku));
        }
    }
    Ok(lines)
}

/// Makes every list by contract again.
fn check_sources(
    found: Option<&PriceSources>,
    lists: &BTreeMap<&PriceVersion, PriceListVersion>,
    calendar: &BillingCalendar,
) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let (named, named_terms) = PriceSources::named(lists.values());
    let (lists_found, terms_found) = found.map_or((&[][..], &[][..]), |found| (&found.lists, &found.terms));
    if lists_found.len() != named.len() || terms_found.len() != named_terms.len() {
        return Err("what its price lists by contract are made from is not with them, or more than that is".to_owned());
    }
    let (mut public, mut terms) = (BTreeMap::new(), BTreeMap::new());
    for (version, canonical) in named.into_iter().zip(lists_found) {
        public.insert(version, PriceListVersion::from_canonical(canonical, version).map_err(text)?);
    }
    for (hash, canonical) in named_terms.into_iter().zip(terms_found) {
        terms.insert(hash, TermsVersion::from_canonical(canonical, hash).map_err(text)?);
    }
    for list in lists.values() {
        let Some(source) = list.source() else { continue };
        let protected = source.protected.as_ref().and_then(|version| public.get(version));
        let (Some(of_all), Some(terms)) = (public.get(&source.list), terms.get(source.terms.as_str())) else { continue };
        let month = calendar.period_at(list.effective_at()).map_err(text)?.key;
        verify_contract_prices(list, month, Sources { public: of_all, protected, terms }).map_err(text)?;
    }
    Ok(())
}

/// One line of the invoice, and the charges that were found of it.
#[derive(Clone)]
struct LineCheck {
    price: PriceEntry,
    /// When use of this line may have occurred.
    interval: Interval,
    line: InvoiceLine,
    /// What earlier invoices have of the line.
    begin: Quantity,
    /// Up to here the charges follow each other.
    reached: Quantity,
    /// Where charges begin that are ahead of that, and where they end.
    ahead: BTreeMap<Quantity, Quantity>,
    end: Quantity,
    count: u64,
    amount: Nanos,
}

impl LineCheck {
    fn new(line: &InvoiceLine, list: &PriceListVersion, period: PeriodKey, calendar: &BillingCalendar) -> Result<Self> {
        let price = list.get(&line.sku)?.clone();
        let of_line = price.price_in(line.band.as_ref())?;
        if of_line.unit != line.unit || of_line.text(list.currency()) != line.price {
            let (text, said) = (of_line.text(list.currency()), &line.price);
            return Err(Error::new(ErrorCode::LedgerMismatch, format!("{} costs {text}, and the invoice says {said}", line.sku)));
        }
        let begin = line
            .late
            .map_or_else(LineState::default, |late| LineState { quantity: late.quantity_before, charged: late.charged_before });
        // Proves what earlier invoices have of it.
        rate(begin, of_line, Quantity::ZERO)?;
        let mut interval = calendar.period(period)?.interval;
        interval.starts_at = interval.starts_at.max(list.effective_at().minus(CLOCKS_DIFFER));
        Ok(Self {
            price,
            interval,
            line: line.clone(),
            begin: begin.quantity,
            reached: begin.quantity,
            ahead: BTreeMap::new(),
            end: begin.quantity.checked_add(line.quantity)?,
            count: 0,
            amount: Nanos::ZERO,
        })
    }

    fn check(&mut self, leaf: &ChargeLeaf<'_>) -> Result<(), String> {
        let text = |error: sublet_core::Error| error.to_string();
        self.check_time(leaf.occurred_at_micros)?;
        let before = LineState { quantity: leaf.quantity_before, charged: leaf.charged_before };
        let price = self.price.price_in(self.line.band.as_ref()).map_err(text)?;
        let (amount, after) = rate(before, price, leaf.quantity).map_err(text)?;
        if amount != leaf.amount {
            return Err(format!("{} more after {} cost {amount}, and not {}", leaf.quantity, leaf.quantity_before, leaf.amount));
        }
        self.count += 1;
        self.amount = self.amount.checked_add(amount).map_err(text)?;
        // A charge for nothing may be anywhere on its line.
        let free_from = if leaf.quantity.is_zero() { self.begin } else { self.reached };
        if before.quantity < free_from || after.quantity > self.end {
            return Err(format!(
                "it is {} to {} of its line, of which {free_from} to {} are left",
                before.quantity, after.quantity, self.end
            ));
        }
        if leaf.quantity.is_zero() {
            return Ok(());
        }
        if before.quantity > self.reached {
            // Several processes charge at once, so charges come nearly in the order of their line.
            return match self.ahead.insert(before.quantity, after.quantity) {
                None => Ok(()),
                Some(_) => Err(format!("two charges begin at {} of the line", before.quantity)),
            };
        }
        self.reached = after.quantity;
        while let Some(end) = self.ahead.remove(&self.reached) {
            self.reached = end;
        }
        Ok(())
    }

    fn check_time(&self, occurred_at: Timestamp) -> Result<(), String> {
        if !self.interval.contains(occurred_at) {
            return Err(format!(
                "it occurred at {occurred_at}; its line is of what is used from {} until {}",
                self.interval.starts_at, self.interval.ends_at
            ));
        }
        let band = self.price.band_at(occurred_at).map_err(|error| error.to_string())?;
        if band != self.line.band.as_ref() {
            return Err(format!("{occurred_at} is in another band of its price"));
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        if self.reached != self.end || !self.ahead.is_empty() {
            return Err(format!("its charges are without a gap up to {} and not {}", self.reached, self.end));
        }
        let line = self.line.charges;
        if (self.count, self.amount) != (line.count, line.amount) {
            return Err(format!(
                "{} charges add up to {}; the invoice says {} and {}",
                self.count, self.amount, line.count, line.amount
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
