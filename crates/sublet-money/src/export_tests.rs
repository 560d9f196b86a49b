use std::collections::BTreeSet;

use super::*;
use crate::account::{AccountKind, CostKind, CreditKind};
use crate::posting::{CreditSplit, EntryHead, Fact, post, post_cost};
use crate::sku::SkuFamily;

fn head(number: i64, at: Timestamp, currency: &str, memo: &str) -> EntryHead {
    EntryHead { id: format!("jnl_{number}").parse().unwrap(), at, currency: currency.parse().unwrap(), memo: memo.to_owned() }
}

fn small_journal() -> Vec<JournalEntry> {
    let day = |days: i64, seconds: i64| Timestamp::from_seconds(1_772_323_200 + days * 86_400 + seconds);
    let split =
        |promotional, paid| CreditSplit { committed: Nanos::ZERO, promotional: Nanos::new(promotional), paid: Nanos::new(paid) };
    let euros = |number, at, memo: &str, fact: Fact| post(head(number, at, "EUR", memo), &"org_1".parse().unwrap(), &fact).unwrap();
    let paid = CreditKind::Paid;
    vec![
        euros(
            1,
            day(0, 0),
            "transfer \"7\" \\ ref; date:2020-01-01 [2020-01-01]",
            Fact::CreditGranted { credit: paid, amount: "100".parse().unwrap() },
        ),
        euros(2, day(0, 1), "welcome", Fact::CreditGranted { credit: CreditKind::Promotional, amount: Nanos::new(5) }),
        euros(3, day(0, 2), "gw_1", Fact::SliceGranted { from: split(5, 2_000_000_000) }),
        euros(4, day(1, 0), "req_1", Fact::UsageCaptured { family: SkuFamily::ModelTokens, amount: Nanos::new(1_000_000_001) }),
        euros(5, day(1, 0), "req_2", Fact::UsageCaptured { family: SkuFamily::ModelTokens, amount: Nanos::ZERO }),
        post(
            head(6, day(0, 9), "JPY", "grant"),
            &"org_2".parse().unwrap(),
            &Fact::CreditGranted { credit: paid, amount: Nanos::MAX },
        )
        .unwrap(),
        post_cost(head(7, day(1, 1), "EUR", "meter 3"), CostKind::Power, Nanos::new(250_000_000)).unwrap(),
        post_cost(head(8, day(1, 1), "JPY", "meter 4"), CostKind::Power, Nanos::new(1)).unwrap(),
    ]
}

#[test]
fn the_journal_as_beancount() {
    insta::assert_snapshot!(write_journal(String::new(), JournalFormat::Beancount, &small_journal()).unwrap());
}

#[test]
fn the_journal_as_hledger() {
    insta::assert_snapshot!(write_journal(String::new(), JournalFormat::Hledger, &small_journal()).unwrap());
}

#[test]
fn an_empty_journal_is_a_valid_text() {
    for format in JournalFormat::ALL {
        let text = write_journal(String::new(), format, &[]).unwrap();
        assert!(text.starts_with("; Ledger") && !text.contains("balance "), "{text}");
    }
}

/// Beancount: five roots, components of letters, digits and dashes, beginning with a capital or a digit.
#[test]
fn every_account_has_a_legal_beancount_name_of_its_own() {
    let mut names = BTreeSet::new();
    for organization in ["org_0", "org_0a", "org_a0"] {
        let id = organization.parse().unwrap();
        let taxes = ["DE", "CA", "CA-QC"].map(|place| LedgerAccount::tax(place.parse().unwrap(), &id));
        for account in AccountKind::ALL.map(|kind| LedgerAccount::customer(kind, &id)).into_iter().chain(taxes) {
            let name = BeancountName(&account).to_string();
            let mut components = name.split(':');
            assert!(["Assets", "Liabilities", "Income", "Expenses"].contains(&components.next().unwrap()), "{name}");
            for component in components {
                let first = component.chars().next().unwrap();
                assert!(first.is_ascii_uppercase() || first.is_ascii_digit(), "{name}");
                assert!(component.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{name}");
            }
            names.insert((name, account));
        }
    }
    let distinct: BTreeSet<&String> = names.iter().map(|(name, _)| name).collect();
    assert_eq!(distinct.len(), names.len());
}

/// Counts what it is given and keeps nothing: the writer must not need it back.
#[derive(Debug, Default)]
struct Counter {
    bytes: usize,
    bytes_max: usize,
}

impl fmt::Write for Counter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes += text.len();
        self.bytes_max = self.bytes_max.max(text.len());
        Ok(())
    }
}

#[test]
fn entries_are_written_as_they_come() {
    let journal = small_journal();
    let mut writer = JournalWriter::new(Counter::default(), JournalFormat::Beancount).unwrap();
    let mut written = writer.out.bytes;
    for entry in &journal {
        writer.entry(entry).unwrap();
        assert!(writer.out.bytes > written);
        written = writer.out.bytes;
    }
    assert!(writer.finish().unwrap().bytes_max < 1_000);
}

#[test]
fn a_destination_that_refuses_is_an_error() {
    struct Full;
    impl fmt::Write for Full {
        fn write_str(&mut self, _: &str) -> fmt::Result {
            Err(fmt::Error)
        }
    }
    assert!(write_journal(Full, JournalFormat::Hledger, &small_journal()).is_err());
}
