//! The project's sources, to be looked through.

use std::path::Path;

/// The Rust files below these directories of the workspace, by name, without
/// those that are tests.
///
/// # Errors
/// If one cannot be read.
pub fn all(root: &Path, dirs: &[&str]) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for dir in dirs {
        walk(root, Path::new(dir), &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<(String, String)>) -> Result<(), String> {
    let why = |e: std::io::Error| format!("{}: {e}", dir.display());
    for entry in std::fs::read_dir(root.join(dir)).map_err(why)? {
        let path = dir.join(entry.map_err(why)?.file_name());
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if root.join(&path).is_dir() {
            walk(root, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.to_string_lossy().into_owned();
            let text = std::fs::read_to_string(root.join(&path));
            found.push((name, text.map_err(|e| format!("{}: {e}", path.display()))?));
        }
    }
    Ok(())
}
