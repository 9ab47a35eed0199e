//! Where the application's databases are: files of this host, or schemas of a PostgreSQL server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::Backend;
use super::postgres::{Postgres, provision::provision};
use super::sqlite::Sqlite;

/// Connections to each database when the manifest does not say: a third of them read.
const CONNECTIONS: usize = 15;

/// Found, not opened.
pub struct Databases {
    folder: PathBuf,
    urls: BTreeMap<String, String>,
    connections: usize,
}

impl Databases {
    /// By the manifest's variables: `database` is `sqlite`, or a URL with which a role and a schema
    /// are made for each name; `database_NAME` is the URL of one that exists.
    pub async fn find(names: &[String], values: &BTreeMap<String, String>, folder: &Path) -> Result<Self> {
        let set = |name: &str| values.get(name).filter(|value| !value.is_empty());
        let connections = match set("database_connections") {
            Some(text) => text.parse().context("database_connections is not a number")?,
            None => CONNECTIONS,
        };
        let own =
            names.iter().filter_map(|name| Some((name.clone(), set(&format!("database_{name}"))?.clone())));
        let mut urls: BTreeMap<String, String> = own.collect();
        let rest: Vec<String> = names.iter().filter(|name| !urls.contains_key(*name)).cloned().collect();
        match set("database").map(String::as_str) {
            None | Some("sqlite") if urls.is_empty() || rest.is_empty() => {}
            None | Some("sqlite") => {
                bail!("database_{} is not set, while others are", rest.join(", database_"))
            }
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                if !rest.is_empty() {
                    urls.extend(provision(url, &rest).await?);
                }
            }
            // It may hold a password: never show it.
            Some(_) => bail!("`database` must be `sqlite` or a URL that begins with postgres://"),
        }
        Ok(Self { folder: folder.to_owned(), urls, connections })
    }

    /// True when no other host can reach them.
    pub fn are_exclusive(&self) -> bool {
        self.urls.is_empty()
    }

    pub fn open(&self, name: &str) -> Result<Arc<dyn Backend>> {
        Ok(match self.urls.get(name) {
            Some(url) => {
                let opened = Postgres::new(url, self.connections);
                Arc::new(opened.with_context(|| format!("database `{name}`"))?)
            }
            None => Arc::new(Sqlite::open(&self.folder.join(format!("{name}.db")))?),
        })
    }
}
