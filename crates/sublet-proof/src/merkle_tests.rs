use proptest::prelude::*;

use super::*;

/// MTH of RFC 6962, section 2.1, as it is written there.
fn root_of(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => Hash::of_nothing(),
        [entry] => Hash::of_entry(entry),
        entries => {
            let mut middle = 1;
            while middle * 2 < entries.len() {
                middle *= 2;
            }
            Hash::of_halves(root_of(&entries[..middle]), root_of(&entries[middle..]))
        }
    }
}

struct Tree {
    entries: Vec<Vec<u8>>,
    nodes: Nodes,
    frontier: Frontier,
}

fn tree(size: u64) -> Tree {
    let entries: Vec<Vec<u8>> = (0..size).map(|index| index.to_be_bytes().to_vec()).collect();
    let (mut nodes, mut frontier) = (Nodes::new(), Frontier::default());
    for entry in &entries {
        frontier
            .push(Hash::of_entry(entry), |node, hash| assert!(nodes.insert(node, hash).is_none(), "{node:?} is full once"))
            .unwrap();
    }
    Tree { entries, nodes, frontier }
}

impl Tree {
    fn head(&self, size: u64) -> TreeHead {
        TreeHead { size, root: root_of(&self.entries[..usize::try_from(size).unwrap()]) }
    }
    fn prove(&self, plan: &ProofPlan) -> Vec<Hash> {
        let nodes = plan.nodes().into_iter().map(|node| (node, self.nodes[&node])).collect();
        plan.proof(&nodes).unwrap()
    }
}

/// The vectors that implementations of RFC 6962 share (the tests of certificate-transparency-go among them).
#[test]
fn roots_are_those_of_the_shared_vectors() {
    let entries: [&[u8]; 8] = [
        b"",
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::default();
    let mut found = vec![frontier.root()];
    for entry in entries {
        frontier.push(Hash::of_entry(entry), |_, _| {}).unwrap();
        found.push(frontier.root());
    }
    let hex = |hash: &Hash| hash.bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(found.iter().map(hex).collect::<Vec<_>>(), roots);
}

#[test]
fn every_entry_of_every_small_tree_has_a_path_and_none_has_two() {
    for size in 1..=33 {
        let tree = tree(size);
        let head = tree.head(size);
        assert_eq!(tree.frontier.root(), head.root);
        for index in 0..size {
            let path = tree.prove(&ProofPlan::inclusion(index, size).unwrap());
            let entry = Hash::of_entry(&index.to_be_bytes());
            let root = |index, size, path: &[Hash]| root_by_path(entry, index, size, path);
            assert_eq!(root(index, size, &path), Some(head.root), "{index} of {size}");
            for other in (0..size).filter(|other| *other != index) {
                assert_ne!(root(other, size, &path), Some(head.root), "{index} of {size} is not {other}");
            }
            let longer: Vec<Hash> = path.iter().copied().chain([head.root]).collect();
            assert_eq!(root(index, size, &longer), None);
            if let Some((_, shorter)) = path.split_last() {
                assert_eq!(root(index, size, shorter), None);
            }
        }
    }
}

#[test]
fn every_small_tree_begins_with_every_smaller_one() {
    let tree = tree(33);
    for size in 1..=33 {
        for earlier in 1..=size {
            let (before, after) = (tree.head(earlier), tree.head(size));
            let proof = tree.prove(&ProofPlan::consistency(earlier, size).unwrap());
            assert!(is_consistent(before, after, &proof), "{earlier} in {size}");
            let forged = TreeHead { root: Hash::of(b"another"), ..before };
            assert!(!is_consistent(forged, after, &proof), "{earlier} in {size}");
            assert!(!is_consistent(before, TreeHead { root: forged.root, ..after }, &proof), "{earlier} in {size}");
            for place in 0..proof.len() {
                let mut changed = proof.clone();
                changed[place] = forged.root;
                assert!(!is_consistent(before, after, &changed), "{earlier} in {size}");
            }
        }
    }
    let nothing = TreeHead { size: 0, root: Hash::of_nothing() };
    assert!(is_consistent(nothing, tree.head(33), &[]));
}

#[test]
fn a_hash_is_written_in_one_way() {
    let hash = Hash::of(b"abc");
    assert_eq!(hash.to_string(), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
    // The last character carries two bits that mean nothing: they are zero.
    for text in ["", "ungW", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa1=", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0"] {
        assert!(text.parse::<Hash>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn a_tree_that_was_kept_grows_on(size in 0_u64..600, more in 0_u64..300) {
        let whole = tree(size + more);
        let kept = root_nodes(size).into_iter().map(|node| (node, whole.nodes[&node])).collect();
        let mut resumed = Frontier::resume(size, &kept).unwrap();
        prop_assert_eq!(resumed.root(), whole.head(size).root);
        for entry in &whole.entries[usize::try_from(size).unwrap()..] {
            resumed.push(Hash::of_entry(entry), |_, _| {}).unwrap();
        }
        prop_assert_eq!(resumed, whole.frontier);
    }

    #[test]
    fn proofs_of_larger_trees_hold(size in 1_u64..2_000, at: u64) {
        let whole = tree(size);
        let index = at % size;
        let path = whole.prove(&ProofPlan::inclusion(index, size).unwrap());
        prop_assert_eq!(root_by_path(Hash::of_entry(&index.to_be_bytes()), index, size, &path), Some(whole.frontier.root()));
        let proof = whole.prove(&ProofPlan::consistency(index + 1, size).unwrap());
        prop_assert!(is_consistent(whole.head(index + 1), whole.head(size), &proof));
    }

    #[test]
    fn no_proof_of_any_shape_panics(index: u64, size: u64, length in 0_usize..80, other: u64) {
        let path = vec![Hash::of(b"x"); length];
        root_by_path(Hash::of(b"y"), index, size, &path);
        let head = |size| TreeHead { size, root: Hash::of(b"z") };
        is_consistent(head(size), head(other), &path);
    }
}
