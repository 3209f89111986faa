//! The pooler on real PostgreSQL, through the same trait the API uses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod administration;
mod audit;
mod auto;
mod budget;
mod cancelling;
mod commit_outcome;
mod copying;
mod credentials;
mod elevation;
mod inspection;
mod inspection_rounds;
mod limits;
mod loss;
mod opening;
mod outage;
mod paging;
mod read_only;
mod remote;
mod result_limits;
mod resuming;
mod scripts;
mod sharing;
mod support;
mod transactions;
mod values;
mod watching;
