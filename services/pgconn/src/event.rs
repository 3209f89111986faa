//! What a server says on an open connection, one value per message.

use bytes::Bytes;

use crate::row::DataRowBody;
use crate::server_error::ServerError;
use crate::text::ServerText;

/// Where the session is with respect to a transaction block, from ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a failed transaction block: everything but ROLLBACK is refused.
    Failed,
}

/// Encoding of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The type's text form.
    Text,
    /// The type's binary form.
    Binary,
}

/// One column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name of the column.
    pub name: ServerText,
    /// OID of the table it comes from, 0 when it comes from none.
    pub table_oid: u32,
    /// Its number in that table, 0 when it comes from none.
    pub column: i16,
    /// OID of its type.
    pub type_oid: u32,
    /// Size of its type in bytes; negative: variable.
    pub type_size: i16,
    /// Type modifier (such as the length of a varchar), -1 when there is none.
    pub type_modifier: i32,
    /// Encoding of its values.
    pub format: Format,
}

/// How COPY data is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFormat {
    /// Of the whole stream.
    pub overall: Format,
    /// Of each column.
    pub columns: Vec<Format>,
}

/// One thing the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The columns of the rows to come.
    RowDescription(Vec<Field>),
    /// A row no larger than [`FrameLimits::row`](crate::FrameLimits).
    DataRow(DataRowBody),
    /// A larger row begins; its values follow.
    RowStart {
        /// Number of values.
        columns: u16,
        /// Bytes of its values together.
        value_bytes: u32,
    },
    /// The next value of the large row begins.
    ValueStart {
        /// Its length in bytes, which follow as [`Event::ValueChunk`]s; `None` for NULL.
        length: Option<u32>,
    },
    /// The next bytes of the value, never empty.
    ValueChunk(Bytes),
    /// The large row is complete.
    RowEnd,
    /// A statement is complete; the tag is for example `INSERT 0 1`.
    CommandComplete(ServerText),
    /// The query string was empty.
    EmptyQuery,
    /// A statement failed. A FATAL one is the last event before the connection closes.
    Error(Box<ServerError>),
    /// A warning or notice.
    Notice(Box<ServerError>),
    /// NOTIFY on a channel this session listens to.
    Notification {
        /// Process id of the sender's backend.
        process_id: i32,
        /// Channel name.
        channel: ServerText,
        /// Payload, possibly empty.
        payload: ServerText,
    },
    /// A setting the server reports has changed; [`Parameters`](crate::Parameters) has it already.
    ParameterStatus {
        /// Setting name.
        name: ServerText,
        /// New value.
        value: ServerText,
    },
    /// The server waits for the next query.
    ReadyForQuery(TransactionStatus),
    /// COPY FROM STDIN: send data.
    CopyInResponse(CopyFormat),
    /// COPY TO STDOUT: data follows.
    CopyOutResponse(CopyFormat),
    /// Both at once (replication).
    CopyBothResponse(CopyFormat),
    /// COPY data.
    CopyData {
        /// The bytes.
        data: Bytes,
        /// More of the same message follows: it is larger than [`FrameLimits::row`](crate::FrameLimits).
        more: bool,
    },
    /// No more COPY data comes.
    CopyDone,
    /// Parse succeeded.
    ParseComplete,
    /// Bind succeeded.
    BindComplete,
    /// Close succeeded.
    CloseComplete,
    /// The described statement returns no rows.
    NoData,
    /// Execute reached its row limit; the portal has more.
    PortalSuspended,
    /// Parameter types (OIDs) of the described statement.
    ParameterDescription(Vec<u32>),
}

/// Messages that only come before the first ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartupEvent {
    AuthenticationOk,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    Sasl {
        mechanisms: Vec<ServerText>,
    },
    SaslContinue(Bytes),
    SaslFinal(Bytes),
    /// Kerberos, GSSAPI, SSPI and whatever comes.
    OtherAuthentication {
        method: i32,
    },
    BackendKeyData {
        process_id: i32,
        secret: Bytes,
    },
    NegotiateProtocolVersion {
        newest_minor: i32,
        unsupported: Vec<ServerText>,
    },
}

/// Any message of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BackendEvent {
    Session(Event),
    Startup(StartupEvent),
}
