//! A year of invoices, added up again by a program of another language that shares nothing with Sublet.

use std::path::{Path, PathBuf};
use std::process::Command;

use sublet_cloud::idempotency::Call;
use sublet_cloud::refund::{NewRefund, RefundWay};
use sublet_cloud::{Actor, Cloud, credit::NewCredit};
use sublet_core::id::{ContractId, OrganizationId, SliceId};
use sublet_core::usage::{UsageRecord, UsageSink};
use sublet_core::{Currency, DurationMs, Nanos, Timestamp, TokenCount};
use sublet_money::account::CreditKind;
use sublet_money::advance::FeeTerms;
use sublet_money::committed_quantity::{OveragePrice, QuantityStep, QuantityTerms};
use sublet_money::contract::{Commitment, ContractTerms, ExitTerms};
use sublet_money::contract_price::{Discount, Discounted, PriceProtection, PriceTerms};
use sublet_money::credit_lot::CreditTerms;
use sublet_money::drawdown::Billed;
use sublet_money::period::BillingCalendar;
use sublet_money::price_book::{PriceEntry, PriceListDraft, PriceListVersion};
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_money::time_of_use::TimeOfUse;
use sublet_money::zone::Zone;
use sublet_store::PageRequest;
use sublet_store::invoice::InvoiceFilter;
use sublet_testkit::bundle::bundle;
use sublet_testkit::prices::{band, per_unit};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::created;
use sublet_testkit::{SeededRng, TestCloud, on_both_databases};

use crate::UNIT;
use crate::contracts::{admin_of, agreed, amended, granted, hash};
use crate::months::{close, credit_in, customer_in, issued, month};
use crate::taxes::{adds_up, bills_to, buyer, sells};

/// Whose clocks change in the north, in the south by half an hour, and never; a day's difference between the ends.
const CUSTOMERS: [(&str, &str); 6] = [
    ("EUR", "Europe/Berlin"),
    ("USD", "America/New_York"),
    ("JPY", "Asia/Tokyo"),
    ("USD", "Australia/Lord_Howe"),
    ("EUR", "Pacific/Kiritimati"),
    ("JPY", "America/St_Johns"),
];
/// A leap year.
const YEAR: u16 = 2028;
/// Uses of each customer in each month, beside those at its ends.
const USES: u64 = 5;
/// One use in so many is settled when its month is closed.
const LATE_ONE_IN: u64 = 6;
/// How long after a month is looked whether it is over anywhere.
const AFTER_END: DurationMs = DurationMs::from_hours(72);

/// Few and many, and now and then none.
fn tokens(chance: &SeededRng) -> TokenCount {
    let bound = [1, 1_000, 3_000_000][usize::try_from(chance.below(3)).expect("few")];
    TokenCount::new(i64::try_from(chance.below(bound)).expect("few"))
}

fn tier(up_to: Option<i64>, price: i64) -> Tier {
    Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) }
}

/// Less for all from the fourth on, so that the fourth gives something back.
fn falling(price: i64) -> PriceModel {
    PriceModel::Volume { tiers: vec![tier(Some(3), price + 100_000_003), tier(None, price / 7)] }
}

/// Graduated and volume prices, flat ones, and one that is lower by night, all with digits that do not come out even.
fn entries(chance: &SeededRng, zone: &str) -> Vec<PriceEntry> {
    let price = |least: i64| least + i64::try_from(chance.below(1_000_000_000)).expect("few");
    let dear = price(2_000_000_000);
    let graduated = PriceModel::Graduated {
        tiers: vec![tier(Some(1_000_003), price(UNIT)), tier(Some(4_000_001), price(UNIT)), tier(None, price(1))],
    };
    let volume = PriceModel::Volume { tiers: vec![tier(Some(2_000_000), dear), tier(None, dear - 777_777_777)] };
    let night = band("night", &["22:00-02:30".to_owned()], per_unit(price(1)));
    let at_night = TimeOfUse { zone: Zone::new(zone).expect("a zone"), bands: vec![night] };
    let entry = |kind: &str, model| PriceEntry::new(format!("tokens/{kind}/sublet-mini").parse().expect("a sku"), model);
    vec![
        entry("input", graduated),
        entry("output", volume),
        PriceEntry { time_of_use: Some(at_night), ..entry("cached_input", per_unit(price(1))) },
        // Two flat prices: of requests, fewer of which cost more, and of projects.
        PriceEntry::new("requests/default/sublet-mini".parse().expect("a sku"), falling(price(1))),
        PriceEntry::new(SkuName::ProjectMonth, per_unit(price(4_000_000_000))),
    ]
}

