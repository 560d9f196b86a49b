//! An invoice with all its charges and prices in one file, and what checks it offline.
//!
//! The file is lines of text. The first is the header as canonical JSON: the invoice, its seal, the proof that the seal
//! is in the log, and the price lists. Every other line is one leaf: its hash in base64, a space, and its text. The hash
//! is there so that a line that was damaged can be named; what proves the leaves is the sealed root.
//!
//! Checked is that each charge is the rounded price of its line's quantity after it less that before it, that the
//! charges of a line follow each other without gap or overlap, that each is in the period, band and price list that its
//! instant says, that they add up to the invoice, and that the leaves are those that were sealed. Lines of use that came
//! late go on where an earlier invoice ended: where that was is the word of this one. Use that was rated anew leaves one
//! line and comes to another, and the invoice says why. Price lists by contract come with the public lists and the terms
//! that they were made from, and are made again. Prices that follow an index come with its points, whose last hash is
//! sealed. A file with any bit changed is refused.
//!
//! Memory grows with the lines of the invoice, not with its charges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::RerateId;
use sublet_core::{DurationMs, Nanos, Timestamp};
use sublet_money::canonical::canonical_json;
use sublet_money::commitment::CommitmentLine;
use sublet_money::contract::TermsVersion;
use sublet_money::contract_price::{Sources, verify_contract_prices};
use sublet_money::invoice::{InvoiceContent, InvoiceLine, LINES_MAX};
use sublet_money::period::{BillingCalendar, Interval, PeriodKey};
use sublet_money::price_book::{PriceEntry, PriceListVersion, PriceSource};
use sublet_money::price_index::{IndexExcerpt, IndexName, PriceIndex};
use sublet_money::rating::{LineState, rate};
use sublet_money::rerate::RerateNote;
use sublet_money::sku::Quantity;

use crate::chain::Chain;
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
    /// What the lists among them are made from that are by contract, and the indexes that prices follow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    price_sources: Option<PriceSources>,
    schema: String,
    seal: Seal,
}

/// What prices are known from besides their lists: what lists by contract were made from, and indexes.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSources {
    /// That lines follow, in the order of their names.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub indexes: Vec<IndexExcerpt>,
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

/// The indexes that lines of an invoice follow, and since when their levels are needed.
pub fn indexes_of<'a>(
    content: &InvoiceContent,
    list: impl Fn(&PriceVersion) -> Option<&'a PriceListVersion>,
) -> Result<BTreeMap<&'a IndexName, Timestamp>> {
    let calendar = BillingCalendar::new(&content.account.zone)?;
    let mut indexes = BTreeMap::new();
    for line in &content.lines {
        let entry = list(&line.price_version).and_then(|list| list.find(&line.sku));
        let Some(market) = entry.and_then(|entry| entry.market.as_ref()) else { continue };
        let period = line.late.map_or(content.period.key, |late| late.period);
        let starts_at = calendar.period(period)?.interval.starts_at;
        let since = indexes.entry(&market.index).or_insert(starts_at);
        *since = starts_at.min(*since);
    }
    Ok(indexes)
}

impl BundleHeader {
    /// `price_lists` are those that the lines name, `contract_terms` the texts that the contract's part names, and
    /// `price_sources` what [`PriceSources::named`] and [`indexes_of`] name.
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
    /// What was charged because use was rated anew.
    rerated: BTreeMap<String, Nanos>,
    /// Kept for its memory.
    name: String,
}

/// The text of a line of a file, of at most so many bytes, without its end.
pub fn whole_line(line: &[u8], bytes_max: usize) -> Result<&str, String> {
    let whole = line.strip_suffix(b"\n").filter(|text| text.len() <= bytes_max);
    let text = whole.ok_or_else(|| format!("a line is cut off, or longer than {bytes_max} bytes"))?;
    std::str::from_utf8(text).map_err(|error| format!("it is no text: {error}"))
}

impl Verifier {
    /// Checks the header as a file has it, with the end of its line.
    pub fn read_header(line: &[u8], trusted: Option<&VerifierKey>) -> Result<Self, Fault> {
        Self::new(whole_line(line, HEADER_MAX_BYTES).map_err(Fault::header)?, trusted)
    }

