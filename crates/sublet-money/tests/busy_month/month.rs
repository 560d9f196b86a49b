//! A simulated month of twenty customers, through every posting there is: the invoices, the
//! charges and the books agree to the nano-unit, and the exported journal is left in
//! `target/tmp/busy-month.{beancount,hledger}` for `tests/outside/ledger_judges.sh`.

use std::collections::BTreeMap;
use std::path::Path;

use sublet_core::id::{Identifier, OrganizationId};
use sublet_core::notice::NoticeClass;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Nanos, Timestamp};
use sublet_money::account::{AccountKind, CostKind, CreditKind, LedgerAccount};
use sublet_money::balance::{CustomerFunds, TrialBalance};
use sublet_money::credit_lot::{Burned, Credit};
use sublet_money::export::{JournalFormat, write_journal};
use sublet_money::invoice::{ChargeSum, ChargedLine, InvoiceAccount, InvoiceContent, draft};
use sublet_money::period::{BillingCalendar, Period};
use sublet_money::posting::{CreditSplit, EntryHead, Fact, JournalEntry, post, post_cost};
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::{LineKey, LineState, RatedLine, rate_line};
use sublet_money::sku::{DeviceKind, ModelName, Quantity, SkuFamily, SkuName, TokenKind};
use sublet_money::starter::{StarterDevice, starter_price_list};

const CUSTOMERS: u64 = 20;
const STEPS: u64 = 12_000;
const SEED: u64 = 20_260_301;
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"];

/// Marsaglia's xorshift, so that the month is the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
    fn amount(&mut self, sides: u64) -> Nanos {
        Nanos::new(i64::try_from(self.roll(sides)).unwrap() + 1)
    }
}

struct Customer {
    id: OrganizationId,
    currency: Currency,
    version: PriceListVersion,
    period: Period,
    zone: &'static str,
    slice: Option<(CreditSplit, Nanos)>,
    lines: BTreeMap<LineKey, (LineState, ChargeSum)>,
}

impl Customer {
    fn new(number: u64) -> Self {
        let index = usize::try_from(number).unwrap();
        let currency: Currency = ["EUR", "USD", "JPY"][index % 3].parse().unwrap();
        let zone = ZONES[index % ZONES.len()];
        let devices = [StarterDevice::at_list_price(cpu())];
        let list = format!("plist_{number}").parse().unwrap();
        let prices = starter_price_list(list, currency, Timestamp::EPOCH, &[model()], &devices).unwrap();
        Self {
            id: OrganizationId::encode(Timestamp::from_millis(1_772_000_000_000), [u8::try_from(number).unwrap(); 10]),
            currency,
            version: PriceListVersion::new(prices).unwrap(),
            period: BillingCalendar::new(zone).unwrap().period("2026-03".parse().unwrap()).unwrap(),
            zone,
            slice: None,
            lines: BTreeMap::new(),
        }
    }

    fn rate(&self, sku: SkuName, quantity: Quantity) -> RatedLine {
        let key = LineKey {
            organization: self.id.clone(),
            project: "proj_1".parse().unwrap(),
            period: self.period.key,
            price_version: self.version.version().clone(),
            sku,
            band: None,
        };
        let state = self.lines.get(&key).map(|(state, _)| *state).unwrap_or_default();
        rate_line(key, state, &self.version, quantity).unwrap()
    }

    fn keep(&mut self, rated: RatedLine) {
        let (state, charges) = self.lines.entry(rated.key).or_default();
        *state = rated.after;
        charges.count += 1;
        charges.amount = charges.amount.checked_add(rated.amount).unwrap();
    }

    fn invoice(&self) -> InvoiceContent {
        let lines: Vec<ChargedLine> = self
            .lines
            .iter()
            .map(|(key, (state, charges))| ChargedLine {
                key: key.clone(),
                before: LineState::default(),
                state: *state,
                charges: *charges,
            })
            .collect();
        let account = InvoiceAccount {
            organization: self.id.clone(),
            name: self.id.to_string(),
            currency: self.currency,
            zone: self.zone.to_owned(),
        };
        draft(account, self.period, Nanos::ZERO, &lines, &[&self.version]).unwrap()
    }
}

