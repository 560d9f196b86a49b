//! The customer's bill of a month, and its bundle, which both programs find right.

use std::path::Path;
use std::process::Command;

use sublet_cloud::Actor;
use sublet_core::DurationMs;
use sublet_money::invoice::InvoiceContent;
use sublet_store::PageRequest;
use sublet_store::invoice::InvoiceFilter;
use sublet_testkit::TestCloud;
use sublet_testkit::bundle::{bundle, verify};

/// What the program in another language says of a bundle.
pub fn rerated(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("invoice.bundle");
    std::fs::write(&path, text).expect("room");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(root.join("target/test-env/python/bin/python"));
    command.arg(root.join("tests/outside/rerate.py")).arg(&path).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("run 'cargo xtask test-env'");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Closes the month: what is on the invoice, and its bundle.
pub async fn bill(cloud: &TestCloud) -> (InvoiceContent, String) {
    cloud.clock.advance(DurationMs::from_hours(24 * 34));
    let report = cloud.cloud.close_months().await.expect("months are looked at");
    assert_eq!((report.issued, report.failed), (1, 0));
    let page = PageRequest { limit: Some(100), ..PageRequest::default() };
    let bills = cloud.cloud.list_invoices(&Actor::system(), &InvoiceFilter::default(), &page).await.expect("invoices");
    let bill = bills.items.iter().find(|bill| bill.invoice.number.is_some()).expect("an invoice");
    let text = bundle(&cloud.cloud, &Actor::system(), &bill.invoice.id).await.expect("a bundle");
    verify(&text, None).expect("it is right");
    let (is_right, said) = rerated(&text);
    assert!(is_right, "{said}");
    (bill.invoice.content.clone(), text)
}

/// What each line of it comes to, by its sku.
pub fn lines(content: &InvoiceContent) -> Vec<(String, i64)> {
    content.lines.iter().map(|line| (line.sku.to_string(), line.charges.amount.get())).collect()
}
