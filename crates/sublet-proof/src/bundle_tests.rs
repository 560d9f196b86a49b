use proptest::prelude::*;
use sublet_core::id::ChargeId;
use sublet_money::commitment::{CommitmentLine, Earlier};
use sublet_money::contract::{Agreement, Commitment, ContractTerms, TermsVersion};
use sublet_money::document::DocumentNumber;
use sublet_money::invoice::{ChargeSum, ChargedLine, InvoiceAccount, Parties, draft};
use sublet_money::party::PaymentTerms;
use sublet_money::price_book::PriceListDraft;
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::rating::LineKey;
use sublet_money::sku::{SkuFamily, SkuName};
use sublet_money::time_of_use::TimeOfUse;

use super::*;
use crate::leaf::{SaltKey, SaltSecret};
use crate::merkle::{Nodes, ProofPlan, TreeHead};
use crate::note::LogKey;
use crate::receipt::Receipt;
use crate::seal::{Issued, SealDetails, SealedLeaves};

const HOUR_MICROS: i64 = 3_600_000_000;
/// 2026-03-01T00:00+01:00 in Berlin, where the clocks change on the 29th.
const MARCH: i64 = 1_772_319_600_000_000;
const OTHER_SEALS: u64 = 5;

fn log_key() -> LogKey {
    LogKey::from_seed(&[7; 32]).unwrap()
}

fn nanos(amount: i64) -> Nanos {
    Nanos::new(amount)
}

fn quantity(count: i64) -> Quantity {
    Quantity::new(count).unwrap()
}

fn price_list() -> PriceListVersion {
    let tiers = vec![
        Tier { up_to: Some(quantity(3_000_000)), price: nanos(2_000_000_000) },
        Tier { up_to: None, price: nanos(1_500_000_000) },
    ];
    let nights: TimeOfUse = serde_json::from_str(
        r#"{"zone": "Europe/Berlin", "bands": [{"name": "night", "windows": [
            {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "22:00", "until": "24:00"}], "model": {"type": "per_unit", "price": "0.5"}}]}"#,
    )
    .unwrap();
    let device = PriceEntry::new("device/n2m/h100".parse().unwrap(), PriceModel::Graduated { tiers });
    let tokens = ["input", "cached_input", "output"].map(|kind| format!("tokens/{kind}/mini").parse().unwrap());
    let mut entries = vec![PriceEntry { time_of_use: Some(nights), ..device }];
    entries.extend(tokens.map(|sku| PriceEntry::per_unit(sku, nanos(150_000_001))));
    PriceListVersion::new(PriceListDraft {
        list: "plist_1".parse().unwrap(),
        currency: "EUR".parse().unwrap(),
        effective_at: Timestamp::from_micros(MARCH - 1_000 * HOUR_MICROS),
        entries,
    })
    .unwrap()
}

/// What was used: project, sku, hour after the beginning of March, quantity.
type Use = (&'static str, &'static str, i64, i64);

const USES: [Use; 9] = [
    ("proj_1", "tokens/input/mini", 0, 1),
    ("proj_1", "tokens/input/mini", 1, 7_654_321),
    ("proj_2", "device/n2m/h100", 2, 2_999_999),
    ("proj_2", "device/n2m/h100", 22, 12_345),
    ("proj_2", "device/n2m/h100", 24, 1_777_777),
    ("proj_1", "tokens/input/mini", 25, 0),
    ("proj_2", "tokens/input/mini", 26, 13),
    // Known after February was closed.
    ("proj_1", "tokens/input/mini", -30, 55),
    ("proj_1", "tokens/input/mini", -29, 44),
];

/// An issued month, as the books have it.
struct Month {
    list: PriceListVersion,
    content: InvoiceContent,
    contract_terms: Vec<String>,
    leaves: Vec<String>,
    seal: Seal,
    details: SealDetails,
}

