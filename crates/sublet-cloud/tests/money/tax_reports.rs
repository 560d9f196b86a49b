//! What is reported of taxes: documents by the day of their issue, tax by tax, tied to the books.

use sublet_cloud::data::{BillingCalendar, TaxPeriod};
use sublet_cloud::tax_report::TaxReport;
use sublet_cloud::{Actor, Cloud};
use sublet_core::{DurationMs, ErrorCode};
use sublet_testkit::on_both_databases;
use sublet_testkit::tenant::actor;

use crate::UNIT;
use crate::months::{close, credit, customer, issued, month, used};
use crate::taxes::{adds_up, bills_to, buyer, sells};

const HOUR: DurationMs = DurationMs::from_hours(1);
const ZONE: &str = "Europe/Berlin";
const CENT: i64 = UNIT / 100;
/// Output tokens at 0.6 for a thousand thousand: of five euros, and a part of a cent.
const FIVE_EUROS: i64 = 8_333_335;

async fn report(cloud: &Cloud, period: &str, zone: &str) -> TaxReport {
    let period: TaxPeriod = period.parse().expect("a period");
    let calendar = BillingCalendar::new(zone).expect("a zone");
    cloud.tax_report(&Actor::system(), Some(period), &calendar).await.expect("a report")
}

/// `place name category rate: invoices base tax, notes base tax, to be paid`, in cents.
async fn lines(cloud: &Cloud, period: &str, zone: &str) -> Vec<String> {
    let report = report(cloud, period, zone).await;
    for tie in &report.ties {
        assert_eq!(tie.reported, tie.booked, "{period} {zone}: {tie:?}");
    }
    let line = |(key, figures): (&sublet_cloud::data::TaxKey, &sublet_cloud::data::TaxFigures)| {
        let (invoiced, credited) = (figures.invoiced, figures.credited);
        format!(
            "{} {} {} {}: {} {} {}, {} {} {}, {}",
            key.jurisdiction,
            key.name,
            key.category,
            key.rate,
            invoiced.documents,
            invoiced.base.get() / CENT,
            invoiced.tax.get() / CENT,
            credited.documents,
            credited.base.get() / CENT,
            credited.tax.get() / CENT,
            figures.tax().expect("an amount").get() / CENT
        )
    };
    report.lines.iter().map(line).collect()
}

on_both_databases! {
    async fn documents_count_when_they_are_issued_and_add_up_to_the_books(cloud: &TestCloud) {
        sells(&cloud.cloud).await;
        let mut sessions = Vec::new();
        for (name, profile) in [
            ("home", buyer("DE", None, None)),
            ("neighbour", buyer("DE", None, None)),
            ("union", buyer("FR", None, Some("FR12345678901"))),
            ("quebec", buyer("CA", Some("QC"), None)),
            ("elsewhere", buyer("US", None, None)),
        ] {
            let session = customer(cloud, name, ZONE, 1_000 * UNIT).await;
            bills_to(&cloud.cloud, &session.access.organization, profile).await.expect("it is set");
            sessions.push(session);
        }
        // March at 19 %, from April on 16 %.
        for next in ["2026-04", "2026-05"] {
            for session in &sessions {
                used(session, FIVE_EUROS).await;
                used(session, FIVE_EUROS).await;
            }
            cloud.clock.set(month(ZONE, next).plus(HOUR));
            close(&cloud.cloud).await;
        }
        assert_eq!(lines(&cloud.cloud, "2026-03", ZONE).await, Vec::<String>::new(), "nothing was issued in it");
        let april = [
            "CA-QC GST S 5: 1 1000 50, 0 0 0, 50",
            "CA-QC QST S 9.975: 1 1000 100, 0 0 0, 100",
            "DE VAT S 19: 2 2000 380, 0 0 0, 380",
            "FR VAT AE 0: 1 1000 0, 0 0 0, 0",
            "US VAT O 0: 1 1000 0, 0 0 0, 0",
        ];
        let found = lines(&cloud.cloud, "2026-04", ZONE).await;
        assert_eq!(found, april);

        // Parts of the March invoice are given back in May and June, the rest of it as well.
        let home = issued(cloud, &sessions[0].access.organization).await.remove(0).invoice.id;
        credit(cloud, &home, 333 * CENT).await.expect("a note");
        credit(cloud, &home, 333 * CENT).await.expect("a note");
        let may = lines(&cloud.cloud, "2026-05", ZONE).await;
        assert!(may.contains(&"DE VAT S 19: 0 0 0, 2 666 127, -127".to_owned()), "{may:?}");
        assert!(may.contains(&"DE VAT S 16: 2 2000 320, 0 0 0, 320".to_owned()), "{may:?}");
        cloud.clock.set(month(ZONE, "2026-06").plus(HOUR));
        credit(cloud, &home, 334 * CENT).await.expect("a note");
        assert!(lines(&cloud.cloud, "2026-06", ZONE).await.contains(&"DE VAT S 19: 0 0 0, 1 334 63, -63".to_owned()));
        let quarter = lines(&cloud.cloud, "2026-Q2", ZONE).await;
        assert!(quarter.contains(&"DE VAT S 19: 2 2000 380, 3 1000 190, 190".to_owned()), "{quarter:?}");

        // Where the month begins later, what was issued in its first hours is of the month before.
        assert_eq!(lines(&cloud.cloud, "2026-03", "America/New_York").await, april);
        adds_up(&cloud.cloud).await;
    }

    async fn the_report_is_the_operators(cloud: &TestCloud) {
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let calendar = BillingCalendar::new("UTC").expect("a zone");
        let refused = cloud.cloud.tax_report(&admin, None, &calendar).await.expect_err("refused");
        assert_eq!(refused.code(), ErrorCode::WrongKeyPlane);
        let empty = cloud.cloud.tax_report(&Actor::system(), None, &calendar).await.expect("a report");
        assert_eq!((empty.period.to_string().as_str(), empty.lines.iter().count(), empty.ties.len()), ("2026-03", 0, 0));
    }
}