async fn publish(cloud: &TestCloud, chance: &SeededRng, currency: Currency, zone: &str) {
    cloud.clock.advance(DurationMs::from_seconds(1));
    let lists = cloud.cloud.prices().snapshot();
    let known = lists.values().find(|list| list.currency == currency).map(|list| list.id.clone());
    let (list, effective_at) = (known.unwrap_or_else(|| cloud.cloud.ids().mint()), cloud.now());
    let draft = PriceListDraft { list, currency, effective_at, entries: entries(chance, zone) };
    created(cloud.cloud.publish_prices(&Call::once(Actor::system()), currency.as_str(), draft, effective_at).await);
}

/// When each customer uses something in a month: at both ends to the microsecond, where clocks change, and between.
fn instants(chance: &SeededRng, month: u16) -> Vec<(usize, Timestamp)> {
    let mut instants = Vec::new();
    for (index, (_, zone)) in CUSTOMERS.iter().enumerate() {
        let calendar = BillingCalendar::new(zone).expect("a zone");
        let period = calendar.period(format!("{YEAR}-{month:02}").parse().expect("a month")).expect("a period").interval;
        let (first, last) = (period.starts_at.micros(), period.ends_at.micros() - 1);
        let length = u64::try_from(last - first).expect("a month");
        let between = (0..USES).map(|_| first + i64::try_from(chance.below(length)).expect("a month"));
        instants.extend([first, last].into_iter().chain(between).map(|micros| (index, Timestamp::from_micros(micros))));
    }
    instants.sort_by_key(|(_, instant)| *instant);
    instants
}

async fn settle(session: &Session, record: &UsageRecord) {
    let report = session.cloud.settle(std::slice::from_ref(record)).await.expect("settled");
    assert_eq!((report.settled, report.quarantined), (1, 0));
}

/// Writes the bundle of every issued invoice into a folder.
pub async fn write_bundles(cloud: &TestCloud, folder: &Path) -> Vec<PathBuf> {
    let mut page = PageRequest { limit: Some(100), ..PageRequest::default() };
    let mut paths = Vec::new();
    loop {
        let bills = cloud.cloud.list_invoices(&Actor::system(), &InvoiceFilter::default(), &page).await.expect("invoices");
        page.after = bills.items.last().map(|bill| bill.invoice.id.to_string());
        for bill in bills.items.iter().filter(|bill| bill.invoice.number.is_some()) {
            let text = bundle(&cloud.cloud, &Actor::system(), &bill.invoice.id).await.expect("a bundle");
            let path = folder.join(format!("{}.bundle", bill.invoice.id));
            std::fs::write(&path, text).expect("room");
            paths.push(path);
        }
        if !bills.has_more {
            return paths;
        }
    }
}

/// What the other program says of bundles, one line for each.
pub fn rerated(paths: &[PathBuf]) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/test-env/python/bin/python");
    let mut command = Command::new(&python);
    command.arg(root.join("tests/outside/rerate.py")).args(paths).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be started ({error}): run 'cargo xtask test-env'", python.display()));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Discounts that do not come out even, with protection for half a year and for good; the last one pays public prices.
fn pricing(index: usize, list: &PriceListVersion) -> Option<PriceTerms> {
    let off = |off_ppm, on| Discount { off_ppm, on };
    let sku = |name: &str| Discounted::Sku(name.parse().expect("a sku"));
    let until = (index == 0).then(|| format!("{YEAR}-06").parse().expect("a month"));
    let discounts = vec![
        off(123_457, Discounted::Family(SkuFamily::ModelTokens)),
        off(77_777, Discounted::Model("sublet-mini".parse().expect("a model"))),
        off(333_333, sku("tokens/output/sublet-mini")),
    ];
    let protection = Some(PriceProtection { list: list.version().clone(), until });
    (index < 2).then(|| PriceTerms { discounts: discounts.into_iter().take(3 - index).collect(), fixed: Vec::new(), protection })
}

