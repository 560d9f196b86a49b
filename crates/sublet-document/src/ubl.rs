//! Invoices and credit notes as UBL 2.1, by the semantic model of EN 16931-1 and its binding EN 16931-3-2.
//!
//! Business terms are named `BT` and `BG` as the standard does; docs/operation/invoices.md has the table. Figures come
//! from [`Figures`], so that the standard's sums hold: BR-CO-10, 13, 14, 15 and 16. A price is exact by its base
//! quantity: so much for a million tokens, or for the whole quantity where the price depends on it.
//!
//! Deliberately absent: more than one tax on a base, which the standard has no place for, and drafts.

use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_money::day::Day;
use sublet_money::invoice::{Invoice, InvoiceContent, InvoiceState};
use sublet_money::party::{Buyer, Seller};
use sublet_money::period::BillingCalendar;
use sublet_money::sku::PricingUnit;
use sublet_money::tax::{TaxCategory, TaxTreatment};

use crate::credit::CreditNote;
use crate::figures::{Figures, Measure, Row};
use crate::ubl_party::{endpoint_of, party};
use crate::xml::Xml;

const CUSTOMIZATION: &str = "urn:cen.eu:en16931:2017";
/// The billing process of Peppol BIS Billing 3.0, which asks for nothing that is not here.
const PROFILE: &str = "urn:fdc:peppol.eu:2017:poacc:billing:01:1.0";
const NAMESPACE: &str = "urn:oasis:names:specification:ubl:schema:xsd";
/// UNCL1001: commercial invoice, credit note.
const INVOICE_TYPE: &str = "380";
const CREDIT_NOTE_TYPE: &str = "381";
/// UNCL4461: credit transfer.
const CREDIT_TRANSFER: &str = "30";
/// UN/ECE recommendation 20: one, millisecond.
const ONE: &str = "C62";
const MILLISECOND: &str = "C26";
const BYTE: &str = "AD";

/// What both kinds of document have.
struct Paper<'a> {
    is_credit: bool,
    number: String,
    issued_on: Day,
    due_on: Option<Day>,
    notes: Vec<String>,
    /// The invoice that is credited, and its day.
    credited: Option<(String, Day)>,
    content: &'a InvoiceContent,
    seller: &'a Seller,
    buyer: &'a Buyer,
    tax: &'a TaxTreatment,
    figures: &'a Figures,
    calendar: BillingCalendar,
}

/// An issued invoice as XML.
pub fn invoice(invoice: &Invoice, figures: &Figures) -> Result<Vec<u8>> {
    let (number, issued_on) = issued(invoice)?;
    let content = &invoice.content;
    let calendar = BillingCalendar::new(&content.account.zone)?;
    let due_on = content.terms.as_ref().map(|terms| issued_on.plus_days(terms.net_days)).transpose()?;
    let mut notes = Vec::new();
    if figures.is_summary {
        notes.push(format!("Sums of {} lines. The export of charges has all of them.", content.lines.len()));
    }
    let is_credit = false;
    paper(content, figures, (number, issued_on), calendar)
        .map(|paper| Paper { due_on, notes, is_credit, ..paper })
        .and_then(|paper| paper.write())
}

/// A credit note as XML.
pub fn credit_note(note: &CreditNote, invoice: &Invoice, figures: &Figures) -> Result<Vec<u8>> {
    let credited = issued(invoice)?;
    let calendar = BillingCalendar::new(&invoice.content.account.zone)?;
    let issued_on = calendar.day_at(note.issued_at)?;
    let paper = paper(&invoice.content, figures, (note.number.to_string(), issued_on), calendar)?;
    let notes = vec![note.reason.clone(), "The amount is credit of the account.".to_owned()];
    Paper { is_credit: true, credited: Some(credited), notes, ..paper }.write()
}

/// Refuses an invoice that cannot be written, and says what would work.
pub fn check(invoice: &Invoice) -> Result<()> {
    issued(invoice)?;
    parties(&invoice.content).map(|_| ())
}

fn issued(invoice: &Invoice) -> Result<(String, Day)> {
    let issued_at = match invoice.state {
        InvoiceState::Draft => None,
        InvoiceState::Issued { issued_at } | InvoiceState::Paid { issued_at, .. } | InvoiceState::Void { issued_at, .. } => {
            Some(issued_at)
        }
    };
    let (Some(number), Some(issued_at)) = (invoice.number, issued_at) else {
        let message = format!("invoice {} is a draft: it has no number, and programs would book it as issued", invoice.id);
        return Err(Error::new(ErrorCode::Conflict, message).alternative("the PDF of the draft, or UBL once its month is closed"));
    };
    let day = BillingCalendar::new(&invoice.content.account.zone)?.day_at(issued_at)?;
    Ok((number.to_string(), day))
}

