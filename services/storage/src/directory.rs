//! Objects as files in a directory of this machine, or of one that several machines mount.
//!
//! Invariants: no key leads out of the directory, neither by `..` nor by a symbolic link planted in it; an object is seen
//! whole or not at all, also after a power failure (staged file, fsync, rename or link, fsync of the folder).
//!
//! object_store's own `LocalFileSystem` follows symbolic links, which is why this exists. Deliberately absent: attributes,
//! tags and conditional updates.

mod beneath;
mod listing;
mod staged;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use domain::random::Random;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, RenameTargetMode, Result, UploadPart,
};

use self::listing::{is_absent, meta, parts};
use self::staged::{Existing, STAGING, StagedFile};

const STORE: &str = "directory";
/// How much is read from a file at once.
const READ_BYTES: u64 = 256 * 1024;

/// An object store in a directory.
#[derive(Clone)]
pub struct DirectoryStore {
    root: Arc<Dir>,
    random: Arc<dyn Random>,
}

impl fmt::Debug for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryStore").finish_non_exhaustive()
    }
}

impl fmt::Display for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectoryStore")
    }
}

impl DirectoryStore {
    /// Opens the directory at `path`, which must exist. Whatever `path` is later made to mean, this stays with the directory.
    ///
    /// # Errors
    /// Where it is no directory, or may not be read.
    pub fn open(path: &std::path::Path, random: Arc<dyn Random>) -> io::Result<Self> {
        let root = Dir::open_ambient_dir(path, ambient_authority())?;
        Ok(Self {
            root: Arc::new(root),
            random,
        })
    }

