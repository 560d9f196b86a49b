//! The list of today's exceptions. It can only shrink.
//!
//! `xtask/ratchet.toml` has a section per check and an entry per file or function with the size of
//! the exception. A larger size fails, a smaller one must be written down at once, and once the
//! file says `sealed = true` no later version of it may have a new entry or a larger number:
//! the check compares all versions in the history with their successors.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::tidy::Finding;

/// Section (a check's name) → key → allowed size.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Ratchet {
    pub sealed: bool,
    entries: BTreeMap<(String, String), u64>,
}

/// The verdict on a set of findings.
#[derive(Default, Debug)]
pub struct Verdict {
    /// What must be mended, ready to print.
    pub failures: Vec<String>,
    /// Entries that are larger than needed: the size they must be lowered to, 0 to remove.
    pub lowered: BTreeMap<(String, String), u64>,
}

impl Ratchet {
    pub fn parse(text: &str) -> Result<Self> {
        let mut ratchet = Self::default();
        let mut section = String::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let at = || format!("ratchet line {}: {line}", index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
                continue;
            }
            let (key, value) = line.split_once(" = ").with_context(at)?;
            if section.is_empty() && key == "sealed" {
                ratchet.sealed = value.parse().with_context(at)?;
                continue;
            }
            let key = key.trim_matches('"').to_owned();
            let size: u64 = value.parse().with_context(at)?;
            if size == 0 || ratchet.entries.insert((section.clone(), key), size).is_some() {
                bail!("{}: an entry is positive and stands once", at());
            }
        }
        Ok(ratchet)
    }

    /// The names of all sections with entries.
    pub fn sections(&self) -> BTreeSet<&str> {
        self.entries.keys().map(|(section, _)| section.as_str()).collect()
    }

    /// Compares what was found with what is allowed.
    pub fn judge(&self, findings: &[Finding]) -> Verdict {
        let mut groups: BTreeMap<(String, String), Vec<&Finding>> = BTreeMap::new();
        for finding in findings {
            groups.entry((finding.check.to_owned(), finding.key.clone())).or_default().push(finding);
        }
        let mut verdict = Verdict::default();
        for (entry, group) in &groups {
            let found: u64 = group.iter().map(|finding| finding.size).sum();
            let allowed = self.entries.get(entry).copied().unwrap_or(0);
            if found > allowed {
                verdict.failures.extend(group.iter().map(ToString::to_string));
                if allowed > 0 {
                    verdict.failures.push(format!("  the ratchet allows {allowed} for {}, found {found}", entry.1));
                }
            } else if found < allowed {
                verdict.lowered.insert(entry.clone(), found);
            }
        }
        for entry in self.entries.keys().filter(|entry| !groups.contains_key(*entry)) {
            verdict.lowered.insert(entry.clone(), 0);
        }
        verdict
    }

    /// What in `later` this version forbids.
    pub fn growth(&self, later: &Self) -> Vec<String> {
        if !self.sealed {
            return Vec::new();
        }
        let mut grown = Vec::new();
        if !later.sealed {
            grown.push("the ratchet was unsealed".to_owned());
        }
        for (entry, size) in &later.entries {
            let before = self.entries.get(entry).copied().unwrap_or(0);
            if *size > before {
                grown.push(format!("the ratchet grew: [{}] \"{}\" from {before} to {size}", entry.0, entry.1));
            }
        }
        grown
    }

    /// The file's text with entries lowered or removed; nothing else changes.
    pub fn lower(text: &str, lowered: &BTreeMap<(String, String), u64>) -> String {
        let mut section = String::new();
        let mut kept = String::new();
        for line in text.lines() {
            if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            }
            let key = line.split_once(" = ").map(|(key, _)| key.trim_matches('"').to_owned());
            match key.and_then(|key| lowered.get(&(section.clone(), key.clone())).map(|size| (key, *size))) {
                Some((_, 0)) => {}
                Some((key, size)) => kept.push_str(&format!("\"{key}\" = {size}\n")),
                None => {
                    kept.push_str(line);
                    kept.push('\n');
                }
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# why\nsealed = true\n\n[size]\n\"a.rs::f\" = 80\n\"b.rs\" = 2\n";

    fn finding(key: &str, size: u64) -> Finding {
        Finding { check: "size", key: key.to_owned(), path: "a.rs".to_owned(), line: 1, size, message: "long".to_owned() }
    }

    #[test]
    fn an_exception_may_neither_grow_nor_stay_larger_than_needed() {
        let ratchet = Ratchet::parse(TEXT).unwrap();
        let same = ratchet.judge(&[finding("a.rs::f", 80), finding("b.rs", 1), finding("b.rs", 1)]);
        assert!(same.failures.is_empty() && same.lowered.is_empty());
        let grown = ratchet.judge(&[finding("a.rs::f", 81), finding("b.rs", 2)]);
        assert_eq!(grown.failures.len(), 2);
        let shrunk = ratchet.judge(&[finding("a.rs::f", 79)]);
        assert_eq!(shrunk.lowered.into_values().collect::<Vec<_>>(), [79, 0]);
        assert_eq!(ratchet.judge(&[finding("new.rs", 1), finding("a.rs::f", 80), finding("b.rs", 2)]).failures.len(), 1);
    }

    #[test]
    fn blessing_lowers_and_removes_and_keeps_the_rest() {
        let lowered = [(("size".to_owned(), "a.rs::f".to_owned()), 79), (("size".to_owned(), "b.rs".to_owned()), 0)].into();
        assert_eq!(Ratchet::lower(TEXT, &lowered), "# why\nsealed = true\n\n[size]\n\"a.rs::f\" = 79\n");
    }

    #[test]
    fn a_sealed_ratchet_refuses_new_entries_larger_numbers_and_unsealing() {
        let before = Ratchet::parse(TEXT).unwrap();
        for (later, refused) in [
            (TEXT.to_owned(), 0),
            (TEXT.replace("80", "70"), 0),
            (TEXT.replace("80", "90"), 1),
            (TEXT.replace("true", "false"), 1),
            (format!("{TEXT}\"c.rs\" = 1\n"), 1),
        ] {
            assert_eq!(before.growth(&Ratchet::parse(&later).unwrap()).len(), refused, "{later}");
        }
        let open = Ratchet::parse(&TEXT.replace("true", "false")).unwrap();
        assert!(open.growth(&Ratchet::parse(&TEXT.replace("80", "90")).unwrap()).is_empty());
    }

    #[test]
    fn a_damaged_ratchet_is_refused() {
        for text in ["[size]\n\"a\" = x\n", "[size]\n\"a\" = 0\n", "[size]\n\"a\" = 1\n\"a\" = 2\n", "[size]\nnonsense\n"] {
            assert!(Ratchet::parse(text).is_err(), "{text}");
        }
    }
}
