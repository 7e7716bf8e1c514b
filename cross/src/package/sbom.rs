//! Bill of materials: every crate in the binary, as CycloneDX 1.5.

use super::VERSION;
use crate::command::Run;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// The bill of the device's binary for a target.
pub fn write(triple: &str) -> Result<String> {
    let json = Run::cargo()
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-default-features",
            "--filter-platform",
            triple,
        ])
        .output()?;
    let metadata: Metadata = serde_json::from_str(&json).context("output of cargo metadata")?;
    Ok(serde_json::to_string_pretty(&bill(&metadata, triple))?)
}

fn bill(metadata: &Metadata, triple: &str) -> Value {
    let packages: BTreeMap<&str, &Package> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let root = metadata.packages.iter().find(|package| package.name == "plantain-daemon");
    let inside = root.map(|root| reachable(&metadata.resolve, &root.id)).unwrap_or_default();
    let components: Vec<Value> = inside
        .iter()
        .filter_map(|id| packages.get(id.as_str()))
        .map(|package| {
            json!({
                "type": "library",
                "name": package.name,
                "version": package.version,
                "purl": format!("pkg:cargo/{}@{}", package.name, package.version),
                "licenses": [{ "expression": package.license.as_deref().unwrap_or("NOASSERTION") }],
                "scope": "required",
                "properties": [{
                    "name": "source",
                    "value": package.source.as_deref().unwrap_or("this repository"),
                }],
            })
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": { "type": "application", "name": "plantain", "version": VERSION },
            "properties": [{ "name": "target", "value": triple }],
        },
        "components": components,
    })
}

/// The package and all that is linked into it: neither build scripts' nor tests' dependencies.
fn reachable(resolve: &Resolve, root: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Node> =
        resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut seen = BTreeSet::new();
    let mut left = vec![root];
    while let Some(id) = left.pop() {
        if !seen.insert(id.to_string()) {
            continue;
        }
        if let Some(node) = nodes.get(id) {
            let linked = |dep: &&Dependency| dep.dep_kinds.iter().any(|kind| kind.kind.is_none());
            left.extend(node.deps.iter().filter(linked).map(|dep| dep.pkg.as_str()));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_is_listed() {
        let text = r#"{
            "packages": [
                {"id": "d", "name": "plantain-daemon", "version": "1", "license": "MIT", "source": null},
                {"id": "a", "name": "a", "version": "2", "license": "MIT", "source": "registry"},
                {"id": "b", "name": "build", "version": "3", "license": null, "source": "registry"}
            ],
            "resolve": {"nodes": [
                {"id": "d", "deps": [
                    {"pkg": "a", "dep_kinds": [{"kind": null}]},
                    {"pkg": "b", "dep_kinds": [{"kind": "build"}, {"kind": "dev"}]}
                ]},
                {"id": "a", "deps": []}, {"id": "b", "deps": []}
            ]}
        }"#;
        let bill = bill(&serde_json::from_str(text).unwrap(), "aarch64-unknown-linux-musl");
        let names: Vec<&str> = bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|component| component["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "plantain-daemon"]);
        assert_eq!(bill["components"][0]["purl"], "pkg:cargo/a@2");
    }
}
