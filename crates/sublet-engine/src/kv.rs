//! Keys and values of past positions, in pages taken from one bounded pool per model.
//!
//! Invariants: the pool never hands out more than its bound; a cache holds whole pages and is
//! given back by [`KvPool::release`]. Recomputing a position gives the same bytes, so a cache
//! may be dropped at any time and rebuilt from the tokens. A page that has several holders is not
//! written; what nobody but the kept prefixes holds is given to whoever needs it.

use std::sync::Arc;

use crate::architecture::Hyperparameters;
use crate::prefix::{BLOCK_POSITIONS, BlockHash, Prefixes};

/// Positions in one page.
pub const PAGE_POSITIONS: usize = 16;

/// The values of [`PAGE_POSITIONS`] positions.
pub type Page = Box<[f32]>;

/// Where one layer's keys and values lie in a page.
#[derive(Clone, Copy, Debug)]
pub struct PageLayout {
    kv_heads: usize,
    head_width: usize,
    layers: usize,
}

impl PageLayout {
    pub fn new(parameters: &Hyperparameters) -> Self {
        Self { kv_heads: parameters.kv_heads, head_width: parameters.head_width, layers: parameters.layers }
    }

    /// Values in one page.
    pub fn page_values(&self) -> usize {
        self.layers * 2 * self.head_values() * self.kv_heads
    }

    fn head_values(&self) -> usize {
        PAGE_POSITIONS * self.head_width
    }

    fn head_start(&self, layer: usize, side: Side, head: usize) -> usize {
        let side = match side {
            Side::Keys => 0,
            Side::Values => 1,
        };
        ((layer * 2 + side) * self.kv_heads + head) * self.head_values()
    }
}

/// Keys or values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Keys,
    Values,
}

/// The pages of one sequence.
#[derive(Default)]
pub struct KvCache {
    pages: Vec<Arc<Page>>,
    /// Positions written.
    pub length: usize,
}

impl KvCache {
    /// Positions that fit without another page.
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_POSITIONS
    }

    /// Stores what one position of one layer produced; `values` holds all key-value heads.
    pub fn write(&mut self, layout: PageLayout, place: Place, values: &[f32]) {
        let page = Arc::get_mut(&mut self.pages[place.position / PAGE_POSITIONS]).expect("a page that is written has one holder");
        let within = place.position % PAGE_POSITIONS * layout.head_width;
        for (head, values) in values.chunks_exact(layout.head_width).enumerate() {
            let start = layout.head_start(place.layer, place.side, head) + within;
            page[start..start + layout.head_width].copy_from_slice(values);
        }
    }

    /// One head's rows, page after page: each slice holds [`PAGE_POSITIONS`] rows of the head's width.
    pub fn head(&self, layout: PageLayout, layer: usize, side: Side, head: usize) -> impl Iterator<Item = &[f32]> {
        let start = layout.head_start(layer, side, head);
        self.pages.iter().map(move |page| &page[start..start + layout.head_values()])
    }
}

/// Which keys or values to write.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub layer: usize,
    pub side: Side,
    pub position: usize,
}

/// Positions that fit into `bytes`, at least one page of them.
pub fn positions_fitting(parameters: &Hyperparameters, bytes: usize) -> usize {
    let page_bytes = PageLayout::new(parameters).page_values() * size_of::<f32>();
    (bytes / page_bytes).max(1) * PAGE_POSITIONS
}

/// Hands out pages up to a bound.
pub struct KvPool {
    layout: PageLayout,
    pages_free: Vec<Box<[f32]>>,
    /// Pages that may still be made.
    pages_unmade: usize,
    prefixes: Prefixes,
}

impl KvPool {
    /// At least one whole context fits, or the model could not serve what it promises.
    pub fn new(parameters: &Hyperparameters, bytes_max: usize) -> Self {
        let layout = PageLayout::new(parameters);
        let page_bytes = layout.page_values() * size_of::<f32>();
        let context_pages = parameters.context.div_ceil(PAGE_POSITIONS);
        Self {
            layout,
            pages_free: Vec::new(),
            pages_unmade: (bytes_max / page_bytes).max(context_pages),
            prefixes: Prefixes::default(),
        }
    }

    /// Whether so many pages can be handed out now. Kept prefixes give way.
    pub fn has(&mut self, pages: usize) -> bool {
        while self.pages_free.len() + self.pages_unmade < pages {
            let Some(dropped) = self.prefixes.drop_oldest() else { return false };
            self.take_back(dropped);
        }
        true
    }

