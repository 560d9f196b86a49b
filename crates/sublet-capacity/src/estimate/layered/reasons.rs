//! Why the policy's levels are what they are.

use super::{CLASSES, Chosen, Layered, Margin, Step};
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
                None if layer.is_withdrawn => LevelReason::Withdrawn,
                None => LevelReason::Unproven,
                Some(Chosen { base, margin: Margin::OfCapacity(margin_ppm), .. }) => {
                    LevelReason::OfCapacity { window_s: base.window_s(), margin_ppm }
                }
                Some(Chosen { base, margin: Margin::OfBase(margin_ppm), .. }) => {
                    LevelReason::OfLeast { window_s: base.window_s(), margin_ppm }
                }
            };
            is_shorter_sold &= layer.chosen.is_some();
        }
        reasons
    }
}
