//! The built `pgmoor` binary.

use std::path::PathBuf;

/// The path of `pgmoor` in the profile directory the running test was built into (`target/<profile>/pgmoor`).
///
/// # Panics
/// When it has not been built: cargo builds a binary for the tests of its own package only.
#[must_use]
pub fn pgmoor_binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path is known");
    let profile = test
        .parent()
        .and_then(|deps| {
            if deps.ends_with("deps") {
                deps.parent()
            } else {
                Some(deps)
            }
        })
        .expect("a test executable lies in target/<profile>/deps");
    let binary = profile.join("pgmoor");
    assert!(
        binary.is_file(),
        "{} does not exist: run `cargo build -p pgmoor` with the tests' profile first (script/test does)",
        binary.display()
    );
    binary
}
