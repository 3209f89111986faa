//! One PostgreSQL connection at the level of protocol messages.
//!
//! It speaks the frontend/backend protocol 3.0 (PostgreSQL manual, "Frontend/Backend Protocol") and hides
//! nothing of it: every message of the server becomes one [`Event`], in order, and what a statement returns
//! is never interpreted. The invariant: memory stays flat. A message is a slice of the read buffer, and one
//! too large to hold passes in pieces.
//!
//! ```no_run
//! # async fn example(config: pgconn::ConnectConfig) -> Result<(), Box<dyn std::error::Error>> {
//! use pgconn::{Connection, Event};
//!
//! let mut connection = Connection::connect(&config).await?;
//! connection.query("select 1")?;
//! loop {
//!     match connection.next().await? {
//!         Event::DataRow(row) => {
//!             for value in row.values() {
//!                 let _text: Option<&[u8]> = value?;
//!             }
//!         }
//!         Event::ReadyForQuery(_) => break,
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! There is deliberately no pool, no retry, no statement cache and no background task here: a connection
//! makes progress only while its owner drives it, and it stops when it is dropped.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod body;
mod cancel;
mod config;
mod connection;
mod encode;
mod error;
mod event;
mod event_decoder;
pub mod frame;
mod lingering;
mod messages;
mod parameters;
mod row;
mod server_error;
mod socket;
mod startup;
mod state;
mod text;
mod tls;
mod transport;

pub use cancel::{CancelKey, CancelTarget};
pub use config::{ConnectConfig, HostPort, RequireAuth};
pub use connection::{Connection, Progress};
pub use error::{
    CancelError, ConnectError, ConnectionError, Poison, ProtocolError, SendError, TlsRootsError,
};
pub use event::{CopyFormat, Event, Field, Format, TransactionStatus};
pub use frame::FrameLimits;
pub use lingering::{FailedConnect, Lingering};
pub use messages::COPY_BUFFER;
pub use parameters::Parameters;
pub use row::{DataRowBody, DataRowValues};
pub use server_error::{ServerError, SqlState};
pub use startup::Authentication;
pub use state::CopyState;
pub use text::ServerText;
pub use tls::{TlsMode, TlsRoots};
