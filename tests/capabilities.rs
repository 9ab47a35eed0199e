//! What each component can reach at all: `docs/capabilities.md` is checked word by word.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use settle_host::engine;
use settle_host::manifest::Manifest;
use settle_tests::host::{component, root};
use wasmtime::component::Component;

/// Comes with the language's standard library: exit, streams that are empty or the log.
const OF_THE_LANGUAGE: [&str; 3] = ["wasi:cli", "wasi:io", "wasi:filesystem"];

fn imports(name: &str) -> BTreeSet<String> {
    let engine = engine::engine().unwrap();
    let loaded = Component::from_file(&engine, component(name)).unwrap();
    let ty = loaded.component_type();
    let unversioned = |import: &str| import.split('@').next().unwrap().to_owned();
    let all = ty.imports(&engine).map(|(import, _)| unversioned(import)).collect::<Vec<_>>();
    all.into_iter().filter(|import| !OF_THE_LANGUAGE.iter().any(|known| import.starts_with(known))).collect()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("`{item}`")).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

#[test]
fn each_component_reaches_what_is_written_down_and_nothing_else() {
    let manifest = Manifest::read(&root().join("spin.toml")).unwrap();
    let values = manifest.values("production", &[]).unwrap();
    let mut table = String::new();
    for (name, component) in &manifest.component {
        writeln!(table, "\n## {name}\n").unwrap();
        writeln!(table, "- imports: {}", list(imports(name))).unwrap();
        writeln!(table, "- databases: {}", list(component.limits().databases.clone())).unwrap();
        let hosts = component.allowed_outbound_hosts.iter().filter(|host| !host.contains("database_address"));
        let hosts = hosts.map(|host| manifest.expand(host, &values).unwrap());
        writeln!(table, "- may call: {}", list(hosts)).unwrap();
        let secret = |name: &&String| manifest.variables.get(*name).is_some_and(|variable| variable.secret);
        let secrets: BTreeMap<_, _> = component.variables.iter().filter(|(name, _)| secret(name)).collect();
        let own = |name: &&&String| !name.starts_with("database_");
        writeln!(table, "- secrets: {}", list(secrets.keys().filter(own).map(|name| (**name).clone())))
            .unwrap();
    }
    let document = std::fs::read_to_string(root().join("docs/capabilities.md")).unwrap_or_default();
    let written = document.find("\n## ").map_or("", |at| &document[at..]);
    assert_eq!(written, table, "docs/capabilities.md says otherwise; it should say:\n{table}");
}