/// A ramp, with roll-over, by months, quarters and half years; the last one is left.
fn terms(index: usize, currency: Currency, pricing: Option<PriceTerms>) -> ContractTerms {
    let amount = |units: i64| Nanos::new(units * UNIT);
    let step = |from_period, units| Commitment { from_period, amount: amount(units) };
    ContractTerms {
        billed: None,
        commitments: vec![step(1, 20), step(2, 60 + 10 * i64::try_from(index).expect("few"))],
        covers: [SkuFamily::ModelTokens].into(),
        currency,
        exit: Some(ExitTerms { after_periods: 1, fee_ppm: 333_333, notice_months: 0 }),
        fee: None,
        months: 12,
        payment: None,
        period_months: [1, 3, 2][index],
        pricing,
        quantities: None,
        renewal: None,
        roll_over_periods: 2,
        starts: format!("{YEAR}-01").parse().expect("a month"),
    }
}

/// Contracts with the first customers, one in each currency.
async fn commit(cloud: &TestCloud, sessions: &[(Session, SliceId)]) -> Vec<ContractId> {
    cloud.clock.set(month("UTC", &format!("{YEAR}-01")).minus(DurationMs::from_hours(30)).max(cloud.now()));
    let mut contracts = Vec::new();
    for (index, (session, _)) in sessions.iter().enumerate().take(3) {
        let currency = CUSTOMERS[index].0.parse().expect("a currency");
        let list = cloud.cloud.prices().in_force(currency, cloud.now()).expect("a list");
        contracts.push(agreed(&cloud.cloud, session, terms(index, currency, pricing(index, &list))).await);
    }
    let currency = CUSTOMERS[3].0.parse().expect("a currency");
    contracts.push(agreed(&cloud.cloud, &sessions[3].0, quantities(currency, 456_789_123)).await);
    contracts.push(agreed(&cloud.cloud, &sessions[4].0, in_advance(CUSTOMERS[4].0.parse().expect("a currency"))).await);
    contracts
}

/// Two months each, billed before them and drawn down; what is left goes on for two periods.
fn in_advance(currency: Currency) -> ContractTerms {
    let covers = [SkuFamily::ModelTokens, SkuFamily::ModelRequests].into();
    ContractTerms { billed: Some(Billed::InAdvance), covers, ..terms(2, currency, None) }
}

/// So many output tokens each quarter at a price, of which too few are used first and too many later.
fn quantities(currency: Currency, price: i64) -> ContractTerms {
    let step = |from_period, tokens| QuantityStep { from_period, quantity: Quantity::new(tokens).expect("a quantity") };
    let sku: SkuName = "tokens/output/sublet-mini".parse().expect("a sku");
    let fixed = vec![PriceEntry::new(sku.clone(), per_unit(price))];
    ContractTerms {
        commitments: Vec::new(),
        covers: [].into(),
        // For standing ready: it does not come out even by the day.
        fee: Some(FeeTerms { amount: Nanos::new(1_000_030_000_000) }),
        payment: None,
        period_months: 3,
        quantities: Some(QuantityTerms {
            overage: Some(OveragePrice { price: Nanos::new(500_000_001) }),
            sku,
            steps: vec![step(1, 20_000_007), step(2, 1_000_003), step(4, 30_000_000_001)],
        }),
        ..terms(2, currency, Some(PriceTerms { fixed, ..PriceTerms::default() }))
    }
}

/// In June: one commits to less from July on, another one leaves.
async fn amend_and_leave(cloud: &TestCloud, sessions: &[(Session, SliceId)], contracts: &[ContractId]) {
    // The newest list is protected from then on, with a fixed price.
    let list = cloud.cloud.prices().in_force(Currency::USD, cloud.now()).expect("a list");
    let fixed = PriceEntry::new("tokens/input/sublet-mini".parse().expect("a sku"), per_unit(333_333_337));
    let other = PriceTerms { fixed: vec![fixed], ..pricing(1, &list).expect("prices") };
    let mut less = terms(1, Currency::USD, Some(other));
    less.commitments.push(Commitment { from_period: 3, amount: Nanos::new(5 * UNIT) });
    less.roll_over_periods = 1;
    let offer = amended(&cloud.cloud, &contracts[1], &format!("{YEAR}-07"), less).await.expect("an amendment");
    let admin = |index: usize| admin_of(&sessions[index].0);
    cloud.cloud.accept_contract(&admin(1), &contracts[1], &hash(&offer)).await.expect("accepted");
    // Other units cost another price from then on, and those that were missing roll over as units.
    let (july, cheaper) = (format!("{YEAR}-07"), quantities(CUSTOMERS[3].0.parse().expect("a currency"), 345_678_912));
    let offer = amended(&cloud.cloud, &contracts[3], &july, cheaper).await.expect("an amendment");
    cloud.cloud.accept_contract(&admin(3), &contracts[3], &hash(&offer)).await.expect("accepted");
    let last = format!("{YEAR}-08").parse().expect("a month");
    cloud.cloud.leave_contract(&admin(2), &contracts[2], last).await.expect("left");
}

