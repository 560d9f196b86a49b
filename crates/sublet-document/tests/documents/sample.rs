//! Invoices of every kind, for tests, for judges and to look at. Only what is said of parties is made up.

use sublet_core::{Nanos, Timestamp};
use sublet_document::About;
use sublet_document::credit::CreditNote;
use sublet_document::figures::Settlement;
use sublet_document::statement::SealMark;
use sublet_money::commitment::CommitmentLine;
use sublet_money::invoice::{ChargeSum, ChargedLine, Invoice, InvoiceAccount, InvoiceContent, InvoiceLine, Parties, draft};
use sublet_money::party::{Address, BankAccount, Buyer, Contact, ElectronicAddress, Party, PaymentTerms, Seller};
use sublet_money::period::{BillingCalendar, Period};
use sublet_money::price_book::{PriceEntry, PriceListDraft, PriceListVersion};
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::rating::{LineKey, LineState, rate};
use sublet_money::sku::{Quantity, SkuName};
use sublet_money::tax::{TaxCategory, TaxRate, TaxTreatment};

const EURO: i64 = 1_000_000_000;
/// Of the euro.
pub const MINOR_UNIT: i64 = EURO / 100;
const ROOT: &str = "5f2c1b7c0f8d6a34e1d1f6f1f8a96c0b5f0f4b3a7d1a2c9e8b7d6f5e4c3b2a19";

/// A document and what it is called.
pub struct Sample {
    pub name: &'static str,
    pub invoice: Invoice,
    pub about: About,
    pub note: Option<CreditNote>,
}

pub fn period() -> Period {
    BillingCalendar::new("Europe/Berlin").unwrap().period("2026-03".parse().unwrap()).unwrap()
}

/// Prices of each token kind of many models, of a device with tiers, and of another.
pub fn prices(currency: &str, models: u32) -> PriceListVersion {
    let mut entries = Vec::new();
    for model in 0..models {
        for (kind, price) in [("input", 150_000_000), ("cached_input", 75_000_000), ("output", 600_000_000)] {
            let sku = format!("tokens/{kind}/sublet-mini-{model}").parse().unwrap();
            entries.push(PriceEntry::per_unit(sku, Nanos::new(price + i64::from(model) * 1_000)));
        }
    }
    entries.push(PriceEntry::per_unit("device/n0/cpu".parse().unwrap(), Nanos::new(15_000_000)));
    let tiers = vec![
        Tier { up_to: Some(Quantity::new(360_000_000).unwrap()), price: Nanos::new(2 * EURO) },
        Tier { up_to: None, price: Nanos::new(EURO * 3 / 2) },
    ];
    let sku: SkuName = "device/n2m/h100-sxm".parse().unwrap();
    entries.push(PriceEntry::new(sku, PriceModel::Graduated { tiers }));
    PriceListVersion::new(PriceListDraft {
        list: "plist_1".parse().unwrap(),
        currency: currency.parse().unwrap(),
        effective_at: Timestamp::EPOCH,
        entries,
    })
    .unwrap()
}

pub fn line(version: &PriceListVersion, project: u32, sku: &str, count: i64) -> ChargedLine {
    let key = LineKey {
        organization: "org_1".parse().unwrap(),
        project: format!("proj_{project}").parse().unwrap(),
        period: "2026-03".parse().unwrap(),
        price_version: version.version().clone(),
        sku: sku.parse().unwrap(),
        band: None,
    };
    let price = version.get(&key.sku).unwrap().price_in(None).unwrap();
    let (amount, state) = rate(LineState::default(), price, Quantity::new(count).unwrap()).unwrap();
    ChargedLine { key, before: LineState::default(), state, charges: ChargeSum { count: 1, amount } }
}

/// The price of a line for one unit, as the price list of the samples has it.
pub fn price(version: &PriceListVersion) -> impl Fn(&InvoiceLine) -> Option<Nanos> + '_ {
    |line| match *version.get(&line.sku).ok()?.price_in(None).ok()?.model() {
        PriceModel::PerUnit { price } => Some(price),
        PriceModel::Graduated { .. } | PriceModel::Volume { .. } | PriceModel::Package { .. } | PriceModel::Minimum { .. } => None,
    }
}

fn content(version: &PriceListVersion, name: &str, lines: &[ChargedLine], carry: i64) -> InvoiceContent {
    let account = InvoiceAccount {
        organization: "org_1".parse().unwrap(),
        name: name.to_owned(),
        currency: version.currency(),
        zone: "Europe/Berlin".to_owned(),
    };
    draft(account, period(), Nanos::new(carry), lines, &[version]).unwrap()
}

