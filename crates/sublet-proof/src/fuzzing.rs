//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! There only for tests and fuzzers (`docs/fuzzing.md`).

use crate::bundle::{Fault, Verified, Verifier};
use crate::leaf::ChargeLeaf;
use crate::note::{LogKey, VerifierKey};
use crate::receipt::Receipt;

/// The one bundle, receipt and checkpoint that the known log signed.
const BUNDLE: &str = include_str!("../../../fuzz/seeds/proof_bundle/march");
const RECEIPT: &str = include_str!("../../../fuzz/seeds/proof_receipt/first");
const CHECKPOINT: &str = include_str!("../../../fuzz/seeds/proof_texts/checkpoint");

fn known() -> VerifierKey {
    LogKey::from_seed(&[7; 32]).expect("a key").verifier().clone()
}

/// A bundle: of all files only the true one is accepted under the known key.
pub fn proof_bundle(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(lines) = text.strip_suffix('\n') else { return };
    let verify = || -> Result<Verified, Fault> {
        let mut lines = lines.split('\n');
        let mut verifier = Verifier::new(lines.next().unwrap_or_default(), Some(&known()))?;
        lines.try_for_each(|line| verifier.leaf(line))?;
        verifier.finish()
    };
    assert_eq!(verify().is_ok(), text == BUNDLE);
}

/// A receipt, likewise.
pub fn proof_receipt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert_eq!(Receipt::verify(text, Some(&known())).is_ok(), text == RECEIPT);
}

/// Keys, checkpoints and leaves: what is read is written as it was.
pub fn proof_texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(head) = known().read_checkpoint(text) {
        // Others may have signed it, too.
        assert_eq!(known().read_checkpoint(CHECKPOINT).ok(), Some(head));
    }
    if let Ok(leaf) = serde_json::from_str::<ChargeLeaf<'_>>(text) {
        let written = leaf.text().expect("it was read");
        assert_eq!(serde_json::from_str::<ChargeLeaf<'_>>(&written).ok(), Some(leaf));
    }
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: proof_texts);
    sublet_fuzz::tests!(Slow: proof_bundle, proof_receipt);
}
