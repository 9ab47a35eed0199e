//! `settle:config`: settings and secrets of one component, by name.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::{Accessor, HasData, Linker};

use crate::bindings::settle::config::store as wit;
use crate::guest::Ctx;

/// The settings that the manifest grants to one component, with their values.
pub type Settings = Arc<HashMap<String, String>>;

/// Marks the port in the linker.
pub struct ConfigPort;

impl HasData for ConfigPort {
    type Data<'a> = &'a mut Ctx;
}

pub fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    wit::add_to_linker::<_, ConfigPort>(linker, |ctx| ctx)
}

impl wit::Host for Ctx {}

impl<T: Send> wit::HostWithStore<T> for ConfigPort {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> Result<Option<String>, wit::Error> {
        Ok(accessor.with(|mut access| access.get().settings.get(&name).cloned()))
    }
}