/// How many of something the other program counted.
fn counted(said: &str, (before, after): (&str, &str)) -> usize {
    let count = |line: &str| line.strip_prefix(before)?.strip_suffix(after)?.parse().ok();
    said.lines().find_map(count).unwrap_or(0)
}

/// Quantities that do not add up are named, and some rolled over, were missing and were overage.
fn assert_quantities_are_judged(paths: &[PathBuf]) {
    let texts: Vec<_> = paths.iter().map(|path| (path, std::fs::read_to_string(path).expect("a bundle"))).collect();
    for member in ["missing", "roll_over_used", "overage"] {
        let (none, some) = (format!("\"{member}\":0,"), format!("\"{member}\":"));
        let is_some = |text: &String| text.contains("\"quantity\":{") && text.contains(&some) && !text.contains(&none);
        let (path, text) = texts.iter().find(|(_, text)| is_some(text)).expect(member);
        std::fs::write(path, text.replacen(&some, &format!("{some}9"), 1)).expect("room");
        let (is_right, said) = rerated(paths);
        assert!(!is_right && said.contains(&format!("FAIL contract: {member} of a quantity is ")), "{said}");
        std::fs::write(path, text).expect("room");
    }
}

/// Another amount that was drawn, left, used up or lost is named.
fn assert_drawdowns_are_judged(paths: &[PathBuf]) {
    let texts: Vec<_> = paths.iter().map(|path| (path, std::fs::read_to_string(path).expect("a bundle"))).collect();
    for member in ["drawn", "unused", "roll_over_used", "lapsed"] {
        let (path, text) = texts.iter().find(|(_, text)| text.contains("\"drawdown\":{")).expect("a drawdown");
        let (head, part) = text.split_once("\"drawdown\":{").expect("a drawdown");
        let forged = part.replacen(&format!("\"{member}\":\""), &format!("\"{member}\":\"7"), 1);
        std::fs::write(path, format!("{head}\"drawdown\":{{{forged}")).expect("room");
        let (is_right, said) = rerated(paths);
        assert!(!is_right && said.contains("FAIL"), "{member}: {said}");
        std::fs::write(path, text).expect("room");
    }
}

/// An invoice that says another roll-over than those before it left is named, and so are prices that were not agreed.
fn assert_contracts_are_judged(paths: &[PathBuf]) {
    assert_prices_are_judged(paths);
    assert_quantities_are_judged(paths);
    assert_drawdowns_are_judged(paths);
    let texts = paths.iter().map(|path| (path, std::fs::read_to_string(path).expect("a bundle")));
    let (path, text) = texts.into_iter().find(|(_, text)| text.contains("\"roll_over\":\"0\"")).expect("a contract's part");
    std::fs::write(path, text.replacen("\"roll_over\":\"0\"", "\"roll_over\":\"1\"", 1)).expect("room");
    let (is_right, said) = rerated(paths);
    assert!(!is_right && said.contains("FAIL contract: ") && said.contains("roll over into period"), "{said}");
    std::fs::write(path, text).expect("room");
}

/// A discount that was not agreed is named.
fn assert_prices_are_judged(paths: &[PathBuf]) {
    let texts = paths.iter().map(|path| (path, std::fs::read_to_string(path).expect("a bundle")));
    let (path, text) = texts.into_iter().find(|(_, text)| text.contains("\\\"off_ppm\\\":123457")).expect("a discount");
    std::fs::write(path, text.replace("\\\"off_ppm\\\":123457", "\\\"off_ppm\\\":123456")).expect("room");
    let (is_right, said) = rerated(std::slice::from_ref(path));
    assert!(!is_right && said.starts_with("FAIL "), "{said}");
    std::fs::write(path, text).expect("room");
}

