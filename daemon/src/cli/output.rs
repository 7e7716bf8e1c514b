//! Files that appear whole or not at all.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::Refusal;

/// Refuses early what could not be written in the end.
///
/// # Errors
/// A [`Refusal`] if the folder is missing or is no folder.
pub fn check_folder(path: &Path) -> anyhow::Result<()> {
    let folder = folder_of(path);
    if !folder.is_dir() {
        let message =
            format!("the folder {} does not exist; make it or choose another -o", folder.display());
        return Err(Refusal(message).into());
    }
    if path.is_dir() {
        return Err(Refusal(format!("{} is a folder; name a file with -o", path.display())).into());
    }
    Ok(())
}

/// Writes a file beside its place and renames it there.
///
/// # Errors
/// If it cannot be written; nothing is left behind then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file =
            tempfile::Builder::new().prefix(".plantain-").tempfile_in(folder_of(path))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(permissions)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space",
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "choose another -o",
            _ => "look at the disk, or choose another -o",
        };
        let number = error.raw_os_error().or_else(|| {
            error.get_ref()?.source()?.downcast_ref::<std::io::Error>()?.raw_os_error()
        });
        let reason = number.map(std::io::Error::from_raw_os_error).unwrap_or(error);
        let (path, bytes) = (path.display(), bytes.len());
        anyhow::anyhow!("{path} ({bytes} bytes) cannot be written: {reason}; {advice}")
    })
}

/// `apple.png` for one picture; `apple-1.png`, `apple-2.png` for several.
pub fn numbered(path: &Path, index: u32, count: u32) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{}.{}", index + 1, extension.to_string_lossy()),
        None => format!("{stem}-{}", index + 1),
    };
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_files_only_if_there_are_several() {
        assert_eq!(numbered(Path::new("a/apple.png"), 0, 1), Path::new("a/apple.png"));
        assert_eq!(numbered(Path::new("a/apple.v2.png"), 1, 3), Path::new("a/apple.v2-2.png"));
        assert_eq!(numbered(Path::new("apple"), 0, 2), Path::new("apple-1"));
    }

    #[test]
    fn writes_whole_files_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert!(write_whole(&folder.path().join("no/a.png"), b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(check_folder(&folder.path().join("no/a.png")).unwrap_err().is::<Refusal>());
        assert!(check_folder(folder.path()).unwrap_err().is::<Refusal>());
    }
}
