//! Offerings: what is for sale, to whom, and until when.
//!
//! Invariants: whoever an offering does not reach cannot tell its product from one that never was; what retires
//! takes no new users, and is refused for all from its end on, without anybody's act; what has no offering is public.
//!
//! Deliberately absent: prices, without which nothing is sold whatever its state, and how an organization came to be
//! invited or to be a user, which are rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::device::DeviceKind;
use crate::error::{Error, ErrorCode, Result};
use crate::named_state::named_states;
use crate::notice::NoticeClass;
use crate::time::Timestamp;

/// Longest name of a model, in bytes.
const MODEL_BYTES_MAX: usize = 128;

/// What is sold: a model, or time on devices of a kind.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Product {
    Model(Arc<str>),
    /// At one notice, or at all of them.
    Device {
        kind: DeviceKind,
        notice: Option<NoticeClass>,
    },
}

impl Product {
    /// What customers call it.
    pub fn name(&self) -> &str {
        match self {
            Self::Model(name) => name,
            Self::Device { kind, .. } => kind.as_str(),
        }
    }

    /// What counts for this product while nothing is said of it alone: of time at one notice, the kind's.
    pub fn general(&self) -> Option<Self> {
        match self {
            Self::Device { kind, notice: Some(_) } => Some(Self::Device { kind: kind.clone(), notice: None }),
            Self::Model(_) | Self::Device { notice: None, .. } => None,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(name) => write!(f, "model/{name}"),
            Self::Device { kind, notice: None } => write!(f, "device/{kind}"),
            Self::Device { kind, notice: Some(notice) } => write!(f, "device/{notice}/{kind}"),
        }
    }
}

impl FromStr for Product {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let shown: String = text.chars().take(60).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a product"))
                .alternative("write model/NAME, device/KIND or device/NOTICE/KIND")
        };
        let (what, name) = text.split_once('/').ok_or_else(wrong)?;
        let device = |kind: &str, notice| Ok(Self::Device { kind: kind.parse().map_err(|_| wrong())?, notice });
        match what {
            "model" if (1..=MODEL_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Self::Model(name.into()))
            }
            "device" => match name.split_once('/').map(|(notice, kind)| (notice.parse::<NoticeClass>(), kind)) {
                Some((Ok(notice), kind)) => device(kind, Some(notice)),
                Some((Err(_), _)) | None => device(name, None),
            },
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Product {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Product> for String {
    fn from(product: Product) -> Self {
        product.to_string()
    }
}

named_states! {
    /// How far a product is in its life.
    OfferingState, "a state of an offering" {
        /// Only the operator knows of it.
        Draft = "draft",
        /// For organizations that were invited, and known to nobody else.
        Invited = "invited",
        /// For everybody, without a promise.
        Preview = "preview",
        Public = "public",
        /// For those who use it, until an instant.
        Retiring = "retiring",
        /// For nobody any more.
        Retired = "retired",
    }
}

named_states! {
    /// Who may know that a product exists.
    Reach, "a reach" {
        Nobody = "nobody",
        Invited = "invited",
        Everyone = "everyone",
    }
}

/// When a product ends or ended, and what takes its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    pub at: Timestamp,
    pub successor: Option<Product>,
}

/// A product's state since its last change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offering {
    pub product: Product,
    /// How often it was changed.
    pub number: i64,
    pub state: OfferingState,
    pub reach: Reach,
    /// Of what retires or is retired.
    pub end: Option<End>,
    /// The change that announced the end: its users may go on.
    pub users_of: Option<i64>,
}

/// What is to become of an offering.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferingChange {
    pub state: OfferingState,
    /// Of `retiring`, and only there.
    pub ends_at: Option<Timestamp>,
    /// Of `retiring` and `retired`.
    pub successor: Option<Product>,
}

/// What one organization may use that not everybody may.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Entitlements {
    pub invited: BTreeSet<Product>,
    /// What it used when the end was announced.
    pub using: BTreeSet<Product>,
}

