//! Countries, and the jurisdictions that levy taxes.
//!
//! Codes are those of ISO 3166-1 alpha-2, and of ISO 3166-2 for parts of a country.
//!
//! Deliberately absent: territories with a tax of their own within a country of the European Union (Canary Islands,
//! Åland, Livigno): they are rows of the tax table, or an exemption on record.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};

/// ISO 3166-1 alpha-2, as of 2025.
const COUNTRIES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV \
    BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA \
    GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI \
    KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA \
    NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK \
    SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS \
    YE YT ZA ZM ZW";

/// Members of the European Union.
const EUROPEAN_UNION: &str = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK";

/// Longest part after the country in ISO 3166-2.
const SUBDIVISION_MAX_CHARS: usize = 3;

/// A country by its code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country([u8; 2]);

impl Country {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("ZZ")
    }
    /// Whether it is in the common system of value added tax.
    pub fn is_in_european_union(self) -> bool {
        EUROPEAN_UNION.split(' ').any(|code| code == self.as_str())
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for Country {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let known = text.len() == 2 && COUNTRIES.split_ascii_whitespace().any(|code| code == text);
        match <[u8; 2]>::try_from(text.as_bytes()) {
            Ok(code) if known => Ok(Self(code)),
            _ => {
                let shown: String = text.chars().take(20).collect();
                Err(Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a country of ISO 3166-1"))
                    .alternative("two capital letters, such as DE"))
            }
        }
    }
}
impl TryFrom<String> for Country {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Country> for String {
    fn from(country: Country) -> Self {
        country.as_str().to_owned()
    }
}

/// The code of a part of a country, without the country: `QC`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subdivision(String);

impl Subdivision {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Subdivision {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        if (1..=SUBDIVISION_MAX_CHARS).contains(&text.len()) && text.bytes().all(is_code) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(20).collect();
        Err(Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not the code of a part of a country"))
            .alternative("what ISO 3166-2 has after the country, such as QC of CA-QC"))
    }
}
impl TryFrom<String> for Subdivision {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Subdivision> for String {
    fn from(subdivision: Subdivision) -> Self {
        subdivision.0
    }
}

/// Where a tax is levied: a country or a part of one. `DE`, `CA-QC`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Jurisdiction {
    country: Country,
    subdivision: Option<Subdivision>,
}

impl Jurisdiction {
    pub const fn new(country: Country, subdivision: Option<Subdivision>) -> Self {
        Self { country, subdivision }
    }
    pub const fn country(&self) -> Country {
        self.country
    }
    pub const fn subdivision(&self) -> Option<&Subdivision> {
        self.subdivision.as_ref()
    }
}

impl fmt::Display for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subdivision {
            Some(part) => write!(f, "{}-{}", self.country, part.as_str()),
            None => write!(f, "{}", self.country),
        }
    }
}
impl fmt::Debug for Jurisdiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for Jurisdiction {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (country, subdivision) = match text.split_once('-') {
            Some((country, part)) => (country, Some(part.parse()?)),
            None => (text, None),
        };
        Ok(Self { country: country.parse()?, subdivision })
    }
}
impl TryFrom<String> for Jurisdiction {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Jurisdiction> for String {
    fn from(jurisdiction: Jurisdiction) -> Self {
        jurisdiction.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_those_of_the_standard() {
        assert_eq!(COUNTRIES.split_ascii_whitespace().count(), 249);
        assert!(COUNTRIES.split_ascii_whitespace().is_sorted());
        for text in ["DE", "CA", "US", "GR"] {
            assert_eq!(text.parse::<Country>().unwrap().to_string(), text);
        }
        for text in ["", "de", "EL", "UK", "XI", "EU", "D", "DEU", "ÄÖ"] {
            assert!(text.parse::<Country>().is_err(), "{text}");
        }
    }

    #[test]
    fn members_of_the_union_are_countries() {
        let members: Vec<Country> = EUROPEAN_UNION.split(' ').map(|code| code.parse().unwrap()).collect();
        assert_eq!(members.len(), 27);
        assert!(members.iter().all(|country| country.is_in_european_union()));
        for outside in ["CH", "GB", "NO", "US"] {
            assert!(!outside.parse::<Country>().unwrap().is_in_european_union());
        }
    }

    #[test]
    fn jurisdictions_are_countries_or_parts_of_them() {
        for text in ["DE", "CA-QC", "US-CA", "GB-ENG", "AT-9"] {
            assert_eq!(text.parse::<Jurisdiction>().unwrap().to_string(), text);
        }
        for text in ["", "DE-", "-QC", "CA-qc", "CA-QUEB", "CA-Q-C", "XX-A"] {
            assert!(text.parse::<Jurisdiction>().is_err(), "{text}");
        }
    }
}
