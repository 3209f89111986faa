//! Walking a directory tree for the objects in it.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

use cap_std::fs::Dir;
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta};

use super::beneath;
use super::staged::STAGING;

/// What an object's file says about the object.
pub(crate) fn meta(location: Path, metadata: &Metadata) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: metadata.modified().unwrap_or(std::time::UNIX_EPOCH).into(),
        size: metadata.len(),
        e_tag: Some(e_tag(metadata)),
        version: None,
    }
}

/// Differs between any two files that ever had the same name, as far as the file system's clock can tell.
pub(crate) fn e_tag(metadata: &Metadata) -> String {
    let (inode, size) = (metadata.ino(), metadata.len());
    let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    format!("{inode:x}-{modified:x}-{size:x}")
}

/// The objects and folders right in the folder at `prefix`, both in the order of their names. None where it is no folder.
///
/// Links, devices and names that are not UTF-8 are nobody's objects and are left out.
pub(crate) fn read_folder(root: &Dir, prefix: &Path) -> io::Result<ListResult> {
    let mut found = ListResult {
        common_prefixes: Vec::new(),
        objects: Vec::new(),
        extensions: Default::default(),
    };
    let parts: Vec<&str> = parts(prefix);
    let folder = match beneath::open_directory(root, &parts) {
        Ok(folder) => folder,
        Err(error) if is_absent(&error) => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in folder.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if parts.is_empty() && name == STAGING {
            continue;
        }
        let below = if parts.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        let Ok(location) = Path::parse(&below) else {
            continue;
        };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.common_prefixes.push(location);
        } else if kind.is_file() {
            // It may be gone since its name was read.
            if let Ok(metadata) = beneath::open_file(&folder, name).and_then(|file| file.metadata()) {
                found.objects.push(meta(location, &metadata));
            }
        }
    }
    found.common_prefixes.sort();
    found.objects.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

/// The names a key consists of.
pub(crate) fn parts(location: &Path) -> Vec<&str> {
    location
        .as_ref()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect()
}

/// True where an error means that nothing is there (and not that it cannot be read).
pub(crate) fn is_absent(error: &io::Error) -> bool {
    // ELOOP: a link, which is as good as nothing.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}
