//! Opening what lies beneath a directory handle, one name at a time.
//!
//! Invariant: every step is one `openat` of one name with `O_NOFOLLOW`, so a symbolic link, wherever it points and whenever
//! it was planted, is refused by the kernel and not by a check that could be outrun.

use std::fs::File;
use std::io;

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The directory that `parts` lead to.
pub(crate) fn open_directory(root: &Dir, parts: &[&str]) -> io::Result<Dir> {
    let mut directory = root.try_clone()?;
    for part in parts {
        directory = enter(&directory, part)?;
    }
    Ok(directory)
}

/// The directory that `parts` lead to, made where it is missing.
pub(crate) fn make_directory(root: &Dir, parts: &[&str]) -> io::Result<Dir> {
    let mut directory = root.try_clone()?;
    for part in parts {
        directory = match enter(&directory, part) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&directory, checked(part)?, PRIVATE_DIRECTORY) {
                    Ok(()) => sync(&directory)?,
                    // Somebody else was faster.
                    Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                enter(&directory, part)?
            }
            entered => entered?,
        };
    }
    Ok(directory)
}

/// An ordinary file to read. Whatever else bears the name (a device, a FIFO, a socket) is refused without waiting for it.
pub(crate) fn open_file(directory: &Dir, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(
        directory,
        checked(name)?,
        flags,
        Mode::empty(),
    )?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "not an ordinary file"))
    }
}

/// A file that did not exist before, to write.
pub(crate) fn create_file(directory: &Dir, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        directory,
        checked(name)?,
        flags,
        PRIVATE_FILE,
    )?))
}

/// True where the name is an ordinary file's, itself and not what a link leads to.
pub(crate) fn is_file(directory: &Dir, name: &str) -> io::Result<bool> {
    let stat = rustix::fs::statat(directory, checked(name)?, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// Makes the names in a directory outlast a power failure.
pub(crate) fn sync(directory: &Dir) -> io::Result<()> {
    // A handle may be one that only names the directory (`O_PATH`), which fsync refuses.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    Ok(rustix::fs::fsync(readable)?)
}

fn enter(directory: &Dir, name: &str) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entered = rustix::fs::openat(directory, checked(name)?, flags, Mode::empty())?;
    Ok(Dir::from_std_file(File::from(entered)))
}

/// One name that means an entry of a directory and nothing else.
fn checked(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not the name of an entry",
        ));
    }
    Ok(name)
}
