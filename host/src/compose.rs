//! Composition: other components plugged into a component's imports. For hosts that lack a port, this
//! is where an adapter comes in; the business component's own bytes stay as they are inside.

use anyhow::{Result, anyhow, bail};
use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, plug};

/// Every export of a plug that fits an import is connected; the rest stays imported.
pub fn compose(name: &str, bytes: &[u8], plugs: &[Vec<u8>]) -> Result<Vec<u8>> {
    if plugs.is_empty() {
        return Ok(bytes.to_vec());
    }
    let mut graph = CompositionGraph::new();
    let socket = Package::from_bytes("settle:socket", None, bytes.to_vec(), graph.types_mut())
        .map_err(|error| anyhow!("component `{name}`: {error:#}"))?;
    let socket = graph.register_package(socket)?;
    let mut registered = Vec::with_capacity(plugs.len());
    for (bytes, number) in plugs.iter().zip(0..) {
        let package = format!("settle:plug{number}");
        let package = Package::from_bytes(&package, None, bytes.clone(), graph.types_mut())
            .map_err(|error| anyhow!("a plug of component `{name}`: {error:#}"))?;
        registered.push(graph.register_package(package)?);
    }
    if let Err(error) = plug(&mut graph, registered, socket) {
        bail!("the plugs of component `{name}` fit none of its imports: {error}");
    }
    Ok(graph.encode(EncodeOptions::default())?)
}
