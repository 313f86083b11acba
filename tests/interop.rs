//! The interop matrix with the kernel. `ANABRANCH_INTEROP=words` runs only the rows with these words in their names.

use anabranch_tests::interop::{ROWS, Row, run_all, table};
use anabranch_tests::permitted;

/// Rows at a time: most of them wait most of the time.
const AT_ONCE: usize = 6;

#[test]
fn every_row_of_the_matrix_holds() {
    if !permitted("the interop matrix") {
        return;
    }
    let wanted = std::env::var("ANABRANCH_INTEROP").unwrap_or_default();
    let rows: Vec<Row> = ROWS.iter().copied().filter(|row| row.name.contains(&wanted)).collect();
    let failed = run_all(&rows, AT_ONCE);
    let text: String = failed.iter().map(|(name, error)| format!("\n=== {name}: {error:#}\n")).collect();
    assert!(failed.is_empty(), "{} of {} rows failed:{text}", failed.len(), rows.len());
}

#[test]
fn the_page_shows_the_matrix() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/interop.md")).expect("the page");
    let told = "docs/interop.md is old: cargo run -p anabranch-tests --bin interop > docs/interop.md";
    assert!(page == table(), "{told}");
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROWS.len());
}
