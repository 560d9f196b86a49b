//! `sublet receipts`, `sublet verify-invoice`, `sublet verify-receipt`, `sublet log`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use sublet_api::client::Client;
use sublet_api::list::{ListQuery, Order, PageLimit};
use sublet_api::money::Money;
use sublet_api::receipt::Receipt as WireReceipt;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_proof::bundle::{HEADER_MAX_BYTES, LEAF_LINE_MAX_BYTES, Verifier, whole_line};
use sublet_proof::merkle::{Hash, Node, Nodes, ProofPlan, TreeHead, is_consistent, subtree};
use sublet_proof::note::VerifierKey;
use sublet_proof::receipt::Receipt;

use crate::Context;
use crate::render::{self, Cell, Table};

/// Leaves between two words about how far it is.
const LEAVES_PER_NOTE: u64 = 1_000_000;
/// Longest receipt, in bytes.
const RECEIPT_MAX_BYTES: usize = 64 << 10;
/// Most receipts in one file.
const RECEIPTS_MAX: usize = 100_000;
/// Longest checkpoint that is read, in bytes.
const CHECKPOINT_MAX_BYTES: u64 = 16 << 10;
/// Levels of a tile.
const TILE_LEVELS: u32 = 8;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// Whose charges.
#[derive(Args, Debug)]
pub struct ReceiptArgs {
    /// A request or job
    id: String,
    /// Of any project of the organization (admin)
    #[arg(long)]
    any: bool,
    /// Write the receipts into this file, one a line
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
}

impl ReceiptArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let mut query = ListQuery { limit: Some(PageLimit::MAX), order: Some(Order::Asc), ..ListQuery::default() };
        let mut receipts = Vec::new();
        loop {
            let page =
                if self.any { client.organization_receipts(&self.id, &query)? } else { client.receipts(&self.id, &query)? };
            receipts.extend(page.data);
            if !page.has_more {
                break;
            }
            if receipts.len() >= RECEIPTS_MAX {
                return Err(Error::new(ErrorCode::Usage, format!("{} has more than {RECEIPTS_MAX} charges", self.id))
                    .alternative("get the invoice's bundle, which has all of them: sublet billing invoices bundle ID"));
            }
            query.after = page.last_id;
        }
        if let Some(path) = &self.output {
            save(context, path, &receipts)?;
        }
        context.show(&receipts, |receipts| table(receipts))
    }
}

fn save(context: &mut Context<'_>, path: &Path, receipts: &[WireReceipt]) -> Result<()> {
    let sealed: Vec<&str> = receipts.iter().filter_map(|receipt| receipt.receipt.as_deref()).collect();
    if sealed.is_empty() {
        let after = receipts.iter().filter_map(|receipt| receipt.sealed_after.as_ref()).map(|after| after.0).max();
        let message = after.map_or_else(
            || "these charges are in no invoice that is sealed, and in none that will be".to_owned(),
            |after| format!("there is a receipt when the month's invoice is issued, after {}", render::instant(after)),
        );
        return Err(Error::new(ErrorCode::Conflict, message));
    }
    let text: String = sealed.iter().flat_map(|text| [text, "\n"]).collect();
    std::fs::write(path, text)
        .map_err(|error| Error::new(ErrorCode::StorageFull, format!("{} cannot be written: {error}", path.display())))?;
    context.note(&format!("{}: {} of {} charges", path.display(), sealed.len(), receipts.len()))
}

fn table(receipts: &[WireReceipt]) -> Table {
    let rows = receipts.iter().map(|receipt| {
        [
            Cell::text(receipt.charge.as_str()),
            Cell::number(render::money(&receipt.amount)),
            Cell::text(&receipt.period),
            Cell::state(receipt.status.as_str()),
            Cell::optional(receipt.sealed_after.as_ref().map(|after| render::instant(after.0))),
        ]
    });
    Table::new(["charge", "amount", "month", "status", "sealed after"], "nothing was charged").rows(rows)
}

/// What to check, and whom to trust.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    path: PathBuf,
    /// The log's verifier key as you know it from elsewhere, or a file with it; without one it is only said
    #[arg(long, value_name = "KEY")]
    log_key: Option<String>,
}