fn line_key(list: &PriceListVersion, (project, sku, hour, _): Use) -> (LineKey, Timestamp) {
    let at = Timestamp::from_micros(MARCH + hour * HOUR_MICROS + 17);
    let sku: SkuName = sku.parse().unwrap();
    let band = list.get(&sku).unwrap().band_at(at).unwrap().cloned();
    let period = BillingCalendar::new("Europe/Berlin").unwrap().period_at(at).unwrap().key;
    let (organization, project) = ("org_1".parse().unwrap(), project.parse().unwrap());
    (LineKey { organization, project, period, price_version: list.version().clone(), sku, band }, at)
}

/// Charges uses in an order, and issues the invoice of March. What February had before is 1,000 on each late line.
fn month(uses: &[Use], order: &[usize]) -> Month {
    let list = price_list();
    let march: PeriodKey = "2026-03".parse().unwrap();
    let mut lines: BTreeMap<LineKey, ChargedLine> = BTreeMap::new();
    let mut leaves: Vec<((bool, String), String, Nanos)> = Vec::new();
    for index in order {
        let used = uses[*index];
        let (key, at) = line_key(&list, used);
        let price = list.get(&key.sku).unwrap().price_in(key.band.as_ref()).unwrap();
        let is_late = key.period < march;
        let line = lines.entry(key.clone()).or_insert_with(|| {
            let start = if is_late { rate(LineState::default(), price, quantity(1_000)).unwrap().1 } else { LineState::default() };
            ChargedLine { key: key.clone(), before: start, state: start, charges: ChargeSum::default() }
        });
        let before = line.state;
        let (amount, after) = rate(before, price, quantity(used.3)).unwrap();
        line.state = after;
        line.charges.count += 1;
        line.charges.amount = line.charges.amount.checked_add(amount).unwrap();
        // Ids are of the uses, so that leaves are not in the order in which they were charged.
        let charge: ChargeId = format!("chg_{index:04}").parse().unwrap();
        let leaf = ChargeLeaf {
            amount,
            band: key.band.as_ref().map(|band| band.as_str().into()),
            charge: charge.as_str().into(),
            charged_before: before.charged,
            key: None,
            occurred_at_micros: at,
            period: key.period.to_string().into(),
            price_version: key.price_version.0.as_ref().into(),
            project: key.project.as_str().into(),
            quantity: quantity(used.3).into(),
            quantity_before: before.quantity,
            salt: salts().of_charge(&charge).into(),
            sku: key.sku.to_string().into(),
            source: format!("req_{index}").into(),
        };
        leaves.push(((is_late, charge.to_string()), leaf.text().unwrap(), amount));
    }
    leaves.sort();
    let account = InvoiceAccount {
        organization: "org_1".parse().unwrap(),
        name: "Zahnräder & Söhne GmbH".to_owned(),
        currency: "EUR".parse().unwrap(),
        zone: "Europe/Berlin".to_owned(),
    };
    let period = BillingCalendar::new("Europe/Berlin").unwrap().period(march).unwrap();
    let lines: Vec<ChargedLine> = lines.into_values().collect();
    let (content, terms) = with_contract(draft(account, period, nanos(-3), &lines, &[&list]).unwrap());
    let sum = Nanos::checked_sum(leaves.iter().map(|leaf| leaf.2)).unwrap();
    let leaves: Vec<String> = leaves.into_iter().map(|leaf| leaf.1).collect();
    let (_, tree) = tree_of(leaves.iter().map(|text| leaf_hash(text)));
    let sealed = SealedLeaves { count: tree.size(), root: tree.root(), sum };
    let (seal, details) = seal(&content, sealed).unwrap();
    Month { list, content, contract_terms: vec![terms], leaves, seal, details }
}