/// Gifts and credit notes are beside invoices, and change none.
async fn give_back(cloud: &TestCloud, organization: &OrganizationId, currency: Currency) {
    let gift = NewCredit {
        organization: organization.clone(),
        kind: CreditKind::Promotional,
        amount: Nanos::new(UNIT),
        currency: None,
        terms: CreditTerms::default(),
        reference: String::new(),
    };
    cloud.cloud.grant_credit(&Call::once(Actor::system()), &gift, &|_| Ok(String::new())).await.expect("a gift");
    let bills = issued(cloud, organization).await;
    let dear = bills.iter().find(|bill| bill.invoice.content.total > Nanos::new(UNIT)).expect("a month with some use");
    credit_in(cloud, &dear.invoice.id, (UNIT, currency)).await.expect("a credit note");
}

/// Asked for, approved by somebody else, and paid.
async fn pay_back(cloud: &Cloud, session: &Session, currency: Currency) {
    let (organization, note) = (session.access.organization.clone(), "paid in too much".to_owned());
    granted(cloud, &organization, CreditKind::Paid, 200_000 * UNIT).await;
    let new = NewRefund { organization, amount: Nanos::new(UNIT), currency, note };
    let refund = created(cloud.request_refund(&Call::once(admin_of(session)), &new, &|_| Ok(String::new())).await);
    let approver = Actor { key: Some("key_ben".parse().expect("an id")), ..Actor::system() };
    cloud.approve_refund(&approver, &refund.id, &RefundWay::Bank).await.expect("approved");
    cloud.pay_refund(&approver, &refund.id, "out-1").await.expect("paid");
}

/// Taxed, the buyer's to pay, exempt, two taxes, of a buyer that nobody knows, and outside of it all.
async fn tax(cloud: &TestCloud, sessions: &[(Session, SliceId)]) {
    sells(&cloud.cloud).await;
    let mut exempt = buyer("DE", None, None);
    let exemption = serde_json::json!({ "certificate": "17", "reason": "Armed forces" });
    exempt.exemption = Some(serde_json::from_value(exemption).expect("an exemption"));
    let profiles = [
        Some(buyer("DE", None, None)),
        Some(buyer("FR", None, Some("FR12345678901"))),
        Some(exempt),
        Some(buyer("CA", Some("QC"), None)),
        None,
        Some(buyer("US", Some("NY"), None)),
    ];
    for ((session, _), profile) in sessions.iter().zip(profiles) {
        let Some(profile) = profile else { continue };
        bills_to(&cloud.cloud, &session.access.organization, profile).await.expect("it is set");
    }
}

/// A gift that is spent first, and comes to no whole minor units.
async fn gift(cloud: &TestCloud, session: &Session) {
    let gift = NewCredit {
        organization: session.access.organization.clone(),
        kind: CreditKind::Promotional,
        amount: Nanos::new(7 * UNIT + 1),
        currency: None,
        terms: CreditTerms::default(),
        reference: String::new(),
    };
    cloud.cloud.grant_credit(&Call::once(Actor::system()), &gift, &|_| Ok(String::new())).await.expect("a gift");
}

/// A slice for each customer, and a gift for the first.
async fn customers(cloud: &TestCloud, whose: &[(Currency, &str)]) -> Vec<(Session, SliceId)> {
    let mut sessions = Vec::new();
    for (index, whose) in whose.iter().enumerate() {
        let session = customer_in(cloud, &format!("c{index}"), *whose, 1_000_000 * UNIT).await;
        if index == 0 {
            gift(cloud, &session).await;
        }
        let slice = session.grant(None, 100_000 * UNIT, 100_000 * UNIT).await.expect("credit is there").slice;
        sessions.push((session, slice));
    }
    sessions
}

