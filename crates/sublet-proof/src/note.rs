//! Signed notes and checkpoints, as C2SP specifies them (`signed-note`, `tlog-checkpoint`): a text, an empty line, and
//! lines with signatures. A checkpoint's text says which log it is of, how many entries it has, and its root.
//!
//! A key is known to others by its *verifier key*: name, key id and public key in one line. Signatures are Ed25519
//! (RFC 8032), which needs no randomness.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sublet_core::error::{Error, ErrorCode, Result};

use crate::merkle::{Hash, TreeHead};

/// Longest note that is read, in bytes.
const NOTE_MAX_BYTES: usize = 16 << 10;
/// Most signatures of a note that are looked at.
const SIGNATURES_MAX: usize = 16;
/// The kind of key and signature: Ed25519.
const ED25519_KIND: u8 = 1;
/// Bytes of a key id.
const KEY_ID_BYTES: usize = 4;
/// What every signature line begins with: an em dash and a space.
const SIGNATURE_MARK: &str = "— ";

/// A secret key that signs the checkpoints of one log. Printed nowhere.
pub struct LogKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl LogKey {
    /// The key of 32 random bytes. The log is named after its public key, so no two logs have one name.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::internal("a seed of 32 bytes is a key"))?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| Error::internal("a public key has 32 bytes"))?;
        let hex: String = Hash::of(&public).bytes().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let verifier = VerifierKey { name: format!("sublet-{hex}"), public };
        Ok(Self { pair, verifier })
    }
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }
    /// The signature over bytes, 64 of them.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
    /// The checkpoint of a tree as a signed note.
    pub fn checkpoint(&self, head: TreeHead) -> String {
        let name = &self.verifier.name;
        let text = format!("{name}\n{}\n{}\n", head.size, head.root);
        let mut signature = self.verifier.id().to_vec();
        signature.extend(self.sign(text.as_bytes()));
        format!("{text}\n{SIGNATURE_MARK}{name} {}\n", BASE64.encode(signature))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", self.verifier)
    }
}

/// The public key of a log: `name+id+key`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// What the log is called.
    pub fn name(&self) -> &str {
        &self.name
    }
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }
    fn id(&self) -> [u8; KEY_ID_BYTES] {
        let digest = Hash::of_parts(&[self.name.as_bytes(), &[b'\n', ED25519_KIND], &self.public]);
        let [a, b, c, d, ..] = *digest.bytes();
        [a, b, c, d]
    }
    /// Whether a signature over bytes is of this key.
    pub fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }

    /// The tree that a checkpoint of this key's log says. An error for one of another log, without a good signature of
    /// this key, or not of the form.
    pub fn read_checkpoint(&self, note: &str) -> Result<TreeHead> {
        if note.len() > NOTE_MAX_BYTES {
            return Err(bad(format!("a checkpoint has at most {NOTE_MAX_BYTES} bytes")));
        }
        let (text, signatures) =
            note.rsplit_once("\n\n").ok_or_else(|| bad("a checkpoint has an empty line before its signatures".to_owned()))?;
        let text = format!("{text}\n");
        let mark = format!("{SIGNATURE_MARK}{} ", self.name);
        let is_signed = signatures.ends_with('\n')
            && signatures.lines().take(SIGNATURES_MAX).filter_map(|line| line.strip_prefix(&mark)).any(|encoded| {
                let signature = BASE64.decode(encoded).unwrap_or_default();
                let signature = signature.strip_prefix(&self.id());
                signature.is_some_and(|signature| self.is_signed(text.as_bytes(), signature))
            });
        if !is_signed {
            return Err(bad(format!("the checkpoint has no good signature of {self}")));
        }
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        if origin != Some(self.name.as_str()) {
            return Err(bad(format!("the checkpoint is not of {}", self.name)));
        }
        let size = size.and_then(|text| text.parse::<u64>().ok().filter(|size| size.to_string() == text));
        let root = root.and_then(|text| text.parse::<Hash>().ok());
        let head = size.zip(root).map(|(size, root)| TreeHead { size, root });
        head.ok_or_else(|| bad("a checkpoint says its size and its root in lines of their own".to_owned()))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_KIND];
        key.extend(self.public);
        let [a, b, c, d] = self.id();
        write!(f, "{}+{a:02x}{b:02x}{c:02x}{d:02x}+{}", self.name, BASE64.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<Self> {
            let mut parts = text.splitn(3, '+');
            let (name, _, key) = (parts.next()?, parts.next()?, parts.next()?);
            let bytes = BASE64.decode(key).ok()?;
            let public = bytes.strip_prefix(&[ED25519_KIND])?.try_into().ok()?;
            let is_name = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control());
            let read = Self { name: name.to_owned(), public };
            // The id in the middle is that of the name and the key.
            (is_name && read.to_string() == text).then_some(read)
        };
        parse().ok_or_else(|| {
            let shown: String = text.chars().take(120).collect();
            bad(format!("'{shown}' is no verifier key")).alternative("write it as name+id+key, as 'sublet log key' prints it")
        })
    }
}

fn bad(message: String) -> Error {
    Error::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> LogKey {
        LogKey::from_seed(&[7; 32]).unwrap()
    }
    fn head() -> TreeHead {
        TreeHead { size: 20_852_163, root: Hash::of(b"root") }
    }

    /// The first test of RFC 8032, section 7.1: what signs here is Ed25519.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let bytes = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let seed = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = LogKey::from_seed(seed.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(key.verifier().public().to_vec(), bytes("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
        let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        assert_eq!(key.sign(b""), bytes(signature));
    }

    #[test]
    fn a_checkpoint_is_read_with_the_key_that_signed_it() {
        let note = key().checkpoint(head());
        assert_eq!(key().verifier().read_checkpoint(&note).unwrap(), head());
        let other = LogKey::from_seed(&[8; 32]).unwrap();
        assert!(other.verifier().read_checkpoint(&note).is_err());
        // A witness adds its line; ours is still found.
        let witnessed = format!("{note}— witness.example {}\n", BASE64.encode([9; 68]));
        assert_eq!(key().verifier().read_checkpoint(&witnessed).unwrap(), head());
    }

    #[test]
    fn a_checkpoint_with_any_bit_changed_is_refused() {
        let note = key().checkpoint(head());
        for place in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(key().verifier().read_checkpoint(&changed).is_err(), "bit {bit} of byte {place}: {changed}");
            }
        }
    }

    #[test]
    fn a_verifier_key_is_written_in_one_way() {
        let text = key().verifier().to_string();
        assert_eq!(text.parse::<VerifierKey>().unwrap(), *key().verifier());
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(changed.parse::<VerifierKey>().is_err(), "{changed}");
            }
        }
        assert!("".parse::<VerifierKey>().is_err());
    }
}
