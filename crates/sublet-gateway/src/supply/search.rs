//! What comes of asking the replicas of a model one after the other.

use sublet_core::{DurationMs, Error, ErrorCode};

use super::station::Station;

/// What came of asking the replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// One answers, or it has failed.
    Settled,
    /// All that could be asked are full.
    Full,
    /// The same, and this is the shortest wait that one of them wants.
    Busy(DurationMs),
}

/// Which replicas it is the turn of a request to ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// Others wait for those of the fleet.
    Bought,
}

/// Why an attempt came to nothing.
pub(super) enum Miss {
    /// Another replica would say the same.
    Request(Error),
    /// This one has too much to do; when it wants to be asked again, if it says so.
    Busy(Option<DurationMs>),
    /// Somebody of a higher tier needed its place.
    GaveWay,
    /// This one does not serve such requests.
    Unfit(Error),
    Broken(Error),
    /// It was asked and may still be at work: nobody else is.
    Late(Error),
}

pub(super) fn broken(why: impl Into<String>) -> Miss {
    Miss::Broken(failure(why))
}

pub(super) fn failure(why: impl Into<String>) -> Error {
    Error::new(ErrorCode::UpstreamFailed, "the model's server gave no usable answer").context(why)
}

pub(super) fn silence(after: DurationMs) -> Error {
    let message = format!("the model's server said nothing for {} s", after.seconds_ceil());
    Error::new(ErrorCode::UpstreamTimeout, message)
}

/// What was found while asking.
pub(super) struct Found {
    reach: Reach,
    /// Somebody has no place.
    full: bool,
    /// Somebody of the fleet has no place.
    fleet_full: bool,
    /// The shortest wait that those who were asked want.
    wait: Option<DurationMs>,
    /// The last failure, and whether the fleet has failed.
    miss: Option<Error>,
    fleet_missed: bool,
}

impl Found {
    pub fn new(reach: Reach) -> Self {
        Self { reach, full: false, fleet_full: false, wait: None, miss: None, fleet_missed: false }
    }

    pub fn full(&mut self, station: &Station) {
        self.full = true;
        self.fleet_full |= !station.is_bought();
    }

    /// It has too much to do, and wants to be asked again after some time, if it says so.
    pub fn busy(&mut self, station: &Station, named: Option<DurationMs>) {
        if named.is_none() {
            self.full(station);
        }
        self.wait = self.wait.into_iter().chain(named).min();
    }

    pub fn missed(&mut self, station: &Station, error: Error) {
        self.fleet_missed |= !station.is_bought();
        self.miss = Some(error);
    }

    /// What to do next, or the failure; none if nobody could be asked.
    pub fn outcome(self) -> Result<Tried, Option<Error>> {
        // The fleet has no place yet: that nothing can be bought meanwhile ends no request.
        let waits_for_fleet = self.reach == Reach::Bought || (self.fleet_full && !self.fleet_missed);
        match (self.miss, self.wait) {
            _ if waits_for_fleet => Ok(Tried::Full),
            (Some(error), _) => Err(Some(error)),
            (None, Some(wait)) if !self.full => Ok(Tried::Busy(wait)),
            (None, wait) if self.full || wait.is_some() => Ok(Tried::Full),
            (None, _) => Err(None),
        }
    }
}
