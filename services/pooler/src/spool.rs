//! What an execution says while nobody reads it: a file without a name, encrypted with a key that only this process has.
//!
//! Messages gather in blocks; a block is written when it is full, and never again. So a reader may read what another
//! appends to, and the file's index stays small.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf as _, BufMut as _, Bytes};
use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use domain::random::{self, Random};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use rpc::events::EncodedEvents;
use thiserror::Error;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::session::Numbered;

/// A block is full at so many bytes.
const BLOCK: usize = 64 * 1024;
/// The part of all space that one execution may take.
const SHARE: u64 = 4;
/// Before each message: its length and the numbers of its events.
const HEAD: usize = 4 + 8 + 8;

/// Why nothing more is spooled, or cannot be read again.
#[derive(Debug, Error)]
pub(crate) enum SpoolError {
    /// It has as much as it may.
    #[error("there is no space left for what nobody reads")]
    Full,
    /// The file failed.
    #[error("the spool file failed")]
    Io(#[from] std::io::Error),
    /// The file holds something else than was written.
    #[error("the spool file does not hold what was written to it")]
    Damaged,
}

/// The space that all spools share.
#[derive(Debug, Clone)]
pub(crate) struct SpoolSpace {
    directory: PathBuf,
    bytes: u64,
    used: Arc<AtomicU64>,
    random: Arc<dyn Random>,
}

impl SpoolSpace {
    /// At most so many bytes in that directory.
    pub(crate) fn new(directory: PathBuf, bytes: u64, random: Arc<dyn Random>) -> Self {
        Self {
            directory,
            bytes,
            used: Arc::default(),
            random,
        }
    }

    /// An empty spool.
    pub(crate) async fn open(&self) -> Result<Spool, SpoolError> {
        if self.bytes == 0 {
            return Err(SpoolError::Full);
        }
        let directory = self.directory.clone();
        let file = blocking(move || tempfile::tempfile_in(directory)).await?;
        let key = Zeroizing::new(random::bytes::<32>(&*self.random));
        Ok(Spool {
            file: Arc::new(file),
            cipher: ChaCha20Poly1305::new(&Key::from(*key)),
            blocks: Vec::new(),
            open: OpenBlock::default(),
            length: 0,
            space: self.clone(),
        })
    }
}

/// What one execution said.
pub(crate) struct Spool {
    file: Arc<File>,
    cipher: ChaCha20Poly1305,
    blocks: Vec<Block>,
    open: OpenBlock,
    /// Of the file.
    length: u64,
    space: SpoolSpace,
}

/// Where a block is.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// Counts the blocks from 0: no two are encrypted alike.
    number: u64,
    offset: u64,
    length: usize,
    first: i64,
    last: i64,
}

/// Messages that are not written yet.
#[derive(Debug, Default, Clone)]
struct OpenBlock {
    bytes: Vec<u8>,
    first: i64,
    last: i64,
}

impl Spool {
    /// The number of the last event in it.
    pub(crate) fn last(&self) -> i64 {
        if self.open.bytes.is_empty() {
            self.blocks.last().map_or(0, |block| block.last)
        } else {
            self.open.last
        }
    }

    /// True where everything after the event of that number is here, up to the last.
    pub(crate) fn covers(&self, after: i64) -> bool {
        let first = self.blocks.first().map_or(self.open.first, |block| block.first);
        first <= after + 1 && after <= self.last()
    }

    /// Adds a message.
    pub(crate) async fn append(&mut self, next: &Numbered) -> Result<(), SpoolError> {
        let bytes = next.message.as_bytes();
        if self.open.bytes.is_empty() {
            self.open.first = next.first;
        }
        self.open.last = next.last;
        let length = u32::try_from(bytes.len()).map_err(|_| SpoolError::Full)?;
        self.open.bytes.reserve(HEAD + bytes.len());
        self.open.bytes.put_u32(length);
        self.open.bytes.put_i64(next.first);
        self.open.bytes.put_i64(next.last);
        self.open.bytes.put_slice(bytes);
        if self.open.bytes.len() >= BLOCK {
            self.write().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), SpoolError> {
        let open = std::mem::take(&mut self.open);
        let number = self.blocks.len() as u64;
        let sealed = self.cipher.encrypt(&nonce(number), open.bytes.as_slice());
        let sealed = sealed.map_err(|_| SpoolError::Damaged)?;
        let (offset, length) = (self.length, sealed.len());
        self.take_space(length as u64)?;
        self.length += length as u64;
        let file = Arc::clone(&self.file);
        blocking(move || file.write_all_at(&sealed, offset)).await?;
        self.blocks.push(Block {
            number,
            offset,
            length,
            first: open.first,
            last: open.last,
        });
        Ok(())
    }

    fn take_space(&self, length: u64) -> Result<(), SpoolError> {
        if self.length + length > self.space.bytes / SHARE {
            return Err(SpoolError::Full);
        }
        let used = self.space.used.fetch_add(length, Ordering::Relaxed);
        if used + length > self.space.bytes {
            self.space.used.fetch_sub(length, Ordering::Relaxed);
            return Err(SpoolError::Full);
        }
        Ok(())
    }

    /// What comes after the event of that number, as far as it is here now.
    pub(crate) fn read(&self, after: i64) -> BoxStream<'static, Result<Numbered, SpoolError>> {
        let blocks = self.blocks.iter().filter(|block| block.last > after).copied();
        let (file, cipher) = (Arc::clone(&self.file), self.cipher.clone());
        let written = stream::iter(blocks.collect::<Vec<_>>()).then(move |block| {
            let (file, cipher) = (Arc::clone(&file), cipher.clone());
            async move {
                let sealed = blocking(move || {
                    let mut sealed = vec![0; block.length];
                    file.read_exact_at(&mut sealed, block.offset).map(|()| sealed)
                });
                let opened = cipher.decrypt(&nonce(block.number), sealed.await?.as_slice());
                opened.map_err(|_| SpoolError::Damaged)
            }
        });
        let open = stream::iter([Ok(self.open.bytes.clone())]);
        written.chain(open).flat_map(messages).boxed()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce.into()
}

/// The messages of a block.
fn messages(block: Result<Vec<u8>, SpoolError>) -> impl Stream<Item = Result<Numbered, SpoolError>> {
    let mut block = block.map(Bytes::from);
    stream::iter(std::iter::from_fn(move || {
        let rest = match &mut block {
            Ok(rest) if rest.is_empty() => return None,
            Ok(rest) => rest,
            Err(_) => return std::mem::replace(&mut block, Ok(Bytes::new())).err().map(Err),
        };
        let (length, first, last) = (rest.get_u32() as usize, rest.get_i64(), rest.get_i64());
        let message = EncodedEvents::from_encoded(rest.split_to(length));
        Some(Ok(Numbered { message, first, last }))
    }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, SpoolError> {
    let done = spawn_blocking(work).await;
    Ok(done.map_err(std::io::Error::other)??)
}

#[cfg(test)]
mod tests;
