//! Jobs that wait, by how many units they want: those that do not fit keep nobody from being asked.
//!
//! Invariant: of the jobs that fit, who came first is first.

use std::collections::{BTreeMap, BTreeSet};

/// Jobs by their place, which is the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Queue {
    by_units: BTreeMap<u32, BTreeSet<usize>>,
}

impl Queue {
    pub(super) fn insert(&mut self, place: usize, units: u32) {
        self.by_units.entry(units).or_default().insert(place);
    }

    pub(super) fn remove(&mut self, place: usize, units: u32) {
        if let Some(places) = self.by_units.get_mut(&units) {
            places.remove(&place);
            if places.is_empty() {
                self.by_units.remove(&units);
            }
        }
    }

    /// Who came first of those that want no more than this.
    pub(super) fn first_within(&self, units: u32) -> Option<usize> {
        self.by_units.range(..=units).filter_map(|(_, places)| places.first().copied()).min()
    }

    pub(super) fn len(&self) -> usize {
        self.by_units.values().map(BTreeSet::len).sum()
    }
}
