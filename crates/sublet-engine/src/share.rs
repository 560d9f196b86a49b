//! How one step is shared between prompts that are to be answered and texts that are to become vectors.
//!
//! A request for vectors may have two thousand texts, so neither kind may wait for all of the other: while both want
//! something each gets half of the tokens of a step, and what one does not want the other gets. Among requests for
//! vectors the tokens are split evenly.
//!
//! Invariant: the tokens planned never exceed the bound, which is at least one for each kind that wants any.

/// Tokens of one step that are left for each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shares {
    prompts: usize,
    vectors: usize,
    /// Requests for vectors that have not been planned yet.
    vectors_left: usize,
}

/// What is wanted of one step.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    /// Tokens of prompts.
    pub prompts: usize,
    /// Tokens of texts for vectors, and how many requests have some.
    pub vectors: usize,
    pub vector_requests: usize,
}

impl Shares {
    pub fn new(bound: usize, wanted: Wanted) -> Self {
        let kinds = usize::from(wanted.prompts > 0) + usize::from(wanted.vectors > 0);
        let bound = bound.max(kinds);
        let vectors = wanted.vectors.min((bound / 2).max(bound.saturating_sub(wanted.prompts)));
        Self { prompts: bound - vectors, vectors, vectors_left: wanted.vector_requests }
    }

    /// Tokens of a prompt with so many left to compute.
    pub fn prompt(&mut self, uncomputed: usize) -> usize {
        // The one token that was chosen last is the step itself, and no part of a prompt.
        if uncomputed == 1 {
            return 1;
        }
        let count = uncomputed.min(self.prompts);
        self.prompts -= count;
        count
    }

    /// Tokens of a request for vectors with so many left to compute.
    pub fn vectors(&mut self, uncomputed: usize) -> usize {
        let even = self.vectors.div_ceil(self.vectors_left.max(1));
        let count = uncomputed.min(even).min(self.vectors);
        self.vectors_left = self.vectors_left.saturating_sub(1);
        self.vectors -= count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(bound: usize, prompts: &[usize], vectors: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let sum = |counts: &[usize]| counts.iter().filter(|count| **count > 1).sum();
        let wanted = Wanted { prompts: sum(prompts), vectors: vectors.iter().sum(), vector_requests: vectors.len() };
        let mut shares = Shares::new(bound, wanted);
        (prompts.iter().map(|count| shares.prompt(*count)).collect(), vectors.iter().map(|count| shares.vectors(*count)).collect())
    }

    #[test]
    fn each_kind_gets_half_or_what_the_other_leaves() {
        for (prompts, vectors, expected) in [
            (vec![1_000], vec![], (vec![100], vec![])),
            (vec![], vec![1_000], (vec![], vec![100])),
            (vec![1_000], vec![1_000], (vec![50], vec![50])),
            (vec![30], vec![1_000], (vec![30], vec![70])),
            (vec![1_000], vec![10], (vec![90], vec![10])),
            (vec![1, 1, 1], vec![1_000], (vec![1, 1, 1], vec![100])),
            (vec![], vec![1_000, 1_000, 1_000], (vec![], vec![34, 33, 33])),
            (vec![], vec![5, 1_000], (vec![], vec![5, 95])),
        ] {
            assert_eq!(planned(100, &prompts, &vectors), expected);
        }
    }

    #[test]
    fn neither_kind_starves_at_the_smallest_bound() {
        assert_eq!(planned(1, &[9], &[9]), (vec![1], vec![1]));
        assert_eq!(planned(2, &[], &[9, 9, 9]), (vec![], vec![1, 1, 0]));
    }
}