fn party(name: &str, (line, code, city, country): (&str, &str, &str, &str), tax_id: Option<&str>) -> Party {
    Party {
        legal_name: name.to_owned(),
        trading_name: None,
        address: Address {
            lines: vec![line.to_owned()],
            city: city.to_owned(),
            postal_code: Some(code.to_owned()),
            subdivision: None,
            country: country.parse().unwrap(),
        },
        tax_id: tax_id.map(|id| id.parse().unwrap()),
        registration: None,
        contact: None,
        electronic_address: None,
    }
}

fn seller() -> Seller {
    let party = party("Rechenzentrum Nord GmbH", ("Werftstraße 12", "24143", "Kiel", "DE"), Some("DE123456788"));
    let contact = Contact {
        name: Some("Accounts receivable".to_owned()),
        phone: Some("+49 431 1234567".to_owned()),
        email: Some("billing@example.com".to_owned()),
    };
    let electronic_address = Some(ElectronicAddress { scheme: "EM".to_owned(), id: "billing@example.com".to_owned() });
    Seller {
        party: Party { registration: Some("HRB 12345 KI".to_owned()), contact: Some(contact), electronic_address, ..party },
        bank: Some(BankAccount { iban: "DE89370400440532013000".to_owned(), bic: Some("COBADEFFXXX".to_owned()), holder: None }),
        footer: Some("Managing director: Ada Beispiel. Registered at the district court of Kiel, HRB 12345 KI.".to_owned()),
        logo: None,
    }
}

fn buyer(party: Party) -> Buyer {
    let electronic_address = Some(ElectronicAddress { scheme: "EM".to_owned(), id: "ap@example.org".to_owned() });
    let party = Party { electronic_address, ..party };
    Buyer { party, purchase_order: Some("PO-2026-4711".to_owned()), reference: Some("04011000-12345-03".to_owned()) }
}

pub fn treatment(category: TaxCategory, ppm: u32, country: &str) -> TaxTreatment {
    let (reason, code) = match category {
        TaxCategory::ReverseCharge => (Some("Reverse charge"), Some("VATEX-EU-AE")),
        TaxCategory::Exempt => (Some("Exempt by certificate 2026-17"), None),
        TaxCategory::Export => (Some("Export outside the EU"), Some("VATEX-EU-G")),
        TaxCategory::OutOfScope => (Some("No tax is collected in US-NY"), Some("VATEX-EU-O")),
        TaxCategory::Standard | TaxCategory::ZeroRated => (None, None),
    };
    TaxTreatment {
        category,
        jurisdiction: country.parse().unwrap(),
        name: "VAT".to_owned(),
        rate_ppm: TaxRate::from_ppm(ppm).unwrap(),
        reason: reason.map(str::to_owned),
        reason_code: code.map(str::to_owned),
    }
}

/// With a seller, a buyer in the country of the tax, and the tax.
pub fn with_parties(content: InvoiceContent, party: Party, tax: TaxTreatment, gifts: i64) -> InvoiceContent {
    let terms = PaymentTerms { net_days: 14, note: Some("Payable within 14 days without deduction.".to_owned()) };
    let parties = Parties { seller: seller(), buyer: Some(buyer(party)), terms };
    parties.seller.validate().unwrap();
    parties.buyer.as_ref().unwrap().validate().unwrap();
    content.with_parties(parties, vec![tax], Nanos::new(gifts)).unwrap()
}

pub fn german() -> Party {
    party("Zahnräder & Söhne GmbH", ("Am Alten Markt 3–5", "39104", "Magdeburg", "DE"), Some("DE811907980"))
}

pub fn issued(number: u32, content: InvoiceContent) -> Invoice {
    let issued_at = Timestamp::from_seconds(period().interval.ends_at.micros() / 1_000_000 + 3_600);
    let number = format!("INV-2026-{number:06}").parse().unwrap();
    Invoice::draft("inv_1".parse().unwrap(), content).issue(number, issued_at).unwrap()
}

pub fn paid(invoice: Invoice) -> Invoice {
    let at = period().interval.ends_at;
    invoice.pay(at).unwrap()
}

fn commitment() -> CommitmentLine {
    CommitmentLine {
        drawdown: None,
        contract: "ctr_1".parse().unwrap(),
        terms: "0".repeat(64),
        number: 1,
        first: "2026-01".parse().unwrap(),
        last: "2026-03".parse().unwrap(),
        committed: Nanos::new(1_500 * EURO),
        counted_before: Nanos::new(900 * EURO + 12_345),
        counted: Nanos::new(212_222_222_222),
        roll_over: Nanos::ZERO,
        shortfall: Nanos::new(387_777_765_433),
        roll_over_used: Nanos::ZERO,
        exit_fee: Nanos::ZERO,
        fee_terms: None,
        quantity: None,
    }
}

