//! Pages of docs that are made from the code.

use std::path::Path;

/// Fails if `docs/NAME.md` is not `page`; with `ANNULUS_BLESS=1` it becomes it.
/// The test that calls this has NAME in its path.
pub fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/{name}.md"));
    if std::env::var_os("ANNULUS_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::write(&path, page).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page,
        "docs/{name}.md is stale: ANNULUS_BLESS=1 cargo test -p annulus-verification {name}"
    );
}
