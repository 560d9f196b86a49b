//! The committed document is the one the code makes.

const COMMITTED: &str = include_str!("../../../docs/reference/openapi.json");

#[test]
fn the_committed_openapi_document_is_current() {
    let made = format!("{:#}\n", sublet_api::openapi::document());
    let line = made.lines().zip(COMMITTED.lines()).position(|(made, committed)| made != committed);
    assert!(
        made == COMMITTED,
        "docs/reference/openapi.json differs from the code (first at line {}); make it again with\n  \
         cargo run -p sublet-api --example openapi docs/reference/openapi.json\nand look at the difference before you commit it",
        line.map_or(made.lines().count().min(COMMITTED.lines().count()), |line| line) + 1
    );
}
