//! What happens to a fleet: drawn from a seed, and shrunk when something is wrong with it.
//!
//! An operation means something in every state, so a trace without some of its operations is a trace.

/// A sequence that follows from its seed (splitmix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
    pub fn place(&mut self, end: u64) -> usize {
        usize::try_from(self.below(end)).unwrap()
    }
    pub fn units(&mut self, end: u64) -> u32 {
        u32::try_from(self.below(end)).unwrap()
    }
    pub fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
    pub fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.place(u64::try_from(items.len()).unwrap())]
    }
}

/// Somebody's wish; places are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub kind: usize,
    pub units: u32,
    pub notice: usize,
    pub site: Option<usize>,
    pub strict: bool,
    pub window_s: Option<i64>,
    /// It begins to work at once.
    pub works: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Anywhere,
    PerNode(u32),
    Whole,
}

#[derive(Clone, Copy, Debug)]
pub enum Op {
    Buy(Wish),
    Team(Wish),
    Order { wish: Wish, shape: Shape, by_s: i64, hold_s: Option<i64>, may_break: bool },
    Cancel(usize),
    Release(usize),
    JobOver(usize),
    Work(usize),
    Idle(usize),
    Checkpoint(usize),
    Cover { lease: usize, seconds: i64, bound: usize },
    Fault { device: usize, lost: bool },
    Mend(usize),
    Levels { pool: usize, levels: [u32; 6], learned: bool },
    NoLevels { pool: usize, stale: bool },
    Outside { pool: usize, units: u32 },
    Mode(usize),
    Reserve { units: u32, thousandths: u32 },
    Wait { seconds: i64, late_s: i64 },
}

/// An operation, and what somebody asks the price of meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub op: Op,
    pub quote: Wish,
}

const WINDOWS_S: [i64; 6] = [60, 500, 1_000, 5_000, 20_000, 100_000];
const WAITS_S: [i64; 17] = [1, 4, 5, 5, 30, 30, 60, 60, 125, 125, 300, 400, 400, 1_000, 1_000, 4_000, 90_000];
const HOLDS_S: [i64; 4] = [1, 60, 500, 5_000];
const LEADS_S: [i64; 8] = [0, 20, 140, 200, 1_000, 2_000, 4_000, 100_000];

fn wish(numbers: &mut Numbers) -> Wish {
    let units = if numbers.one_in(60) { 0 } else { 1 + numbers.units(3) + numbers.units(2) * numbers.units(3) };
    Wish {
        kind: if numbers.one_in(40) { 2 } else { numbers.place(5).min(2) % 2 },
        units,
        notice: numbers.of(&[0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5]),
        site: numbers.one_in(8).then(|| numbers.place(3)),
        strict: numbers.one_in(8),
        window_s: (!numbers.one_in(6)).then(|| numbers.of(&WINDOWS_S)),
        works: !numbers.one_in(4),
    }
}

fn levels(numbers: &mut Numbers) -> [u32; 6] {
    let mut levels = [0; 6];
    levels.iter_mut().for_each(|level| *level = numbers.units(9));
    if !numbers.one_in(5) {
        levels.sort_unstable_by(|a, b| b.cmp(a));
    }
    levels
}

fn order(numbers: &mut Numbers) -> Op {
    let mut wish = wish(numbers);
    let shape = match numbers.below(4) {
        0 => Shape::PerNode(1 + numbers.units(3)),
        1 => Shape::Whole,
        _ => Shape::Anywhere,
    };
    if let Shape::PerNode(each) = shape {
        wish.units = each * (1 + numbers.units(2));
    } else {
        wish.units += numbers.units(7);
    }
    let hold_s = (!numbers.one_in(8)).then(|| numbers.of(&HOLDS_S));
    Op::Order { wish, shape, by_s: numbers.of(&LEADS_S), hold_s, may_break: numbers.one_in(3) }
}

fn op(numbers: &mut Numbers) -> Op {
    match numbers.below(100) {
        0..=31 => Op::Buy(wish(numbers)),
        32..=39 => Op::Team(wish(numbers)),
        40..=45 => order(numbers),
        46 => Op::Cancel(numbers.place(64)),
        47..=53 => Op::Release(numbers.place(64)),
        54..=55 => Op::JobOver(numbers.place(64)),
        56..=58 => Op::Work(numbers.place(64)),
        59..=61 => Op::Idle(numbers.place(64)),
        62 => Op::Checkpoint(numbers.place(64)),
        63..=64 => Op::Cover { lease: numbers.place(64), seconds: numbers.of(&WAITS_S), bound: numbers.place(4) },
        65 => Op::Fault { device: numbers.place(64), lost: numbers.one_in(2) },
        66..=69 => Op::Mend(numbers.place(64)),
        70..=77 => Op::Levels { pool: numbers.place(8), levels: levels(numbers), learned: !numbers.one_in(6) },
        78 if numbers.one_in(2) => Op::NoLevels { pool: numbers.place(8), stale: numbers.one_in(2) },
        78..=79 => Op::Outside { pool: numbers.place(8), units: numbers.units(5).saturating_sub(2) },
        80 => Op::Mode(numbers.of(&[0, 0, 1, 2, 2, 2, 2, 3])),
        81 => Op::Reserve { units: numbers.units(4), thousandths: numbers.units(200) },
        82..=85 => Op::Buy(wish(numbers)),
        _ => Op::Wait { seconds: numbers.of(&WAITS_S), late_s: i64::from(numbers.units(6)) },
    }
}

/// The trace of a seed.
pub fn draw(seed: u64, steps: usize) -> Vec<Step> {
    let mut numbers = Numbers::new(seed);
    (0..steps).map(|_| Step { op: op(&mut numbers), quote: wish(&mut numbers) }).collect()
}

/// As short as leaving parts out makes it while it still fails: ever smaller parts, until no single step can go.
pub fn shrink(mut steps: Vec<Step>, fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut part = steps.len().div_ceil(2).max(1);
    loop {
        let (mut at, before) = (0, steps.len());
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + part).min(steps.len()));
            if fails(&fewer) {
                steps = fewer;
            } else {
                at += part;
            }
        }
        if part == 1 && steps.len() == before {
            return steps;
        }
        part = part.div_ceil(2);
    }
}
