//! Messages that are refused before anything is sent.

use pgconn::SendError;

use crate::{connect, query, rows};

#[tokio::test]
async fn nul_bytes_are_refused_and_the_connection_is_untouched() {
    let mut connection = connect().await;
    assert_eq!(
        connection.query("select 1\0; drop"),
        Err(SendError::NulByte { what: "query" })
    );
    assert_eq!(
        connection.parse("", "select \0", &[]),
        Err(SendError::NulByte { what: "query" })
    );
    let refused = connection.bind("a\0", "", []);
    assert_eq!(refused, Err(SendError::NulByte { what: "portal name" }));
    assert_eq!(connection.pending_out(), 0);
    assert!(connection.is_quiet());
    let (events, _) = query(&mut connection, "select 1").await;
    assert_eq!(rows(&events), [[Some("1".to_owned())]]);
}

#[tokio::test]
async fn simple_query_amid_unsynced_extended_messages_is_refused() {
    let mut connection = connect().await;
    connection.parse("", "select 1", &[]).unwrap();
    assert_eq!(connection.query("select 2"), Err(SendError::SyncMissing));
    connection.sync().unwrap();
    crate::until_ready(&mut connection).await;
    assert!(connection.query("select 2").is_ok());
}

#[tokio::test]
async fn copy_data_outside_copy_is_refused() {
    let mut connection = connect().await;
    assert_eq!(connection.copy_data(b"x"), Err(SendError::NotInCopy));
    assert_eq!(connection.copy_done(), Err(SendError::NotInCopy));
    assert_eq!(connection.copy_fail("x"), Err(SendError::NotInCopy));
    assert!(connection.is_quiet());
}
