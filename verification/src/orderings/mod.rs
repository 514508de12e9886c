//! Every atomic operation of the project: where it is, what it orders, with
//! whom, and which model runs it. `cargo verify loom` prints the table and
//! fails if an operation has no reason, or neither a model nor an argument.
//!
//! The sources are read for the table ([`scan`]); which models come by an
//! operation they say themselves (`annulus::sync::watched`). [`mutate`] weakens
//! the operations one at a time.

mod lists;
pub mod mutate;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

pub use scan::{Order, Site};

/// Where sources are that other people's programs have in them.
const SOURCES: &[&str] = &["core/src", "hal-linux/src", "hal-baremetal/src"];

/// What is loom's or the experimenter's own.
const NOT: &[&str] = &[
    "core/src/sync.rs",
    "core/src/sync/",
    "core/src/model/",
    "core/src/fault.rs",
    "hal-baremetal/src/fault.rs",
];

/// A model that has run, and what it came by.
pub struct Model {
    /// Whose it is: the index of its suite.
    pub suite: usize,
    pub name: String,
    pub milliseconds: u64,
    pub places: BTreeSet<String>,
}

/// What a suite of models has written into a directory: a file a model.
///
/// # Errors
/// If there is nothing, or nothing that makes sense.
pub fn models(suite: usize, dir: &Path) -> Result<Vec<Model>, String> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut models = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut lines = text.lines();
        let time = lines.next().and_then(|line| line.parse().ok());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        models.push(Model {
            suite,
            milliseconds: time.ok_or_else(|| format!("{}: no time", path.display()))?,
            places: lines.map(String::from).collect(),
            name,
        });
    }
    models.sort_by(|a, b| (a.milliseconds, &a.name).cmp(&(b.milliseconds, &b.name)));
    match models.is_empty() {
        true => Err(format!("{}: no model has left anything here", dir.display())),
        false => Ok(models),
    }
}

/// The operations of the project.
///
/// # Errors
/// If a source cannot be read.
pub fn sites(root: &Path) -> Result<Vec<Site>, String> {
    let mut found = Vec::new();
    for (name, text) in crate::sources::all(root, SOURCES)? {
        if !NOT.iter().any(|not| name.starts_with(not)) {
            found.extend(scan::sites(&name, &text)?);
        }
    }
    Ok(found)
}

/// The table, and what is wrong with it.
pub fn table(sites: &[Site], models: &[Model]) -> (String, Vec<String>) {
    let mut by: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for model in models {
        for place in &model.places {
            by.entry(place).or_default().push(&model.name);
        }
    }
    let (mut text, mut wrong) = (String::new(), Vec::new());
    let (mut modelled, mut argued) = (0, 0);
    for site in sites.iter().filter(|site| site.built) {
        let orders: Vec<_> = site.orders.iter().map(|order| format!("{order:?}")).collect();
        let apart = lists::apart(site);
        let covered = match (by.get(site.place.as_str()), apart) {
            (Some(models), _) => {
                modelled += 1;
                match models[..] {
                    [one] => one.to_owned(),
                    [first, ..] => format!("{first} and {} more", models.len() - 1),
                    [] => unreachable!("a place that is listed has a model"),
                }
            }
            (None, Some(argument)) => {
                argued += 1;
                format!("({argument})")
            }
            (None, None) => {
                wrong.push(format!("{}: no model comes by here", site.place));
                "UNCOVERED".to_owned()
            }
        };
        if site.why.is_empty() {
            wrong.push(format!("{}: nothing says why it is {}", site.place, orders.join("/")));
        }
        let _ = writeln!(
            text,
            "    {} {} {} {}\n        why: {}\n        run by: {covered}",
            site.place,
            site.function,
            site.operation,
            orders.join("/"),
            if site.why.is_empty() { "?" } else { &site.why },
        );
    }
    let built = sites.iter().filter(|site| site.built).count();
    let known: BTreeSet<_> = sites.iter().map(|site| site.place.as_str()).collect();
    for place in by.keys() {
        let ours = SOURCES.iter().any(|dir| place.starts_with(dir));
        if ours && !NOT.iter().any(|not| place.starts_with(not)) && !known.contains(place) {
            wrong.push(format!("{place}: a model comes by here, and the table does not have it"));
        }
    }
    for unused in lists::unused(sites) {
        wrong.push(format!("the lists of exceptions name what is not there: {unused}"));
    }
    let _ = writeln!(
        text,
        "    {} atomic operations: {modelled} run by models, {argued} argued apart, {} uncovered",
        built,
        built - modelled - argued
    );
    (text, wrong)
}