fn missing(what: &str, command: &str) -> Error {
    let message = format!("the invoice does not say {what}, which EN 16931 asks for");
    Error::new(ErrorCode::Conflict, message)
        .alternative(format!("{command}, for invoices from then on"))
        .alternative("the PDF, which is a statement without it")
}

/// Who sells, who buys, and the tax: what the standard asks for beyond what every invoice has.
fn parties(content: &InvoiceContent) -> Result<(&Seller, &Buyer, &TaxTreatment)> {
    let seller = content.seller.as_deref().ok_or_else(|| missing("who sells", "the operator says who sells: sublet seller set"))?;
    let buyer = content
        .buyer
        .as_deref()
        .ok_or_else(|| missing("who buys", "say how the organization is invoiced: sublet billing profile set"))?;
    let lines = content.tax.as_ref().map_or([].as_slice(), |tax| tax.lines.as_slice());
    let [line] = lines else {
        let message = format!("the invoice has {} taxes on one base, and EN 16931 has a place for one", lines.len());
        return Err(Error::new(ErrorCode::Conflict, message).alternative("the PDF, which has all of them"));
    };
    let tax = &line.treatment;
    let party = &seller.party;
    if party.tax_id.is_none() && (tax.category != TaxCategory::OutOfScope || party.registration.is_none()) {
        let what = "the seller's VAT number";
        return Err(missing(what, "the operator adds it: sublet seller set"));
    }
    if content.account.currency.minor_unit().get() < 10_000_000 {
        let message = format!("amounts of {} have more decimals than the two of EN 16931", content.account.currency);
        return Err(Error::new(ErrorCode::Conflict, message).alternative("the PDF"));
    }
    Ok((seller, buyer, tax))
}

fn paper<'a>(
    content: &'a InvoiceContent,
    figures: &'a Figures,
    (number, issued_on): (String, Day),
    calendar: BillingCalendar,
) -> Result<Paper<'a>> {
    let (seller, buyer, tax) = parties(content)?;
    Ok(Paper {
        is_credit: false,
        number,
        issued_on,
        due_on: None,
        notes: Vec::new(),
        credited: None,
        content,
        seller,
        buyer,
        tax,
        figures,
        calendar,
    })
}

