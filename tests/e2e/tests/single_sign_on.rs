//! Logging in with OpenID providers: real ones, real browsers, two API instances behind nginx.

pub(crate) mod arrangement;
mod cancelled;
mod claims;
mod crowd;
mod hostile;
mod login_key;
mod outages;
mod spine;
mod streams;
mod terminal;
mod throttles;
mod trail;
mod vouching;
mod workloads;
