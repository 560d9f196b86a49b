//! The rows that files of a dataset have, and how they are encoded.

use sublet_core::{Error, Result};
use sublet_money::encoder::{Encoder, Format};
use sublet_money::focus::FocusRow;
use sublet_money::focus_columns::focus_columns;
use sublet_money::focus_contract::ContractCommitment;
use sublet_money::focus_contract_columns::contract_commitment_columns;
use sublet_money::focus_dataset::SupportingDataset;
use sublet_money::focus_invoice::InvoiceDetail;
use sublet_money::focus_invoice_columns::invoice_detail_columns;
use sublet_money::focus_period::{BillingPeriod, billing_period_columns};
use sublet_store::charge::Charge;

use crate::export::{Dataset, ExportRequest};
use crate::export_columns::charge_columns;

/// A file of one dataset.
pub(crate) enum Rows {
    Focus(Encoder<FocusRow>),
    Charges(Encoder<Charge>),
    Periods(Encoder<BillingPeriod>),
    Details(Encoder<InvoiceDetail>),
    Commitments(Encoder<ContractCommitment>),
}

/// Some rows of one kind.
pub(crate) enum Page {
    Focus(Vec<FocusRow>),
    Charges(Vec<Charge>),
    Periods(Vec<BillingPeriod>),
    Details(Vec<InvoiceDetail>),
    Commitments(Vec<ContractCommitment>),
    Nothing,
}

impl Page {
    pub fn rows(&self) -> usize {
        match self {
            Self::Focus(rows) => rows.len(),
            Self::Charges(rows) => rows.len(),
            Self::Periods(rows) => rows.len(),
            Self::Details(rows) => rows.len(),
            Self::Commitments(rows) => rows.len(),
            Self::Nothing => 0,
        }
    }
}

impl Rows {
    /// And what its file's name begins with.
    pub fn new(request: &ExportRequest) -> (Self, String) {
        let format: Format = request.format;
        let (rows, version) = match request.dataset {
            Dataset::Focus => (Self::Focus(Encoder::new(focus_columns(request.version), format)), Some(request.version)),
            Dataset::Charges => (Self::Charges(Encoder::new(charge_columns(), format)), None),
            Dataset::Supporting(dataset) => {
                let rows = match dataset {
                    SupportingDataset::BillingPeriod => Self::Periods(Encoder::new(billing_period_columns(), format)),
                    SupportingDataset::InvoiceDetail => Self::Details(Encoder::new(invoice_detail_columns(), format)),
                    SupportingDataset::ContractCommitment => Self::Commitments(Encoder::new(contract_commitment_columns(), format)),
                };
                (rows, Some(dataset.version()))
            }
        };
        let version = version.map_or_else(String::new, |version| format!("-{}", version.as_str()));
        (rows, format!("{}{version}", request.dataset.as_str()))
    }

    /// What the file begins with.
    pub fn begin(&mut self) -> Vec<u8> {
        match self {
            Self::Focus(rows) => rows.begin(),
            Self::Charges(rows) => rows.begin(),
            Self::Periods(rows) => rows.begin(),
            Self::Details(rows) => rows.begin(),
            Self::Commitments(rows) => rows.begin(),
        }
    }

    /// What some more rows add.
    pub fn add(&mut self, page: &Page) -> Result<Vec<u8>> {
        match (self, page) {
            (_, Page::Nothing) => Ok(Vec::new()),
            (Self::Focus(rows), Page::Focus(page)) => rows.add(page),
            (Self::Charges(rows), Page::Charges(page)) => rows.add(page),
            (Self::Periods(rows), Page::Periods(page)) => rows.add(page),
            (Self::Details(rows), Page::Details(page)) => rows.add(page),
            (Self::Commitments(rows), Page::Commitments(page)) => rows.add(page),
            (Self::Focus(_) | Self::Charges(_) | Self::Periods(_) | Self::Details(_) | Self::Commitments(_), _) => {
                Err(Error::internal("an export got rows of another kind"))
            }
        }
    }

    /// What the file ends with.
    pub fn end(&mut self) -> Result<Vec<u8>> {
        match self {
            Self::Focus(rows) => rows.end(),
            Self::Charges(rows) => rows.end(),
            Self::Periods(rows) => rows.end(),
            Self::Details(rows) => rows.end(),
            Self::Commitments(rows) => rows.end(),
        }
    }
}
