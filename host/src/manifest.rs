//! `spin.toml`: the application, as Spin reads it, with our listeners and limits under `tool`.
//!
//! Keys of Spin that this host does not need are tolerated; keys under `tool.settle` are ours and
//! checked strictly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What the file says.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    pub spin_manifest_version: u32,
    pub application: Application,
    #[serde(default)]
    pub variables: BTreeMap<String, Variable>,
    #[serde(default)]
    pub component: BTreeMap<String, Component>,
    /// The folder of the file: its paths are relative to it.
    #[serde(skip)]
    pub folder: PathBuf,
}

#[derive(Debug, Deserialize)]
pub struct Application {
    pub name: String,
    #[serde(default)]
    tool: ApplicationTool,
}

#[derive(Debug, Default, Deserialize)]
struct ApplicationTool {
    #[serde(default)]
    settle: Tool,
}

/// `[application.tool.settle]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    #[serde(default)]
    pub listeners: BTreeMap<String, Listener>,
    /// Variables that `up` makes and keeps when nobody sets them: 32 random bytes, base64url.
    #[serde(default)]
    pub generated: Vec<String>,
    #[serde(default)]
    pub profile: BTreeMap<String, Profile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub port: u16,
    pub component: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub struct Variable {
    #[serde(default)]
    pub default: Option<String>,
    #[serde(default)]
    pub secret: bool,
}

#[derive(Debug, Deserialize)]
pub struct Component {
    pub source: String,
    #[serde(default)]
    pub allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    #[serde(default)]
    tool: ComponentTool,
}

#[derive(Debug, Default, Deserialize)]
struct ComponentTool {
    #[serde(default)]
    settle: ComponentLimits,
}

/// `[component.NAME.tool.settle]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ComponentLimits {
    /// Databases that the component may open; each is a file, or a schema, of its own.
    pub databases: Vec<String>,
    /// Components that are plugged into its imports. (`dependencies` are for Spin: they bring
    /// what this host has itself.)
    pub plugs: Vec<String>,
    /// Requests at once. More keep processors busy while others wait for slow services; too many
    /// cost more than they bring.
    pub concurrent: usize,
    /// Requests that may wait for a place.
    pub waiting: usize,
    /// Call `settle:recovery` on a timer.
    pub recovery: bool,
}

impl Default for ComponentLimits {
    fn default() -> Self {
        Self { databases: Vec::new(), plugs: Vec::new(), concurrent: 128, waiting: 384, recovery: false }
    }
}

impl Component {
    pub fn limits(&self) -> &ComponentLimits {
        &self.tool.settle
    }
}

impl Manifest {
    /// Reads and checks a manifest. Errors name the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the manifest {shown} cannot be read; name one with --manifest"))?;
        let mut manifest: Manifest =
            toml::from_str(&text).with_context(|| format!("the manifest {shown}"))?;
        manifest.folder = path.parent().map(Path::to_owned).unwrap_or_default();
        manifest.check().with_context(|| format!("the manifest {shown}"))?;
        Ok(manifest)
    }

    pub fn tool(&self) -> &Tool {
        &self.application.tool.settle
    }

    fn check(&self) -> Result<()> {
        if self.spin_manifest_version != 2 {
            bail!("spin_manifest_version is {}; this host reads version 2", self.spin_manifest_version);
        }
        for (name, listener) in &self.tool().listeners {
            if !self.component.contains_key(&listener.component) {
                bail!("listener `{name}` names component `{}`, which is not defined", listener.component);
            }
        }
        let variable = |name: &String| self.variables.contains_key(name);
        let of_profiles = self.tool().profile.values().flat_map(|profile| profile.variables.keys());
        for name in self.tool().generated.iter().chain(of_profiles) {
            if !variable(name) {
                bail!("`{name}` under tool.settle is not one of [variables]");
            }
        }
        Ok(())
    }

    /// Replaces `{{ name }}` by the variables' values.
    pub fn expand(&self, template: &str, values: &BTreeMap<String, String>) -> Result<String> {
        let (mut expanded, mut rest) = (String::new(), template);
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                bail!("`{template}` has no closing }}}}")
            };
            let name = name.trim();
            let Some(value) = values.get(name) else {
                bail!(
                    "`{template}` names variable `{name}`, which has no value; set it with --set {name}=..."
                );
            };
            expanded.push_str(before);
            expanded.push_str(value);
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    /// Every variable's value: defaults, then the profile's, then `overrides`, later ones first.
    pub fn values(&self, profile: &str, overrides: &[(String, String)]) -> Result<BTreeMap<String, String>> {
        let defaults = self.variables.iter().filter_map(|(name, variable)| {
            variable.default.as_ref().map(|default| (name.clone(), default.clone()))
        });
        let mut values: BTreeMap<String, String> = defaults.collect();
        if let Some(profile) = self.tool().profile.get(profile) {
            values.extend(profile.variables.clone());
        }
        for (name, value) in overrides {
            if !self.variables.contains_key(name) {
                let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
                bail!("there is no variable `{name}`; there are: {}", known.join(", "));
            }
            values.insert(name.clone(), value.clone());
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest> {
        let manifest: Manifest = toml::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    const GOOD: &str = r#"
        spin_manifest_version = 2
        [application]
        name = "a"
        description = "keys of Spin are tolerated"
        [application.tool.settle.listeners]
        order = { port = 1, component = "order" }
        [variables]
        url = { default = "http://x" }
        [component.order]
        source = "o.wasm"
        key_value_stores = ["default"]
        variables = { url = "{{ url }}/y" }
    "#;

    #[test]
    fn a_manifest_of_spin_is_read_and_templates_expand() {
        let manifest = parse(GOOD).unwrap();
        let values = manifest.values("development", &[("url".into(), "http://z".into())]).unwrap();
        assert_eq!(manifest.expand("a {{ url }} b {{url}}", &values).unwrap(), "a http://z b http://z");
        assert!(manifest.expand("{{ nope }}", &values).is_err());
        assert!(manifest.values("development", &[("nope".into(), String::new())]).is_err());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let rows = [
            (GOOD.replace("component = \"order\"", "component = \"oder\""), "`oder`"),
            (GOOD.replace("port = 1", "prot = 1"), "line 7"),
            (GOOD.replace("source = \"o.wasm\"", "source = 5"), "line 11"),
            (GOOD.replace("version = 2", "version = 1"), "version 2"),
            ("= x".to_owned(), "line 1"),
        ];
        for (text, expected) in rows {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
