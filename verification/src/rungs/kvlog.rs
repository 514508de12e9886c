//! The log that users' models are shown with, a crate outside of the workspace,
//! and the page that tells of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::embedded::blocks;
use super::exec::Cmd;
use super::{Found, Step, root, target_dir};

/// The page.
const PAGE: &str = "docs/model-checking.md";

/// What the models say of the bug.
const SAID: &[&str] = &[
    "model put beside get FAILED in execution",
    "record 0 is not that of key 7",
    "model get, then a crash FAILED in execution",
    "model failing put FAILED in execution",
    "test result: FAILED. 0 passed; 3 failed;",
];

fn dir() -> PathBuf {
    root().join("examples/kvlog")
}

fn cargo(args: &[&str]) -> Cmd {
    let target = target_dir("verify").join("kvlog");
    Cmd::cargo(args).args(["--locked"]).env("CARGO_TARGET_DIR", target).dir(dir())
}

fn models() -> Cmd {
    let flags = format!("{} --cfg loom", std::env::var("RUSTFLAGS").unwrap_or_default());
    cargo(&["test", "--release", "--test", "model"])
        .env("CARGO_TARGET_DIR", target_dir("loom").join("kvlog"))
        .env("RUSTFLAGS", flags.trim())
}

/// What the rung `test` does with it.
pub fn steps() -> Vec<Step> {
    let tests = cargo(&["test"]).show("test result: ok");
    let lints = cargo(&["clippy", "--all-targets"]).args(["--", "-D", "warnings"]);
    vec![
        Step::check(format!("{PAGE} has the code of examples/kvlog"), |_| page()),
        Step::command("kvlog: its tests, over files", tests),
        Step::command("kvlog: lints", lints),
        Step::command("kvlog: formatting", Cmd::cargo(&["fmt", "--check"]).dir(dir())),
    ]
}

/// What the rung `loom` does with it.
pub fn loom_steps() -> Vec<Step> {
    let pass = models().args(["--", "--nocapture"]).show("model");
    vec![
        Step::command("kvlog: its models", pass),
        Step::check("kvlog: each of its models finds the bug", finds_the_bug),
    ]
}

fn finds_the_bug(left: Duration) -> Found {
    let dir = target_dir("loom").join("kvlog");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let log = dir.join("publish-early.log");
    let with_bug = models().args(["--features", "publish-early", "--", "--nocapture"]);
    if with_bug.run(&log, left).is_ok() {
        return Err("no model has found the bug of the feature publish-early".into());
    }
    let said = fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    match SAID.iter().find(|line| !said.contains(*line)) {
        Some(line) => Err(format!("the models do not say `{line}`: {}", log.display())),
        None => Ok(said
            .lines()
            .filter(|line| line.contains("FAILED in execution"))
            .map(|line| format!("    {line}\n"))
            .collect()),
    }
}

/// Each of the page's pieces is a piece of the crate; the models are on it
/// whole.
fn page() -> Found {
    let read = |path: PathBuf| fs::read_to_string(&path).map_err(|e| format!("{path:?}: {e}"));
    let page = read(root().join(PAGE))?;
    let code = [read(dir().join("src/lib.rs"))?, read(dir().join("tests/model.rs"))?];
    let manifest = read(dir().join("Cargo.toml"))?;
    compare(&page, "rust", &[&code[0], &code[1]])?;
    compare(&page, "toml", &[&manifest])?;
    let shown = blocks(&page, "rust");
    match lines(&code[1]).into_iter().find(|line| !shown.contains(line)) {
        Some(line) => Err(format!("{PAGE} does not have `{line}` of tests/model.rs")),
        None => Ok(String::new()),
    }
}

fn lines(file: &str) -> Vec<&str> {
    file.lines().filter(|line| !line.is_empty()).collect()
}

/// Whether each block of a language is found, line for line, in one of the
/// files.
fn compare(page: &str, language: &str, files: &[&str]) -> Result<(), String> {
    let fence = format!("```{language}\n");
    for block in page.split(&fence).skip(1) {
        let block = lines(block.split("\n```").next().unwrap_or(block));
        let has = |file: &&str| lines(file).windows(block.len().max(1)).any(|run| run == block);
        if !files.iter().any(has) {
            let first = block.first().unwrap_or(&"nothing");
            return Err(format!("{PAGE}: examples/kvlog has no such piece, from `{first}` on"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_the_code() {
        assert_eq!(page(), Ok(String::new()));
    }

    #[test]
    fn a_piece_that_is_not_there_is_shown() {
        let page = "text\n```rust\nfn a() {\n\n}\n```\n```toml\nb = 1\n```\n";
        assert_eq!(compare(page, "rust", &["x\nfn a() {\n}\ny\n"]), Ok(()));
        assert_eq!(compare(page, "toml", &["a = 0\n", "b = 1\n"]), Ok(()));
        for other in ["fn a() {\n    c();\n}\n", "fn a() {\n", ""] {
            let why = compare(page, "rust", &[other]).expect_err("they differ");
            assert!(why.contains("`fn a() {`"), "{why}");
        }
    }
}