/// March ends a quarter of which most is missing.
fn with_contract(content: InvoiceContent) -> (InvoiceContent, String) {
    let terms = ContractTerms {
        billed: None,
        commitments: vec![Commitment { from_period: 1, amount: nanos(500_000_000_000) }],
        covers: [SkuFamily::ModelTokens].into(),
        currency: content.account.currency,
        exit: None,
        fee: None,
        months: 12,
        payment: Some(PaymentTerms { net_days: 14, note: None }),
        period_months: 3,
        pricing: None,
        quantities: None,
        renewal: None,
        roll_over_periods: 1,
        starts: "2026-01".parse().unwrap(),
    };
    let version = TermsVersion::new(terms.starts, terms).unwrap();
    let agreement = Agreement::new(vec![version.clone()], None).unwrap();
    let (contract, month) = ("ctr_1".parse().unwrap(), content.period.key);
    let earlier = Earlier { counted: nanos(2_000_000_000), ..Earlier::default() };
    let line = CommitmentLine::new((&contract, &agreement), month, &content.lines, earlier).unwrap().unwrap();
    (content.with_commitment(line).unwrap(), version.canonical().unwrap())
}

fn salts() -> SaltKey {
    SaltKey::new(&SaltSecret::new([9; 32]))
}

fn seal(content: &InvoiceContent, leaves: SealedLeaves) -> sublet_core::Result<(Seal, SealDetails)> {
    let number: DocumentNumber = "INV-2026-000007".parse().unwrap();
    let issued_at = Timestamp::from_micros(MARCH + 745 * HOUR_MICROS);
    Seal::new(
        &Issued { invoice: &"inv_1".parse().unwrap(), number, issued_at, content, price_indexes: &BTreeMap::new() },
        leaves,
        &salts(),
    )
}

fn tree_of(hashes: impl Iterator<Item = Hash>) -> (Nodes, Frontier) {
    let (mut nodes, mut tree) = (Nodes::new(), Frontier::default());
    for hash in hashes {
        tree.push(hash, |node, hash| {
            nodes.insert(node, hash);
        })
        .unwrap();
    }
    (nodes, tree)
}

fn log_proof(seal: &Seal) -> LogProof {
    let entry = seal.entry().unwrap();
    let others = (0..OTHER_SEALS).map(|other| Hash::of(&other.to_be_bytes()));
    let (nodes, tree) = tree_of(others.chain([entry, Hash::of(b"a later seal")]).map(|entry| Hash::of_entry(entry.bytes())));
    let key = log_key();
    let note = key.checkpoint(TreeHead { size: tree.size(), root: tree.root() });
    LogProof::new((key.verifier(), note), OTHER_SEALS, tree.size(), &nodes).unwrap()
}

impl Month {
    fn of_all_uses() -> Self {
        month(&USES, &[0, 1, 2, 3, 4, 5, 6, 7, 8])
    }
    fn header(&self) -> BundleHeader {
        let sealed = (self.seal.clone(), self.details.clone());
        BundleHeader::new(
            self.content.clone(),
            sealed,
            log_proof(&self.seal),
            (&[&self.list], self.contract_terms.clone(), PriceSources::default()),
        )
    }
    fn bundle(&self) -> Vec<String> {
        let mut lines = vec![self.header().text().unwrap()];
        lines.extend(self.leaves.iter().map(|leaf| leaf_line((leaf_hash(leaf), leaf))));
        lines
    }
    /// Seals other leaves than those of the books.
    fn forged(&self, change: impl Fn(usize, &str) -> String) -> Vec<String> {
        let leaves: Vec<String> = self.leaves.iter().enumerate().map(|(index, leaf)| change(index, leaf)).collect();
        let (_, tree) = tree_of(leaves.iter().map(|text| leaf_hash(text)));
        let count = self.seal.leaves();
        let sealed = SealedLeaves { count, root: tree.root(), sum: self.details.sum() };
        let (seal, details) = seal(&self.content, sealed).unwrap();
        let (list, content, contract_terms) = (self.list.clone(), self.content.clone(), self.contract_terms.clone());
        Self { seal, details, leaves, list, content, contract_terms }.bundle()
    }
    /// Seals another invoice than that of the books.
    fn forged_content(&self, change: impl Fn(&mut InvoiceContent)) -> Vec<String> {
        let mut content = self.content.clone();
        change(&mut content);
        let sealed = SealedLeaves { count: self.seal.leaves(), root: self.seal.root(), sum: content.charged().unwrap() };
        let (seal, details) = seal(&content, sealed).unwrap();
        let (leaves, list, contract_terms) = (self.leaves.clone(), self.list.clone(), self.contract_terms.clone());
        Self { seal, details, leaves, list, content, contract_terms }.bundle()
    }
}