impl Paper<'_> {
    fn write(&self) -> Result<Vec<u8>> {
        let mut xml = Xml::new(self.figures.currency)?;
        let root = if self.is_credit { "CreditNote" } else { "Invoice" };
        let document = format!("{NAMESPACE}:{root}-2");
        let (basic, aggregate) =
            (format!("{NAMESPACE}:CommonBasicComponents-2"), format!("{NAMESPACE}:CommonAggregateComponents-2"));
        let names = [("xmlns", document.as_str()), ("xmlns:cac", &aggregate), ("xmlns:cbc", &basic)];
        xml.group_with(root, &names, |xml| {
            self.head(xml)?;
            self.references(xml)?;
            let is_named = self.tax.category != TaxCategory::OutOfScope;
            let seller = &self.seller.party;
            xml.group("cac:AccountingSupplierParty", |xml| party(xml, seller, is_named, endpoint_of(seller)))?;
            let buyer = &self.buyer.party;
            xml.group("cac:AccountingCustomerParty", |xml| party(xml, buyer, is_named, endpoint_of(buyer)))?;
            self.payment(xml)?;
            self.allowances(xml)?;
            self.taxes(xml)?;
            self.totals(xml)?;
            self.figures.rows.iter().enumerate().try_for_each(|(index, row)| self.line(xml, index + 1, row))
        })?;
        Ok(xml.finish())
    }

    /// BT-24, BT-23, BT-1, BT-2, BT-9, BT-3, BT-22, BT-5, BT-10.
    fn head(&self, xml: &mut Xml) -> Result<()> {
        xml.leaf("cbc:CustomizationID", CUSTOMIZATION)?;
        xml.leaf("cbc:ProfileID", PROFILE)?;
        xml.leaf("cbc:ID", &self.number)?;
        xml.leaf("cbc:IssueDate", &self.issued_on.to_string())?;
        if self.is_credit {
            xml.leaf("cbc:CreditNoteTypeCode", CREDIT_NOTE_TYPE)?;
        } else {
            xml.optional("cbc:DueDate", self.due_on.map(|day| day.to_string()).as_deref())?;
            xml.leaf("cbc:InvoiceTypeCode", INVOICE_TYPE)?;
        }
        for note in &self.notes {
            xml.leaf("cbc:Note", note)?;
        }
        xml.leaf("cbc:DocumentCurrencyCode", self.figures.currency.as_str())?;
        // Where the buyer has none, the account: receivers ask for one.
        let reference = self.buyer.reference.as_deref().unwrap_or(self.content.account.organization.as_str());
        xml.leaf("cbc:BuyerReference", reference)
    }

    /// BG-14, BT-13, BG-3, BT-12.
    fn references(&self, xml: &mut Xml) -> Result<()> {
        let interval = self.content.period.interval;
        let (first, last) = crate::days(&self.calendar, interval)?;
        xml.group("cac:InvoicePeriod", |xml| {
            xml.leaf("cbc:StartDate", &first.to_string())?;
            xml.leaf("cbc:EndDate", &last.to_string())
        })?;
        if let Some(order) = &self.buyer.purchase_order {
            xml.group("cac:OrderReference", |xml| xml.leaf("cbc:ID", order))?;
        }
        if let Some((number, day)) = &self.credited {
            xml.group("cac:BillingReference", |xml| {
                xml.group("cac:InvoiceDocumentReference", |xml| {
                    xml.leaf("cbc:ID", number)?;
                    xml.leaf("cbc:IssueDate", &day.to_string())
                })
            })?;
        }
        let settled = self.content.commitment.as_ref().map(|part| &part.contract);
        if let Some(contract) = settled.or(self.content.advance.as_ref().map(|line| &line.contract)) {
            xml.group("cac:ContractDocumentReference", |xml| xml.leaf("cbc:ID", contract.as_str()))?;
        }
        Ok(())
    }

    /// BG-16 and BT-20.
    fn payment(&self, xml: &mut Xml) -> Result<()> {
        let bank = self.seller.bank.as_ref().filter(|_| !self.is_credit && self.figures.payable > Nanos::ZERO);
        if let Some(bank) = bank {
            xml.group("cac:PaymentMeans", |xml| {
                xml.leaf("cbc:PaymentMeansCode", CREDIT_TRANSFER)?;
                xml.leaf("cbc:PaymentID", &self.number)?;
                xml.group("cac:PayeeFinancialAccount", |xml| {
                    xml.leaf("cbc:ID", &bank.iban)?;
                    xml.optional("cbc:Name", bank.holder.as_deref())?;
                    match &bank.bic {
                        Some(bic) => xml.group("cac:FinancialInstitutionBranch", |xml| xml.leaf("cbc:ID", bic)),
                        None => Ok(()),
                    }
                })
            })?;
        }
        let terms = self.content.terms.as_ref().and_then(|terms| terms.note.as_deref());
        let note = if self.is_credit { Some("The amount is credit of the account.") } else { terms };
        note.map_or(Ok(()), |note| xml.group("cac:PaymentTerms", |xml| xml.leaf("cbc:Note", note)))
    }

    /// BG-20 and BG-21: gifts, and the rounding that is carried between invoices.
    fn allowances(&self, xml: &mut Xml) -> Result<()> {
        for (amount, reason) in self.parts()? {
            // An allowance above zero; a charge otherwise.
            let is_charge = amount.is_negative();
            xml.group("cac:AllowanceCharge", |xml| {
                xml.leaf("cbc:ChargeIndicator", if is_charge { "true" } else { "false" })?;
                xml.leaf("cbc:AllowanceChargeReason", reason)?;
                xml.amount("cbc:Amount", if is_charge { amount.checked_neg()? } else { amount })?;
                self.category(xml, "cac:TaxCategory", false)
            })?;
        }
        Ok(())
    }

    /// What is taken off the lines: below zero for what is added.
    fn parts(&self) -> Result<Vec<(Nanos, &'static str)>> {
        let parts = [
            (self.figures.gifts, "Promotional credit"),
            (self.figures.rounding.checked_neg()?, "Rounding, carried between invoices"),
        ];
        Ok(parts.into_iter().filter(|(amount, _)| !amount.is_zero()).collect())
    }

    /// BG-30, or BG-23 with the reason.
    fn category(&self, xml: &mut Xml, name: &str, with_reason: bool) -> Result<()> {
        let tax = self.tax;
        xml.group(name, |xml| {
            xml.leaf("cbc:ID", tax.category.as_str())?;
            if tax.category != TaxCategory::OutOfScope {
                xml.leaf("cbc:Percent", &tax.rate_ppm.to_string())?;
            }
            if with_reason && tax.category.needs_reason() {
                xml.optional("cbc:TaxExemptionReasonCode", tax.reason_code.as_deref())?;
                xml.optional("cbc:TaxExemptionReason", tax.reason.as_deref())?;
            }
            xml.group("cac:TaxScheme", |xml| xml.leaf("cbc:ID", "VAT"))
        })
    }

    fn taxes(&self, xml: &mut Xml) -> Result<()> {
        xml.group("cac:TaxTotal", |xml| {
            xml.amount("cbc:TaxAmount", self.figures.tax)?;
            xml.group("cac:TaxSubtotal", |xml| {
                xml.amount("cbc:TaxableAmount", self.figures.without_tax)?;
                xml.amount("cbc:TaxAmount", self.figures.tax)?;
                self.category(xml, "cac:TaxCategory", true)
            })
        })
    }

    /// BG-22.
    fn totals(&self, xml: &mut Xml) -> Result<()> {
        let figures = self.figures;
        let parts = self.parts()?;
        let allowed = Nanos::checked_sum(parts.iter().map(|(amount, _)| *amount).filter(|amount| !amount.is_negative()))?;
        let charged = Nanos::checked_sum(parts.iter().map(|(amount, _)| *amount).filter(|amount| amount.is_negative()))?;
        xml.group("cac:LegalMonetaryTotal", |xml| {
            xml.amount("cbc:LineExtensionAmount", figures.lines)?;
            xml.amount("cbc:TaxExclusiveAmount", figures.without_tax)?;
            xml.amount("cbc:TaxInclusiveAmount", figures.with_tax)?;
            if !allowed.is_zero() {
                xml.amount("cbc:AllowanceTotalAmount", allowed)?;
            }
            if !charged.is_zero() {
                xml.amount("cbc:ChargeTotalAmount", charged.checked_neg()?)?;
            }
            if !figures.prepaid.is_zero() {
                xml.amount("cbc:PrepaidAmount", figures.prepaid)?;
            }
            xml.amount("cbc:PayableAmount", figures.payable)
        })
    }

    /// BG-25.
    fn line(&self, xml: &mut Xml, place: usize, row: &Row) -> Result<()> {
        let (line, counted) = if self.is_credit {
            ("cac:CreditNoteLine", "cbc:CreditedQuantity")
        } else {
            ("cac:InvoiceLine", "cbc:InvoicedQuantity")
        };
        let priced = Priced::of(row)?;
        xml.group(line, |xml| {
            xml.leaf("cbc:ID", &place.to_string())?;
            let unit = [("unitCode", priced.unit)];
            xml.leaf_with(counted, &unit, &priced.quantity.to_string())?;
            xml.amount("cbc:LineExtensionAmount", row.amount)?;
            xml.group("cac:Item", |xml| {
                let details: Vec<&str> = row.heading.iter().chain(&row.details).map(String::as_str).collect();
                if !details.is_empty() {
                    xml.leaf("cbc:Description", &details.join("; "))?;
                }
                xml.leaf("cbc:Name", &row.what)?;
                self.category(xml, "cac:ClassifiedTaxCategory", false)
            })?;
            xml.group("cac:Price", |xml| {
                xml.amount("cbc:PriceAmount", priced.price)?;
                xml.leaf_with("cbc:BaseQuantity", &unit, &priced.per.to_string())
            })
        })
    }
}