    /// Checks the next leaf as a file has it, with the end of its line.
    pub fn read_leaf(&mut self, line: &[u8]) -> Result<(), Fault> {
        let place = Place::Leaf(self.tree.size());
        let text = whole_line(line, LEAF_LINE_MAX_BYTES).map_err(|problem| Fault { place, problem })?;
        self.leaf(text)
    }

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
        let rerated = parsed.content.rerates.iter().map(|rerate| (rerate.id.to_string(), Nanos::ZERO)).collect();
        let (tree, sum, name) = (Frontier::default(), Nanos::ZERO, String::new());
        Ok(Self { header: parsed, log, lines, tree, sum, rerated, name })
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
        if leaf.source.parse::<RerateId>().is_ok() {
            let unnamed = || format!("the invoice does not say why {} was", leaf.source);
            let rerated = self.rerated.get_mut(&*leaf.source).ok_or_else(unnamed)?;
            *rerated = rerated.checked_add(leaf.amount).map_err(|error| error.to_string())?;
        } else if leaf.quantity.is_negative() {
            return Err("it takes use off its line, and is not of what was rated anew".to_owned());
        }
        self.sum = self.sum.checked_add(leaf.amount).map_err(|error| error.to_string())?;
        self.tree.push(found, |_, _| {}).map_err(|error| error.to_string())
    }

    /// Checks what only all leaves together show.
    pub fn finish(self) -> Result<Verified, Fault> {
        let Self { header, log, lines, tree, sum, rerated, .. } = self;
        let seal = &header.seal;
        if tree.size() != seal.leaves() {
            return Err(Fault::leaves(format!("there are {} of {}", tree.size(), seal.leaves())));
        }
        for (name, line) in &lines {
            line.finish().map_err(|problem| Fault::leaves(format!("the line {name}: {problem}")))?;
        }
        for rerate in &header.content.rerates {
            let found = rerated.get(rerate.id.as_str()).copied().unwrap_or_default();
            if found != rerate.amount {
                let problem = format!("what {} rated anew adds {found}, and the invoice says {}", rerate.id, rerate.amount);
                return Err(Fault::leaves(problem));
            }
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
    if let (Some(agreed), Some(said)) = (&version.terms.payment, &content.terms)
        && agreed != said
    {
        let message = format!("the contract says {} days to pay, and the invoice {}", agreed.net_days, said.net_days);
        return Err(Error::new(ErrorCode::LedgerMismatch, message));
    }
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
    let indexes = check_indexes(header, &lists)?;
    let mut lines = BTreeMap::new();
    for line in &content.lines {
        let period = line.late.map_or(content.period.key, |late| late.period);
        if line.late.is_some() && period >= content.period.key {
            return Err(format!("use of {period} is not late in {}", content.period.key));
        }
        let list = lists.get(&line.price_version).ok_or_else(|| format!("price list {} is missing", line.price_version.0))?;
        let check = LineCheck::new(line, list, (period, &calendar), &content.rerates).map_err(|error| error.to_string())?;
        let index = check.price.market.as_ref().and_then(|market| indexes.get(&market.index)).cloned();
        let check = LineCheck { index, ..check };
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

/// The indexes that lines follow, proven to be those that were sealed.
fn check_indexes(
    header: &BundleHeader,
    lists: &BTreeMap<&PriceVersion, PriceListVersion>,
) -> Result<BTreeMap<IndexName, Arc<PriceIndex>>, String> {
    let text = |error: Error| error.to_string();
    let named = indexes_of(&header.content, |version| lists.get(version)).map_err(text)?;
    let (sealed, found) = (header.details.price_indexes(), header.price_sources.as_ref().map_or(&[][..], |found| &found.indexes));
    if !named.keys().copied().eq(sealed.keys()) || !named.keys().copied().eq(found.iter().map(|excerpt| &excerpt.index)) {
        return Err("the indexes that its prices follow are not with it, or more than those are".to_owned());
    }
    let mut indexes = BTreeMap::new();
    for (excerpt, sealed) in found.iter().zip(sealed.values()) {
        let hash = excerpt.verify().map_err(text)?;
        if hash != *sealed {
            return Err(format!("the points of the index {} have the hash {hash}, and not {sealed}", excerpt.index));
        }
        let index = PriceIndex::past(excerpt.clone(), header.content.period.interval.ends_at).map_err(text)?;
        indexes.insert(excerpt.index.clone(), Arc::new(index));
    }
    Ok(indexes)
}

/// One line of the invoice, and the charges that were found of it.
#[derive(Clone)]
struct LineCheck {
    price: PriceEntry,
    /// That the price follows.
    index: Option<Arc<PriceIndex>>,
    /// The month of the line.
    interval: Interval,
    /// When its price list took effect.
    effective_at: Timestamp,
    line: InvoiceLine,
    /// When use of this line may have occurred before its price list took effect, since it was rated anew.
    rerated: Vec<Interval>,
    chain: Chain,
    count: u64,
    amount: Nanos,
}

impl LineCheck {
    fn new(
        line: &InvoiceLine,
        list: &PriceListVersion,
        (period, calendar): (PeriodKey, &BillingCalendar),
        rerates: &[RerateNote],
    ) -> Result<Self> {
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
        let is_moved = rerates.iter().any(|rerate| [&rerate.of, &rerate.to].contains(&&line.price_version));
        let end = begin.quantity.changed_by(line.quantity)?;
        Ok(Self {
            price,
            index: None,
            interval: calendar.period(period)?.interval,
            line: line.clone(),
            effective_at: list.effective_at().minus(CLOCKS_DIFFER),
            rerated: rerates.iter().filter(|rerate| rerate.to == line.price_version).map(|rerate| rerate.interval).collect(),
            chain: if is_moved { Chain::moving(begin.quantity, end) } else { Chain::rising(begin.quantity, end) },
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
        self.chain.take(before.quantity, after.quantity)
    }

    fn check_time(&self, occurred_at: Timestamp) -> Result<(), String> {
        let is_early = occurred_at < self.effective_at && !self.rerated.iter().any(|rerated| rerated.contains(occurred_at));
        if is_early || !self.interval.contains(occurred_at) {
            return Err(format!(
                "it occurred at {occurred_at}; its line is of what is used from {} until {}",
                self.interval.starts_at.max(self.effective_at),
                self.interval.ends_at
            ));
        }
        let price = self.price.over_time(self.index.as_deref()).and_then(|price| price.band_at(occurred_at));
        if price.map_err(|error| error.to_string())? != self.line.band {
            return Err(format!("{occurred_at} is in another band of its price"));
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        self.chain.finish()?;
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
