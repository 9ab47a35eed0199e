//! Pushes components to an OCI registry, in the layout of wasm artifacts: one layer, `application/wasm`.
//!
//!   publish PREFIX TAG FILE...      PREFIX like registry.example/settle; http for loopback only
//!
//! The same bytes give the same digests, always: nothing of the time or the machine is written.
//! Credentials come from `SETTLE_REGISTRY_USER` and `SETTLE_REGISTRY_PASSWORD`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::OciImageManifest;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

const LAYER_TYPE: &str = "application/wasm";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
/// An artifact has no date: the same source is the same artifact.
const CREATED: &str = "1970-01-01T00:00:00Z";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [prefix, tag, files @ ..] = args.as_slice() else { bail!("publish PREFIX TAG FILE...") };
    let engine = wasmtime::Engine::new(wasmtime::Config::new().wasm_component_model_async(true))?;
    for file in files {
        let name = name_of(Path::new(file))?;
        let reference: Reference = format!("{prefix}/{name}:{tag}").parse()?;
        let bytes = std::fs::read(file).with_context(|| format!("{file}; run `cargo xtask build`"))?;
        let digest = push(&engine, &reference, bytes).await.with_context(|| {
            format!("{reference} cannot be pushed; check that the registry is reachable and the credentials")
        })?;
        println!("{reference} {digest}");
    }
    Ok(())
}

/// `settle_order.wasm` is `order`; `order_on_wasmcloud.wasm` is `order-wasmcloud`;
/// `lattice/settle_order.wasm` is `order-lattice`.
fn name_of(file: &Path) -> Result<String> {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).context("a file without a name")?;
    let name = stem.trim_start_matches("settle_").replace("_on_", "-").replace('_', "-");
    let of_lattice = file.parent().is_some_and(|folder| folder.ends_with("lattice"));
    Ok(if of_lattice { format!("{name}-lattice") } else { name })
}

/// Answers the component's own digest and the manifest's.
async fn push(engine: &wasmtime::Engine, reference: &Reference, bytes: Vec<u8>) -> Result<String> {
    let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
    let config = config_of(engine, &bytes, &digest)?;
    let layer = ImageLayer::new(bytes, LAYER_TYPE.to_owned(), None);
    let config = Config::new(config, CONFIG_TYPE.to_owned(), None);
    let title = ("org.opencontainers.image.title".to_owned(), reference.repository().to_owned());
    let layers = [layer];
    let manifest = OciImageManifest::build(&layers, &config, Some(BTreeMap::from([title])));
    let client = Client::new(ClientConfig { protocol: protocol(reference), ..ClientConfig::default() });
    client.push(reference, &layers, config, &auth(), Some(manifest)).await?;
    let manifest_digest = client.fetch_manifest_digest(reference, &auth()).await?;
    Ok(format!("{digest} manifest {manifest_digest}"))
}

/// What a registry shows of a component without pulling it.
fn config_of(engine: &wasmtime::Engine, bytes: &[u8], digest: &str) -> Result<Vec<u8>> {
    let component = Component::new(engine, bytes).map_err(|error| anyhow!("not a component: {error:#}"))?;
    let kind = component.component_type();
    let imports: Vec<String> = kind.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    Ok(serde_json::to_vec(&serde_json::json!({
        "created": CREATED,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [digest],
        "component": { "imports": imports, "exports": exports },
    }))?)
}

fn protocol(reference: &Reference) -> ClientProtocol {
    let host = reference.resolve_registry();
    let loopback = host.starts_with("127.0.0.1") || host.starts_with("localhost");
    if loopback { ClientProtocol::Http } else { ClientProtocol::Https }
}

fn auth() -> RegistryAuth {
    match (std::env::var("SETTLE_REGISTRY_USER"), std::env::var("SETTLE_REGISTRY_PASSWORD")) {
        (Ok(user), Ok(password)) => RegistryAuth::Basic(user, password),
        _ => RegistryAuth::Anonymous,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
