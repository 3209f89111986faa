//! PostgreSQL's SQL as text: tokens, the statements of a script, and what a statement's first words say.
//!
//! A script is cut the way psql cuts it, and every byte of it is in exactly one piece. Nothing here decides what is
//! allowed: a statement whose first words say nothing reliable is [`StatementKind::Suspect`], never harmless.

mod classify;
mod lexer;
mod split;

pub use classify::{StatementKind, TransactionControl, classify};
pub use lexer::{StringSyntax, Token, TokenKind, Tokens, tokens};
pub use split::{Piece, Script};
