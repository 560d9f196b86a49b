//! What the books said: while the storm went on, and afterwards at every instant of it.

use std::collections::BTreeMap;

use crate::http::Ask;
use crate::server::{LOOK_PAUSE, NewKey, Server, nanos};
use crate::two_storm::clients::Storm;

/// How long a commit takes at most on a busy disk.
const FLUSH_MS: i64 = 750;

/// Who looks, and at what.
pub struct Watcher<'a> {
    pub storm: &'a Storm<'a>,
    pub admin: String,
    pub key: NewKey,
    pub limit: i128,
}

/// What was seen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Looks {
    pub count: u32,
    /// The most that was spent and held together, in nano-units.
    pub most: i128,
}

impl Watcher<'_> {
    /// Looks as long as the storm goes on, at one process and the other; while neither answers, nobody can look.
    pub fn watch(&self) -> Looks {
        let mut looks = Looks::default();
        let mut process = 0;
        while self.storm.is_running() {
            process = 1 - process;
            if let Some(used) = self.look(process) {
                assert!(used <= self.limit, "{used} spent and held of {}", self.limit);
                looks = Looks { count: looks.count + 1, most: looks.most.max(used) };
            }
            self.storm.pass(LOOK_PAUSE);
        }
        looks
    }

    /// What is spent and held of the limit.
    fn look(&self, process: usize) -> Option<i128> {
        let path = format!("{}/spend_limits", self.key.path());
        let answer = Ask::new(&self.storm.address(process), "GET", &path).key(&self.admin).send().ok()?;
        if answer.status == 503 {
            return None;
        }
        let limit = answer.good()["data"][0].clone();
        assert_eq!(nanos(&limit["amount"]), self.limit, "{limit}");
        Some(nanos(&limit["spent"]) + nanos(&limit["held"]))
    }
}

/// How much was not promised to anybody, by instant: the limit less all slices that were granted and what came back
/// of them. Holds, live slices, what is spent and what a lost process left unsaid are all outside of it.
pub struct Unpromised {
    limit: i128,
    /// After the entries of a millisecond.
    by_millis: BTreeMap<i64, i128>,
}

impl Unpromised {
    /// Reads the ledger's journal, as any auditor can. What an entry changes holds for others from its commit on, which
    /// on a busy machine comes seconds after the instant that it bears.
    pub fn of(server: &Server, key: &NewKey, (limit, commits): (i128, &BTreeMap<String, i64>)) -> Self {
        let export = server.get("/operator/v1/ledger/export?format=beancount", &server.keys.operator).unwrap();
        assert_eq!(export.status, 200);
        let mut changes: BTreeMap<i64, i128> = BTreeMap::new();
        for entry in export.text().split("\n\n").filter(|entry| entry.contains(&key.id)) {
            let is_slice = entry.contains("* \"slice_granted\"") || entry.contains("* \"slice_returned\"");
            let id = entry.lines().find_map(|line| line.trim().strip_prefix("entry: ")).map(|id| id.trim_matches('"'));
            let Some(id) = id.filter(|_| is_slice) else { continue };
            let committed = *commits.get(id).unwrap_or_else(|| panic!("{id} was never committed"));
            *changes.entry(committed).or_default() += slices_change(entry);
        }
        let mut left = limit;
        let by_millis = changes.into_iter().map(|(at, change)| {
            left += change;
            (at, left)
        });
        Self { limit, by_millis: by_millis.collect() }
    }

    /// The least that anybody could see left between two instants, in milliseconds since 1970. A commit bears the instant
    /// at which it began and is seen once it is on the disk: within [`FLUSH_MS`], and before the commit after it, which
    /// waits for the same row of the limit. So at the first instant the last one may not be seen yet.
    pub fn least(&self, from: i64, until: i64) -> i128 {
        let mut earlier = self.by_millis.range(..from).rev();
        let last = earlier.next();
        let before = last.map_or(self.limit, |(_, left)| *left);
        let under_it = earlier.next().map_or(self.limit, |(_, left)| *left);
        let is_seen = last.is_none_or(|(at, _)| from - at > FLUSH_MS);
        let seen = if is_seen { before } else { before.min(under_it) };
        self.by_millis.range(from..=until).map(|(_, left)| *left).fold(seen, i128::min)
    }

    /// What is left after everything.
    pub fn last(&self) -> i128 {
        self.by_millis.values().next_back().copied().unwrap_or(self.limit)
    }

    pub fn entries(&self) -> usize {
        self.by_millis.len()
    }
}

/// What an entry takes out of the account of slices, in nano-units; negative if it puts something in.
fn slices_change(entry: &str) -> i128 {
    let postings = entry.lines().filter(|line| line.contains(":Slices "));
    let amounts = postings.map(|line| {
        let amount = line.split_whitespace().nth(1).unwrap_or_else(|| panic!("no amount in {line}"));
        nanos(&serde_json::json!({ "amount": amount }))
    });
    amounts.sum()
}

/// The instant inside an identifier, in milliseconds since 1970.
pub fn millis_of(id: &str) -> i64 {
    const ALPHABET: &str = "0123456789abcdefghjkmnpqrstvwxyz";
    let body = &id[id.len() - 26..];
    let digit = |digit: char| u128::try_from(ALPHABET.find(digit).unwrap_or_else(|| panic!("{id}"))).unwrap();
    let value = body.chars().fold(0, |value, next| (value << 5) | digit(next));
    i64::try_from(value >> 80).unwrap()
}
