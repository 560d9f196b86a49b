//! COSE receipts (RFC 9942): that an entry is in a tree, in the form that programs for signed statements read.
//!
//! A receipt is a COSE_Sign1 (RFC 9052) whose detached payload is the tree's root. Its protected header says how the
//! tree is made (`vds` 1: SHA-256 trees of RFC 9162), its unprotected one has the path.

use coset::cbor::value::Value;
use coset::{CborSerializable as _, CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};
use sublet_core::error::{Error, Result};

use crate::merkle::Hash;
use crate::note::{LogKey, VerifierKey};

/// The header that names the structure of the verifiable data.
const VDS: i64 = 395;
/// SHA-256 trees as RFC 9162 has them.
const RFC_9162_SHA_256: i64 = 1;
/// The header with proofs.
const VDP: i64 = 396;
/// Proofs of inclusion, within that header.
const INCLUSION: i64 = -1;

/// Where an entry is in a tree.
#[derive(Clone, Copy, Debug)]
pub struct Inclusion<'a> {
    pub size: u64,
    pub index: u64,
    pub path: &'a [Hash],
    pub root: Hash,
}

impl Inclusion<'_> {
    fn unsigned(&self, key: &VerifierKey) -> Result<CoseSign1> {
        let path = self.path.iter().map(|hash| Value::Bytes(hash.bytes().to_vec())).collect();
        let proof = Value::Array(vec![self.size.into(), self.index.into(), Value::Array(path)]);
        let proof = proof.to_vec().map_err(|error| Error::internal(format!("a proof has no CBOR form: {error}")))?;
        let proofs = Value::Map(vec![(INCLUSION.into(), Value::Array(vec![Value::Bytes(proof)]))]);
        let protected = HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .key_id(key.name().as_bytes().to_vec())
            .value(VDS, RFC_9162_SHA_256.into())
            .build();
        Ok(CoseSign1Builder::new().protected(protected).unprotected(HeaderBuilder::new().value(VDP, proofs).build()).build())
    }

    /// The receipt, tagged.
    pub fn sign(&self, key: &LogKey) -> Result<Vec<u8>> {
        let mut receipt = self.unsigned(key.verifier())?;
        receipt.signature = key.sign(&receipt.tbs_detached_data(self.root.bytes(), &[]));
        receipt.to_tagged_vec().map_err(|error| Error::internal(format!("a receipt has no CBOR form: {error}")))
    }

    /// Whether a receipt says just this, in the form in which it is written here, and is signed.
    pub fn is_signed(&self, key: &VerifierKey, receipt: &[u8]) -> bool {
        let read = || -> Option<bool> {
            let signature = CoseSign1::from_tagged_slice(receipt).ok()?.signature;
            let mut same = self.unsigned(key).ok()?;
            let is_signed = key.is_signed(&same.tbs_detached_data(self.root.bytes(), &[]), &signature);
            same.signature = signature;
            Some(is_signed && same.to_tagged_vec().ok()? == receipt)
        };
        read().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> LogKey {
        LogKey::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn a_receipt_is_of_one_place_in_one_tree_and_of_one_key() {
        let path = [Hash::of(b"a"), Hash::of(b"b")];
        let inclusion = Inclusion { size: 4, index: 2, path: &path, root: Hash::of(b"root") };
        let receipt = inclusion.sign(&key(7)).unwrap();
        assert!(inclusion.is_signed(key(7).verifier(), &receipt));
        assert!(!inclusion.is_signed(key(8).verifier(), &receipt));
        for other in [
            Inclusion { size: 5, ..inclusion },
            Inclusion { index: 3, ..inclusion },
            Inclusion { path: &path[1..], ..inclusion },
            Inclusion { root: Hash::of(b"another"), ..inclusion },
        ] {
            assert!(!other.is_signed(key(7).verifier(), &receipt), "{other:?}");
        }
    }

    #[test]
    fn a_receipt_with_any_bit_changed_is_refused() {
        let path = [Hash::of(b"a")];
        let inclusion = Inclusion { size: 2, index: 0, path: &path, root: Hash::of(b"root") };
        let receipt = inclusion.sign(&key(7)).unwrap();
        for place in 0..receipt.len() {
            for bit in 0..8 {
                let mut changed = receipt.clone();
                changed[place] ^= 1 << bit;
                assert!(!inclusion.is_signed(key(7).verifier(), &changed), "bit {bit} of byte {place}");
            }
        }
        assert!(!inclusion.is_signed(key(7).verifier(), &[]));
    }
}
