//! Names of nodes as Slurm folds them: `gpu[01-04,07],login1`.

/// Most nodes of one row.
const NODES_MAX: u64 = 100_000;

/// Every node that a list names, or what is wrong with it.
pub(super) fn expand(list: &str) -> Result<Vec<String>, &'static str> {
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
fn product(names: &[String], before: &str, ranges: &str) -> Result<Vec<String>, &'static str> {
    let mut numbers: Vec<String> = Vec::new();
    for range in ranges.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let parse = |text: &str| text.parse::<u64>().map_err(|_| "a range of nodes has no numbers");
        let (first, last, width) = (parse(low)?, parse(high)?, low.len());
        if last < first || last - first >= NODES_MAX {
            return Err("a range of nodes is longer than any job has, or runs backwards");
        }
        numbers.extend((first..=last).map(|number| format!("{number:0width$}")));
    }
    let total = names.len().saturating_mul(numbers.len());
    if u64::try_from(total).unwrap_or(u64::MAX) > NODES_MAX {
        return Err("there are more nodes than any job has");
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
    }
}
