//! `settle-pact --file F --provider payment|identity|order --base URL [--token T]`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use settle_contract::{Provider, verify};

/// The providers' names in pact files.
const PROVIDERS: [(&str, &str); 3] =
    [("payment", "PaymentService"), ("identity", "IdentityService"), ("order", "OrderService")];

#[tokio::main]
async fn main() -> Result<()> {
    let (mut file, mut provider, mut base, mut token) = (None, None, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--file" => file = Some(PathBuf::from(value)),
            "--provider" => provider = Some(value),
            "--base" => base = Some(value),
            "--token" => token = Some(value),
            other => bail!("unknown option {other}; there are --file, --provider, --base, --token"),
        }
    }
    let provider = provider.context("--provider is missing: payment, identity or order")?;
    let name =
        PROVIDERS.iter().find(|(short, _)| *short == provider).map_or(provider.as_str(), |(_, name)| name);
    let (file, base) = (file.context("--file is missing")?, base.context("--base is missing")?);
    let provider = Provider { name, base: &base, token: token.as_deref() };
    let count = verify(&provider, &file).await?;
    println!("{count} interactions verified: {} is what {} relies on", base, file.display());
    Ok(())
}
