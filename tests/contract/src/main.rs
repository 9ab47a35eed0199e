//! Verifies a running provider by a consumer's pact file: `cargo xtask pact`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use settle_contract::{Provider, verify};

/// The providers' names in pact files.
const PROVIDERS: [(&str, &str); 3] =
    [("payment", "PaymentService"), ("identity", "IdentityService"), ("order", "OrderService")];

#[derive(Parser)]
struct Options {
    /// The pact
    #[arg(long)]
    file: PathBuf,
    /// payment, identity, order, or the name that the pact has
    #[arg(long)]
    provider: String,
    /// http://host:port
    #[arg(long)]
    base: String,
    /// Sent where the pact sends a token
    #[arg(long)]
    token: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Options { file, provider, base, token } = Options::parse();
    let known = PROVIDERS.iter().find(|(short, _)| *short == provider);
    let name = known.map_or(provider.as_str(), |(_, name)| name);
    let count = verify(&Provider { name, base: &base, token: token.as_deref() }, &file).await?;
    println!("{count} interactions verified: {base} is what {} relies on", file.display());
    Ok(())
}
