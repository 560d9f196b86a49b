//! Invoices and credit notes as files for finance departments.
//!
//! What a file says is read in one transaction and written outside of it, on a thread that may be busy. An issued
//! invoice's content never changes; what of it was paid and credited is as it is when the file is made.
//!
//! Deliberately absent: keeping files. They are made again whenever they are asked for.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use sublet_core::admission::PriceVersion;
use sublet_core::id::InvoiceId;
use sublet_core::{Error, ErrorCode, Nanos, Result};
use sublet_document::About;
use sublet_document::credit::CreditNote;
use sublet_document::figures::Settlement;
use sublet_document::statement::SealMark;
use sublet_money::invoice::{Invoice, InvoiceLine, InvoiceState};
use sublet_money::price_book::PriceListVersion;
use sublet_money::price_model::PriceModel;
use sublet_store::{Tx, credit_note, seal, seller};

use crate::invoice::{bill, find};
use crate::{Action, Actor, Cloud};

/// What a document is written as.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum DocumentFormat {
    /// For people; with the other one attached where there is one.
    #[default]
    Pdf,
    /// Universal Business Language 2.1 by EN 16931.
    Ubl,
}

impl DocumentFormat {
    pub const ALL: [Self; 2] = [Self::Pdf, Self::Ubl];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::Ubl => "ubl",
        }
    }
    /// What its files end with.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::Ubl => "xml",
        }
    }
}

impl FromStr for DocumentFormat {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("documents are not written as '{shown}'"))
                .param("format")
                .alternative("ask for format pdf or ubl")
        })
    }
}

/// A document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DocumentFile {
    /// What to call it.
    pub name: String,
    pub format: DocumentFormat,
    pub content: Vec<u8>,
}

/// All that is read for an invoice's document.
struct Source {
    invoice: Invoice,
    about: About,
    prices: BTreeMap<PriceVersion, Arc<PriceListVersion>>,
}

impl Source {
    /// A line's price for one unit, where there is one for all of them.
    fn price(&self, line: &InvoiceLine) -> Option<Nanos> {
        let price = self.prices.get(&line.price_version)?.get(&line.sku).ok()?.price_in(line.band.as_ref()).ok()?;
        match *price.model() {
            PriceModel::PerUnit { price } => Some(price),
            PriceModel::Graduated { .. } | PriceModel::Volume { .. } | PriceModel::Package { .. } | PriceModel::Minimum { .. } => {
                None
            }
        }
    }

    fn write(&self, format: DocumentFormat) -> Result<Vec<u8>> {
        match format {
            DocumentFormat::Pdf => sublet_document::invoice_pdf(&self.invoice, &self.about, |line| self.price(line)),
            DocumentFormat::Ubl => sublet_document::invoice_ubl(&self.invoice, &self.about, |line| self.price(line)),
        }
    }
}

fn file_name(number: &str, format: DocumentFormat) -> String {
    format!("{number}.{}", format.extension())
}

/// Does what takes long on a thread that may be busy.
async fn written(work: impl FnOnce() -> Result<Vec<u8>> + Send + 'static) -> Result<Vec<u8>> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::internal(format!("writing a document broke off: {error}"))))
}

impl Cloud {
    /// An invoice of the actor's in any state as PDF, or an issued one as UBL.
    pub async fn invoice_document(&self, actor: &Actor, id: &InvoiceId, format: DocumentFormat) -> Result<DocumentFile> {
        actor.require(Action::ReadBilling)?;
        let source =
            self.store.read((self, actor, id), |(cloud, actor, id), tx| Box::pin(cloud.document_source(tx, actor, id))).await?;
        let number = source.invoice.number.map_or_else(|| id.to_string(), |number| number.to_string());
        let content = written(move || source.write(format)).await?;
        Ok(DocumentFile { name: file_name(&number, format), format, content })
    }

    async fn document_source(&self, tx: &mut Tx, actor: &Actor, id: &InvoiceId) -> Result<Source> {
        let stored = find(tx, &actor.scope, id).await?;
        let bill = bill(tx, stored, &mut BTreeMap::new()).await?;
        let content = &bill.invoice.content;
        let mut prices = BTreeMap::new();
        for line in &content.lines {
            if !prices.contains_key(&line.price_version) {
                prices.insert(line.price_version.clone(), self.price_version(tx, &line.price_version).await?);
            }
        }
        let sealed = match bill.invoice.state {
            InvoiceState::Draft => None,
            InvoiceState::Issued { .. } | InvoiceState::Paid { .. } | InvoiceState::Void { .. } => {
                seal::find(tx, &content.account.organization, content.period.key).await?
            }
        };
        let seal = sealed.map(|stored| SealMark { leaves: stored.seal.leaves(), root: stored.seal.root().to_string() });
        let credited_when_paid = match bill.invoice.state {
            InvoiceState::Paid { paid_at, .. } | InvoiceState::Void { paid_at: Some(paid_at), .. } => {
                credit_note::sum_until(tx, id, paid_at).await?
            }
            InvoiceState::Draft | InvoiceState::Issued { .. } | InvoiceState::Void { paid_at: None, .. } => Nanos::ZERO,
        };
        let settlement = Settlement { credited: bill.credited, credited_when_paid, due: bill.due };
        let about = About { settlement, seal, logo: logo(tx, &bill.invoice).await?, dated: bill.created_at };
        Ok(Source { invoice: bill.invoice, about, prices })
    }

    /// A credit note of an invoice of the actor's, by its number or id.
    pub async fn credit_note_document(
        &self,
        actor: &Actor,
        (id, name): (&InvoiceId, &str),
        format: DocumentFormat,
    ) -> Result<DocumentFile> {
        actor.require(Action::ReadBilling)?;
        let (note, invoice, logo) = self
            .store
            .read((actor, id, name), |(actor, id, name), tx| {
                Box::pin(async move {
                    let invoice = find(tx, &actor.scope, id).await?.invoice;
                    let note = credit_note::find(tx, &actor.scope, (id, name)).await?.ok_or_else(|| no_note(id, name))?;
                    let credited_before = credit_note::sum_before(tx, &note.invoice, &note).await?;
                    let logo = logo(tx, &invoice).await?;
                    let said = CreditNote {
                        number: note.number,
                        issued_at: note.issued_at,
                        amount: note.amount,
                        credited_before,
                        reason: note.reason,
                    };
                    Ok((said, invoice, logo))
                })
            })
            .await?;
        let name = file_name(&note.number.to_string(), format);
        let content = written(move || match format {
            DocumentFormat::Pdf => sublet_document::credit_note_pdf(&note, &invoice, logo.as_deref()),
            DocumentFormat::Ubl => sublet_document::credit_note_ubl(&note, &invoice),
        })
        .await?;
        Ok(DocumentFile { name, format, content })
    }
}

fn no_note(id: &InvoiceId, name: &str) -> Error {
    let shown: String = name.chars().take(40).collect();
    Error::new(ErrorCode::NotFound, format!("invoice {id} has no credit note '{shown}'"))
        .param("credit_note")
        .alternative("name it by its number, such as CN-2026-000001, or by its id")
}

/// Whether an invoice can be written as UBL.
pub fn has_ubl(invoice: &Invoice) -> bool {
    sublet_document::ubl::check(invoice).is_ok()
}

/// The seller's logo, where the invoice names one.
async fn logo(tx: &mut Tx, invoice: &Invoice) -> Result<Option<Vec<u8>>> {
    match invoice.content.seller.as_ref().and_then(|seller| seller.logo.as_deref()) {
        Some(sha256) => seller::find_logo(tx, sha256).await,
        None => Ok(None),
    }
}