/// An invoice with another rate is named, and one of each kind is there.
fn assert_taxes_are_judged(paths: &[PathBuf]) {
    let texts: Vec<_> = paths.iter().map(|path| (path, std::fs::read_to_string(path).expect("a bundle"))).collect();
    for part in ["\"category\":\"AE\"", "\"category\":\"E\"", "\"category\":\"O\"", "\"name\":\"QST\"", "\"gifts\":\"7\""] {
        assert!(texts.iter().any(|(_, text)| text.contains(part)), "{part}");
    }
    let is_taxed = |text: &str| text.contains("\"rate_ppm\":160000") && !text.contains("\"amount\":\"0\",\"gifts\"");
    let (path, text) = texts.iter().find(|(_, text)| is_taxed(text)).expect("a taxed invoice");
    std::fs::write(path, text.replacen("\"rate_ppm\":160000", "\"rate_ppm\":190000", 1)).expect("room");
    let (is_right, said) = rerated(&[PathBuf::from(path)]);
    assert!(!is_right && said.contains(": VAT of DE is "), "{said}");
    std::fs::write(path, text).expect("room");
}

on_both_databases! {
    async fn another_program_agrees_with_every_invoice_of_a_year(cloud: &TestCloud) {
        let chance = SeededRng::new(28);
        let currencies = CUSTOMERS.map(|(currency, zone)| (currency.parse::<Currency>().expect("a currency"), zone));
        for (currency, zone) in &currencies[..3] {
            publish(cloud, &chance, *currency, zone).await;
        }
        let sessions = customers(cloud, &currencies).await;
        tax(cloud, &sessions).await;
        let contracts = commit(cloud, &sessions).await;
        let mut late: Vec<(u16, usize, UsageRecord)> = Vec::new();
        for place in 1..=12 {
            for (index, instant) in instants(&chance, place) {
                cloud.clock.set(instant.max(cloud.now()));
                let (session, slice) = &sessions[index];
                let mut record = session.record(slice, 0, 0);
                record.tokens.input = tokens(&chance);
                record.tokens.cached_input = tokens(&chance);
                record.tokens.output = tokens(&chance);
                if chance.below(LATE_ONE_IN) == 0 {
                    // Known one month later, or three.
                    late.push((place + [1, 3][usize::from(chance.below(2) == 0)], index, record));
                } else {
                    settle(session, &record).await;
                }
                if chance.below(40) == 0 {
                    let (currency, zone) = currencies[usize::try_from(chance.below(3)).expect("few")];
                    publish(cloud, &chance, currency, zone).await;
                }
            }
            let next = if place == 12 { format!("{}-01", YEAR + 1) } else { format!("{YEAR}-{:02}", place + 1) };
            let ends = month("UTC", &next);
            cloud.clock.set(ends.plus(AFTER_END).max(cloud.now()));
            close(&cloud.cloud).await;
            if place == 5 {
                amend_and_leave(cloud, &sessions, &contracts).await;
                give_back(cloud, &sessions[1].0.access.organization, currencies[1].0).await;
                pay_back(&cloud.cloud, &sessions[1].0, currencies[1].0).await;
            }
            let (due, later): (Vec<_>, Vec<_>) = late.into_iter().partition(|(known, _, _)| *known <= place + 1);
            late = later;
            for (_, index, record) in &due {
                settle(&sessions[*index].0, record).await;
            }
        }
        for (_, index, record) in &late {
            settle(&sessions[*index].0, record).await;
        }
        cloud.clock.set(month("UTC", &format!("{}-03", YEAR + 1)));
        close(&cloud.cloud).await;
        let folder = tempfile::tempdir().expect("a folder");
        let paths = write_bundles(cloud, folder.path()).await;
        assert!(paths.len() >= 12 * CUSTOMERS.len(), "{} invoices", paths.len());
        let (is_right, said) = rerated(&paths);
        assert!(counted(&said, ("contracts ok: ", " parts of invoices")) >= 30, "{said}");
        assert!(counted(&said, ("prices by contract ok: ", " lists")) >= 24, "{said}");
        assert!(is_right && said.lines().filter(|line| line.starts_with("ok ")).count() == paths.len(), "{said}");
        assert!(counted(&said, ("billed in advance ok: ", "")) >= 10, "{said}");
        assert_contracts_are_judged(&paths);
        assert_taxes_are_judged(&paths);
        adds_up(&cloud.cloud).await;
        // It would have said so.
        let text = std::fs::read_to_string(&paths[0]).expect("a bundle");
        let (header, leaves) = text.split_once('\n').expect("lines");
        std::fs::write(&paths[0], format!("{header}\n{}", leaves.replacen("\"amount\":\"", "\"amount\":\"9", 1))).expect("room");
        let (is_right, said) = rerated(&paths[..1]);
        assert!(!is_right && said.starts_with("FAIL "), "{said}");
    }
}
