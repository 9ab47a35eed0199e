//! What is written for other tools agrees with the application's manifest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde_yaml_ng::Value;
use settle_host::manifest::Manifest;
use settle_tests::host::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents(path: &str) -> Vec<Value> {
    let text = read(path);
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn manifest() -> Manifest {
    Manifest::read(&root().join("spin.toml")).unwrap()
}

/// The components that keep something; the gateway is for hosts that have no edge of their own.
fn services(manifest: &Manifest) -> BTreeSet<&str> {
    let stateful =
        manifest.component.iter().filter(|(_, component)| !component.limits().databases.is_empty());
    stateful.map(|(name, _)| name.as_str()).collect()
}

/// Names of variables, in the manifest or missing from it.
fn assert_variables<'a>(names: impl Iterator<Item = &'a str>, file: &str) {
    let known = manifest().variables;
    for name in names {
        assert!(known.contains_key(name), "{file} sets `{name}`, which spin.toml does not have");
    }
}

#[test]
fn the_container_has_what_the_manifest_names_and_its_ports() {
    let manifest = manifest();
    let recipe = read("infra/container/Containerfile");
    let components = manifest.component.values();
    let files: BTreeSet<&str> = components
        .flat_map(|component| component.limits().plugs.iter().chain([&component.source]))
        .map(String::as_str)
        .collect();
    for file in &files {
        assert!(recipe.contains(file), "{file} is not copied");
    }
    assert_eq!(recipe.matches("settle_").count(), files.len(), "nothing else is copied");
    let compose = &documents("infra/container/compose.yaml")[0];
    let ports: BTreeSet<String> = compose["services"]["settle"]["ports"]
        .as_sequence()
        .unwrap()
        .iter()
        .map(|port| port.as_str().unwrap().split(':').next().unwrap().to_owned())
        .collect();
    let listeners: BTreeSet<String> =
        manifest.tool().listeners.values().map(|listener| listener.port.to_string()).collect();
    assert_eq!(ports, listeners);
    let exposed = recipe.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    assert_eq!(exposed.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), listeners);
    for secret in compose["services"]["settle"]["secrets"].as_sequence().unwrap() {
        assert!(compose["secrets"].get(secret).is_some(), "{secret:?}");
    }
    let example = read("infra/container/settle.env.example");
    let names =
        example.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('=').next());
    assert_variables(names, "settle.env.example");
}