/// An invoice that was found to be right.
#[derive(Serialize)]
struct VerifiedInvoice {
    number: String,
    invoice: String,
    organization: String,
    period: String,
    issued_at: String,
    charges: u64,
    subtotal: Money,
    total: Money,
    sealed: Sealed,
}

/// A charge that was found to be in its invoice.
#[derive(Serialize)]
struct VerifiedReceipt {
    charge: String,
    source: String,
    sku: String,
    quantity: i64,
    amount: Money,
    organization: String,
    number: String,
    sealed: Sealed,
}

/// Where a seal was found.
#[derive(Serialize)]
struct Sealed {
    log: String,
    log_index: u64,
    /// Whether the log is the one that was given.
    log_is_known: bool,
}

impl VerifyArgs {
    fn trusted(&self) -> Result<Option<VerifierKey>> {
        self.log_key.as_deref().map(known_key).transpose()
    }

    fn open(&self) -> Result<BufReader<File>> {
        File::open(&self.path).map(BufReader::new).map_err(|error| unreadable(&self.path, &error))
    }

    pub(super) fn verify_invoice(self, context: &mut Context<'_>) -> Result<()> {
        let trusted = self.trusted()?;
        let mut file = self.open()?;
        let mut line = Vec::new();
        let header = read_line(&mut file, &self.path, (&mut line, HEADER_MAX_BYTES))?;
        let header = header.ok_or_else(|| invalid("it is empty".to_owned()))?;
        let mut verifier = Verifier::read_header(header, trusted.as_ref()).map_err(|fault| invalid(fault.to_string()))?;
        while let Some(leaf) = read_line(&mut file, &self.path, (&mut line, LEAF_LINE_MAX_BYTES))? {
            verifier.read_leaf(leaf).map_err(|fault| invalid(fault.to_string()))?;
            if verifier.leaves_checked().is_multiple_of(LEAVES_PER_NOTE) && context.style.interactive {
                context.note(&format!("{} of {} charges are right", verifier.leaves_checked(), verifier.leaves_sealed()))?;
            }
        }
        let found = verifier.finish().map_err(|fault| invalid(fault.to_string()))?;
        let (content, currency) = (&found.content, found.content.account.currency);
        let verified = VerifiedInvoice {
            number: found.seal.number().to_string(),
            invoice: found.seal.invoice().to_string(),
            organization: content.account.organization.to_string(),
            period: content.period.key.to_string(),
            issued_at: render::instant(found.seal.issued_at()),
            charges: found.seal.leaves(),
            subtotal: Money::new(content.subtotal, currency),
            total: Money::new(content.total, currency),
            sealed: Sealed { log: found.log.to_string(), log_index: found.index, log_is_known: trusted.is_some() },
        };
        context.show(&verified, |verified| {
            let mut fields = vec![
                ("invoice", Cell::text(&verified.number)),
                ("organization", Cell::text(&verified.organization)),
                ("month", Cell::text(&verified.period)),
                ("issued", Cell::text(&verified.issued_at)),
                ("charges", Cell::number(verified.charges)),
                ("they add up to", Cell::number(render::money(&verified.subtotal))),
                ("total", Cell::number(render::money(&verified.total))),
            ];
            fields.extend(verified.sealed.fields());
            Table::of_fields(fields)
        })
    }

