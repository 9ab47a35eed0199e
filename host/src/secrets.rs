//! Secrets that `up` makes once and keeps: `DATA/secrets.env`, readable by the owner only.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const SECRET_BYTES: usize = 32;

/// `NAME=value` lines; empty lines and `#` comments are skipped.
pub fn read_env_file(path: &Path) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut pairs = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The value may be a secret: never show the line.
        let Some((name, value)) = line.split_once('=') else {
            bail!("{} line {number} is not NAME=value", path.display());
        };
        pairs.push((name.trim().to_lowercase(), value.trim().to_owned()));
    }
    Ok(pairs)
}

/// The secrets called `names`: read from `file`, made where they are missing.
pub fn keep(file: &Path, names: &[String]) -> Result<Vec<(String, String)>> {
    let mut known = if file.exists() { read_env_file(file)? } else { Vec::new() };
    if file.exists() && fs::metadata(file)?.permissions().mode() & 0o077 != 0 {
        bail!("{} is readable by others; run: chmod 600 {}", file.display(), file.display());
    }
    let missing: Vec<&String> =
        names.iter().filter(|name| !known.iter().any(|(known, _)| known == *name)).collect();
    if missing.is_empty() {
        return Ok(known);
    }
    for name in missing {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
        known.push((name.clone(), URL_SAFE_NO_PAD.encode(bytes)));
    }
    write_private(file, &known).with_context(|| format!("writing {}", file.display()))?;
    Ok(known)
}

/// Whole or not at all: written beside, synced, renamed.
fn write_private(file: &Path, pairs: &[(String, String)]) -> Result<()> {
    let unfinished = file.with_extension("tmp");
    let mut out =
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    writeln!(out, "# Made by `settle up`. Losing these ends every session; sharing them ends every secret.")?;
    for (name, value) in pairs {
        writeln!(out, "{name}={value}")?;
    }
    out.sync_all()?;
    fs::rename(&unfinished, file)?;
    Ok(())
}
