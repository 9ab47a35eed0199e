//! The rules of this repository that no compiler checks: who may depend on whom, how long a file
//! or a function may be, and that the README's commands exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const FILE_LINES_MAX: usize = 620;
const FUNCTION_LINES_MAX: usize = 75;
/// What the pure cores must not know.
const FOREIGN_TO_CORES: [&str; 6] = ["wit-bindgen", "wasip3", "wasmtime", "tokio", "hyper", "rusqlite"];
const CORES: [&str; 7] = ["types", "ports", "saga", "token", "order-core", "payment-core", "identity-core"];

pub fn run() -> Result<()> {
    let mut complaints = Vec::new();
    edges(&mut complaints)?;
    for file in rust_files(Path::new("."))? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        lengths(&file, &text, &mut complaints);
        module_doc(&file, &text, &mut complaints);
    }
    readme_commands(&mut complaints)?;
    architecture(&mut complaints)?;
    if complaints.is_empty() {
        println!("tidy: ok");
        return Ok(());
    }
    bail!("tidy:\n  {}", complaints.join("\n  "))
}

/// Dependencies of a package, by its folder.
fn dependencies(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    Ok(table.map(|table| table.keys().cloned().collect()).unwrap_or_default())
}

fn edges(complaints: &mut Vec<String>) -> Result<()> {
    for core in CORES {
        for dependency in dependencies(&Path::new("crates").join(core))? {
            if FOREIGN_TO_CORES.contains(&dependency.as_str()) {
                complaints.push(format!("crates/{core} must not depend on {dependency}: it is pure"));
            }
        }
    }
    let components: BTreeMap<String, PathBuf> = subfolders("components")?;
    for (name, folder) in &components {
        for dependency in dependencies(folder)? {
            let other = dependency.strip_prefix("settle-").unwrap_or_default();
            if other != name && components.contains_key(other) {
                complaints.push(format!(
                    "components/{name} must not depend on components/{other}: they meet in wit/ and proto/"
                ));
            }
        }
    }
    for dependency in dependencies(Path::new("host"))? {
        if dependency.ends_with("-core") || dependency == "settle-service-kit" {
            complaints
                .push(format!("host must not depend on {dependency}: it knows no orders and no payments"));
        }
    }
    Ok(())
}

fn subfolders(folder: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && path.join("Cargo.toml").exists()
        {
            found.insert(name.to_owned(), path.clone());
        }
    }
    Ok(found)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Files without their tests, and functions from `fn` to the brace that closes them.
fn lengths(file: &Path, text: &str, complaints: &mut Vec<String>) {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = product.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{} has {lines} lines; split it (limit {FILE_LINES_MAX})", file.display()));
    }
    let mut open: Option<(usize, usize, &str)> = None;
    for (line, number) in product.lines().zip(1_usize..) {
        let indent = line.len().saturating_sub(line.trim_start().len());
        if open.is_none() && is_function(line) && !line.trim_end().ends_with('}') {
            open = Some((number, indent, line.trim()));
        }
        let closes = line.trim() == "}"
            || line.trim_end().ends_with(';') && open.is_some_and(|(start, ..)| start == number);
        if let Some((start, depth, head)) = open
            && closes
            && indent == depth
        {
            let length = number.saturating_sub(start).saturating_add(1);
            if length > FUNCTION_LINES_MAX {
                complaints.push(format!(
                    "{}:{start} `{head}` has {length} lines (limit {FUNCTION_LINES_MAX})",
                    file.display()
                ));
            }
            open = None;
        }
    }
}

fn is_function(line: &str) -> bool {
    let line = line.trim_start();
    ["fn ", "pub fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "pub(super) fn ", "const fn "]
        .iter()
        .any(|start| line.starts_with(start))
}

/// Every module says what it is for.
fn module_doc(file: &Path, text: &str, complaints: &mut Vec<String>) {
    if !text.trim_start().starts_with("//!") {
        complaints.push(format!("{} does not say what it is for (//!)", file.display()));
    }
}

/// Every `cargo xtask NAME` in the README is a command.
fn readme_commands(complaints: &mut Vec<String>) -> Result<()> {
    let readme = fs::read_to_string("README.md").context("README.md")?;
    for rest in readme.split("cargo xtask ").skip(1) {
        let name: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
        let known =
            crate::HELP.lines().any(|line| line.trim_start().split(' ').next() == Some(name.as_str()));
        if !known {
            complaints.push(format!("README.md names `cargo xtask {name}`, which does not exist"));
        }
    }
    Ok(())
}

fn architecture(complaints: &mut Vec<String>) -> Result<()> {
    let lines = fs::read_to_string("ARCHITECTURE.md").context("ARCHITECTURE.md")?.lines().count();
    if lines > 200 {
        complaints.push(format!("ARCHITECTURE.md has {lines} lines (limit 200)"));
    }
    Ok(())
}
