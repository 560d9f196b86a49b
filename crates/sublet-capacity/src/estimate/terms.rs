//! What a replay is asked under: prices, notices, reclaim times, and what a broken promise costs.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::notice::NoticeClass;

/// Parts of a whole.
pub const PPM: u64 = 1_000_000;
/// Notice classes.
pub const CLASSES: usize = NoticeClass::ALL.len();
const HOUR_S: i64 = 3_600;
/// A broken notice of an hour or more is paid with this much of its price: the price and a quarter.
const MISSING_NOTICE_PPM: u64 = PPM + PPM / 4;

/// The owner's terms of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// From the order to kill until the unit is free of an `n0` lease, or of one whose promise is broken.
    pub kill_s: u32,
    /// Cleaning, behind every lease.
    pub reclaim_s: u32,
    /// Price of each class in parts per million of the list price, shortest notice first; never falling.
    pub prices_ppm: [u64; CLASSES],
}

impl Default for Terms {
    fn default() -> Self {
        Self { kill_s: 5, reclaim_s: 0, prices_ppm: [250_000, 400_000, 550_000, 700_000, 850_000, 1_000_000] }
    }
}

/// The place of a class, shortest notice first.
pub fn index(class: NoticeClass) -> usize {
    match class {
        NoticeClass::N0 => 0,
        NoticeClass::N2m => 1,
        NoticeClass::N15m => 2,
        NoticeClass::N1h => 3,
        NoticeClass::N24h => 4,
        NoticeClass::Firm => 5,
    }
}

/// The shortest life of a lease of a class, in seconds: its notice, or seven days for `firm`.
pub fn term_s(class: NoticeClass) -> i64 {
    class.minimum_term().millis() / 1_000
}

/// Highest price in parts of the list price.
const PRICE_MAX: u64 = 1_000;
/// Decimals of a price.
const DECIMALS: usize = 6;

/// A price such as `.25`, `0.7` or `1`, in parts per million.
fn price(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || part.len() > DECIMALS || !is_number(whole) || !is_number(part) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok().filter(|whole| *whole < PRICE_MAX)? };
    Some(whole * PPM + format!("{part:0<DECIMALS$}").parse::<u64>().ok()?)
}

impl Terms {
    /// These terms with other prices: `n0=.2,firm=1.1`; classes that are not named keep theirs.
    ///
    /// # Errors
    /// [`ErrorCode::Usage`] if it is no list of prices, or a longer notice would be cheaper.
    pub fn with_prices(mut self, list: &str) -> Result<Self> {
        let remedy = "give parts of the list price by class, such as n0=.25,n2m=.4,n15m=.55,n1h=.7,n24h=.85,firm=1";
        let wrong = |message: String| Error::new(ErrorCode::Usage, message).alternative(remedy);
        for part in list.split(',') {
            let found = part.split_once('=').and_then(|(class, text)| class.trim().parse().ok().zip(price(text.trim())));
            let Some((class, price)) = found else {
                let shown: String = part.chars().filter(|c| !c.is_control()).take(40).collect();
                return Err(wrong(format!("'{shown}' is no price of a notice class")));
            };
            self.prices_ppm[index(class)] = price;
        }
        if !self.prices_ppm.is_sorted() {
            return Err(wrong("a longer notice would be cheaper than a shorter one".to_owned()));
        }
        Ok(self)
    }

    pub fn price_ppm(&self, class: NoticeClass) -> u64 {
        self.prices_ppm[index(class)]
    }

    /// What a broken promise costs, in seconds of list price and parts per million: the default rules
    /// of decision 0140. `age_s` is how long the lease ran, `missing_s` the notice that was missing.
    pub fn compensation(&self, class: NoticeClass, age_s: i64, missing_s: i64) -> u128 {
        let price = u128::from(self.price_ppm(class));
        let seconds = |seconds: i64| u128::try_from(seconds.max(0)).unwrap_or(0);
        match class {
            NoticeClass::N0 | NoticeClass::Firm => 0,
            NoticeClass::N2m => price * seconds(age_s.min(HOUR_S)),
            NoticeClass::N15m => 2 * price * seconds((HOUR_S - age_s.rem_euclid(HOUR_S)) % HOUR_S),
            NoticeClass::N1h | NoticeClass::N24h => price * seconds(missing_s) * u128::from(MISSING_NOTICE_PPM) / u128::from(PPM),
        }
    }
}