/// A quantity and a price that give a row's exact amount, up to a nano-unit: `quantity × price / per`.
struct Priced {
    quantity: i64,
    unit: &'static str,
    price: Nanos,
    per: i64,
}

impl Priced {
    fn of(row: &Row) -> Result<Self> {
        let once = |exact: Nanos| -> Result<Self> {
            // A price is never below zero (BR-27): the quantity is.
            let (quantity, price) = if exact.is_negative() { (-1, exact.checked_neg()?) } else { (1, exact) };
            Ok(Self { quantity, unit: ONE, price, per: 1 })
        };
        let Measure::Counted { quantity, unit, price } = row.measure else { return once(row.exact) };
        let code = match unit {
            PricingUnit::MillionTokens
            | PricingUnit::Request
            | PricingUnit::Start
            | PricingUnit::ProjectMonth
            | PricingUnit::Fee
            | PricingUnit::GibibyteMonth => ONE,
            PricingUnit::Gibibyte => BYTE,
            PricingUnit::DeviceHour => MILLISECOND,
        };
        match price {
            Some(price) => Ok(Self { quantity, unit: code, price, per: unit.base_units() }),
            None if quantity > 0 && !row.exact.is_negative() => Ok(Self { quantity, unit: code, price: row.exact, per: quantity }),
            None => once(row.exact),
        }
    }
}
