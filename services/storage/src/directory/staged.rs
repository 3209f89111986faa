//! A file that is being written where nobody looks, until it is put in its place as a whole.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use cap_std::fs::Dir;
use data_encoding::HEXLOWER;
use domain::random::{self, Random};

use super::beneath;

/// The directory in the root that holds unfinished files. No object can have a key in it.
pub(crate) const STAGING: &str = ".staging";
/// How often a place is made again when its folder vanished because its last file was deleted meanwhile.
const ATTEMPTS: u32 = 64;

/// What to do where a file of that name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    Keep,
}

/// An unfinished file; dropping it removes it.
#[derive(Debug)]
pub(crate) struct StagedFile {
    staging: Dir,
    name: String,
    file: Arc<File>,
}

impl StagedFile {
    pub(crate) fn create(root: &Dir, random: &dyn Random) -> io::Result<Self> {
        let staging = beneath::make_directory(root, &[STAGING])?;
        let name = HEXLOWER.encode(&random::bytes::<16>(random));
        let file = Arc::new(beneath::create_file(&staging, &name)?);
        Ok(Self { staging, name, file })
    }

    /// The file, for writes at positions of the caller's choice.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)
    }

    /// Gives the file its name, durably and at once: who looks sees what was there before or the whole new file.
    pub(crate) fn publish(
        self,
        root: &Dir,
        parts: &[&str],
        existing: Existing,
    ) -> io::Result<std::fs::Metadata> {
        self.file.sync_all()?;
        place(root, &self.staging, &self.name, parts, existing)?;
        self.file.metadata()
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // Gone already where it was published by a rename.
        let _ = self.staging.remove_file(&self.name);
    }
}

/// Moves the file `name` of `from` to the path `parts` below `root`.
pub(crate) fn place(
    root: &Dir,
    from: &Dir,
    name: &str,
    parts: &[&str],
    existing: Existing,
) -> io::Result<()> {
    let (last, folders) = parts
        .split_last()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut attempts = 0..ATTEMPTS;
    loop {
        match try_place(root, from, name, (folders, last), existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts.next().is_some() => {}
            placed => return placed,
        }
    }
}

fn try_place(
    root: &Dir,
    from: &Dir,
    name: &str,
    (folders, last): (&[&str], &str),
    existing: Existing,
) -> io::Result<()> {
    let folder = beneath::make_directory(root, folders)?;
    match existing {
        Existing::Replace => from.rename(name, &folder, last)?,
        // link(2) is the one call that refuses to replace and needs no check beforehand.
        Existing::Keep => {
            from.hard_link(name, &folder, last)?;
            let _ = from.remove_file(name);
        }
    }
    beneath::sync(&folder)
}
