//! Where an interval of use falls: the periods and bands that it is charged in.

use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::period::{BillingCalendar, Interval, PeriodKey};
use crate::price_book::{PriceOverTime, PriceStretch};
use crate::time_of_use::BandName;

/// A part of an interval that is charged on one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    pub period: PeriodKey,
    /// `None` outside of all bands.
    pub band: Option<BandName>,
    pub interval: Interval,
    pub end: StretchEnd,
}

/// Why a stretch ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StretchEnd {
    /// The interval does.
    Asked,
    /// A billing period ended, and perhaps a band too.
    Period,
    /// A band of the price ended or began.
    Band,
}

/// Most stretches that one interval may have.
pub const STRETCHES_MAX: usize = 10_000;

/// The stretches of an interval, in order. They tile it.
#[derive(Clone, Debug)]
pub struct Stretches<'a> {
    calendar: &'a BillingCalendar,
    price: PriceOverTime<'a>,
    /// What is not given out yet.
    left: Interval,
    given: usize,
}

impl<'a> Stretches<'a> {
    pub const fn new(calendar: &'a BillingCalendar, price: PriceOverTime<'a>, interval: Interval) -> Self {
        Self { calendar, price, left: interval, given: 0 }
    }

    fn first(&self) -> Result<Stretch> {
        if self.given >= STRETCHES_MAX {
            let reason = format!("an interval spans at most {STRETCHES_MAX} billing periods and bands of a price");
            return Err(Error::new(ErrorCode::InvalidRequest, reason));
        }
        let Interval { starts_at, ends_at: asked } = self.left;
        let period = self.calendar.period_at(starts_at)?;
        let (mut ends_at, mut end) = (asked, StretchEnd::Asked);
        let mut cut = |at: Timestamp, why| {
            if at < ends_at {
                (ends_at, end) = (at, why);
            }
        };
        cut(period.interval.ends_at, StretchEnd::Period);
        let mut band = None;
        if let Some(stretch) = self.price.stretch_at(starts_at)? {
            cut(self.end_of(&stretch, period.interval.ends_at.min(asked))?, StretchEnd::Band);
            band = stretch.band;
        }
        Ok(Stretch { period: period.key, band, interval: Interval { starts_at, ends_at }, end })
    }

    /// Where a band ends; at the latest where nobody looks any further. Windows that touch and clocks that change are no end.
    fn end_of(&self, PriceStretch { band, until }: &PriceStretch, latest: Timestamp) -> Result<Timestamp> {
        let mut until = *until;
        while until < latest {
            match self.price.stretch_at(until)? {
                Some(next) if next.band == *band => until = next.until,
                Some(_) | None => return Ok(until),
            }
        }
        Ok(latest)
    }
}

impl Iterator for Stretches<'_> {
    type Item = Result<Stretch>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let first = self.first();
        self.left.starts_at = first.as_ref().map_or(self.left.ends_at, |stretch| stretch.interval.ends_at);
        self.given += 1;
        Some(first)
    }
}
