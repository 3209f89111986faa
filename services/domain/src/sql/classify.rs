//! What the first words of one statement say. Made for hints and early, friendly errors, never for protection.

use super::lexer::{StringSyntax, Token, tokens};

/// What a statement says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Nothing to run.
    Empty,
    /// It begins or ends a transaction or a part of one.
    Transaction(TransactionControl),
    /// `COPY ... FROM STDIN`: the server will ask for data.
    CopyFromStdin,
    /// `COPY ... TO STDOUT`: the server will send data.
    CopyToStdout,
    /// Anything else, which may do anything.
    Suspect,
}

/// How a statement controls a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionControl {
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT or END.
    Commit,
    /// ROLLBACK or ABORT of the whole transaction.
    Rollback,
    /// SAVEPOINT.
    Savepoint,
    /// RELEASE of a savepoint.
    Release,
    /// ROLLBACK TO a savepoint.
    RollbackTo,
    /// PREPARE TRANSACTION.
    Prepare,
    /// COMMIT PREPARED or ROLLBACK PREPARED, of a transaction that is no longer ours.
    FinishPrepared,
}

/// Reads the first words of one statement.
#[must_use]
pub fn classify(statement: &str) -> StatementKind {
    let mut words = tokens(statement, StringSyntax::Standard).filter(|token| !token.is_blank());
    let Some(first) = words.next() else {
        return StatementKind::Empty;
    };
    let first_is = |options: &[&str]| options.iter().any(|word| first.is_word(word));
    let of_transaction = words
        .clone()
        .next()
        .is_some_and(|second| second.is_word("transaction"));
    let control = if first_is(&["begin"]) || (first_is(&["start"]) && of_transaction) {
        TransactionControl::Begin
    } else if first_is(&["commit", "end"]) {
        ending(words, TransactionControl::Commit)
    } else if first_is(&["rollback", "abort"]) {
        ending(words, TransactionControl::Rollback)
    } else if first_is(&["savepoint"]) {
        TransactionControl::Savepoint
    } else if first_is(&["release"]) {
        TransactionControl::Release
    } else if first_is(&["prepare"]) && of_transaction {
        TransactionControl::Prepare
    } else if first_is(&["copy"]) {
        return copy(words);
    } else {
        return StatementKind::Suspect;
    };
    StatementKind::Transaction(control)
}

/// What follows COMMIT or ROLLBACK can make it something else.
fn ending<'a>(words: impl Iterator<Item = Token<'a>>, plain: TransactionControl) -> TransactionControl {
    let mut words = words.skip_while(|token| token.is_word("work") || token.is_word("transaction"));
    match words.next() {
        Some(next) if next.is_word("prepared") => TransactionControl::FinishPrepared,
        Some(next) if next.is_word("to") => TransactionControl::RollbackTo,
        _ => plain,
    }
}

/// FROM or TO at the top level, followed by STDIN or STDOUT: the grammar takes either word for either direction.
fn copy<'a>(words: impl Iterator<Item = Token<'a>>) -> StatementKind {
    let mut depth = 0_usize;
    let mut direction = None;
    for token in words {
        if token.is_symbol('(') {
            depth += 1;
        } else if token.is_symbol(')') {
            depth = depth.saturating_sub(1);
        }
        if depth > 0 {
            continue;
        }
        match direction {
            Some(kind) if token.is_word("stdin") || token.is_word("stdout") => return kind,
            _ if token.is_word("from") => direction = Some(StatementKind::CopyFromStdin),
            _ if token.is_word("to") => direction = Some(StatementKind::CopyToStdout),
            _ => direction = None,
        }
    }
    StatementKind::Suspect
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_tell_transaction_control() {
        use TransactionControl::{
            Begin, Commit, FinishPrepared, Prepare, Release, Rollback, RollbackTo, Savepoint,
        };
        for (sql, control) in [
            ("begin isolation level serializable", Begin),
            ("/* x */ START -- y\n TRANSACTION", Begin),
            ("end", Commit),
            ("COMMIT AND CHAIN", Commit),
            ("commit prepared 'a'", FinishPrepared),
            ("abort work", Rollback),
            ("rollback work to savepoint a", RollbackTo),
            ("rollback prepared 'a'", FinishPrepared),
            ("savepoint a", Savepoint),
            ("release a", Release),
            ("prepare transaction 'a'", Prepare),
        ] {
            assert_eq!(classify(sql), StatementKind::Transaction(control), "{sql}");
        }
    }

    #[test]
    fn copy_is_told_by_its_direction() {
        for (sql, kind) in [
            ("copy t from stdin", StatementKind::CopyFromStdin),
            (
                "COPY a.\"to\" (x, y) FROM STDIN WITH (format csv)",
                StatementKind::CopyFromStdin,
            ),
            (
                "copy (select * from stdin) to stdout",
                StatementKind::CopyToStdout,
            ),
            ("copy t to stdin", StatementKind::CopyToStdout),
            ("copy t from '/tmp/x'", StatementKind::Suspect),
            (
                "copy (select 'from stdin') to program 'x'",
                StatementKind::Suspect,
            ),
        ] {
            assert_eq!(classify(sql), kind, "{sql}");
        }
    }

    #[test]
    fn anything_else_is_suspect() {
        for sql in [
            "select 1",
            "start",
            "prepare p as select 1",
            "\"begin\"",
            "do $$$$",
            "(",
        ] {
            assert_eq!(classify(sql), StatementKind::Suspect, "{sql}");
        }
        assert_eq!(classify(" -- nothing"), StatementKind::Empty);
    }
}
