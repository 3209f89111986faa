//! Random names and passwords of a test run. They keep concurrent tests apart; nothing outside the test
//! relies on them.

use rand::{Rng, RngExt};

/// A name such as `prefix_3f9c21aa07d4`, usable unquoted as an SQL identifier.
#[must_use]
pub fn name(prefix: &str) -> String {
    format!("{prefix}_{}", hex(6))
}

/// A password of 32 hexadecimal digits.
#[must_use]
pub fn password() -> String {
    hex(16)
}

/// A number from `low` (included) to `high` (excluded).
#[must_use]
#[allow(
    clippy::disallowed_methods,
    reason = "the harness's one place that draws random numbers"
)]
pub fn number(low: u16, high: u16) -> u16 {
    rand::rng().random_range(low..high)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the harness's one place that draws random bytes"
)]
fn hex(bytes: usize) -> String {
    let mut buffer = vec![0_u8; bytes];
    rand::rng().fill_bytes(&mut buffer);
    buffer.iter().map(|byte| format!("{byte:02x}")).collect()
}
