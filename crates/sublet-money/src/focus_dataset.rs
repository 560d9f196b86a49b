//! The datasets that FOCUS 1.4 has beside Cost and Usage, by name.
//!
//! Deliberately absent: their rows, which are where their columns are ([`crate::focus_period`], [`crate::focus_invoice`],
//! [`crate::focus_contract`]); versions before 1.4, which do not have them.

use sublet_core::error::{Error, ErrorCode, Result};

use crate::focus::FocusVersion;

/// A dataset that says something about rows of Cost and Usage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SupportingDataset {
    /// Months, and whether they may still change.
    BillingPeriod,
    /// What documents consist of.
    InvoiceDetail,
    /// What contracts commit to, period by period.
    ContractCommitment,
}

impl SupportingDataset {
    pub const ALL: [Self; 3] = [Self::BillingPeriod, Self::InvoiceDetail, Self::ContractCommitment];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BillingPeriod => "billing-period",
            Self::InvoiceDetail => "invoice-detail",
            Self::ContractCommitment => "contract-commitment",
        }
    }

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dataset| dataset.as_str() == name)
    }

    /// The one version that has it.
    pub const fn version(self) -> FocusVersion {
        FocusVersion::V1_4
    }

    /// Refuses every other version; none needs to be named.
    pub fn check_version(self, version: Option<&str>) -> Result<()> {
        if version.is_none_or(|version| version == self.version().as_str()) {
            return Ok(());
        }
        let message = format!("the dataset {} is of FOCUS {} alone", self.as_str(), self.version().as_str());
        Err(Error::new(ErrorCode::InvalidRequest, message)
            .param("version")
            .alternative("leave version out, or ask for dataset focus"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_has_one_name_and_one_version() {
        for dataset in SupportingDataset::ALL {
            assert_eq!(SupportingDataset::find(dataset.as_str()), Some(dataset));
            assert!(dataset.check_version(None).is_ok() && dataset.check_version(Some("1.4")).is_ok());
            let refused = dataset.check_version(Some("1.2")).expect_err("an older version");
            assert_eq!((refused.code(), refused.param_name()), (ErrorCode::InvalidRequest, Some("version")));
        }
        assert_eq!(SupportingDataset::find("focus"), None);
    }
}