fn verify(lines: &[impl AsRef<str>]) -> Result<Verified, Fault> {
    let (header, leaves) = lines.split_first().unwrap();
    let mut verifier = Verifier::new(header.as_ref(), Some(log_key().verifier()))?;
    for leaf in leaves {
        verifier.leaf(leaf.as_ref())?;
    }
    verifier.finish()
}

fn fault(lines: &[impl AsRef<str>]) -> Fault {
    verify(lines).unwrap_err()
}

#[test]
fn a_true_bundle_is_accepted() {
    let month = Month::of_all_uses();
    let verified = verify(&month.bundle()).unwrap();
    assert_eq!((verified.seal, verified.content), (month.seal, month.content));
    assert_eq!((verified.index, verified.log), (OTHER_SEALS, log_key().verifier().clone()));
}

/// Whatever order charges were made in, and whatever order their ids have.
#[test]
fn the_order_of_charging_does_not_matter() {
    for order in [[8, 7, 6, 5, 4, 3, 2, 1, 0], [4, 8, 1, 0, 5, 2, 7, 3, 6]] {
        let month = month(&USES, &order);
        assert_eq!(verify(&month.bundle()).unwrap().content, month.content);
    }
}

/// What a program says that reads a file line by line, from behind its header on, or from its beginning.
fn read(verifier: Option<&Verifier>, file: &[u8]) -> Result<Verified, Fault> {
    let mut lines = file.split_inclusive(|byte| *byte == b'\n');
    let mut verifier = match verifier {
        Some(verifier) => verifier.clone(),
        None => Verifier::read_header(lines.next().unwrap_or_default(), None)?,
    };
    lines.try_for_each(|line| verifier.read_leaf(line))?;
    verifier.finish()
}

#[test]
fn a_file_with_any_bit_changed_is_refused_and_its_leaf_is_named() {
    let lines = Month::of_all_uses().bundle();
    let mut file: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
    assert!(read(None, &file).is_ok());
    let (mut begin, mut before) = (0, None);
    for line in &lines {
        let place = before.as_ref().map_or(Place::Header, |verifier: &Verifier| Place::Leaf(verifier.leaves_checked()));
        // A try of a header reads its price list again, so of its bits these are every seventh. Each end of a line counts.
        let every = if begin == 0 { 7 } else { 1 };
        let bits = (line.len() + 1) * 8;
        for bit in (0..bits).filter(|bit| bit % every == 0 || bits - bit <= 8) {
            file[begin + bit / 8] ^= 1 << (bit % 8);
            let found = read(before.as_ref(), &file[begin..]).err().map(|fault| fault.place);
            assert_eq!(found, Some(place), "bit {bit} of {line}");
            file[begin + bit / 8] ^= 1 << (bit % 8);
        }
        match &mut before {
            Some(verifier) => verifier.leaf(line).unwrap(),
            None => before = Some(Verifier::new(line, None).unwrap()),
        }
        begin += line.len() + 1;
    }
    assert_eq!(begin, file.len());
}

