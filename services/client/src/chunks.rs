//! A blocking reader as a stream of pieces: files to upload, data to copy.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces that may wait.
const QUEUE: usize = 4;
/// Bytes of a piece. A message stays far below what servers accept by default.
pub(crate) const PIECE_BYTES: usize = 256 * 1024;

/// The pieces, and what went wrong while reading them.
///
/// A stream that ends means that all of it was read: after an error it stays open and the error is given
/// here, so that a call that sends it can be given up instead of finished.
pub(crate) fn pieces(
    mut reader: impl Read + Send + 'static,
) -> (
    impl Stream<Item = Bytes> + Send + 'static,
    impl Future<Output = io::Error> + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (failed, failure) = oneshot::channel();
    // A thread of its own: a read from a terminal or a pipe cannot be stopped, and must not hold the process
    // up.
    std::thread::spawn(move || {
        loop {
            match fill(&mut reader) {
                Ok(piece) if piece.is_empty() => return,
                Ok(piece) => {
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Told before the stream could end; whoever listens gives the call up.
                    let _ = failed.send(error);
                    // Wait until the other end is gone.
                    while !sender.is_closed() {
                        std::thread::park_timeout(std::time::Duration::from_millis(50));
                    }
                    return;
                }
            }
        }
    });
    let failure = async {
        match failure.await {
            Ok(error) => error,
            // Nothing went wrong, and nothing will.
            Err(_) => std::future::pending().await,
        }
    };
    (ReceiverStream::new(receiver), failure)
}

/// As much as a piece holds; less only at the end. A terminal's line is a piece of its own.
fn fill(reader: &mut impl Read) -> io::Result<Bytes> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0;
    while length < piece.len() {
        match reader.read(&mut piece[length..]) {
            Ok(0) => break,
            Ok(read) => {
                length += read;
                // What came slowly is passed on at once.
                if read < 4096 {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(length);
    Ok(piece.into())
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    struct Breaking(bool);

    impl Read for Breaking {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 {
                return Err(io::Error::other("gone"));
            }
            self.0 = true;
            buffer[..3].copy_from_slice(b"abc");
            Ok(3)
        }
    }

    #[tokio::test]
    async fn all_of_a_reader_arrives() {
        let data: Vec<u8> = (0..=255_u8).cycle().take(3 * PIECE_BYTES + 17).collect();
        let (stream, _failure) = pieces(io::Cursor::new(data.clone()));
        let arrived: Vec<u8> = stream.collect::<Vec<_>>().await.concat();
        assert!(arrived == data);
    }

    #[tokio::test]
    async fn reader_that_breaks_does_not_look_like_one_that_ended() {
        let (stream, failure) = pieces(Breaking(false));
        let mut stream = std::pin::pin!(stream);
        assert_eq!(stream.next().await.unwrap(), "abc");
        tokio::select! {
            biased;
            end = stream.next() => panic!("the stream went on: {end:?}"),
            error = failure => assert_eq!(error.to_string(), "gone"),
        }
    }
}
