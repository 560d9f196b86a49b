//! By when invoices are paid: as a contract says for its months, or else as the account or the seller does.

use sublet_cloud::Actor;
use sublet_cloud::invoice::Bill;
use sublet_core::Nanos;
use sublet_money::contract::ContractTerms;
use sublet_money::party::PaymentTerms;
use sublet_money::tax::BillingProfile;
use sublet_testkit::tenant::committed_monthly;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::contracts::{admin_of, agreed, amended, hash, offered, to_end_of};
use crate::months::{customer, issued, used};
use crate::taxes::{bills_to, buyer, sells};

const ZONE: &str = "Europe/Berlin";

fn days(net_days: u16) -> Option<PaymentTerms> {
    Some(PaymentTerms { net_days, note: None })
}

/// Half a year, a euro each month.
fn terms(payment: Option<PaymentTerms>) -> ContractTerms {
    ContractTerms { payment, ..committed_monthly(6, Nanos::new(UNIT)) }
}

on_both_databases! {
    async fn a_contract_says_by_when_invoices_of_its_months_are_paid(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 1_000 * UNIT).await;
        let organization = session.access.organization.clone();
        // The seller says 14 days, the account 10, and the contract 60, from July on 30.
        let profile = BillingProfile { terms: days(10), ..buyer("DE", None, None) };
        bills_to(&cloud.cloud, &organization, profile).await.expect("it is set");
        let id = agreed(&cloud.cloud, &session, terms(days(60))).await;
        let noted = Some(PaymentTerms { net_days: 30, note: Some("2 % within 10 days".to_owned()) });
        let said = async |cloud: &TestCloud| {
            let tax = cloud.cloud.account_tax(&Actor::system(), &organization).await.expect("it is there");
            tax.terms.expect("somebody sells").net_days
        };
        let mut running = Vec::new();
        for next in ["2026-04", "2026-05", "2026-06", "2026-07", "2026-08", "2026-09", "2026-10", "2026-11"] {
            used(&session, 3_000_000).await;
            running.push(said(cloud).await);
            if next == "2026-06" {
                let view = amended(&cloud.cloud, &id, "2026-07", terms(noted.clone())).await.expect("an amendment");
                cloud.cloud.accept_contract(&admin_of(&session), &id, &hash(&view)).await.expect("accepted");
            }
            to_end_of(cloud, next).await;
        }
        assert_eq!(running, [10, 60, 60, 60, 30, 30, 30, 10]);
        let bills = issued(cloud, &organization).await;
        let due = |bill: &Bill| bill.invoice.due_on().expect("a day").expect("terms").to_string();
        // Each is issued on the first of the next month.
        let expected = [
            ("2026-03", "2026-04-11"),
            ("2026-04", "2026-06-30"),
            ("2026-05", "2026-07-31"),
            ("2026-06", "2026-08-30"),
            ("2026-07", "2026-08-31"),
            ("2026-08", "2026-10-01"),
            ("2026-09", "2026-10-31"),
            ("2026-10", "2026-11-11"),
        ];
        let found: Vec<_> = bills.iter().map(|bill| (bill.invoice.content.period.key.to_string(), due(bill))).collect();
        assert_eq!(found, expected.map(|(month, day)| (month.to_owned(), day.to_owned())));
        let note = bills[4].invoice.content.terms.as_ref().and_then(|terms| terms.note.as_deref());
        assert_eq!(note, Some("2 % within 10 days"));
    }

    async fn a_contract_that_says_nothing_leaves_the_terms_of_the_account(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 1_000 * UNIT).await;
        let organization = session.access.organization.clone();
        bills_to(&cloud.cloud, &organization, buyer("DE", None, None)).await.expect("it is set");
        agreed(&cloud.cloud, &session, terms(None)).await;
        to_end_of(cloud, "2026-05").await;
        let bill = issued(cloud, &organization).await.pop().expect("an invoice");
        assert_eq!(bill.invoice.content.terms, days(14), "what is missing is invoiced, by the seller's terms");
        let long = ContractTerms { starts: "2027-01".parse().expect("a month"), ..terms(days(366)) };
        let refused = offered(&cloud.cloud, &organization, long).await.expect_err("more than a year");
        assert_eq!(refused.param_name(), Some("terms.payment.net_days"));
    }
}
