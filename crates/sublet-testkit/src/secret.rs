//! Secrets that are known beforehand.

use sublet_core::supply::{SecretName, SecretSource};
use sublet_core::{Error, Result};

/// Names with their secrets.
pub(crate) struct KnownSecrets(pub &'static [(&'static str, &'static str)]);

impl SecretSource for KnownSecrets {
    fn read(&self, name: &SecretName) -> Result<String> {
        let known = self.0.iter().find(|(known, _)| *known == name.as_str());
        known
            .map(|(_, secret)| (*secret).to_owned())
            .ok_or_else(|| Error::internal(format!("there is no secret {}", name.as_str())))
    }
}
