//! Verifies a provider by a pact file: every interaction is asked of it, after its state was set up.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use pact_verifier::callback_executors::HttpRequestProviderStateExecutor;
use pact_verifier::{
    FilterInfo, NullRequestFilterExecutor, PactSource, ProviderInfo, ProviderTransport, VerificationOptions,
    verify_provider_async,
};
use serde_json::Value;

/// Where a provider of ours sets up states (development profile, from this machine).
const STATES_PATH: &str = "/_pact/provider-states";

/// A running provider.
pub struct Provider<'a> {
    /// As the pact files name it.
    pub name: &'a str,
    /// `http://host:port`
    pub base: &'a str,
    /// Sent instead of what the pact has, as a pact's token has long expired.
    pub token: Option<&'a str>,
}

/// Verifies every interaction of a file; how many there were.
///
/// Errors: the file cannot be read, or an interaction is not as it says.
pub async fn verify(provider: &Provider<'_>, file: &Path) -> Result<usize> {
    let authority =
        provider.base.strip_prefix("http://").context("--base must look like http://host:port")?;
    let (host, port) = authority.trim_end_matches('/').rsplit_once(':').context("--base needs a port")?;
    let port = port.parse().context("--base needs a port")?;
    let transport =
        ProviderTransport { transport: "http".to_owned(), port: Some(port), path: None, scheme: None };
    let info = ProviderInfo {
        name: provider.name.to_owned(),
        host: host.to_owned(),
        transports: vec![transport],
        ..ProviderInfo::default()
    };
    let options = VerificationOptions::<NullRequestFilterExecutor> {
        coloured_output: false,
        ..VerificationOptions::default()
    };
    let states = HttpRequestProviderStateExecutor {
        state_change_url: Some(format!("{}{STATES_PATH}", provider.base.trim_end_matches('/'))),
        retries: 0,
        ..HttpRequestProviderStateExecutor::default()
    };
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| shown.to_string())?;
    let mut pact: Value = serde_json::from_str(&text).with_context(|| shown.to_string())?;
    if let Some(token) = provider.token {
        send_token(&mut pact, token);
    }
    let (sources, states) = (vec![PactSource::String(pact.to_string())], Arc::new(states));
    let result =
        verify_provider_async(info, sources, FilterInfo::None, vec![], &options, None, &states, None);
    let result = result.await.with_context(|| shown.to_string())?;
    for line in &result.output {
        println!("{line}");
    }
    if !result.result {
        bail!("{shown}: {} interactions are not as the pact says", result.errors.len());
    }
    Ok(result.interaction_results.len())
}

/// Puts this token where an interaction sends one.
fn send_token(pact: &mut Value, token: &str) {
    let interactions = pact.get_mut("interactions").and_then(Value::as_array_mut);
    for interaction in interactions.into_iter().flatten() {
        let headers = interaction.pointer_mut("/request/headers").and_then(Value::as_object_mut);
        for (name, value) in headers.into_iter().flatten() {
            if name.eq_ignore_ascii_case("authorization") {
                *value = format!("Bearer {token}").into();
            }
        }
    }
}