    /// What nobody holds any more is free.
    fn take_back(&mut self, pages: Vec<Arc<Page>>) {
        self.pages_free.extend(pages.into_iter().filter_map(|page| Arc::try_unwrap(page).ok()));
    }

    /// Gives an empty cache what is kept of a prompt's beginning.
    pub fn begin(&mut self, cache: &mut KvCache, prompt: &[BlockHash]) {
        if cache.pages.is_empty() {
            cache.pages = self.prefixes.find(prompt);
            cache.length = cache.capacity();
        }
    }

    /// Keeps the whole blocks that a cache has computed.
    pub fn keep(&mut self, cache: &KvCache, hashes: &[BlockHash]) {
        let blocks = (cache.length / BLOCK_POSITIONS).min(hashes.len());
        self.prefixes.keep(&hashes[..blocks], &cache.pages);
    }

    /// Makes room for `positions` in all; `false`, and nothing taken, if the pool is short.
    #[must_use]
    pub fn grow(&mut self, cache: &mut KvCache, positions: usize) -> bool {
        let missing = positions.div_ceil(PAGE_POSITIONS).saturating_sub(cache.pages.len());
        if !self.has(missing) {
            return false;
        }
        for _ in 0..missing {
            let page = self.pages_free.pop().unwrap_or_else(|| {
                self.pages_unmade -= 1;
                vec![0.0; self.layout.page_values()].into_boxed_slice()
            });
            cache.pages.push(Arc::new(page));
        }
        true
    }

    /// Takes all pages back.
    pub fn release(&mut self, cache: &mut KvCache) {
        let pages = std::mem::take(&mut cache.pages);
        self.take_back(pages);
        cache.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{Rope, RopeLayout, RopeScaling};

    fn parameters() -> Hyperparameters {
        Hyperparameters {
            hidden: 8,
            layers: 2,
            heads: 2,
            kv_heads: 2,
            head_width: 4,
            intermediate: 8,
            vocabulary: 10,
            context: 64,
            norm_epsilon: 1e-5,
            rope: Rope::new(RopeLayout::Halves, 4, 10_000.0, &RopeScaling::None),
        }
    }

    #[test]
    fn the_pool_keeps_its_bound_and_reuses_pages() {
        let mut pool = KvPool::new(&parameters(), 0);
        assert!(pool.has(4) && !pool.has(5), "one context always fits");
        let (mut one, mut two) = (KvCache::default(), KvCache::default());
        assert!(pool.grow(&mut one, 33));
        assert!(!pool.grow(&mut two, 17) && two.capacity() == 0);
        assert!(pool.grow(&mut two, 16));
        pool.release(&mut one);
        assert!(pool.grow(&mut two, 64));
        assert!(!pool.has(1));
    }

    #[test]
    fn kept_prefixes_are_shared_and_give_way() {
        let parameters = Hyperparameters { context: 128, ..parameters() };
        let mut pool = KvPool::new(&parameters, 0);
        let tokens: Vec<u32> = (0..100).collect();
        let hashes = crate::prefix::hashes("tenant", &tokens);
        let (mut one, mut two) = (KvCache::default(), KvCache::default());
        assert!(pool.grow(&mut one, 100));
        one.length = 100;
        pool.keep(&one, &hashes);
        pool.begin(&mut two, &hashes);
        assert_eq!((two.length, two.capacity()), (64, 64));
        assert!(pool.grow(&mut two, 65) && !pool.has(1), "the two share four of their pages");
        pool.release(&mut one);
        assert!(pool.has(3) && !pool.has(4));
        pool.release(&mut two);
        assert!(pool.has(8), "what was only kept is free for others");
        pool.begin(&mut two, &hashes);
        assert_eq!(two.length, 0);
    }

    #[test]
    fn what_is_written_is_read_back_by_head() {
        let mut pool = KvPool::new(&parameters(), 0);
        let mut cache = KvCache::default();
        assert!(pool.grow(&mut cache, 20));
        let values: Vec<f32> = (0..8).map(|v| v as f32).collect();
        cache.write(PageLayout::new(&parameters()), Place { layer: 1, side: Side::Values, position: 17 }, &values);
        let pages: Vec<&[f32]> = cache.head(PageLayout::new(&parameters()), 1, Side::Values, 1).collect();
        assert_eq!(&pages[1][4..8], &[4.0, 5.0, 6.0, 7.0]);
        assert!(cache.head(PageLayout::new(&parameters()), 1, Side::Keys, 1).flatten().all(|v| *v == 0.0));
    }
}
