//! What an instance keeps between requests. A cache only: the host may end an instance at any time.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::LocalKey;

use settle_ports::{CallContext, SchemaError, SqlError, World};

use crate::problem::{Kind, Problem};
use crate::settings::SettingError;

/// A place for the one `T` of an instance.
pub type Slot<T> = RefCell<Option<Rc<T>>>;

/// Why a service cannot work at the moment. Its text is for operators.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("database: {0}")]
    Database(#[from] SqlError),
    #[error("{0}")]
    Other(String),
}

impl StartError {
    /// What a client hears of it: nothing but to come back. The log says why.
    pub fn problem(&self, world: &impl World, context: &CallContext) -> Problem {
        world.log("error", &self.to_string(), context);
        let wait = std::time::Duration::from_secs(1);
        Problem::new(Kind::Unavailable, "The service is not ready.").retry_after(wait)
    }
}

/// The instance's `T`, made at first use. Two first requests may both make one; one is kept.
pub async fn get<T: 'static>(
    slot: &'static LocalKey<Slot<T>>,
    make: impl Future<Output = Result<T, StartError>>,
) -> Result<Rc<T>, StartError> {
    if let Some(made) = slot.with_borrow(Clone::clone) {
        return Ok(made);
    }
    let made = Rc::new(make.await?);
    slot.with_borrow_mut(|kept| Ok(kept.get_or_insert(made).clone()))
}
