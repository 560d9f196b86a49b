//! What a document says, as text that is ready to be set: the same for an invoice, a credit note and a statement.

use sublet_core::Timestamp;

/// A document before it is laid out on pages.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sheet {
    /// `Invoice`.
    pub title: String,
    /// Its number, or its id while it has none.
    pub name: String,
    /// What is printed across every page: `DRAFT`.
    pub mark: Option<&'static str>,
    /// Who issued it, and where they are.
    pub issuer: Vec<String>,
    pub recipient: Vec<String>,
    /// Number, dates and references.
    pub facts: Vec<Fact>,
    /// The heads of the two columns of amounts.
    pub amount_heads: [String; 2],
    pub sections: Vec<Section>,
    pub sums: Vec<Sum>,
    pub taxes: Vec<TaxRow>,
    /// After the taxes: what is to be paid.
    pub totals: Vec<Sum>,
    /// Why a tax is not charged, and what else has to be said beside the sums.
    pub remarks: Vec<String>,
    pub payment: Vec<Fact>,
    /// How the document can be checked, and what is not in it.
    pub notes: Vec<String>,
    /// At the foot of every page.
    pub footer: Vec<String>,
    /// When it was issued, or last changed while it is a draft.
    pub dated: Timestamp,
}

/// A label and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    pub label: &'static str,
    pub text: String,
}

/// Lines under one heading.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Section {
    pub heading: Option<String>,
    pub rows: Vec<SheetRow>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SheetRow {
    pub what: String,
    /// In smaller letters below it.
    pub details: Vec<String>,
    pub quantity: String,
    /// To the last decimal.
    pub exact: String,
    pub amount: String,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sum {
    pub label: String,
    pub exact: Option<String>,
    pub amount: String,
    /// Set stronger, under a rule.
    pub is_total: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaxRow {
    pub name: String,
    pub rate: String,
    pub base: String,
    pub amount: String,
}