    pub(super) fn verify_receipts(self, context: &mut Context<'_>) -> Result<()> {
        let trusted = self.trusted()?;
        let mut file = self.open()?;
        let (mut line, mut verified) = (Vec::new(), Vec::new());
        while let Some(text) = read_line(&mut file, &self.path, (&mut line, RECEIPT_MAX_BYTES))? {
            let place = verified.len();
            if place == RECEIPTS_MAX {
                return Err(Error::new(ErrorCode::Usage, format!("a file has at most {RECEIPTS_MAX} receipts")));
            }
            let wrong = |problem: String| invalid(format!("receipt {place} is wrong: {problem}"));
            let text = whole_line(text, RECEIPT_MAX_BYTES).map_err(wrong)?;
            let (receipt, key) = Receipt::verify(text, trusted.as_ref()).map_err(wrong)?;
            let charge = receipt.charge().map_err(wrong)?;
            verified.push(VerifiedReceipt {
                charge: charge.charge.into_owned(),
                source: charge.source.into_owned(),
                sku: charge.sku.into_owned(),
                quantity: charge.quantity.get(),
                amount: Money::new(charge.amount, receipt.seal().currency()),
                organization: receipt.seal().organization().to_string(),
                number: receipt.seal().number().to_string(),
                sealed: Sealed { log: key.to_string(), log_index: receipt.log_index(), log_is_known: trusted.is_some() },
            });
        }
        if verified.is_empty() {
            return Err(invalid("it is empty".to_owned()));
        }
        context.show(&verified, |verified| {
            let rows = verified.iter().map(|receipt| {
                [
                    Cell::text(&receipt.charge),
                    Cell::text(&receipt.source),
                    Cell::text(&receipt.sku),
                    Cell::number(receipt.quantity),
                    Cell::number(render::money(&receipt.amount)),
                    Cell::text(&receipt.organization),
                    Cell::text(&receipt.number),
                    Cell::number(receipt.sealed.log_index),
                ]
            });
            let headings = ["charge", "of", "what", "quantity", "amount", "customer", "invoice", "place in the log"];
            Table::new(headings, "no receipts").rows(rows)
        })?;
        if trusted.is_none() && !context.json {
            let logs = verified.first().map_or("", |receipt| receipt.sealed.log.as_str());
            context.note(&format!("sealed in {logs}; give that key as you know it from elsewhere with --log-key"))?;
        }
        Ok(())
    }
}

impl Sealed {
    fn fields(&self) -> [(&'static str, Cell); 3] {
        let known = if self.log_is_known { "yes" } else { "not compared; give it with --log-key as you know it from elsewhere" };
        [
            ("sealed in", Cell::text(&self.log)),
            ("at place", Cell::number(self.log_index)),
            ("the log's key is the known one", Cell::text(known)),
        ]
    }
}

/// The log.
#[derive(Subcommand, Debug)]
pub enum LogCommand {
    /// Print the verifier key: tell it to others, or compare it with what you were told
    Key,
    /// Print the newest checkpoint; keep it, and compare later ones with it
    Checkpoint,
    /// Check that the log still begins as a checkpoint says that was kept
    Check {
        /// A file that 'sublet log checkpoint' printed
        path: PathBuf,
        /// The log's verifier key as you know it from elsewhere, or a file with it; the cloud's if left out
        #[arg(long, value_name = "KEY")]
        log_key: Option<String>,
    },
}

/// A log that only grew.
#[derive(Serialize)]
struct Grown {
    log: String,
    before: u64,
    now: u64,
}

impl LogCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Key => context.print(&client.log_key()?),
            Self::Checkpoint => context.print(&client.log_checkpoint()?),
            Self::Check { path, log_key } => {
                let key = log_key.map_or_else(|| client.log_key()?.trim_end().parse(), |given| known_key(&given))?;
                let earlier = key.read_checkpoint(&read_text(&path, CHECKPOINT_MAX_BYTES)?)?;
                let later = key.read_checkpoint(&client.log_checkpoint()?)?;
                check_growth(&client, earlier, later)?;
                let grown = Grown { log: key.to_string(), before: earlier.size, now: later.size };
                context.show(&grown, |grown| {
                    Table::of_fields(vec![
                        ("log", Cell::text(&grown.log)),
                        ("entries before", Cell::number(grown.before)),
                        ("entries now", Cell::number(grown.now)),
                        ("the first are the same", Cell::text("yes")),
                    ])
                })
            }
        }
    }
}

/// A key that was given, or the one in the file that was.
fn known_key(given: &str) -> Result<VerifierKey> {
    let text = match given.parse() {
        Ok(key) => return Ok(key),
        Err(error) => read_text(Path::new(given), CHECKPOINT_MAX_BYTES).map_err(|_| error)?,
    };
    text.trim_end().parse()
}

