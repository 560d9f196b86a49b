//! Invoices as their customers get them, and what checks them.

use sublet_cloud::{Actor, Cloud};
use sublet_core::Result;
use sublet_core::id::InvoiceId;
use sublet_proof::bundle::{Fault, Verified, Verifier};
use sublet_proof::note::VerifierKey;

/// The bundle of an issued invoice, whole.
pub async fn bundle(cloud: &Cloud, actor: &Actor, invoice: &InvoiceId) -> Result<String> {
    let (header, mut leaves) = cloud.open_bundle(actor, invoice).await?;
    let mut text = header + "\n";
    while let Some(lines) = cloud.next_bundle_lines(&mut leaves).await? {
        text.push_str(&lines);
    }
    Ok(text)
}

/// Checks a bundle as `sublet verify-invoice` does.
pub fn verify(bundle: &str, trusted: Option<&VerifierKey>) -> Result<Verified, Fault> {
    let mut lines = bundle.lines();
    let mut verifier = Verifier::new(lines.next().unwrap_or_default(), trusted)?;
    lines.try_for_each(|leaf| verifier.leaf(leaf))?;
    verifier.finish()
}