    /// Removes unfinished files that nobody wrote to since `before`: what writers that were killed left behind.
    /// Returns how many.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub async fn remove_abandoned(&self, before: SystemTime) -> Result<u64> {
        let root = Arc::clone(&self.root);
        blocking(STAGING.to_owned(), move || {
            let staging = beneath::make_directory(&root, &[STAGING])?;
            let mut removed = 0;
            for entry in staging.entries()? {
                let entry = entry?;
                let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                    continue;
                };
                if modified.into_std() < before && entry.remove_file().is_ok() {
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
    }

    async fn open_object(&self, location: &Path) -> Result<(File, ObjectMeta)> {
        let (root, path) = (Arc::clone(&self.root), location.clone());
        blocking(location.to_string(), move || {
            let (folder, name) = locate(&root, &path)?;
            let file = beneath::open_file(&folder, name)?;
            let meta = meta(path.clone(), &file.metadata()?);
            Ok((file, meta))
        })
        .await
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let existing = match opts.mode {
            PutMode::Overwrite => Existing::Replace,
            PutMode::Create => Existing::Keep,
            PutMode::Update(_) => return Err(not_implemented("a conditional update")),
        };
        if !opts.attributes.is_empty() {
            return Err(not_implemented("attributes"));
        }
        let (root, random, path) = (
            Arc::clone(&self.root),
            Arc::clone(&self.random),
            writable(location)?,
        );
        blocking(location.to_string(), move || {
            let staged = StagedFile::create(&root, random.as_ref())?;
            payload.iter().try_for_each(|bytes| staged.write(bytes))?;
            Ok(put_result(&staged.publish(&root, &parts(&path), existing)?))
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return Err(not_implemented("attributes"));
        }
        let (root, random, path) = (
            Arc::clone(&self.root),
            Arc::clone(&self.random),
            writable(location)?,
        );
        let staged = blocking(location.to_string(), move || {
            StagedFile::create(&root, random.as_ref())
        })
        .await?;
        Ok(Box::new(DirectoryUpload {
            root: Arc::clone(&self.root),
            location: path,
            file: staged.file(),
            staged: Some(staged),
            end: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (file, meta) = self.open_object(location).await?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            None => 0..meta.size,
            Some(range) => resolve(range, meta.size)?,
        };
        let payload = if options.head {
            stream::empty().boxed()
        } else {
            read(Arc::new(file), range.clone(), location.to_string())
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            range,
            meta,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let root = Arc::clone(&self.root);
        locations
            .and_then(move |location| {
                let root = Arc::clone(&root);
                async move {
                    let path = writable(&location)?;
                    blocking(location.to_string(), move || delete(&root, &path)).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = Arc::clone(&self.root);
        let folders = vec![prefix.cloned().unwrap_or_default()];
        // Depth first, one folder in memory at a time.
        stream::try_unfold(folders, move |mut folders| {
            let root = Arc::clone(&root);
            async move {
                let Some(folder) = folders.pop() else {
                    return Ok(None);
                };
                let found = read_folder(root, folder).await?;
                folders.extend(found.common_prefixes.into_iter().rev());
                let objects = stream::iter(found.objects.into_iter().map(Ok::<_, Error>));
                Ok::<_, Error>(Some((objects, folders)))
            }
        })
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        read_folder(Arc::clone(&self.root), prefix.cloned().unwrap_or_default()).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let existing = match options.mode {
            CopyMode::Overwrite => Existing::Replace,
            CopyMode::Create => Existing::Keep,
        };
        let (mut source, _) = self.open_object(from).await?;
        let (root, random, path) = (Arc::clone(&self.root), Arc::clone(&self.random), writable(to)?);
        blocking(to.to_string(), move || {
            let staged = StagedFile::create(&root, random.as_ref())?;
            io::copy(&mut source, &mut &*staged.file())?;
            staged.publish(&root, &parts(&path), existing).map(drop)
        })
        .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let existing = match options.target_mode {
            RenameTargetMode::Overwrite => Existing::Replace,
            RenameTargetMode::Create => Existing::Keep,
        };
        let (root, source, target) = (Arc::clone(&self.root), writable(from)?, writable(to)?);
        blocking(to.to_string(), move || {
            let (folder, name) = locate(&root, &source)?;
            if !beneath::is_file(&folder, name)? {
                return Err(io::ErrorKind::NotFound.into());
            }
            staged::place(&root, &folder, name, &parts(&target), existing)?;
            beneath::sync(&folder)?;
            remove_empty_folders(&root, &parts(&source));
            Ok(())
        })
        .await
    }
}

/// Parts go to a staged file at the positions their order gives them, so that they may be written side by side.
#[derive(Debug)]
struct DirectoryUpload {
    root: Arc<Dir>,
    location: Path,
    file: Arc<File>,
    staged: Option<StagedFile>,
    end: u64,
}

#[async_trait]
impl MultipartUpload for DirectoryUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, name, mut position) = (Arc::clone(&self.file), self.location.to_string(), self.end);
        self.end += data.content_length() as u64;
        Box::pin(blocking(name, move || {
            for bytes in &data {
                file.write_all_at(bytes, position)?;
                position += bytes.len() as u64;
            }
            Ok(())
        }))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.take().ok_or_else(|| Error::Generic {
            store: STORE,
            source: "the upload has ended already".into(),
        })?;
        let (root, path) = (Arc::clone(&self.root), self.location.clone());
        blocking(path.to_string(), move || {
            Ok(put_result(&staged.publish(
                &root,
                &parts(&path),
                Existing::Replace,
            )?))
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = self.staged.take();
        blocking(self.location.to_string(), move || {
            drop(staged);
            Ok(())
        })
        .await
    }
}

fn delete(root: &Dir, location: &Path) -> io::Result<()> {
    let (folder, name) = locate(root, location)?;
    if !beneath::is_file(&folder, name)? {
        return Err(io::ErrorKind::NotFound.into());
    }
    folder.remove_file(name)?;
    beneath::sync(&folder)?;
    remove_empty_folders(root, &parts(location));
    Ok(())
}

/// Folders exist while an object is in them. One that is not empty, or is used again already, stays.
fn remove_empty_folders(root: &Dir, parts: &[&str]) {
    for depth in (1..parts.len()).rev() {
        let removed = beneath::open_directory(root, &parts[..depth - 1])
            .and_then(|parent| parent.remove_dir(parts[depth - 1]));
        if removed.is_err() {
            break;
        }
    }
}

/// The folder that holds an object, and the object's name in it.
fn locate<'a>(root: &Dir, location: &'a Path) -> io::Result<(Dir, &'a str)> {
    let parts = parts(location);
    if parts.first() == Some(&STAGING) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (name, folders) = parts
        .split_last()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let folder = beneath::open_directory(root, folders).map_err(|error| {
        if is_absent(&error) {
            io::ErrorKind::NotFound.into()
        } else {
            error
        }
    })?;
    Ok((folder, name))
}

/// A key that an object may have.
fn writable(location: &Path) -> Result<Path> {
    match parts(location).first() {
        None | Some(&STAGING) => Err(Error::NotSupported {
            source: format!("no object can have the key {:?}", location.as_ref()).into(),
        }),
        Some(_) => Ok(location.clone()),
    }
}

fn read(file: Arc<File>, range: Range<u64>, name: String) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold(range, move |range| {
        let (file, name) = (Arc::clone(&file), name.clone());
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let wanted = (range.end - range.start).min(READ_BYTES) as usize;
            let start = range.start;
            let bytes = blocking(name, move || {
                let mut buffer = vec![0; wanted];
                file.read_exact_at(&mut buffer, start)?;
                Ok(Bytes::from(buffer))
            })
            .await?;
            Ok(Some((bytes, start + wanted as u64..range.end)))
        }
    })
    .boxed()
}

async fn read_folder(root: Arc<Dir>, folder: Path) -> Result<ListResult> {
    blocking(folder.to_string(), move || listing::read_folder(&root, &folder)).await
}

fn resolve(range: &GetRange, size: u64) -> Result<Range<u64>> {
    range.as_range(size).map_err(|error| Error::Generic {
        store: STORE,
        source: Box::new(error),
    })
}

fn put_result(metadata: &std::fs::Metadata) -> PutResult {
    PutResult {
        e_tag: Some(listing::e_tag(metadata)),
        version: None,
        extensions: Default::default(),
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "DirectoryStore".to_owned(),
    }
}

/// Runs file system calls where they may block, and gives their error the object's name.
async fn blocking<T: Send + 'static>(
    path: String,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Generic {
            store: STORE,
            source: Box::new(error),
        })?;
    done.map_err(|error| match error.kind() {
        // A file where a folder is needed, or a folder where a file is to be.
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Error::Precondition {
            path,
            source: Box::new(error),
        },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists {
            path,
            source: Box::new(error),
        },
        _ if is_absent(&error) => Error::NotFound {
            path,
            source: Box::new(error),
        },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied {
            path,
            source: Box::new(error),
        },
        _ => Error::Generic {
            store: STORE,
            source: Box::new(error),
        },
    })
}
