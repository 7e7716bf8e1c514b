//! Boards by name.

use crate::{Board, BoardError, validate};
use std::path::Path;
use std::sync::LazyLock;

/// Every profile, as text: (file name, contents).
const PROFILES: &[(&str, &str)] = &[
    ("rpi-zero2w", include_str!("../profiles/rpi-zero2w.toml")),
    ("rpi-3b-plus", include_str!("../profiles/rpi-3b-plus.toml")),
    ("rpi-4", include_str!("../profiles/rpi-4.toml")),
    ("rpi-5", include_str!("../profiles/rpi-5.toml")),
    ("rpi-5-hailo8l", include_str!("../profiles/rpi-5-hailo8l.toml")),
    ("rpi-5-hailo10h", include_str!("../profiles/rpi-5-hailo10h.toml")),
    ("jetson-nano", include_str!("../profiles/jetson-nano.toml")),
    ("jetson-orin-nano", include_str!("../profiles/jetson-orin-nano.toml")),
    ("orange-pi-5", include_str!("../profiles/orange-pi-5.toml")),
    ("rock-5b", include_str!("../profiles/rock-5b.toml")),
    ("rk3566", include_str!("../profiles/rk3566.toml")),
    ("imx8mplus", include_str!("../profiles/imx8mplus.toml")),
    ("imx93", include_str!("../profiles/imx93.toml")),
    ("coral-dev", include_str!("../profiles/coral-dev.toml")),
    ("generic-aarch64", include_str!("../profiles/generic-aarch64.toml")),
    ("generic-armv7", include_str!("../profiles/generic-armv7.toml")),
    ("generic-x86-64", include_str!("../profiles/generic-x86-64.toml")),
];

static BOARDS: LazyLock<Vec<Board>> = LazyLock::new(|| {
    PROFILES
        .iter()
        .map(|(name, text)| {
            validate::parse(&format!("{name}.toml"), text)
                .expect("a test checks every embedded profile")
        })
        .collect()
});

/// Every board that is built in, in the order of the list: small to large, generic ones last.
pub fn all() -> &'static [Board] {
    &BOARDS
}

/// A built-in board by name or alias; case and `_` do not matter.
///
/// # Errors
/// [`BoardError::Unknown`] with the nearest names.
pub fn find(name: &str) -> Result<&'static Board, BoardError> {
    let wanted = name.trim().to_ascii_lowercase().replace(['_', ' '], "-");
    all().iter().find(|board| names(board).any(|name| name == wanted)).ok_or_else(|| {
        BoardError::Unknown { name: name.chars().take(60).collect(), suggestion: suggest(&wanted) }
    })
}

/// A built-in board by name, or one of the operator's own by a path that ends in `.toml`.
///
/// # Errors
/// [`BoardError`]: unknown name, unreadable file, or the first thing that is wrong with it.
pub fn load(name_or_path: &str) -> Result<Board, BoardError> {
    let path = Path::new(name_or_path);
    if path.extension().is_none_or(|extension| extension != "toml") {
        return find(name_or_path).cloned();
    }
    let text = std::fs::read_to_string(path)
        .map_err(|source| BoardError::Read { path: path.into(), source })?;
    validate::parse(name_or_path, &text)
}

fn names(board: &Board) -> impl Iterator<Item = &str> {
    std::iter::once(board.name.as_str()).chain(board.aliases.iter().map(String::as_str))
}

/// The three nearest names, if any is near, and where the list is.
fn suggest(wanted: &str) -> String {
    let wanted: String = wanted.chars().take(60).collect();
    let mut near: Vec<(usize, &str)> = all()
        .iter()
        .map(|board| {
            let best = names(board).map(|name| distance(&wanted, name)).min();
            (best.unwrap_or(usize::MAX), board.name.as_str())
        })
        .filter(|(distance, name)| *distance <= name.len().min(wanted.len()) / 2)
        .collect();
    near.sort();
    let list: Vec<&str> = near.into_iter().take(3).map(|(_, name)| name).collect();
    if list.is_empty() {
        "`plantain boards` lists them".into()
    } else {
        format!("did you mean {}? `plantain boards` lists all", list.join(" or "))
    }
}

/// Edits between two words: insert, delete, replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_profile_is_valid_and_embedded() {
        for (name, text) in PROFILES {
            let board =
                validate::parse(&format!("{name}.toml"), text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(board.name, *name, "a profile's name is its file's");
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let files: HashSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().into())
            .collect();
        let embedded: HashSet<String> = PROFILES.iter().map(|(name, _)| (*name).into()).collect();
        assert_eq!(files, embedded);
    }

    #[test]
    fn names_are_unique() {
        let mut seen = HashSet::new();
        for board in all() {
            for name in names(board) {
                assert!(seen.insert(name), "{name} names two boards");
            }
        }
    }

    #[test]
    fn finds_by_name_alias_and_any_case() {
        assert_eq!(find("rpi-zero2w").unwrap().title, "Raspberry Pi Zero 2 W");
        assert_eq!(find("RPi_Zero2W").unwrap().name, "rpi-zero2w");
        assert_eq!(find("pi-zero-2w").unwrap().name, "rpi-zero2w");
    }

    #[test]
    fn unknown_names_get_near_ones() {
        let error = find("rpi-zero2").unwrap_err().to_string();
        assert!(error.contains("did you mean rpi-zero2w"), "{error}");
        let error = find("commodore").unwrap_err().to_string();
        assert!(error.ends_with("`plantain boards` lists them"), "{error}");
        assert!(find(&"x".repeat(10_000_000)).unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn files_of_ones_own() {
        let error = load("/no/such/board.toml").unwrap_err().to_string();
        assert!(error.contains("/no/such/board.toml cannot be read"), "{error}");
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/rpi-4.toml");
        assert_eq!(load(own.to_str().unwrap()).unwrap(), *find("rpi-4").unwrap());
        assert_eq!(load("rpi-5").unwrap().name, "rpi-5");
    }

    #[test]
    fn edit_distance() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
