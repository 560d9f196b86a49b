//! Files for finance: their rows are the invoices, whatever came late, was taken back, or fell in price.

use std::collections::BTreeMap;

use sublet_cloud::export::{Dataset, ExportRequest};
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::OrganizationId;
use sublet_core::usage::UsageSink;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result};
use sublet_money::encoder::Format;
use sublet_money::focus::FocusVersion;
use sublet_money::focus_dataset::SupportingDataset;
use sublet_money::price_book::PriceEntry;
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::Quantity;
use sublet_testkit::prices::{band, by_time, per_unit, republish};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::actor;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::months::{close, credit, customer, issued, month, used};

const HOUR: DurationMs = DurationMs::from_hours(1);

pub fn wanted(dataset: Dataset, period: &str) -> ExportRequest {
    let period = Some(period.parse().expect("a month"));
    ExportRequest { dataset, version: FocusVersion::V1_2, format: Format::Csv, period, organization: None }
}

pub async fn file(cloud: &Cloud, actor: &Actor, request: &ExportRequest) -> Result<Vec<u8>> {
    let mut export = cloud.open_export(actor, request).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = cloud.next_export_piece(&mut export).await? {
        bytes.extend(piece);
    }
    assert!(cloud.next_export_piece(&mut export).await?.is_none(), "it has ended");
    Ok(bytes)
}

/// Lines as columns by their names.
pub fn rows(bytes: Vec<u8>) -> Vec<BTreeMap<String, String>> {
    let text = String::from_utf8(bytes).expect("text");
    let mut lines = text.lines().map(cells);
    let names = lines.next().expect("a header");
    lines.map(|cells| names.iter().cloned().zip(cells).collect()).collect()
}

fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut is_quoted) = (vec![String::new()], false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => cells.last_mut().expect("a cell").extend(letters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            _ => cells.last_mut().expect("a cell").push(letter),
        }
    }
    cells
}

pub fn sum(rows: &[BTreeMap<String, String>], column: &str) -> Nanos {
    Nanos::checked_sum(rows.iter().map(|row| row[column].parse::<Nanos>().expect("an amount"))).expect("a sum")
}

/// What the rows of each document add up to.
pub fn by_document(rows: &[BTreeMap<String, String>]) -> BTreeMap<String, Nanos> {
    let mut documents: BTreeMap<String, Vec<BTreeMap<String, String>>> = BTreeMap::new();
    for row in rows {
        documents.entry(row["InvoiceId"].clone()).or_default().push(row.clone());
    }
    documents.into_iter().map(|(number, rows)| (number, sum(&rows, "BilledCost"))).collect()
}

/// Graduated, by volume and by time of day, with amounts that do not come out even.
async fn uneven_prices(cloud: &TestCloud) {
    let tier =
        |up_to: Option<i64>, price| Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) };
    republish(&cloud.cloud, &cloud.clock, |entry| {
        let sku = entry.sku.clone();
        let text = sku.to_string();
        if text.starts_with("tokens/output") {
            let night = band("night", &["22:00-06:00".to_owned()], per_unit(UNIT / 7));
            let tiers = vec![tier(Some(1_000_003), UNIT / 3), tier(None, UNIT / 9)];
            PriceEntry { time_of_use: by_time(vec![night]), ..PriceEntry::new(sku, PriceModel::Graduated { tiers }) }
        } else if text.starts_with("tokens/input") {
            PriceEntry::new(sku, PriceModel::Volume { tiers: vec![tier(Some(500_000), UNIT / 11), tier(None, UNIT / 13)] })
        } else {
            entry.clone()
        }
    })
    .await;
}

/// Settles some uses, each after another stretch of time; one more is known only later.
async fn busy(cloud: &TestCloud, session: &Session, uses: i64) -> sublet_core::usage::UsageRecord {
    let grant = session.grant(None, 100 * UNIT, 100 * UNIT).await.expect("credit is there");
    let late = session.record(&grant.slice, 100_001, 200_003);
    for index in 0..uses {
        let record = session.record(&grant.slice, 90_001 * (index % 5), 70_003 * (index % 3));
        let report = session.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (1, 0));
        cloud.clock.advance(DurationMs::from_seconds(29 * 60));
    }
    late
}

