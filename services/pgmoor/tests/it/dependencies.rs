//! Which crate may import which: the table of docs/src/development/architecture.md, held against the
//! manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Crates of others that one crate of ours keeps to itself.
const RESERVED: [(&str, &str); 2] = [("sqlx", "store"), ("postgres-protocol", "pgconn")];

type Table = BTreeMap<String, BTreeSet<String>>;

fn page() -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/development/architecture.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, block) = text
        .split_once("```dependencies\n")
        .expect("the page has a block of dependencies");
    let (block, _) = block.split_once("```").expect("the block ends");
    let line = |line: &str| {
        let (name, allowed) = line
            .split_once(':')
            .unwrap_or_else(|| panic!("{line:?} is not `crate: dep dep`"));
        (
            name.to_owned(),
            allowed.split_whitespace().map(str::to_owned).collect(),
        )
    };
    block.lines().filter(|text| !text.is_empty()).map(line).collect()
}

fn packages() -> Vec<Package> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .unwrap()
        .packages
}

fn normal_dependencies(package: &Package) -> BTreeSet<String> {
    let normal = package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.clone()).collect()
}

#[test]
fn crates_import_only_what_the_table_allows() {
    let table = page();
    let packages = packages();
    let ours: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let unknown: Vec<&String> = table.keys().filter(|name| !ours.contains(*name)).collect();
    assert!(
        unknown.is_empty(),
        "the table has lines for crates that do not exist: {unknown:?}"
    );
    // What the tests are made of may import anything.
    let services = packages
        .iter()
        .filter(|package| package.manifest_path.as_str().contains("/services/"));
    for package in services {
        let used: BTreeSet<String> = &normal_dependencies(package) & &ours;
        let allowed = table.get(package.name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{} has no line in the table", package.name));
        let forbidden: Vec<&String> = used.difference(allowed).collect();
        assert!(
            forbidden.is_empty(),
            "{} must not depend on {forbidden:?}: see architecture.md",
            package.name
        );
    }
}

#[test]
fn drivers_stay_in_their_crates() {
    for package in packages() {
        let used = normal_dependencies(&package);
        for (reserved, owner) in RESERVED {
            let allowed = package.name.as_str() == owner || !used.contains(reserved);
            assert!(
                allowed,
                "only {owner} may depend on {reserved}, not {}",
                package.name
            );
        }
    }
}