/// A square with a bar in it.
pub fn logo() -> Vec<u8> {
    let (width, height) = (96_u8, 48_u8);
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let is_bar = (x / 12) % 2 == 0 && y > x / 3;
            pixels.extend(if is_bar { [20, 90, 140] } else { [225, 235, 240] });
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, u32::from(width), u32::from(height));
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

fn busy(version: &PriceListVersion) -> Vec<ChargedLine> {
    vec![
        line(version, 2, "device/n2m/h100-sxm", 400_000_000),
        line(version, 1, "tokens/output/sublet-mini-0", 1_234_567),
        line(version, 1, "tokens/input/sublet-mini-0", 7_654_321),
        line(version, 1, "device/n0/cpu", 5_025_250),
    ]
}

pub fn about() -> About {
    let seal = Some(SealMark { leaves: 1_234, root: ROOT.to_owned() });
    About { seal, logo: Some(logo()), dated: period().interval.starts_at, ..About::default() }
}

/// One of every kind.
pub fn samples(version: &PriceListVersion) -> Vec<Sample> {
    let plain = |lines: &[ChargedLine]| content(version, "Zahnräder & Söhne GmbH", lines, -3_500_000);
    let standard = || treatment(TaxCategory::Standard, 190_000, "DE");
    let taxed = |lines: &[ChargedLine], gifts| with_parties(plain(lines), german(), standard(), gifts);
    let sample = |name, invoice, about| Sample { name, invoice, about, note: None };
    let open = issued(1, taxed(&busy(version), 0));
    let due = open.content.gross().unwrap();
    let unpaid = About { settlement: Settlement { due, ..Settlement::default() }, ..about() };
    let dutch = party("Tandwielen B.V.", ("Herengracht 1", "1015 BA", "Amsterdam", "NL"), Some("NL123456789B01"));
    let american = party("Gears & Cogs Inc.", ("1 Main Street", "10001", "New York", "US"), None);
    let greek = party("Ελληνικά Γρανάζια ΑΕ – 歯車", ("Οδός Ερμού 1", "105 63", "Αθήνα", "GR"), Some("EL123456789"));
    let contract = plain(&busy(version)).with_commitment(commitment()).unwrap();
    let contract = with_parties(contract, german(), standard(), 0);
    let many: Vec<ChargedLine> = (0..90)
        .map(|index| line(version, index / 30, &format!("tokens/output/sublet-mini-{}", index % 30), i64::from(index) * 98_765 + 1))
        .collect();
    let note = CreditNote {
        number: "CN-2026-000001".parse().unwrap(),
        issued_at: period().interval.ends_at,
        amount: Nanos::new(5_000 * MINOR_UNIT),
        credited_before: Nanos::ZERO,
        reason: "Slow answers on 12 March".to_owned(),
    };
    let gifted = paid(issued(2, taxed(&busy(version), 20 * EURO)));
    vec![
        Sample { name: "unpaid", invoice: open, about: unpaid, note: None },
        Sample { note: Some(note), ..sample("prepaid-with-gifts", gifted, about()) },
        sample(
            "reverse-charge",
            paid(issued(3, with_parties(plain(&busy(version)), dutch, treatment(TaxCategory::ReverseCharge, 0, "NL"), 0))),
            about(),
        ),
        sample(
            "out-of-scope",
            paid(issued(4, with_parties(plain(&busy(version)), american, treatment(TaxCategory::OutOfScope, 0, "US-NY"), 0))),
            about(),
        ),
        sample(
            "non-latin",
            paid(issued(5, with_parties(plain(&busy(version)), greek, treatment(TaxCategory::ReverseCharge, 0, "GR"), 0))),
            about(),
        ),
        sample("contract", paid(issued(6, contract)), about()),
        sample("three-pages", paid(issued(7, taxed(&many, 0))), about()),
        sample(
            "exempt",
            paid(issued(8, with_parties(plain(&busy(version)), german(), treatment(TaxCategory::Exempt, 0, "DE"), 0))),
            about(),
        ),
        sample("draft", Invoice::draft("inv_9".parse().unwrap(), taxed(&busy(version), 0)), About { seal: None, ..about() }),
        sample("statement", paid(issued(10, plain(&busy(version)))), About { logo: None, ..about() }),
        sample("empty", issued(11, with_parties(plain(&[]), german(), standard(), 0)), About { seal: None, ..about() }),
    ]
}
