//! The encoded descriptor sets: what reflection shows and what the method options are read from.

/// Every file, the internal ones included.
pub const ALL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The files of the public API.
pub const PUBLIC: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public_descriptors.bin"));
