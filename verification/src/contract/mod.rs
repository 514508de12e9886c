//! docs/contract.md: each row of the contract, what it promises, and what
//! proves each promise.
//!
//! The table is [`table::ROWS`]. A test looks for each proof in the sources,
//! and for proofs that stand in no row; with `ANNULUS_BLESS=1` it writes the
//! page:
//!
//! ```text
//! ANNULUS_BLESS=1 cargo test -p annulus-verification contract
//! ```

mod table;

use std::fmt::Write as _;

/// A row of the contract.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// What it promises, one by one.
    pub promises: &'static [Promise],
}

/// One promise.
pub struct Promise {
    /// What is promised.
    pub what: &'static str,
    /// What proves it: `file::test`, the file without `.rs`.
    pub proofs: &'static [&'static str],
}

/// A kind of proof: where its files are, the rung that runs it, and how a
/// proof looks in its file.
struct Kind {
    prefix: &'static str,
    rung: &'static str,
    looks: fn(&str) -> String,
}

fn function(name: &str) -> String {
    format!("fn {name}(")
}

/// The first whose prefix fits.
const KINDS: &[Kind] = &[
    Kind { prefix: "core/tests/loom/", rung: "loom", looks: function },
    Kind { prefix: "core/tests/uapi_linux/", rung: "test", looks: function },
    Kind { prefix: "core/", rung: "test, miri", looks: function },
    Kind { prefix: "hal-", rung: "test", looks: function },
    Kind { prefix: "examples/", rung: "test", looks: function },
    Kind {
        prefix: "verification/src/rungs/guest/",
        rung: "guest",
        looks: |name| format!("\"{name}\""),
    },
    Kind { prefix: "verification/src/calls/", rung: "kernel", looks: function },
    Kind { prefix: "verification/src/kernel/", rung: "kernel", looks: |name| format!("fn {name}") },
];

fn kind(proof: &str) -> &'static Kind {
    KINDS.iter().find(|kind| proof.starts_with(kind.prefix)).expect("a kind of proof")
}

/// The page.
pub fn page() -> String {
    let mut text = String::from(
        "# The contract, and what proves it\n\n\
         Each promise, and the tests that fail if it is broken. This page is made from the table in\n\
         `verification/src/contract/table.rs`: `ANNULUS_BLESS=1 cargo test -p annulus-verification contract` writes it;\n\
         without the variable the same test fails if the page is stale, if a proof is not there, or if a test that names a\n\
         row (`row_...`) stands in no row. The rung is the one that runs it: `cargo verify RUNG`. Beyond single tests, the\n\
         rung `kernel` runs generated programs on this machine's own io_uring and compares: operations, chains, timeouts,\n\
         polls, cancellation, provided buffers, files and tables; not workers, merging, IOPOLL and byte order, which no\n\
         program sees.\n",
    );
    for row in table::ROWS {
        let _ =
            write!(text, "\n## {}\n\n| promise | proven by | rung |\n|---|---|---|\n", row.name);
        for promise in row.promises {
            let mut rungs: Vec<&str> = vec![];
            let mut by: Vec<String> = vec![];
            for proof in promise.proofs {
                let (file, name) = proof.split_once("::").expect("file::test");
                by.push(format!("[`{name}`](../{file}.rs)"));
                rungs.extend(kind(proof).rung.split(", "));
            }
            rungs.sort_unstable();
            rungs.dedup();
            let _ =
                writeln!(text, "| {} | {} | {} |", promise.what, by.join(", "), rungs.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_page_of_the_contract_is_its_table() {
        crate::pages::check("contract", &page());
    }

    #[test]
    fn every_proof_of_the_contract_is_there() {
        let mut missing = vec![];
        for proof in table::ROWS.iter().flat_map(|row| row.promises).flat_map(|p| p.proofs) {
            let (file, name) = proof.split_once("::").expect("file::test");
            let looks = (kind(proof).looks)(name);
            match std::fs::read_to_string(root().join(format!("{file}.rs"))) {
                Ok(text) if text.contains(&looks) => {}
                Ok(_) => missing.push(format!("{proof}: there is no `{looks}`")),
                Err(e) => missing.push(format!("{proof}: {e}")),
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }

    /// Functions `row_*` of every test file under `dir`.
    fn rows_in(dir: &Path, file: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("a directory of tests") {
            let path = entry.expect("its entry").path();
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let name = format!("{file}/{stem}");
            if path.is_dir() {
                rows_in(&path, &name, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a test file");
            for rest in text.split("\nfn row_").skip(1) {
                let end = rest.find('(').expect("a function's arguments");
                found.insert(format!("{name}::row_{}", &rest[..end]));
            }
        }
    }

    #[test]
    fn no_test_of_a_row_stands_apart() {
        let mut found = BTreeSet::new();
        for dir in ["core/tests", "hal-linux/tests", "examples/tests"] {
            rows_in(&root().join(dir), dir, &mut found);
        }
        assert!(found.len() > 50, "only {} tests name a row", found.len());
        for row in table::ROWS {
            for proof in row.promises.iter().flat_map(|promise| promise.proofs) {
                found.remove(*proof);
            }
        }
        assert!(found.is_empty(), "in no row of verification/src/contract/table.rs: {found:#?}");
    }

    #[test]
    fn every_row_has_promises_and_every_promise_a_proof() {
        for row in table::ROWS {
            assert!(!row.promises.is_empty(), "{} promises nothing", row.name);
            for promise in row.promises {
                assert!(
                    !promise.proofs.is_empty(),
                    "{}: nothing proves: {}",
                    row.name,
                    promise.what
                );
            }
        }
    }
}