fn model() -> ModelName {
    "sublet-mini".parse().unwrap()
}
fn cpu() -> DeviceKind {
    "cpu".parse().unwrap()
}

struct Month {
    dice: Dice,
    now: Timestamp,
    journal: Vec<JournalEntry>,
    books: TrialBalance,
}

impl Month {
    fn head(&self, currency: Currency) -> EntryHead {
        let number = self.journal.len();
        EntryHead { id: format!("jnl_{number}").parse().unwrap(), at: self.now, currency, memo: format!("step {number}; \"busy\"") }
    }

    fn post(&mut self, customer: &Customer, fact: &Fact) {
        let entry = post(self.head(customer.currency), &customer.id, fact).unwrap();
        self.books.apply(&entry).unwrap();
        self.journal.push(entry);
    }

    fn burn(&self, customer: &Customer, amount: Nanos) -> Option<CreditSplit> {
        let balance = |credit| {
            let kind = AccountKind::Available(credit);
            let totals = self.books.totals(customer.currency, &LedgerAccount::customer(kind, &customer.id));
            totals.balance(kind.normal_side()).unwrap()
        };
        let available =
            CreditSplit { committed: Nanos::ZERO, promotional: balance(CreditKind::Promotional), paid: balance(CreditKind::Paid) };
        let credit = Credit::new(available, Nanos::ZERO, Vec::new()).unwrap();
        credit.burn(amount, SkuFamily::ModelTokens, self.now).and_then(|burned| burned.split()).ok()
    }

    fn step(&mut self, customer: &mut Customer) {
        match self.dice.roll(12) {
            0 => self.deposit(customer),
            1 => self.close_slice(customer),
            2 => self.run_job(customer),
            3 => self.refund(customer),
            4 => {
                let amount = self.dice.amount(1_000_000_000);
                let head = self.head(customer.currency);
                let bought = Fact::SupplyBought { amount };
                let is_bought = amount.get() % 2 == 0;
                let entry = if is_bought { post(head, &customer.id, &bought) } else { post_cost(head, CostKind::Power, amount) };
                let entry = entry.unwrap();
                self.books.apply(&entry).unwrap();
                self.journal.push(entry);
            }
            _ if customer.slice.is_none() => {
                let wanted = self.dice.amount(2_000_000_000);
                if let Some(from) = self.burn(customer, wanted) {
                    self.post(customer, &Fact::SliceGranted { from });
                    customer.slice = Some((from, Nanos::ZERO));
                }
            }
            _ => self.serve_request(customer),
        }
    }

    fn deposit(&mut self, customer: &Customer) {
        let credit = if self.dice.roll(4) == 0 { CreditKind::Promotional } else { CreditKind::Paid };
        let amount = self.dice.amount(50_000_000_000);
        self.post(customer, &Fact::CreditGranted { credit, amount });
    }

    fn serve_request(&mut self, customer: &mut Customer) {
        let kind = TokenKind::ALL[usize::try_from(self.dice.roll(3)).unwrap()];
        let quantity = Quantity::new(self.dice.amount(20_000).get()).unwrap();
        let rated = customer.rate(SkuName::Tokens { tier: ServiceTier::Default, kind, model: model() }, quantity);
        let Some((granted, spent)) = customer.slice else { return };
        let spent = spent.checked_add(rated.amount).unwrap();
        if spent <= granted.total().unwrap() {
            self.post(customer, &Fact::UsageCaptured { family: SkuFamily::ModelTokens, amount: rated.amount });
            customer.slice = Some((granted, spent));
            customer.keep(rated);
        }
    }

    /// One slice in five is lost with its gateway; its last request is found in the journal later.
    fn close_slice(&mut self, customer: &mut Customer) {
        let Some((granted, spent)) = customer.slice.take() else { return };
        let left = granted.total().unwrap().checked_sub(spent).unwrap();
        if self.dice.roll(5) > 0 {
            return self.post(customer, &Fact::SliceReturned { to: unspent(granted, spent) });
        }
        self.post(customer, &Fact::SliceLost { amount: left });
        let found = customer.rate(
            SkuName::Tokens { tier: ServiceTier::Default, kind: TokenKind::Output, model: model() },
            Quantity::new(7).unwrap(),
        );
        let mut spent = spent;
        if found.amount <= left {
            self.post(customer, &Fact::SuspenseCaptured { family: SkuFamily::ModelTokens, amount: found.amount });
            spent = spent.checked_add(found.amount).unwrap();
            customer.keep(found);
        }
        self.post(customer, &Fact::SuspenseReleased { to: unspent(granted, spent) });
    }