fn check_growth(client: &Client, earlier: TreeHead, later: TreeHead) -> Result<()> {
    if later.size < earlier.size {
        return Err(invalid(format!("the log has {} entries, and had {}", later.size, earlier.size)));
    }
    let mut proof = Vec::new();
    if earlier.size > 0 {
        let plan = ProofPlan::consistency(earlier.size, later.size)?;
        let mut nodes = Nodes::new();
        for node in plan.nodes() {
            nodes.insert(node, fetch(client, node, later.size)?);
        }
        proof = plan.proof(&nodes)?;
    }
    if is_consistent(earlier, later, &proof) {
        return Ok(());
    }
    Err(invalid(format!("the first {} entries of the log are not what they were", earlier.size)))
}

/// A full subtree of the log, from the tile that has it or what it is made of.
fn fetch(client: &Client, node: Node, size: u64) -> Result<Hash> {
    let (level, within) = (node.level / TILE_LEVELS, node.level % TILE_LEVELS);
    let first = node.place << within;
    let (tile, offset) = (first >> TILE_LEVELS, first % (1 << TILE_LEVELS));
    let width = (size >> (level * TILE_LEVELS)).saturating_sub(tile << TILE_LEVELS).min(1 << TILE_LEVELS);
    let mut bytes = Vec::new();
    let most = u64::try_from(HASH_BYTES).unwrap_or(u64::MAX) << TILE_LEVELS;
    client
        .log_tile(&tile_path(level, tile, width))?
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::new(ErrorCode::Unreachable, format!("a tile of the log broke off: {error}")))?;
    let hashes = bytes.chunks(HASH_BYTES).map(Hash::try_from).collect::<Result<Vec<_>>>()?;
    let range = usize::try_from(offset).ok().zip(usize::try_from(offset + (1 << within)).ok());
    let of_node = range.and_then(|(from, until)| hashes.get(from..until));
    of_node.and_then(subtree).ok_or_else(|| invalid("a tile of the log is shorter than its name says".to_owned()))
}

fn tile_path(level: u32, place: u64, width: u64) -> String {
    let mut groups = vec![format!("{:03}", place % 1_000)];
    let mut rest = place / 1_000;
    while rest > 0 {
        groups.insert(0, format!("x{:03}", rest % 1_000));
        rest /= 1_000;
    }
    let part = if width == 1 << TILE_LEVELS { String::new() } else { format!(".p/{width}") };
    format!("{level}/{}{part}", groups.join("/"))
}

/// The next line with its end, as far as it may be long; `None` at the end of the file.
fn read_line<'l>(file: &mut impl BufRead, path: &Path, (line, bytes_max): (&'l mut Vec<u8>, usize)) -> Result<Option<&'l [u8]>> {
    line.clear();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let read = file.take(limit).read_until(b'\n', line).map_err(|error| unreadable(path, &error))?;
    Ok((read > 0).then_some(line))
}

fn read_text(path: &Path, bytes_max: u64) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    file.take(bytes_max).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Usage, format!("{} cannot be read: {error}", path.display()))
}

fn invalid(problem: String) -> Error {
    Error::new(ErrorCode::ProofInvalid, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_named_as_the_specification_names_them() {
        let cases = [
            ((0, 0, 256), "0/000"),
            ((1, 1_234, 256), "1/x001/234"),
            ((0, 1_234_067, 256), "0/x001/x234/067"),
            ((2, 7, 5), "2/007.p/5"),
        ];
        for ((level, place, width), path) in cases {
            assert_eq!(tile_path(level, place, width), path);
        }
    }

    #[test]
    fn lines_are_whole_and_bounded() {
        let read = |text: &[u8]| {
            let (mut line, mut file) = (Vec::new(), text);
            let line = read_line(&mut file, Path::new("x"), (&mut line, 4)).unwrap();
            line.map(|line| whole_line(line, 4).map(str::to_owned))
        };
        assert_eq!(read(b""), None);
        assert_eq!(read(b"abcd\nx"), Some(Ok("abcd".to_owned())));
        for text in [&b"abcde\n"[..], b"abc", b"\xff\n"] {
            assert!(read(text).unwrap().is_err(), "{text:?}");
        }
    }
}
