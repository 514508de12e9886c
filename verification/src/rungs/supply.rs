//! The rung `supply`: what Annulus is built with, and for whom.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use spdx::{Expression, ParseMode};

use super::exec::Cmd;
use super::{Found, Step, Wishes};

/// Licences that ours can be combined with, and that ask for no more than ours.
const LICENCES: &[&str] = &["MIT", "Apache-2.0", "Unicode-3.0"];

/// The one registry.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Packages of which several versions are built, and why.
const DUPLICATES: &[(&str, &str)] = &[("syn", "procedural macros that have not come to version 3")];

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let ci = wishes.ci;
    vec![
        Step::check("licences", |_| licences()),
        Step::check("sources", |_| sources()),
        Step::check("packages in several versions", |_| duplicates()),
        Step::check("the oldest toolchain that is promised", move |_| toolchain(ci)),
        Step::check("the interface since the last release", |_| releases()),
    ]
}

/// Every package that any target of the workspace is built with, on whatever
/// platform.
fn packages() -> Result<Vec<Value>, String> {
    packages_for(&[])
}

fn packages_for(platform: &[&str]) -> Result<Vec<Value>, String> {
    let metadata = ["metadata", "--format-version", "1", "--locked"];
    let said = Cmd::cargo(&metadata).args(platform).ask()?;
    let all: Value = serde_json::from_str(&said).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = all["packages"].as_array().cloned().unwrap_or_default();
    match packages.is_empty() {
        true => Err("cargo metadata names no package".into()),
        false => Ok(packages),
    }
}

fn name(package: &Value) -> String {
    let part = |part: &str| package[part].as_str().unwrap_or("?").to_owned();
    format!("{} {}", part("name"), part("version"))
}

fn allowed(expression: &str) -> Result<bool, String> {
    let expression = Expression::parse_mode(expression, ParseMode::LAX)
        .map_err(|e| format!("{expression:?}: {}", e.reason))?;
    Ok(expression.evaluate(|asked| {
        let known = asked.license.id().is_some_and(|id| LICENCES.contains(&id.name));
        known && asked.addition.is_none()
    }))
}

fn licences() -> Found {
    let (mut by, mut bad) = (BTreeMap::<String, u32>::new(), String::new());
    for package in packages()? {
        let licence = package["license"].as_str().unwrap_or("none");
        *by.entry(licence.to_owned()).or_default() += 1;
        if !allowed(licence).unwrap_or(false) {
            bad += &format!("{}: its licence is {licence}\n", name(&package));
        }
    }
    match bad.is_empty() {
        true => Ok(by.iter().map(|(licence, n)| format!("    {n:>4} {licence}\n")).collect()),
        false => Err(format!("{bad}allowed are {}", LICENCES.join(", "))),
    }
}

fn sources() -> Found {
    let packages = packages()?;
    // Without a source it is the workspace's own.
    let strange = |package: &&Value| package["source"].as_str().is_some_and(|s| s != REGISTRY);
    let bad: String = packages.iter().filter(strange).map(|p| name(p) + "\n").collect();
    match bad.is_empty() {
        true => Ok(format!("    {} packages, all of crates.io or ours\n", packages.len())),
        false => Err(format!("{bad}come from elsewhere than crates.io")),
    }
}

fn duplicates() -> Found {
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    // What others than Linux need is built by nobody.
    for package in packages_for(&["--filter-platform", "x86_64-unknown-linux-gnu"])? {
        let [name, version] = ["name", "version"].map(|part| package[part].as_str());
        let (name, version) = (name.unwrap_or("?"), version.unwrap_or("?"));
        versions.entry(name.into()).or_default().insert(version.into());
    }
    versions.retain(|_, versions| versions.len() > 1);
    let mut text = String::new();
    for (name, versions) in &versions {
        let versions = versions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let reason = DUPLICATES.iter().find(|(known, _)| known == name).map(|(_, reason)| reason);
        let reason = reason.ok_or_else(|| format!("{name} is built in versions {versions}"))?;
        text += &format!("    {name} {versions}: {reason}\n");
    }
    match DUPLICATES.iter().find(|(known, _)| !versions.contains_key(*known)) {
        Some((name, _)) => Err(format!("{name} has one version only: take it off the list")),
        None => Ok(text),
    }
}

/// Every rung's builds are by this toolchain: it has to be the promised one.
fn toolchain(ci: bool) -> Found {
    let promised = env!("CARGO_PKG_RUST_VERSION");
    let said = Cmd::cargo(&["--version"]).ask()?;
    let ours = said.split_whitespace().nth(1).unwrap_or("?");
    let newer = packages()?
        .iter()
        .filter(|package| {
            let asks = package["rust_version"].as_str().map(version);
            asks.is_some_and(|asks| asks > version(promised))
        })
        .map(|package| name(package) + "\n")
        .collect::<String>();
    if !newer.is_empty() {
        return Err(format!("{newer}ask for a newer toolchain than {promised}"));
    }
    if version(ours)[..2] == version(promised)[..2] {
        return Ok(format!("    {promised} is promised, and builds everything here\n"));
    }
    let why = format!(
        "NOT SHOWN: {promised} is promised, and this is {ours}; `rustup run {promised} cargo verify` shows it"
    );
    if ci { Err(why) } else { Ok(format!("    {why}\n")) }
}

fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    [0; 3].map(|_| parts.next().unwrap_or(0))
}

fn releases() -> Found {
    let tags = Cmd::new("git", &["tag", "--list", "v*"]).ask()?;
    match tags.lines().next() {
        None => Ok("    there is no release yet, so nothing to keep compatible with\n".into()),
        // Nobody can forget it: the first release makes this step fail.
        Some(tag) => Err(format!(
            "there is a release ({tag}) and no check against it: have cargo-semver-checks run here"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        for good in
            ["MIT", "MIT/Apache-2.0", "Unlicense OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"]
        {
            assert_eq!(allowed(good), Ok(true), "{good}");
        }
        for bad in ["GPL-2.0-only", "MIT AND GPL-2.0-only", "Apache-2.0 WITH LLVM-exception"] {
            assert_eq!(allowed(bad), Ok(false), "{bad}");
        }
        assert!(allowed("none").is_err());
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.100") > version("1.95.2") && version("1.9") < version("1.85"));
    }
}
