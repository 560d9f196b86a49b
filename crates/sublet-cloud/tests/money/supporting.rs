//! The datasets beside cost and usage: every document is its details, every commitment what invoices settled, every month
//! as far as it is closed; and rows of cost and usage name them.

use std::collections::{BTreeMap, BTreeSet};

use sublet_cloud::export::{Dataset, ExportRequest};
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::OrganizationId;
use sublet_core::usage::UsageSink;
use sublet_core::{DurationMs, ErrorCode, Nanos};
use sublet_money::account::CreditKind;
use sublet_money::contract::{Commitment, ContractTerms};
use sublet_money::focus::FocusVersion;
use sublet_money::focus_dataset::SupportingDataset;
use sublet_money::invoice::InvoiceContent;
use sublet_money::period::BillingCalendar;
use sublet_store::billing::{self, OpenMonth};
use sublet_store::invoice;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::commitments::{terms as of_quantities, with_fee};
use crate::contracts::{admin_of, agreed, amended, granted, hash, to_end_of};
use crate::exports::{by_document, file, rows, sum, wanted};
use crate::months::{close, credit, customer, issued, month, used};
use crate::taxes::{bills_to, buyer, sells};

const HOUR: DurationMs = DurationMs::from_hours(1);
const ZONE: &str = "Europe/Berlin";
const MILLION: i64 = 1_000_000;

type Found = Vec<BTreeMap<String, String>>;

fn asked(organization: &OrganizationId, dataset: Dataset, period: &str) -> ExportRequest {
    ExportRequest { organization: Some(organization.clone()), version: FocusVersion::V1_4, ..wanted(dataset, period) }
}

async fn focus(cloud: &Cloud, organization: &OrganizationId, period: &str) -> Found {
    rows(file(cloud, &Actor::system(), &asked(organization, Dataset::Focus, period)).await.expect("a file"))
}

async fn bytes_of(cloud: &Cloud, organization: &OrganizationId, (dataset, period): (SupportingDataset, &str)) -> Vec<u8> {
    file(cloud, &Actor::system(), &asked(organization, Dataset::Supporting(dataset), period)).await.expect("a file")
}

async fn found(cloud: &Cloud, organization: &OrganizationId, of: (SupportingDataset, &str)) -> Found {
    rows(bytes_of(cloud, organization, of).await)
}

/// What the rows of each line of a document add up to.
fn by_line(rows: &Found) -> BTreeMap<String, Nanos> {
    let lines: BTreeSet<&String> = rows.iter().map(|row| &row["InvoiceDetailId"]).collect();
    let of = |line: &String| rows.iter().filter(|row| row["InvoiceDetailId"] == *line).cloned().collect::<Found>();
    lines.into_iter().map(|line| (line.clone(), sum(&of(line), "BilledCost"))).collect()
}

/// What rows say that they count towards a commitment: its cost, or its quantity.
fn applied(rows: &Found, commitment: &str) -> Nanos {
    let members = ["\"ContractCommitmentAppliedCost\":", "\"ContractCommitmentAppliedQuantity\":"];
    let said = rows.iter().map(|row| row["ContractApplied"].as_str());
    let of = said.filter(|text| text.contains(&format!("\"ContractCommitmentId\":\"{commitment}\"")));
    let parts = of.map(|text| {
        let (_, rest) = members.iter().find_map(|member| text.split_once(member)).expect("a part");
        rest.split(',').next().expect("a number").parse::<Nanos>().expect("an amount")
    });
    Nanos::checked_sum(parts).expect("a sum")
}

fn nanos(row: &BTreeMap<String, String>, column: &str) -> Nanos {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is {:?}", row[column]))
}

fn states(rows: &Found) -> Vec<String> {
    let names = ["x_BillingPeriod", "x_State", "BillingPeriodStatus", "x_InvoiceId"];
    rows.iter().map(|row| names.map(|name| row[name].as_str()).join(" ")).collect()
}

