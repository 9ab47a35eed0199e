//! What one instance of a component sees of the world.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::config::Settings;
use crate::http::outbound::Outbound;
use crate::limits::Limits;
use crate::sql::Granted;
use crate::world::World;

/// Most memory of one instance. A password hash alone needs 19 MiB.
const MEMORY_BYTES_MAX: usize = 64 << 20;
const TABLE_ELEMENTS_MAX: usize = 20_000;

/// What the manifest grants to a component; shared by its instances.
#[derive(Clone)]
pub struct Grants {
    pub databases: Granted,
    pub settings: Settings,
    pub limits: Arc<Limits>,
    pub outbound: Outbound,
    pub world: Arc<dyn World>,
}

/// The data of one store.
pub struct Ctx {
    pub table: ResourceTable,
    pub databases: Granted,
    pub settings: Settings,
    pub limits: Arc<Limits>,
    pub outbound: Outbound,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub store_limits: StoreLimits,
}

impl Ctx {
    /// No files, no sockets, no environment: only the world and the grants.
    pub fn new(grants: &Grants) -> Self {
        let store_limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY_BYTES_MAX)
            .table_elements(TABLE_ELEMENTS_MAX)
            .build();
        Self {
            table: ResourceTable::new(),
            databases: grants.databases.clone(),
            settings: grants.settings.clone(),
            limits: grants.limits.clone(),
            outbound: grants.outbound.clone(),
            wasi: grants.world.wasi(),
            http: WasiHttpCtx::new(),
            store_limits,
        }
    }
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Ctx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}