on_both_databases! {
    async fn rows_of_each_document_add_up_to_it_for_months(cloud: &TestCloud) {
        let session = customer(cloud, "half", "Asia/Kolkata", 1_000_000 * UNIT).await;
        let organization = session.access.organization.clone();
        uneven_prices(cloud).await;
        let mut late = Vec::new();
        for next in ["2026-04", "2026-05", "2026-06"] {
            for record in std::mem::take(&mut late) {
                session.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
            }
            late.push(busy(cloud, &session, 40).await);
            if let Some(bill) = issued(cloud, &organization).await.first() {
                // Part of the first invoice is taken back in each later month.
                credit(cloud, &bill.invoice.id, UNIT / 100).await.expect("a credit note");
            }
            cloud.clock.set(month("Asia/Kolkata", next).plus(HOUR));
            close(&cloud.cloud).await;
        }
        let bills = issued(cloud, &organization).await;
        assert_eq!(bills.len(), 3);
        let mut credited = Nanos::ZERO;
        for bill in &bills {
            let content = &bill.invoice.content;
            let period = content.period.key.to_string();
            let mut request = wanted(Dataset::Focus, &period);
            request.organization = Some(organization.clone());
            let found = rows(file(&cloud.cloud, &Actor::system(), &request).await.expect("a file"));
            let documents = by_document(&found);
            let number = bill.invoice.number.map(|number| number.to_string()).unwrap_or_default();
            assert_eq!(documents[&number], content.total, "{period}");
            let notes: Vec<Nanos> = documents.iter().filter(|(number, _)| number.starts_with("CN-")).map(|(_, sum)| *sum).collect();
            credited = Nanos::checked_sum([credited].into_iter().chain(notes)).expect("a sum");
            let usage: Vec<_> = found.iter().filter(|row| row["ChargeCategory"] == "Usage").cloned().collect();
            assert_eq!(sum(&usage, "BilledCost"), content.subtotal);
            let corrections = usage.iter().filter(|row| row["ChargeClass"] == "Correction" && !row["x_LateOf"].is_empty()).count();
            assert_eq!(corrections > 0, content.lines.iter().any(|line| line.late.is_some()), "{period}");
            assert!(usage.iter().any(|row| row["x_Band"] == "night") && usage.iter().any(|row| row["x_Band"].is_empty()));
            let request = ExportRequest { dataset: Dataset::Charges, ..request };
            let charges = rows(file(&cloud.cloud, &Actor::system(), &request).await.expect("a file"));
            assert_eq!(sum(&charges, "amount"), content.subtotal);
            assert_eq!(charges.len().to_string(), usage.iter().map(|row| row["x_ChargeCount"].parse::<usize>().expect("a count")).sum::<usize>().to_string());
        }
        assert_eq!(credited, bills[0].credited.checked_neg().expect("an amount"));
        assert!(bills[0].credited > Nanos::ZERO);
    }

    async fn an_open_month_adds_up_to_its_draft_and_has_no_number(cloud: &TestCloud) {
        let session = customer(cloud, "open", "UTC", 1_000 * UNIT).await;
        uneven_prices(cloud).await;
        busy(cloud, &session, 10).await;
        let organization = session.access.organization.clone();
        let period = Some("2026-03".parse().expect("a month"));
        let draft = cloud.cloud.draft_invoice(&Actor::system(), &organization, period).await.expect("a draft");
        let request = ExportRequest { organization: Some(organization), ..wanted(Dataset::Focus, "2026-03") };
        let found = rows(file(&cloud.cloud, &Actor::system(), &request).await.expect("a file"));
        assert_eq!(by_document(&found), BTreeMap::from([(String::new(), draft.invoice.content.total)]));
        let again = ExportRequest { format: Format::Parquet, ..request };
        let parquet = file(&cloud.cloud, &Actor::system(), &again).await.expect("a file");
        assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    }

    async fn everybody_gets_their_own_and_the_operator_all(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let other = customer(cloud, "other", "UTC", 100 * UNIT).await;
        used(&session, 1_000_000).await;
        used(&other, 2_000_000).await;
        let (admin, theirs) = (actor(&cloud.cloud, &cloud.keys.admin).await, other.access.organization.clone());
        for dataset in Dataset::ALL {
            let column = match dataset {
                Dataset::Focus => "BillingAccountId",
                Dataset::Charges => "organization",
                Dataset::Supporting(SupportingDataset::BillingPeriod) => "x_BillingAccountId",
                // Nothing is issued or agreed yet.
                Dataset::Supporting(_) => continue,
            };
            let request = wanted(dataset, "2026-03");
            let whose = |found: Vec<BTreeMap<String, String>>| found.into_iter().map(|row| row[column].clone()).collect::<Vec<_>>();
            let own = whose(rows(file(&cloud.cloud, &admin, &request).await.expect("a file")));
            assert!(!own.is_empty() && own.iter().all(|id| *id == session.access.organization.to_string()), "{own:?}");
            let all = whose(rows(file(&cloud.cloud, &Actor::system(), &request).await.expect("a file")));
            assert!(all.contains(&theirs.to_string()) && all.contains(&session.access.organization.to_string()), "{all:?}");
            let named = ExportRequest { organization: Some(theirs.clone()), ..request.clone() };
            assert_eq!(file(&cloud.cloud, &admin, &named).await.expect_err("another's").code(), ErrorCode::NotFound);
            let project = actor(&cloud.cloud, &cloud.keys.project).await;
            assert_eq!(file(&cloud.cloud, &project, &request).await.expect_err("no bills").code(), ErrorCode::WrongKeyPlane);
        }
        let nobody: OrganizationId = cloud.cloud.ids().mint();
        let request = ExportRequest { organization: Some(nobody), ..wanted(Dataset::Focus, "2026-03") };
        assert_eq!(file(&cloud.cloud, &Actor::system(), &request).await.expect_err("nobody").code(), ErrorCode::NotFound);
    }

    async fn a_month_that_has_not_begun_is_refused_and_one_without_use_is_empty(cloud: &TestCloud) {
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let refused = file(&cloud.cloud, &admin, &wanted(Dataset::Focus, "2027-01")).await.expect_err("not yet");
        assert_eq!((refused.code(), refused.to_string().as_str()), (ErrorCode::InvalidRequest, "2027-01 has not begun"));
        assert_eq!(rows(file(&cloud.cloud, &admin, &wanted(Dataset::Focus, "2025-01")).await.expect("a file")), []);
        assert_eq!(rows(file(&cloud.cloud, &admin, &wanted(Dataset::Charges, "2025-01")).await.expect("a file")), []);
    }
}