#[test]
fn a_leaf_that_is_missing_twice_or_elsewhere_is_noticed() {
    let lines = Month::of_all_uses().bundle();
    for index in 1..lines.len() {
        let mut without = lines.clone();
        without.remove(index);
        assert_eq!(fault(&without).place, Place::Leaves, "without leaf {index}");
        let mut twice = lines.clone();
        twice.insert(index, lines[index].clone());
        // Twice the same part of a line, but for a charge over nothing, of which there is one too many.
        let is_nothing = lines[index].contains("\"quantity\":0,");
        let place = if is_nothing { Place::Leaves } else { Place::Leaf(u64::try_from(index).unwrap()) };
        assert_eq!(fault(&twice).place, place, "leaf {index} twice");
    }
    for index in 1..lines.len() - 1 {
        let mut swapped = lines.clone();
        swapped.swap(index, index + 1);
        assert_eq!(fault(&swapped).place, Place::Leaves, "leaf {index} later");
    }
}

/// A seller who seals what is wrong is found out by the price list, whatever the tree says.
#[test]
fn a_wrong_charge_is_found_although_it_was_sealed() {
    let month = Month::of_all_uses();
    let replaced = |at: usize, from: &'static str, to: &'static str| {
        let lines = month.forged(|index, leaf| {
            if index != at {
                return leaf.to_owned();
            }
            assert!(leaf.contains(from), "{leaf}");
            leaf.replace(from, to)
        });
        fault(&lines)
    };
    let cases = [
        (1, r#""amount":"1.148148158""#, r#""amount":"1.148148159""#, "cost"),
        (2, r#""quantity":2999999"#, r#""quantity":2999998"#, "cost"),
        (1, r#""quantity_before":1"#, r#""quantity_before":2"#, "charged"),
        (3, r#""band":"night","#, "", "is there"),
        (0, "proj_1", "proj_9", "no line"),
        (0, r#""occurred_at_micros":1772319600000017"#, r#""occurred_at_micros":1772319599999999"#, "occurred at"),
        (3, r#""occurred_at_micros":17723988"#, r#""occurred_at_micros":17723880"#, "another band"),
    ];
    for (leaf, from, to, problem) in cases {
        let found = replaced(leaf, from, to);
        if problem == "is there" {
            // The charge of one band, taken for that of another.
            assert_eq!(found.place, Place::Leaf(3), "{found}");
            continue;
        }
        assert_eq!(found.place, Place::Leaf(u64::try_from(leaf).unwrap()), "{found}");
        assert!(found.problem.contains(problem), "{found}");
    }
}

/// A seller who seals a wrong invoice over right charges.
#[test]
fn a_wrong_invoice_is_found_although_it_was_sealed() {
    let month = Month::of_all_uses();
    assert_eq!(month.forged_content(|_| {}), month.bundle());
    let added_up = |content: &mut InvoiceContent| {
        content.total = content.subtotal.checked_sub(content.carry_before).unwrap().round_half_even(10_000_000).unwrap();
        content.carry_after = content.carry_before.checked_add(content.total).unwrap().checked_sub(content.subtotal).unwrap();
    };
    type Change<'a> = &'a dyn Fn(&mut InvoiceContent);
    let cases: [(&str, Change<'_>); 11] = [
        ("than a rounding leaves", &|content| {
            content.carry_before = nanos(-1_000_000_000_000);
            added_up(content);
        }),
        ("add up to", &|content| content.total = content.total.checked_add(nanos(10_000_000)).unwrap()),
        ("is not late in", &|content| {
            let late = content.lines.last().unwrap().late.unwrap();
            content.lines.last_mut().unwrap().late = Some(sublet_money::invoice::Late { period: content.period.key, ..late });
        }),
        ("and the invoice says", &|content| content.lines[0].price = "0.000001 EUR per device-hour".to_owned()),
        ("and the invoice says", &|content| content.lines[0].unit = sublet_money::sku::PricingUnit::DeviceHour),
        ("settled otherwise", &|content| {
            let part = content.commitment.take().unwrap();
            let shortfall = part.shortfall.checked_sub(nanos(1)).unwrap();
            *content = content.clone().with_commitment(CommitmentLine { shortfall, ..part }).unwrap();
        }),
        ("count towards the commitment", &|content| {
            let part = content.commitment.take().unwrap();
            let counted = part.counted.checked_add(nanos(1)).unwrap();
            *content = content.clone().with_commitment(CommitmentLine { counted, ..part }).unwrap();
        }),
        ("the terms of a contract", &|content| content.commitment.as_mut().unwrap().terms = "00".to_owned()),
        ("the terms of a contract come with", &|content| {
            content.commitment = None;
            content.subtotal = content.charged().unwrap();
            added_up(content);
        }),
        ("does not begin and end there", &|content| content.account.zone = "UTC".to_owned()),
        ("is in EUR", &|content| content.account.currency = "USD".parse().unwrap()),
    ];
    for (problem, change) in cases {
        let found = fault(&month.forged_content(change));
        assert_eq!(found.place, Place::Header, "{found}");
        assert!(found.problem.contains(problem), "{problem}: {found}");
    }
}

/// A seller who moves use from line to line, and says something else of it or nothing.
#[test]
fn what_was_rated_anew_is_what_the_invoice_says() {
    let month = Month::of_all_uses();
    let unnamed = month.forged(|_, leaf| leaf.replacen(r#""req_1""#, r#""rer_1""#, 1));
    assert!(fault(&unnamed).problem.contains("does not say why rer_1 was"), "{}", fault(&unnamed));
    let noted = |amount| {
        month.forged_content(|content| {
            content.rerates = vec![RerateNote {
                id: "rer_1".parse().unwrap(),
                of: month.list.version().clone(),
                to: sublet_core::admission::PriceVersion("another".into()),
                interval: content.period.interval,
                reason: "a mistake".to_owned(),
                amount: nanos(amount),
            }];
        })
    };
    assert!(fault(&noted(5)).problem.contains("rated anew adds 0, and the invoice says"), "{}", fault(&noted(5)));
    verify(&noted(0)).unwrap();
}

/// The invoice with a seller in Germany, and two taxes on what is left of it after gifts.
fn taxed(content: &mut InvoiceContent) {
    let seller = r#"{"party":{"legal_name":"Seller","address":{"lines":["1"],"city":"Berlin","country":"DE"}}}"#;
    let treatments = r#"[{"category":"S","jurisdiction":"CA-QC","name":"GST","rate_ppm":50000},
        {"category":"S","jurisdiction":"CA-QC","name":"QST","rate_ppm":99750}]"#;
    let terms = serde_json::from_str(r#"{"net_days":14}"#).unwrap();
    let parties = Parties { seller: serde_json::from_str(seller).unwrap(), buyer: None, terms };
    let treatments = serde_json::from_str(treatments).unwrap();
    *content = content.clone().with_parties(parties, treatments, nanos(1_000_000_000)).unwrap();
}

/// A seller who seals another tax than follows from the rate.
#[test]
fn a_wrong_tax_is_found_although_it_was_sealed() {
    let month = Month::of_all_uses();
    assert!(verify(&month.forged_content(taxed)).is_ok());
    type Change = fn(&mut InvoiceContent);
    fn line(content: &mut InvoiceContent) -> &mut sublet_money::tax::TaxLine {
        &mut content.tax.as_mut().unwrap().lines[1]
    }
    let cases: [(&str, Change); 8] = [
        ("the contract says 14 days to pay, and the invoice 30", |content| content.terms.as_mut().unwrap().net_days = 30),
        ("QST of CA-QC at 19 %", |content| line(content).treatment.rate_ppm = "19".parse().unwrap()),
        ("the base of QST", |content| line(content).base = nanos(10_000_000)),
        ("QST of CA-QC at 9.975 %", |content| line(content).amount = nanos(10_000_000)),
        ("the taxes add up to", |content| content.tax.as_mut().unwrap().amount = Nanos::ZERO),
        ("gifts of -0.01 lower", |content| content.tax.as_mut().unwrap().gifts = nanos(-10_000_000)),
        ("names its seller", |content| content.seller = None),
        ("says its taxes", |content| content.tax = None),
    ];
    for (problem, change) in cases {
        let found = fault(&month.forged_content(|content| {
            taxed(content);
            change(content);
        }));
        assert_eq!(found.place, Place::Header, "{found}");
        assert!(found.problem.contains(problem), "{problem}: {found}");
    }
}

#[test]
fn a_log_that_is_not_the_known_one_is_refused() {
    let lines = Month::of_all_uses().bundle();
    let other = LogKey::from_seed(&[8; 32]).unwrap();
    let refused = Verifier::new(&lines[0], Some(other.verifier())).err().unwrap();
    assert!(refused.problem.contains("the log's key is"), "{refused}");
    assert!(Verifier::new(&lines[0], None).is_ok(), "without a known key it says which it is");
}

#[test]
fn an_invoice_is_sealed_only_over_what_it_adds_up_from() {
    let month = Month::of_all_uses();
    let (count, sum, root) = (month.seal.leaves(), month.details.sum(), month.seal.root());
    assert!(seal(&month.content, SealedLeaves { count, root, sum }).is_ok());
    assert!(seal(&month.content, SealedLeaves { count: count - 1, root, sum }).is_err());
    let more = sum.checked_add(nanos(1)).unwrap();
    assert!(seal(&month.content, SealedLeaves { count, root, sum: more }).is_err());
}

#[test]
fn a_receipt_proves_one_charge_and_no_other() {
    let month = Month::of_all_uses();
    let (nodes, _) = tree_of(month.leaves.iter().map(|text| leaf_hash(text)));
    for (index, leaf) in (0..).zip(&month.leaves) {
        let path = ProofPlan::inclusion(index, month.seal.leaves()).unwrap().proof(&nodes).unwrap();
        let receipt = Receipt::new((index, leaf.clone()), path, (month.seal.clone(), log_proof(&month.seal)), &log_key()).unwrap();
        let text = receipt.text().unwrap();
        let (read, key) = Receipt::verify(&text, Some(log_key().verifier())).unwrap();
        assert_eq!((&read, &key), (&receipt, log_key().verifier()));
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1 << (place % 8);
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(Receipt::verify(&changed, None).is_err(), "byte {place}: {changed}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_month_verifies_and_any_leaf_that_costs_more_is_named(
        uses in prop::collection::vec((0_i64..700, 0_i64..5_000_000, any::<bool>()), 1..40),
        seed: u64,
        at in any::<prop::sample::Index>(),
    ) {
        let uses: Vec<Use> = uses.into_iter().map(|(hour, count, is_device)| {
            if is_device { ("proj_1", "device/n2m/h100", hour, count) } else { ("proj_2", "tokens/input/mini", hour, count) }
        }).collect();
        let mut order: Vec<usize> = (0..uses.len()).collect();
        order.sort_by_key(|index| Hash::of(&[&seed.to_be_bytes()[..], &index.to_be_bytes()].concat()));
        let month = month(&uses, &order);
        prop_assert_eq!(verify(&month.bundle()).map(|verified| verified.content), Ok(month.content.clone()));
        let at = at.index(month.leaves.len());
        let lines = month.forged(|index, leaf| {
            let mut leaf: ChargeLeaf<'_> = serde_json::from_str(leaf).unwrap();
            if index == at {
                leaf.amount = leaf.amount.checked_add(nanos(1)).unwrap();
            }
            leaf.text().unwrap()
        });
        prop_assert_eq!(fault(&lines).place, Place::Leaf(u64::try_from(at).unwrap()));
    }

    #[test]
    fn no_line_panics(header in ".{0,60}", line in "[A-Za-z0-9+/=]{0,44} ?.{0,60}") {
        prop_assert!(Verifier::new(&header, None).is_err());
        let bundle = Month::of_all_uses().bundle();
        let mut verifier = Verifier::new(&bundle[0], None).unwrap();
        prop_assert!(verifier.leaf(&line).is_err());
    }
}
