//! Medians and Markdown.

use anyhow::Context as _;
use e2e::World;

/// The middle of some measurements.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What the numbers below were measured on: cores and versions, nothing that names the machine.
pub(crate) async fn machine(world: &World) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().context("the number of cores")?;
    let connection = world.target().cluster().connect().await;
    let version: String = connection.query_one("SHOW server_version", &[]).await?.get(0);
    let version = version.split(' ').next().unwrap_or_default();
    let build = if cfg!(debug_assertions) {
        "a DEBUG build: these numbers mean nothing"
    } else {
        "release build"
    };
    println!("Measured on {cores} cores, PostgreSQL {version}, everything on one machine, {build}.\n");
    Ok(())
}

/// Prints a table.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    println!("| {} |", header.join(" | "));
    let rule: Vec<&str> = header
        .iter()
        .enumerate()
        .map(|(at, _)| if at == 0 { "---" } else { "---:" })
        .collect();
    println!("|{}|", rule.join("|"));
    for row in rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}

/// A number with its thousands set apart.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A ratio.
pub(crate) fn ratio(value: f64) -> String {
    format!("{value:.2}")
}