    fn run_job(&mut self, customer: &mut Customer) {
        let notice = NoticeClass::ALL[usize::try_from(self.dice.roll(6)).unwrap()];
        let sku = SkuName::device(notice, cpu());
        let (most, used) = (self.dice.amount(36_000_000), self.dice.amount(36_000_000));
        let (most, used) = (Quantity::new(most.get()).unwrap(), Quantity::new(used.get().min(most.get())).unwrap());
        let hold = customer.version.get(&sku).unwrap().price_in(None).unwrap().hold(Quantity::ZERO, most).unwrap();
        let Some(from) = self.burn(customer, hold) else { return };
        self.post(customer, &Fact::HoldPlaced { from });
        let rated = customer.rate(sku, used);
        self.post(customer, &Fact::HoldCaptured { family: SkuFamily::DeviceTime, amount: rated.amount });
        self.post(customer, &Fact::HoldReleased { to: unspent(from, rated.amount) });
        customer.keep(rated);
    }

    fn refund(&mut self, customer: &Customer) {
        let wanted = self.dice.amount(500_000_000);
        if let Some(split) = self.burn(customer, wanted) {
            self.post(customer, &Fact::RefundRequested { net: split.paid, tax: Nanos::ZERO });
            self.post(customer, &Fact::RefundPaid { amount: split.paid });
            self.post(customer, &Fact::CreditExpired { credit: CreditKind::Promotional, amount: split.promotional });
        }
    }

    fn funds(&self, customer: &Customer) -> CustomerFunds {
        let totals = |kind| self.books.totals(customer.currency, &LedgerAccount::customer(kind, &customer.id));
        CustomerFunds::from_totals(Nanos::ZERO, totals).unwrap()
    }
}

fn play() -> (Month, Vec<Customer>) {
    let mut customers: Vec<Customer> = (0..CUSTOMERS).map(Customer::new).collect();
    let first = Timestamp::from_seconds(1_772_323_200);
    let mut month = Month { dice: Dice(SEED), now: first, journal: Vec::new(), books: TrialBalance::default() };
    for step in 0..STEPS {
        let seconds = i64::try_from(step * 30 * 86_400 / STEPS).unwrap();
        month.now = Timestamp::from_seconds(first.seconds() + seconds);
        let chosen = usize::try_from(month.dice.roll(CUSTOMERS)).unwrap();
        month.step(&mut customers[chosen]);
    }
    (month, customers)
}

#[test]
fn a_busy_month_adds_up_and_is_left_for_the_judges() {
    let (mut month, customers) = play();
    for customer in &customers {
        let invoice = customer.invoice();
        month.now = customer.period.interval.ends_at;
        month.post(customer, &invoice.issue_fact());
        let funds = month.funds(customer);
        funds.verify().unwrap();
        assert_eq!(funds.captured, invoice.subtotal, "{}: the books and the invoice", customer.id);
        let rounding = LedgerAccount::customer(AccountKind::Rounding, &customer.id);
        let rounding = month.books.totals(customer.currency, &rounding).balance(AccountKind::Rounding.normal_side()).unwrap();
        assert_eq!(invoice.total, invoice.subtotal.checked_add(rounding).unwrap());
    }
    assert!(month.journal.len() > 5_000, "only {} entries", month.journal.len());
    for format in JournalFormat::ALL {
        let text = write_journal(String::new(), format, &month.journal).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("busy-month.{format}"));
        std::fs::write(path, text).unwrap();
    }
}

fn unspent(granted: CreditSplit, spent: Nanos) -> CreditSplit {
    Burned::free(granted).unspent(spent).unwrap().split().unwrap()
}
