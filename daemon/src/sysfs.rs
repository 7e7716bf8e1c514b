//! Files of the system by pattern.

use std::path::{Path, PathBuf};

/// Files below `root` that match a path with at most one `*` in each of its parts, sorted.
pub fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    for part in pattern.trim_start_matches('/').split('/') {
        found = found
            .iter()
            .flat_map(|dir| match part.split_once('*') {
                None => vec![dir.join(part)],
                Some((before, after)) => children(dir, before, after),
            })
            .filter(|path| path.exists())
            .collect();
    }
    found.sort();
    found
}

fn children(dir: &Path, before: &str, after: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        })
        .collect()
}