/// Whether an organization may begin to use a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offered<'a> {
    Open,
    /// To this organization it does not exist.
    Hidden,
    /// It retires, and takes no new users.
    Closed(&'a End),
    /// It is retired.
    Ended(&'a End),
}

fn invalid(param: &str, message: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

fn same_kind(a: &Product, b: &Product) -> bool {
    match (a, b) {
        (Product::Model(_), Product::Model(_)) | (Product::Device { .. }, Product::Device { .. }) => true,
        (Product::Model(_), Product::Device { .. }) | (Product::Device { .. }, Product::Model(_)) => false,
    }
}

/// What a change makes of a product's offering. `before` is the one that counts for it now, its own or that of
/// [`Product::general`]; without any the product is public. What is the case already changes nothing and answers `None`.
pub fn plan_change(
    product: &Product,
    before: Option<&Offering>,
    change: &OfferingChange,
    now: Timestamp,
) -> Result<Option<Offering>> {
    let state_before = before.map_or(OfferingState::Public, |before| before.state_at(now));
    let own = before.filter(|before| before.product == *product);
    let number = own.map_or(0, |own| own.number) + 1;
    let reach_before = before.map_or(Reach::Everyone, |before| before.reach);
    let end_before = before.and_then(|before| before.end.as_ref());
    let users_before = own.and_then(|own| own.users_of);
    if change.successor.as_ref().is_some_and(|successor| successor == product || !same_kind(successor, product)) {
        return Err(invalid("successor", "the successor of a model is another model, that of devices other devices"));
    }
    if change.ends_at.is_some() && change.state != OfferingState::Retiring {
        return Err(invalid("ends_at", "only what retires has an end"));
    }
    let successor_before = || end_before.and_then(|end| end.successor.clone()).filter(|successor| successor != product);
    let successor = || change.successor.clone().or_else(successor_before);
    let (reach, end, users_of) = match (change.state, change.ends_at) {
        (OfferingState::Retiring, None) => return Err(invalid("ends_at", "what retires has an end: say when")),
        (OfferingState::Retiring, Some(at)) if at <= now => return Err(invalid("ends_at", "what retires ends in the future")),
        (OfferingState::Retiring, Some(at)) => {
            let users = match state_before {
                OfferingState::Draft | OfferingState::Retired => {
                    let message = format!("{product} is {state_before}: nobody uses it who could go on");
                    return Err(Error::new(ErrorCode::Conflict, message).param("state").alternative("retired"));
                }
                OfferingState::Retiring if own.is_some() => users_before,
                OfferingState::Retiring | OfferingState::Invited | OfferingState::Preview | OfferingState::Public => Some(number),
            };
            (reach_before, Some(End { at, successor: successor() }), users)
        }
        (OfferingState::Retired, _) => {
            let at = end_before.map_or(now, |end| end.at.min(now));
            (reach_before, Some(End { at, successor: successor() }), users_before)
        }
        (OfferingState::Draft | OfferingState::Invited | OfferingState::Preview | OfferingState::Public, _) => {
            if change.successor.is_some() {
                return Err(invalid("successor", "only what retires or is retired has a successor"));
            }
            (reach_of(change.state), None, None)
        }
    };
    let after = Offering { product: product.clone(), number, state: change.state, reach, end, users_of };
    let is_news = match own {
        Some(own) => Offering { number, ..own.clone() } != after,
        // What is said of the product alone stays when its kind's offering changes.
        None => before.is_some() || after.state != OfferingState::Public,
    };
    Ok(is_news.then_some(after))
}

const fn reach_of(state: OfferingState) -> Reach {
    match state {
        OfferingState::Draft => Reach::Nobody,
        OfferingState::Invited => Reach::Invited,
        OfferingState::Preview | OfferingState::Public | OfferingState::Retiring | OfferingState::Retired => Reach::Everyone,
    }
}

impl Offering {
    /// The state as it is: what retires is retired at its end.
    pub fn state_at(&self, now: Timestamp) -> OfferingState {
        match (self.state, &self.end) {
            (OfferingState::Retiring, Some(end)) if end.at <= now => OfferingState::Retired,
            (state, _) => state,
        }
    }

    /// Whether an organization may begin to use the product.
    pub fn offered_to(&self, entitlements: &Entitlements, now: Timestamp) -> Offered<'_> {
        let (invited, using) = (entitlements.invited.contains(&self.product), entitlements.using.contains(&self.product));
        let knows = match self.reach {
            Reach::Everyone => true,
            Reach::Invited => invited || using,
            Reach::Nobody => false,
        };
        if !knows {
            return Offered::Hidden;
        }
        match (self.state_at(now), &self.end) {
            (OfferingState::Retiring, Some(end)) if !using => Offered::Closed(end),
            (OfferingState::Retired, Some(end)) => Offered::Ended(end),
            (OfferingState::Retired | OfferingState::Draft, _) => Offered::Hidden,
            (OfferingState::Invited | OfferingState::Preview | OfferingState::Public | OfferingState::Retiring, _) => Offered::Open,
        }
    }

    /// The end that was announced to those who use it.
    pub fn announced_end(&self, now: Timestamp) -> Option<&End> {
        self.end.as_ref().filter(|_| self.state_at(now) == OfferingState::Retiring)
    }
}

/// All offerings at one time.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Offerings {
    models: BTreeMap<Arc<str>, Arc<Offering>>,
    devices: BTreeMap<(DeviceKind, Option<NoticeClass>), Arc<Offering>>,
}

impl Offerings {
    pub fn new(offerings: impl IntoIterator<Item = Offering>) -> Self {
        let mut all = Self::default();
        for offering in offerings {
            let offering = Arc::new(offering);
            match &offering.product {
                Product::Model(name) => all.models.insert(Arc::clone(name), Arc::clone(&offering)),
                Product::Device { kind, notice } => all.devices.insert((kind.clone(), *notice), Arc::clone(&offering)),
            };
        }
        all
    }
    pub fn find_model(&self, name: &str) -> Option<&Arc<Offering>> {
        self.models.get(name)
    }
    /// Kinds of devices of which something is said.
    pub fn device_kinds(&self) -> impl Iterator<Item = &DeviceKind> {
        self.devices.keys().map(|(kind, _)| kind)
    }
    /// That of the kind at this notice, or else that of the kind.
    pub fn find_device(&self, kind: &DeviceKind, notice: NoticeClass) -> Option<&Arc<Offering>> {
        let exact = self.devices.get(&(kind.clone(), Some(notice)));
        exact.or_else(|| self.devices.get(&(kind.clone(), None)))
    }
}

#[cfg(test)]
#[path = "offering_tests.rs"]
mod tests;
