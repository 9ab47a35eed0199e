//! Provider states for contract tests (Pact): a verifier asks for what an interaction takes for granted.
//! In the development profile only, and only from this machine; elsewhere the path does not exist.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::http::{Call, PeerHeader, Reply};
use crate::problem::Problem;
use crate::settings::{self, SettingError};

pub const PATH: &str = "/_pact/provider-states";

/// Whether the endpoint is open, and to whom.
#[derive(Clone, Debug)]
pub struct ProviderStates {
    open: bool,
    peer: PeerHeader,
}

/// What the verifier asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Change {
    pub state: String,
    pub params: Map<String, Value>,
    /// `setup`, or `teardown`, for which nothing is done: keys make every state once.
    pub action: String,
}

impl Change {
    pub fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.params.get(name).and_then(Value::as_str).unwrap_or(default)
    }
}

impl ProviderStates {
    pub async fn from_settings(peer: &PeerHeader) -> Result<Self, SettingError> {
        Ok(Self { open: settings::flag("provider_states").await?, peer: peer.clone() })
    }

    /// Answers a call of the endpoint. `set_up` makes a state; one that it does not know needs nothing.
    pub async fn answer(
        &self,
        call: &Call,
        set_up: impl AsyncFnOnce(&Change) -> Result<(), Problem>,
    ) -> Reply {
        let changed = match call.json::<Change>() {
            _ if !self.open || !self.peer.is_loopback(call) => Err(Problem::not_found()),
            Ok(change) if change.action == "teardown" => Ok(()),
            Ok(change) => set_up(&change).await,
            Err(problem) => Err(problem),
        };
        match changed {
            Ok(()) => Reply::json(200, &json!({})),
            Err(problem) => Reply::problem(&problem, &call.context.correlation_id),
        }
    }
}
