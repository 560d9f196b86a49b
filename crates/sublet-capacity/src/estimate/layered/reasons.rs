//! Why the policy's levels are what they are.

use super::{CLASSES, Layered, OF_CAPACITY_PPM, OF_LEAST_PPM, Step, WINDOWS_S};
use crate::curve::LevelReason;

impl Layered {
    /// The reason of each level that was decided at this step.
    pub(in crate::estimate) fn reasons(&self, step: &Step) -> [LevelReason; CLASSES] {
        if !step.valid {
            return [LevelReason::Outage; CLASSES];
        }
        let is_early = self.known_since_s.is_some_and(|since| step.at_s - since < self.limits.caution_s);
        let mut reasons = [LevelReason::AfterOutage; CLASSES];
        let mut is_shorter_sold = true;
        for (reason, layer) in reasons.iter_mut().zip(&self.layers) {
            let needed_s = self.evidence_s(layer.class);
            *reason = match layer.chosen {
                _ if self.seen_s < needed_s => LevelReason::LittleSeen { seen_s: self.seen_s, needed_s },
                _ if is_early => LevelReason::AfterOutage,
                _ if !is_shorter_sold => LevelReason::ShorterNotSold,
                None => LevelReason::Withdrawn,
                Some((window, margin)) => match margin.checked_sub(OF_CAPACITY_PPM.len()) {
                    None => LevelReason::OfCapacity { window_s: WINDOWS_S[window], margin_ppm: OF_CAPACITY_PPM[margin] },
                    Some(place) => LevelReason::OfLeast { window_s: WINDOWS_S[window], margin_ppm: OF_LEAST_PPM[place] },
                },
            };
            is_shorter_sold &= layer.chosen.is_some();
        }
        reasons
    }
}