on_both_databases! {
    async fn every_document_is_its_details_and_use_names_them(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        bills_to(&cloud.cloud, &organization, buyer("DE", None, None)).await.expect("it is set");
        granted(&cloud.cloud, &organization, CreditKind::Paid, 1_000 * UNIT).await;
        agreed(&cloud.cloud, &session, with_fee("2026-04", 50 * UNIT)).await;
        let mut late = Vec::new();
        for next in ["2026-04", "2026-05", "2026-06", "2026-07"] {
            used(&session, 3 * MILLION + 7).await;
            let grant = session.grant(None, UNIT, 2 * UNIT).await.expect("credit is there");
            for record in std::mem::take(&mut late) {
                session.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
            }
            late.push(session.record(&grant.slice, 1_001, 70_003));
            if let Some(bill) = issued(cloud, &organization).await.first() {
                credit(cloud, &bill.invoice.id, UNIT / 10).await.expect("a credit note");
            }
            to_end_of(cloud, next).await;
        }
        let (mut notes, mut kinds) = (0, BTreeSet::new());
        for bill in issued(cloud, &organization).await {
            let content = &bill.invoice.content;
            let period = content.period.key.to_string();
            let details = found(&cloud.cloud, &organization, (SupportingDataset::InvoiceDetail, &period)).await;
            let costs = focus(&cloud.cloud, &organization, &period).await;
            let documents = by_document(&details);
            let number = bill.invoice.number.expect("it is issued").to_string();
            assert_eq!(documents[&number], content.gross().expect("a sum"), "{period}");
            assert_eq!(documents, by_document(&costs), "{period}: the other files have the same documents");
            assert_eq!(by_line(&details), by_line(&costs), "{period}: line by line");
            let ids: BTreeSet<&String> = details.iter().map(|row| &row["InvoiceDetailId"]).collect();
            assert_eq!(ids.len(), details.len());
            for row in &details {
                let is_note = row["InvoiceId"].starts_with("CN-");
                notes += usize::from(is_note && row["ChargeCategory"] == "Credit");
                assert_eq!(is_note, row["ReferenceInvoiceId"] != row["InvoiceId"]);
                kinds.insert(format!("{} {}", row["ChargeCategory"], row["InvoiceDetailGrain"].contains("ContractId")));
            }
            let mine = details.iter().find(|row| row["InvoiceId"] == number).expect("a line");
            let due = bill.invoice.due_on().expect("a day").expect("terms").to_string();
            assert_eq!((mine["PaymentTerms"].as_str(), &mine["x_PaymentDueOn"]), ("Net 14", &due));
            let is_late = details.iter().any(|row| row["InvoiceDetailGrain"].contains("x_LateOf"));
            assert_eq!(is_late, content.lines.iter().any(|line| line.late.is_some()), "{period}");
        }
        assert_eq!((notes, kinds.len()), (3, 5), "{kinds:?}");
        // What is open has no number, and so no lines.
        let running = found(&cloud.cloud, &organization, (SupportingDataset::InvoiceDetail, "2026-07")).await;
        assert!(running.iter().all(|row| row["InvoiceId"].starts_with("CN-")), "{running:?}");
    }

    async fn a_document_that_does_not_add_up_breaks_off(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        used(&session, 3 * MILLION).await;
        to_end_of(cloud, "2026-04").await;
        let of = (SupportingDataset::InvoiceDetail, "2026-03");
        assert_eq!(found(&cloud.cloud, &organization, of).await.len(), 1);
        let right = change_line(cloud, &organization, Nanos::new(UNIT)).await;
        for dataset in [Dataset::Focus, Dataset::Supporting(SupportingDataset::InvoiceDetail)] {
            let asked = asked(&organization, dataset, "2026-03");
            let broken = file(&cloud.cloud, &Actor::system(), &asked).await.expect_err("it breaks off");
            assert_eq!(broken.code(), ErrorCode::LedgerMismatch, "{broken}");
        }
        change_line(cloud, &organization, right).await;
        assert_eq!(found(&cloud.cloud, &organization, of).await.len(), 1);
    }

    async fn commitments_are_what_invoices_settled_and_use_counts_towards_them(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        granted(&cloud.cloud, &organization, CreditKind::Paid, 1_000 * UNIT).await;
        let spend = ContractTerms { roll_over_periods: 1, period_months: 2, fee: None, ..with_fee("2026-03", 3 * UNIT) };
        let id = agreed(&cloud.cloud, &session, spend.clone()).await;
        fn of(period: &str) -> (SupportingDataset, &str) {
            (SupportingDataset::ContractCommitment, period)
        }
        let mut kept = BTreeMap::new();
        for (next, millions) in [("2026-04", 1), ("2026-05", 2), ("2026-06", 8), ("2026-07", 3), ("2026-08", 1)] {
            used(&session, millions * MILLION + 11).await;
            if next == "2026-06" {
                let more = Commitment { from_period: 3, amount: Nanos::new(9 * UNIT) };
                let ramp = ContractTerms { commitments: [spend.commitments.clone(), vec![more]].concat(), ..spend.clone() };
                let view = amended(&cloud.cloud, &id, "2026-07", ramp).await.expect("an amendment");
                cloud.cloud.accept_contract(&admin_of(&session), &id, &hash(&view)).await.expect("accepted");
            }
            let running = cloud.cloud.get_contract(&admin_of(&session), &id).await.expect("it is there").periods;
            let month = issued(cloud, &organization).await.last().map_or_else(|| "2026-03".to_owned(), |bill| bill.invoice.content.period.key.next().expect("a month").to_string());
            let open = found(&cloud.cloud, &organization, of(&month)).await;
            for period in &running {
                let row = &open[usize::try_from(period.number - 1).expect("a place")];
                assert_eq!(nanos(row, "x_UsedCost"), period.counted, "{month}: {}", period.number);
            }
            to_end_of(cloud, next).await;
            kept.insert(month.clone(), bytes_of(&cloud.cloud, &organization, of(&month)).await);
        }
        let said: Vec<String> = kept.iter().map(|(month, bytes)| {
            let rows = rows(bytes.clone());
            let names = ["ContractCommitmentCost", "x_UsedCost", "x_ShortfallCost", "x_RollOverCost", "x_RollOverUsedCost"];
            let status = |row: &BTreeMap<String, String>| row["ContractCommitmentLifecycleStatus"].clone();
            let of = |row: &BTreeMap<String, String>| format!("{} {}", status(row), names.map(|name| row[name].as_str()).join(" "));
            format!("{month}: {}", rows.iter().map(of).collect::<Vec<_>>().join(", "))
        }).collect();
        let first = "Expired 3.0 1.8000132 1.1999868 0.0 0.0";
        assert_eq!(said, [
            "2026-03: Active 3.0 0.6000066 0.0 0.0 0.0, Pending 3.0 0.0 0.0  0.0, Pending 3.0 0.0 0.0  0.0".to_owned(),
            format!("2026-04: {first}, Active 3.0 0.0 0.0 1.1999868 0.0, Pending 3.0 0.0 0.0  0.0"),
            // All of it is used, and from the third on another amount was agreed.
            format!("2026-05: {first}, Exhausted 3.0 4.8000066 0.0 1.1999868 0.0, Pending 9.0 0.0 0.0  0.0"),
            format!("2026-06: {first}, Expired 3.0 6.6000132 0.0 1.1999868 1.1999868, Active 9.0 0.0 0.0 0.0 0.0"),
            format!("2026-07: {first}, Expired 3.0 6.6000132 0.0 1.1999868 1.1999868, Active 9.0 0.6000066 0.0 0.0 0.0"),
        ]);
        // Each month's use is what its invoice counted, and a closed month's file is the same for ever.
        for bill in issued(cloud, &organization).await {
            let content = &bill.invoice.content;
            let (period, line) = (content.period.key.to_string(), content.commitment.as_ref().expect("a contract runs"));
            let commitment = format!("{id}/{}", line.number);
            assert_eq!(applied(&focus(&cloud.cloud, &organization, &period).await, &commitment), line.counted, "{period}");
            let rows = rows(kept[&period].clone());
            let row = rows.iter().find(|row| row["ContractCommitmentId"] == commitment).expect("a commitment");
            assert_eq!(nanos(row, "x_UsedCost"), line.total_counted().expect("a sum"), "{period}");
            assert_eq!(nanos(row, "x_ShortfallCost"), line.shortfall);
            assert_eq!((nanos(row, "x_RollOverUsedCost"), nanos(row, "x_RollOverCost")), (line.roll_over_used, line.roll_over));
            assert!(bytes_of(&cloud.cloud, &organization, of(&period)).await == kept[&period], "{period} has changed");
        }
    }

    async fn a_notice_cancels_what_it_cuts_off_and_changes_no_month_before(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        granted(&cloud.cloud, &organization, CreditKind::Paid, 1_000 * UNIT).await;
        let admin = admin_of(&session);
        let spend = ContractTerms { period_months: 2, fee: None, ..with_fee("2026-03", 3 * UNIT) };
        let id = agreed(&cloud.cloud, &session, spend).await;
        used(&session, MILLION).await;
        to_end_of(cloud, "2026-04").await;
        let march = (SupportingDataset::ContractCommitment, "2026-03");
        let before = bytes_of(&cloud.cloud, &organization, march).await;
        cloud.cloud.leave_contract(&admin, &id, "2026-06".parse().expect("a month")).await.expect("notice");
        let statuses = |rows: Found| rows.iter().map(|row| row["ContractCommitmentLifecycleStatus"].clone()).collect::<Vec<_>>();
        let april = found(&cloud.cloud, &organization, (march.0, "2026-04")).await;
        assert!(april.iter().all(|row| row["ContractPeriodEnd"] == "2026-06-30T22:00:00Z"), "{april:?}");
        assert_eq!(statuses(april), ["Active", "Pending", "Canceled"]);
        assert!(bytes_of(&cloud.cloud, &organization, march).await == before);
        assert_eq!(statuses(rows(before)), ["Active", "Pending", "Pending"]);
        to_end_of(cloud, "2026-07").await;
        let june = found(&cloud.cloud, &organization, (march.0, "2026-06")).await;
        let fee = issued(cloud, &organization).await.last().and_then(|bill| bill.invoice.content.commitment.clone()).expect("a part").exit_fee;
        assert_eq!((nanos(&june[1], "x_ExitFee"), fee > Nanos::ZERO), (fee, true));
        let costs = focus(&cloud.cloud, &organization, "2026-06").await;
        let named = costs.iter().filter(|row| row["ContractApplied"].contains(&format!("\"{id}/2\"")) && row["ChargeCategory"] == "Adjustment");
        assert_eq!(named.count(), 2, "what is missing, and leaving");
        assert_eq!(applied(&costs, &format!("{id}/2")), Nanos::ZERO);
    }

    async fn a_shorter_term_cancels_what_was_announced_and_an_invoice_names_terms_that_are_there(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 0).await;
        let organization = session.access.organization.clone();
        granted(&cloud.cloud, &organization, CreditKind::Paid, 1_000 * UNIT).await;
        let long = ContractTerms { period_months: 2, fee: None, months: 12, ..with_fee("2026-03", 3 * UNIT) };
        let id = agreed(&cloud.cloud, &session, long.clone()).await;
        used(&session, MILLION).await;
        to_end_of(cloud, "2026-04").await;
        let short = ContractTerms { months: 6, ..long };
        let view = amended(&cloud.cloud, &id, "2026-05", short).await.expect("an amendment");
        let view = cloud.cloud.accept_contract(&admin_of(&session), &id, &hash(&view)).await.expect("accepted");
        let agreed_at = view.contract.offers.last().and_then(|offer| offer.answered_at).expect("it is agreed").to_string();
        cloud.clock.advance(HOUR);
        let of = |period| (SupportingDataset::ContractCommitment, period);
        let column = |rows: &Found, name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
        let march = found(&cloud.cloud, &organization, of("2026-03")).await;
        assert_eq!(column(&march, "ContractCommitmentLifecycleStatus"), ["Active", "Pending", "Pending", "Pending", "Pending", "Pending"]);
        let april = found(&cloud.cloud, &organization, of("2026-04")).await;
        assert_eq!(column(&april, "ContractCommitmentId"), column(&march, "ContractCommitmentId"));
        assert_eq!(column(&april, "ContractCommitmentLifecycleStatus"), ["Active", "Pending", "Pending", "Canceled", "Canceled", "Canceled"]);
        let updated = column(&april, "ContractCommitmentLastUpdated");
        assert!(updated[1..].iter().all(|at| at[..19] == agreed_at[..19]), "{updated:?}: {agreed_at}");
        assert!(updated[0] > updated[1], "what runs counts until now: {updated:?}");
        // An invoice that names other terms than its contract has: as for its bundle, nothing is made of it.
        let right = change_terms(cloud, &organization, "0".repeat(64)).await;
        let broken = file(&cloud.cloud, &Actor::system(), &asked(&organization, Dataset::Focus, "2026-03")).await.expect_err("it breaks off");
        assert_eq!(broken.code(), ErrorCode::Internal, "{broken:?}");
        change_terms(cloud, &organization, right).await;
        assert!(!focus(&cloud.cloud, &organization, "2026-03").await.is_empty());
    }

    async fn a_month_before_the_account_is_there_if_something_was_used_in_it(cloud: &TestCloud) {
        cloud.clock.set(month(ZONE, "2026-04").plus(HOUR));
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let of = (SupportingDataset::BillingPeriod, "2026-03");
        cloud.clock.set(month(ZONE, "2026-04").minus(HOUR));
        assert_eq!(found(&cloud.cloud, &organization, of).await, Found::new(), "it was not there");
        used(&session, MILLION).await;
        assert_eq!(states(&found(&cloud.cloud, &organization, of).await), ["2026-03 open Open "]);
        cloud.clock.set(month(ZONE, "2026-04").plus(HOUR));
        close(&cloud.cloud).await;
        let closed = found(&cloud.cloud, &organization, of).await;
        assert_eq!(states(&closed), ["2026-03 invoiced Closed INV-2026-000001"]);
        assert!(closed[0]["BillingPeriodCreated"] < closed[0]["BillingPeriodEnd"], "{closed:?}");
        let costs = focus(&cloud.cloud, &organization, "2026-03").await;
        assert!(costs.iter().any(|row| row["InvoiceId"] == closed[0]["x_InvoiceId"]));
    }

    async fn quantities_are_in_the_units_that_are_metered(cloud: &TestCloud) {
        let session = customer(cloud, "acme", ZONE, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        let id = agreed(&cloud.cloud, &session, of_quantities()).await;
        used(&session, 3 * MILLION + 1).await;
        to_end_of(cloud, "2026-04").await;
        used(&session, MILLION).await;
        to_end_of(cloud, "2026-05").await;
        let commitments = found(&cloud.cloud, &organization, (SupportingDataset::ContractCommitment, "2026-04")).await;
        let first = &commitments[0];
        let names = ["ContractCommitmentCategory", "ContractCommitmentQuantity", "ContractCommitmentUnit", "x_UsedQuantity", "x_MissingQuantity"];
        assert_eq!(names.map(|name| first[name].as_str()), ["Usage", "10000000.0", "Tokens", "4000001.0", "5999999.0"]);
        assert_eq!(commitments[1]["x_RollOverQuantity"], "5999999.0", "its month begins as the other ends");
        let mut quantity = Nanos::ZERO;
        for period in ["2026-03", "2026-04"] {
            let costs = focus(&cloud.cloud, &organization, period).await;
            quantity = quantity.checked_add(applied(&costs, &format!("{id}/1"))).expect("a sum");
            assert!(costs.iter().any(|row| row["ContractApplied"].contains("\"ContractCommitmentAppliedUnit\":\"Tokens\"")));
            assert!(costs.iter().filter(|row| row["ContractApplied"].is_empty()).all(|row| row["SkuId"] != first_sku(first)));
        }
        assert_eq!(quantity, Nanos::new(4_000_001 * UNIT));
    }

    async fn a_month_is_open_closed_and_invoiced_in_the_zone_of_its_account(cloud: &TestCloud) {
        let zone = "Asia/Kolkata";
        let session = customer(cloud, "acme", zone, 100 * UNIT).await;
        let organization = session.access.organization.clone();
        fn of(period: &str) -> (SupportingDataset, &str) {
            (SupportingDataset::BillingPeriod, period)
        }
        used(&session, MILLION).await;
        let open = found(&cloud.cloud, &organization, of("2026-03")).await;
        assert_eq!(states(&open), ["2026-03 open Open "]);
        assert_eq!((open[0]["BillingPeriodEnd"].as_str(), open[0]["x_TimeZone"].as_str()), ("2026-03-31T18:30:00Z", zone));
        assert_eq!(found(&cloud.cloud, &organization, of("2026-01")).await, Found::new(), "it was not there");
        cloud.clock.set(month(zone, "2026-04"));
        assert_eq!(states(&found(&cloud.cloud, &organization, of("2026-03")).await), ["2026-03 open Open "], "over, and not closed");
        cloud.clock.advance(HOUR);
        close_only(cloud, &organization, ("2026-03", "2026-04")).await;
        let waiting = found(&cloud.cloud, &organization, of("2026-03")).await;
        assert_eq!(states(&waiting), ["2026-03 closed Open "]);
        assert_eq!(waiting[0]["BillingPeriodLastUpdated"], "2026-03-31T19:30:00Z", "no month is closed sooner than an hour after it");
        close(&cloud.cloud).await;
        let closed = bytes_of(&cloud.cloud, &organization, of("2026-03")).await;
        assert_eq!(states(&rows(closed.clone())), ["2026-03 invoiced Closed INV-2026-000001"]);
        // Nothing is used in April; and what was said of March stays.
        cloud.clock.set(month(zone, "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        assert_eq!(states(&found(&cloud.cloud, &organization, of("2026-04")).await), ["2026-04 no-invoice Closed "]);
        assert!(bytes_of(&cloud.cloud, &organization, of("2026-03")).await == closed);
        // Every account has its own, and each row of cost and usage one that it is in.
        let every = ExportRequest { organization: None, ..asked(&organization, Dataset::Supporting(SupportingDataset::BillingPeriod), "2026-03") };
        let every = rows(file(&cloud.cloud, &Actor::system(), &every).await.expect("a file"));
        let accounts: BTreeSet<&String> = every.iter().map(|row| &row["x_BillingAccountId"]).collect();
        assert!(accounts.len() == every.len() && accounts.len() > 1, "{every:?}");
        let columns = ["BillingPeriodStart", "BillingPeriodEnd", "InvoiceIssuerName"];
        let march = rows(closed).remove(0);
        for row in focus(&cloud.cloud, &organization, "2026-03").await {
            assert_eq!(columns.map(|name| &row[name]), columns.map(|name| &march[name]));
        }
    }
}

/// What a commitment over a quantity is of.
fn first_sku(row: &BTreeMap<String, String>) -> String {
    let (_, values) = row["ContractCommitmentApplicability"].rsplit_once("\"Values\":[\"").expect("a sku");
    values.split('"').next().expect("a name").to_owned()
}

/// Closes an account's first month, whose invoice is to come.
async fn close_only(cloud: &TestCloud, organization: &OrganizationId, (first, next): (&str, &str)) {
    let open = |name: &str| {
        let calendar = BillingCalendar::new("Asia/Kolkata").expect("a zone");
        let period = calendar.period(name.parse().expect("a month")).expect("a period");
        OpenMonth { period: period.key, ends_at: period.interval.ends_at }
    };
    let closed = cloud.cloud.store().write((organization, open(first), open(next)), |(organization, first, next), tx| {
        Box::pin(async move {
            billing::open(tx, organization, first).await?;
            billing::close(tx, organization, first.period, next).await
        })
    });
    assert!(closed.await.expect("it is written"));
}

/// Changes what the first line of March's invoice comes to, as nobody could; what it was.
async fn change_line(cloud: &TestCloud, organization: &OrganizationId, amount: Nanos) -> Nanos {
    change(cloud, organization, move |content| std::mem::replace(&mut content.lines[0].charges.amount, amount)).await
}

/// Lets March's invoice name other terms; what it named.
async fn change_terms(cloud: &TestCloud, organization: &OrganizationId, other: String) -> String {
    let name = move |content: &mut InvoiceContent| {
        let part = content.commitment.as_mut().expect("a part");
        std::mem::replace(&mut part.terms, other.clone())
    };
    change(cloud, organization, name).await
}

async fn change<T: Send>(
    cloud: &TestCloud,
    organization: &OrganizationId,
    how: impl Fn(&mut InvoiceContent) -> T + Send + Sync + 'static,
) -> T {
    let changed = cloud.cloud.store().write((organization, how), |(organization, how), tx| {
        Box::pin(async move {
            let found = invoice::find_of_period(tx, organization, "2026-03".parse()?).await?;
            let mut stored = found.expect("March has an invoice");
            let before = how(&mut stored.invoice.content);
            invoice::move_on(tx, &stored).await.map(|()| before)
        })
    });
    changed.await.expect("it is changed")
}
