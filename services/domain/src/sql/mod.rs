//! PostgreSQL's SQL as text: tokens, the statements of a script, what a statement's first words say, and what a script
//! may leave behind in its session.
//!
//! A script is cut the way psql cuts it, and every byte of it is in exactly one piece. Nothing here decides what is
//! allowed: a statement whose first words say nothing reliable is [`StatementKind::Suspect`], never harmless.

mod classify;
mod effects;
mod lexer;
mod split;

pub use classify::{StatementKind, TransactionControl, classify};
pub use effects::{Effects, effects};
pub use lexer::{StringSyntax, Token, TokenKind, Tokens, tokens};
pub use split::{Piece, Script};
