//! `sublet billing export`.

use std::path::PathBuf;

use clap::Args;
use sublet_api::export::ExportQuery;
use sublet_core::error::Result;
use sublet_core::id::OrganizationId;

use super::file::{self, Download};
use crate::Context;

/// Which file, and where to.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// focus: cost and usage for FinOps programs; billing-period, invoice-detail, contract-commitment: what is beside it;
    /// charges: one row for each charge
    #[arg(default_value = "focus")]
    dataset: String,
    /// The month, such as 2026-03; the one that runs if left out
    #[arg(long, value_name = "MONTH")]
    period: Option<String>,
    /// Of the FOCUS specification, 1.2 or 1.4
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// csv or parquet
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Of every organization (operator)
    #[arg(long)]
    all: bool,
    /// Of one organization (operator, with --all)
    #[arg(long, value_name = "ORGANIZATION", requires = "all")]
    of: Option<OrganizationId>,
    /// Write it into this file; it appears when it is whole
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
}

impl ExportArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let name = self.dataset.clone();
        let query = ExportQuery {
            dataset: Some(self.dataset),
            period: self.period,
            format: self.format,
            version: self.version,
            organization: self.of,
        };
        let content = if self.all { client.export_all(&query)? } else { client.export(&query)? };
        let download = Download { name: &name, content };
        match self.output {
            None => file::print(context, download),
            Some(path) => file::save(context, download, &path),
        }
    }
}
