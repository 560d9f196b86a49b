//! Files made from the code are what the code makes now.

use super::Finding;
use crate::generate;
use crate::tree::Tree;

pub fn generated(tree: &Tree) -> Vec<Finding> {
    generate::files()
        .into_iter()
        .filter(|(path, content)| tree.file(path).is_none_or(|file| file.text != *content))
        .map(|(path, _)| Finding::new("generated", path, 0, "is not what the code makes: run 'cargo xtask generate'"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_a_stale_file_are_found() {
        let current = generate::files();
        let good: Vec<(&str, &str)> = current.iter().map(|(path, content)| (*path, content.as_str())).collect();
        assert!(generated(&Tree::of(&good)).is_empty());
        let stale: Vec<(&str, &str)> = current.iter().map(|(path, _)| (*path, "old")).collect();
        assert_eq!(generated(&Tree::of(&stale)).len(), current.len());
        assert_eq!(generated(&Tree::of(&[])).len(), current.len());
    }
}
