//! Whether the charges of a line follow each other, from where earlier invoices left it to where this one does.
//!
//! Charges come nearly in the order of their line, since several processes charge at once. Memory grows with how far
//! they are apart, not with their number.

use std::collections::BTreeMap;

use sublet_money::sku::Quantity;

/// A line's charges, as far as they were seen.
#[derive(Clone)]
pub(crate) struct Chain {
    begin: Quantity,
    end: Quantity,
    seen: Seen,
}

#[derive(Clone)]
enum Seen {
    /// Use only came to the line. Up to `reached` its charges follow each other; `ahead` has where those begin and end
    /// that are further.
    Rising { reached: Quantity, ahead: BTreeMap<Quantity, Quantity> },
    /// Use was taken off the line, too, so it may be at one quantity several times: for each, how many charges begin there
    /// more than end there. Charges that follow each other leave one at the beginning and one at the end. What is left
    /// besides can only be circles, which come to nothing.
    Moving { starts: BTreeMap<Quantity, i64> },
}

impl Chain {
    pub fn rising(begin: Quantity, end: Quantity) -> Self {
        Self { begin, end, seen: Seen::Rising { reached: begin, ahead: BTreeMap::new() } }
    }

    pub fn moving(begin: Quantity, end: Quantity) -> Self {
        Self { begin, end, seen: Seen::Moving { starts: BTreeMap::new() } }
    }

    /// Takes in a charge from one quantity of the line to another.
    pub fn take(&mut self, before: Quantity, after: Quantity) -> Result<(), String> {
        let (begin, end) = (self.begin, self.end);
        let (reached, ahead) = match &mut self.seen {
            Seen::Moving { starts } => {
                for (place, step) in [(before, 1), (after, -1)] {
                    let count = starts.entry(place).or_default();
                    *count += step;
                    if *count == 0 {
                        starts.remove(&place);
                    }
                }
                return Ok(());
            }
            Seen::Rising { .. } if after < before => return Err("it takes use off its line, and nothing was rated anew".to_owned()),
            Seen::Rising { reached, ahead } => (reached, ahead),
        };
        // A charge for nothing may be anywhere on its line.
        let is_nothing = before == after;
        let free_from = if is_nothing { begin } else { *reached };
        if before < free_from || after > end {
            return Err(format!("it is {before} to {after} of its line, of which {free_from} to {end} are left"));
        }
        if is_nothing {
            return Ok(());
        }
        if before > *reached {
            return match ahead.insert(before, after) {
                None => Ok(()),
                Some(_) => Err(format!("two charges begin at {before} of the line")),
            };
        }
        *reached = after;
        while let Some(end) = ahead.remove(reached) {
            *reached = end;
        }
        Ok(())
    }

    /// Whether nothing is missing.
    pub fn finish(&self) -> Result<(), String> {
        match &self.seen {
            Seen::Rising { reached, ahead } if *reached != self.end || !ahead.is_empty() => {
                Err(format!("its charges are without a gap up to {reached} and not {}", self.end))
            }
            Seen::Rising { .. } => Ok(()),
            Seen::Moving { starts } => {
                let mut wanted = BTreeMap::new();
                if self.begin != self.end {
                    wanted.extend([(self.begin, 1), (self.end, -1)]);
                }
                if *starts == wanted {
                    return Ok(());
                }
                Err(format!("its charges do not follow each other from {} to {}", self.begin, self.end))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(mut chain: Chain, parts: &[(i64, i64)]) -> Result<(), String> {
        let quantity = |count| Quantity::new(count).unwrap();
        for (before, after) in parts {
            chain.take(quantity(*before), quantity(*after))?;
        }
        chain.finish()
    }

    #[test]
    fn a_line_that_rises_has_each_of_its_parts_once() {
        let cases: [(&[(i64, i64)], bool); 7] = [
            (&[(3, 5), (5, 9)], true),
            (&[(5, 9), (4, 4), (3, 5)], true),
            (&[(3, 5)], false),
            (&[(3, 5), (3, 5), (5, 9)], false),
            (&[(3, 9), (9, 12)], false),
            (&[(3, 9), (9, 7), (7, 9)], false),
            (&[(2, 2), (3, 9)], false),
        ];
        for (parts, is_right) in cases {
            let found = chain(Chain::rising(Quantity::new(3).unwrap(), Quantity::new(9).unwrap()), parts);
            assert_eq!(found.is_ok(), is_right, "{parts:?}: {found:?}");
        }
    }

    #[test]
    fn a_line_that_lost_use_ends_where_its_charges_lead() {
        let cases: [(&[(i64, i64)], bool); 6] = [
            (&[(3, 8), (8, 0), (0, 9)], true),
            (&[(0, 9), (8, 0), (3, 8), (4, 4)], true),
            (&[(3, 8), (8, 0)], false),
            (&[(3, 8), (8, 0), (0, 9), (0, 9)], false),
            (&[(3, 8), (7, 0), (0, 9)], false),
            (&[], false),
        ];
        for (parts, is_right) in cases {
            let found = chain(Chain::moving(Quantity::new(3).unwrap(), Quantity::new(9).unwrap()), parts);
            assert_eq!(found.is_ok(), is_right, "{parts:?}: {found:?}");
        }
        let three = Quantity::new(3).unwrap();
        chain(Chain::moving(three, three), &[(3, 8), (8, 3)]).unwrap();
        chain(Chain::moving(three, three), &[(3, 8)]).unwrap_err();
    }
}
