//! Rebuilds this crate when a migration changes: `sqlx::migrate!` embeds them, and cargo does not see what it reads.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