#[test]
fn the_spin_application_sets_variables_and_calls_routes_that_exist() {
    let documents = documents("infra/kubernetes/spin.yaml");
    assert_eq!(documents.len(), 2);
    let variables = documents[0]["spec"]["variables"].as_sequence().unwrap();
    assert_variables(variables.iter().map(|variable| variable["name"].as_str().unwrap()), "spin.yaml");
    let job = &documents[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    let command = job["command"][2].as_str().unwrap();
    for service in ["order", "payment"] {
        assert!(command.contains(&format!("/{service}/v1/recovery/resume-due")), "{command}");
        assert!(read("spin.toml").contains(&format!("route = \"/{service}/...\"")));
    }
}

#[test]
fn every_service_is_a_wasmcloud_workload_with_its_own_database() {
    let manifest = manifest();
    let documents = documents("infra/kubernetes/wasmcloud.yaml");
    let names: BTreeSet<&str> =
        documents.iter().map(|document| document["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, services(&manifest));
    let mut databases = BTreeSet::new();
    for document in &documents {
        let name = document["metadata"]["name"].as_str().unwrap();
        let spec = &document["spec"]["template"]["spec"];
        let component = &spec["components"][0];
        assert_eq!(
            (component["poolSize"].as_u64(), component["maxConcurrency"].as_u64()),
            (Some(4), Some(32))
        );
        let settings = component["localResources"]["environment"]["config"].as_mapping().unwrap();
        for setting in settings.keys().map(|key| key.as_str().unwrap()) {
            assert!(
                manifest.component[name].variables.contains_key(setting),
                "{name} does not read `{setting}`"
            );
        }
        let allowed = component["localResources"]["allowedHosts"].as_sequence().unwrap();
        for url in
            settings.iter().filter(|(key, _)| key.as_str().unwrap().ends_with("_url")).map(|(_, url)| url)
        {
            let host = url.as_str().unwrap().trim_start_matches("http://");
            assert!(
                allowed.iter().any(|allowed| allowed.as_str() == Some(host)),
                "{name} may not call {host}"
            );
        }
        databases.insert(spec["hostInterfaces"][1]["config"]["database"].as_str().unwrap().to_owned());
    }
    assert_eq!(databases.len(), documents.len());
}

#[test]
fn every_role_of_the_script_is_a_database_of_the_manifest() {
    let script = read("infra/postgres/roles.sql");
    let mut names = BTreeSet::new();
    for component in manifest().component.values() {
        names.extend(component.limits().databases.clone());
    }
    for name in &names {
        assert!(script.contains(&format!("'settle_{name}'")), "settle_{name}");
        assert!(manifest().variables.contains_key(&format!("database_{name}")));
    }
}

#[test]
fn every_service_is_a_component_of_the_lattice_with_its_links() {
    let manifest = manifest();
    let application = &documents("wadm.yaml")[0];
    let parts = application["spec"]["components"].as_sequence().unwrap();
    let named = |kind: &str| -> BTreeSet<&str> {
        let of_kind = parts.iter().filter(|part| part["type"].as_str() == Some(kind));
        of_kind.map(|part| part["name"].as_str().unwrap()).collect()
    };
    let services = services(&manifest);
    assert_eq!(named("component"), services);
    let providers = named("capability");
    let mut listening = BTreeSet::new();
    for part in parts {
        let name = part["name"].as_str().unwrap();
        let config = part["properties"]["config"].as_sequence().cloned().unwrap_or_default();
        for properties in config.iter().filter_map(|config| config["properties"].as_mapping()) {
            assert_variables(properties.keys().map(|key| key.as_str().unwrap()), "wadm.yaml");
        }
        let links = part["traits"].as_sequence().into_iter().flatten();
        for link in links.filter(|link| link["type"].as_str() == Some("link")).map(|link| &link["properties"])
        {
            let target = link["target"]["name"].as_str().unwrap();
            assert!(providers.contains(target) || services.contains(target), "{name} links to {target}");
            if link["package"].as_str() == Some("postgres") {
                let wanted = format!("settle-database-{name}");
                assert_eq!(link["target"]["config"][0]["name"].as_str(), Some(wanted.as_str()));
            }
            if let Some(address) = link["source"]["config"][0]["properties"]["address"].as_str() {
                let port = address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
                assert_eq!(manifest.tool().listeners[target].port, port, "{target}");
                listening.insert(target);
            }
        }
    }
    assert_eq!(listening, services);
}

#[test]
fn kong_has_the_routes_of_our_own_gateway() {
    let services = documents("infra/kong/kong.yml")[0]["services"].as_sequence().unwrap().clone();
    let mut theirs = BTreeSet::new();
    for service in services.iter().filter(|service| service["url"].as_str().unwrap().starts_with("http")) {
        for path in service["routes"][0]["paths"].as_sequence().unwrap() {
            let path = path.as_str().unwrap();
            // `~` begins a pattern of Kong's; ours are whole paths.
            let path = path.strip_prefix('~').map_or(path, |whole| whole.strip_suffix('$').unwrap());
            theirs.insert((service["name"].as_str().unwrap().to_owned(), path.to_owned()));
        }
    }
    let ours =
        settle_gateway_core::ROUTES.map(|(path, upstream)| (upstream.name().to_owned(), path.to_owned()));
    assert_eq!(theirs, ours.into_iter().collect());
}
