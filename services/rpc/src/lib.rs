//! The wire contract: Rust generated from `proto/`, its descriptors, the policy of every method and the encoded events.
//!
//! Invariant: no logic. Messages that carry a secret have a `Debug` that shows nothing of them.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod descriptors;
pub mod error;
pub mod events;
pub mod policy;

macro_rules! packages {
    ($($area:ident),+ $(,)?) => {$(
        #[doc = concat!("Generated from `pgmoor.", stringify!($area), ".v1`; the documentation is in `proto/`.")]
        #[allow(missing_docs, missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
        pub mod $area {
            /// Version 1.
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/pgmoor.", stringify!($area), ".v1.rs"));
            }
        }
    )+};
}

packages!(
    access, audit, auth, backup, catalog, errors, operation, options, pool, pooler, query, server, settings,
    storage, user
);

mod redacted {
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}
