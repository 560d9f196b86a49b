//! Names of nodes as Slurm folds them, `gpu[01-04,07],login1`, and which pools share one.

use std::collections::{BTreeMap, HashMap, HashSet};

use sublet_core::error::{Error, ErrorCode, Result};

use super::super::csv::{shown, wrong};
use super::Reading;
use super::series::is_guessed;
use super::table::Row;

/// Most nodes of one row.
const NODES_MAX: u64 = 100_000;
/// Longest number in a name, in digits.
const DIGITS_MAX: usize = 20;
/// Longest name, in bytes: that of the Internet.
const NAME_MAX: usize = 255;

/// Most names of a file: of each list once, and where nodes are counted of each row.
const NAMES_MAX: usize = 10_000_000;

/// The nodes of a file, and whose they are.
#[derive(Default, Debug)]
pub(super) struct Nodes<'a> {
    lists: HashMap<&'a str, Vec<usize>>,
    places: HashMap<String, usize>,
    /// The first pool of each.
    pools: HashMap<usize, usize>,
    read: HashSet<(&'a str, usize)>,
    /// A node of two pools.
    shared: BTreeMap<(usize, usize), usize>,
    names: usize,
}

impl<'a> Nodes<'a> {
    /// Takes note of the nodes of a row.
    pub(super) fn read(&mut self, row: &Row<'a>, pool: usize) -> Result<()> {
        if !self.lists.contains_key(row.nodes) {
            let remedy = "leave the column NodeList out; then nodes are counted by NNodes, and pools that share some are not found";
            let names = expand(row.nodes).map_err(|problem| wrong(row.line, &format!("NodeList: {problem}"), remedy))?;
            self.spend(row.line, names.len())?;
            let mut list = Vec::with_capacity(names.len());
            for name in names {
                let next = self.places.len();
                list.push(*self.places.entry(name).or_insert(next));
            }
            self.lists.insert(row.nodes, list);
        }
        if self.read.insert((row.nodes, pool)) {
            for node in self.lists.get(row.nodes).into_iter().flatten() {
                let first = *self.pools.entry(*node).or_insert(pool);
                if first != pool {
                    self.shared.entry((first, pool)).or_insert(*node);
                }
            }
        }
        Ok(())
    }

    /// The nodes of a row that was read, each of which is counted.
    pub(super) fn of(&mut self, row: &Row<'a>) -> Result<&[usize]> {
        let names = self.lists.get(row.nodes).map_or(0, Vec::len);
        self.spend(row.line, names)?;
        Ok(self.lists.get(row.nodes).map_or(&[], Vec::as_slice))
    }

    fn spend(&mut self, line: usize, names: usize) -> Result<()> {
        self.names += names;
        if self.names <= NAMES_MAX {
            return Ok(());
        }
        let message = format!("NodeList: up to here there are more than {NAMES_MAX} names of nodes");
        Err(wrong(line, &message, "ask sacct for a shorter time, or leave the column NodeList out"))
    }

    /// The highest uses of pools that share a node are no capacities: together they may be more than there is.
    pub(super) fn refuse_shared(&self, names: &BTreeMap<&str, usize>, reading: &Reading) -> Result<()> {
        let guessed = |place: usize| names.iter().find(|(name, held)| **held == place && is_guessed(reading, name));
        let Some(((left, right), node)) =
            self.shared.iter().find(|((left, right), _)| guessed(*left).or(guessed(*right)).is_some())
        else {
            return Ok(());
        };
        let pool = |place: &usize| shown(names.iter().find(|(_, held)| *held == place).map_or("", |(name, _)| *name));
        let node = shown(self.places.iter().find(|(_, place)| *place == node).map_or("", |(name, _)| name.as_str()));
        let message =
            format!("the pools {} and {} share the node {node}, so their highest uses are no capacities", pool(left), pool(right));
        Err(Error::new(ErrorCode::Usage, message)
            .alternative("take all as one pool: --pool-by none")
            .alternative("say what each pool has: --capacity POOL=N"))
    }
}

/// Every node that a list names, or what is wrong with it.
pub(super) fn expand(list: &str) -> std::result::Result<Vec<String>, &'static str> {
    let mut names = Vec::new();
    for part in split_outside(list) {
        let mut found = vec![String::new()];
        let mut rest = part;
        while let Some((before, inside_and_after)) = rest.split_once('[') {
            let (inside, after) = inside_and_after.split_once(']').ok_or("a bracket is not closed")?;
            found = product(&found, before, inside)?;
            rest = after;
        }
        if rest.contains(']') {
            return Err("a bracket is closed that was not opened");
        }
        if found.iter().any(|name| name.len() + rest.len() > NAME_MAX) {
            return Err("a name is longer than any node has");
        }
        found.iter_mut().for_each(|name| name.push_str(rest));
        names.append(&mut found);
        if u64::try_from(names.len()).unwrap_or(u64::MAX) > NODES_MAX {
            return Err("there are more nodes than any job has");
        }
    }
    Ok(names)
}

/// The parts between commas that are in no bracket.
fn split_outside(list: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let split = |letter: char| {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    };
    list.split(split).filter(|part| !part.is_empty()).collect()
}

/// Each name with each number of the ranges behind it.
fn product(names: &[String], before: &str, ranges: &str) -> std::result::Result<Vec<String>, &'static str> {
    let mut numbers: Vec<String> = Vec::new();
    for range in ranges.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let parse = |text: &str| text.parse::<u64>().map_err(|_| "a range of nodes has no numbers");
        if low.len().max(high.len()) > DIGITS_MAX {
            return Err("a number of a node is longer than any has");
        }
        let (first, last, width) = (parse(low)?, parse(high)?, low.len());
        if last < first || last - first >= NODES_MAX {
            return Err("a range of nodes is longer than any job has, or runs backwards");
        }
        numbers.extend((first..=last).map(|number| format!("{number:0width$}")));
        let total = names.len().saturating_mul(numbers.len());
        if u64::try_from(total).unwrap_or(u64::MAX) > NODES_MAX {
            return Err("there are more nodes than any job has");
        }
    }
    if names.iter().any(|name| name.len() + before.len() > NAME_MAX) {
        return Err("a name is longer than any node has");
    }
    Ok(names.iter().flat_map(|name| numbers.iter().map(move |number| format!("{name}{before}{number}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn folded_names_are_unfolded() {
        for (list, names) in [
            ("login1", "login1"),
            ("gpu[01-03,07]", "gpu01 gpu02 gpu03 gpu07"),
            ("a[9-11],b2", "a9 a10 a11 b2"),
            ("r[1-2]n[1-2]x", "r1n1x r1n2x r2n1x r2n2x"),
            ("", ""),
        ] {
            assert_eq!(expand(list).unwrap().join(" "), names, "{list}");
        }
        for wrong in ["a[1-", "a[2-1]", "a[1-x]", "a]", "a[0-99999999]", "a[0-999][0-999]"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
        let zeros = "0".repeat(70_000);
        for wrong in
            [format!("a[{zeros}1-{zeros}2]"), format!("a[1-{zeros}2]"), format!("{zeros}[0-99999]"), format!("a[1]{zeros}")]
        {
            assert!(
                expand(&wrong).unwrap_err().ends_with("longer than any has")
                    || expand(&wrong).unwrap_err().ends_with("any node has")
            );
        }
    }
}
