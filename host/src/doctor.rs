//! `settle doctor`: says what is missing or wrong, without changing anything.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::manifest::Manifest;
use crate::up::Options;

/// Prints a line for each check; true when all passed.
pub fn run(options: &Options) -> bool {
    let mut healthy = true;
    let mut check = |what: &str, outcome: Result<String, String>| match outcome {
        Ok(detail) => println!("ok    {what}: {detail}"),
        Err(reason) => {
            healthy = false;
            println!("WRONG {what}: {reason}");
        }
    };
    let manifest = match Manifest::read(&options.manifest) {
        Ok(manifest) => manifest,
        Err(error) => {
            check("manifest", Err(format!("{error:#}")));
            return false;
        }
    };
    check("manifest", Ok(manifest.application.name.clone()));
    for (name, component) in &manifest.component {
        check(&format!("component {name}"), file(&manifest.folder.join(&component.source)));
        for plug in &component.limits().plugs {
            check(&format!("plug of {name}"), file(&manifest.folder.join(plug)));
        }
    }
    for (name, listener) in &manifest.tool().listeners {
        let port = if options.any_ports { 0 } else { listener.port };
        let address = SocketAddr::new(options.listen, port);
        let free = TcpListener::bind(address).map(|_| format!("{address} is free"));
        check(&format!("port of {name}"), free.map_err(|error| format!("{address}: {error}")));
    }
    check("data directory", directory(&options.data));
    check("compile cache", directory(&options.cache));
    healthy
}

fn file(path: &Path) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(format!("{} ({} KiB)", path.display(), metadata.len() / 1024)),
        Err(error) => Err(format!("{}: {error}; run `cargo xtask build`", path.display())),
    }
}

/// A directory that exists and can be written, or one that `up` will make.
fn directory(path: &Path) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(format!("{} is not a directory", path.display())),
        Ok(metadata) if metadata.permissions().readonly() => Err(format!("{} is read-only", path.display())),
        Ok(_) => Ok(path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(format!("{} will be made", path.display()))
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
