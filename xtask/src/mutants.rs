//! Protocol mutants: each breaks one rule of the saga in a copy of the sources, is built, and is put
//! into the simulator. A mutant that survives means that the simulator would not notice the mistake.
//!
//! Nothing of this is in the product: a mutant is a replacement of text, and says so when the text
//! has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{build, check};

/// Profiles, and the seeds of each.
const PROFILES: [(&str, &str); 2] = [("storm", "0..16"), ("power", "0..60")];
/// Of one seed.
const ORDERS: &str = "200";
/// What a build needs.
const SOURCES: [&str; 9] =
    ["Cargo.lock", "crates", "components", "adapters", "docs", "proto", "wit", "tests/probe", "spin.toml"];

/// Leases keep two owners apart most of the time; without them what keeps the money right is alone.
const SHORT_LEASE: (&str, &str, &str) = (
    ORDER_DRIVER,
    "pub(crate) const LEASE: Duration = Duration::from_secs(15);",
    "pub(crate) const LEASE: Duration = Duration::from_millis(200);",
);

struct Mutant {
    name: &'static str,
    /// File, text as it is, text as the mutant has it.
    changes: &'static [(&'static str, &'static str, &'static str)],
}

const ORDER_STORE: &str = "crates/order-core/src/store.rs";
const ORDER_SAGA: &str = "crates/order-core/src/saga.rs";
const ORDER_DRIVER: &str = "crates/order-core/src/driver.rs";
const PAYMENT_DRIVER: &str = "crates/payment-core/src/driver.rs";
const PAYMENT_STORE: &str = "crates/payment-core/src/store.rs";
const LEDGER: &str = "adapters/acquirer-simulator/src/ledger.rs";

const SAGA_STEPS: &str = "crates/order-core/src/steps.rs";
const SQL_PORT: &str = "crates/service-kit/src/p3/database.rs";

const MUTANTS: [Mutant; 21] = [
    Mutant {
        name: "the intent is not written",
        changes: &[(
            ORDER_STORE,
            "match self.database.execute(statements, Durability::Durable).await {\n            Ok(_) => Ok(Ok(())),",
            "drop(statements);\n        match Ok::<(), SqlError>(()) {\n            Ok(()) => Ok(Ok(())),",
        )],
    },
    Mutant {
        name: "the intent is written after the call",
        changes: &[(
            ORDER_DRIVER,
            "let placed = self.store.place(",
            "let key = saga.state().input.charge_key();\n        let _ = self.payments.process(context, &key, id, request.total(), request.method()).await;\n        let placed = self.store.place(",
        )],
    },
    Mutant {
        name: "the intent is relaxed",
        changes: &[(
            ORDER_STORE,
            "execute(statements, Durability::Durable).await {\n            Ok(_) => Ok(Ok(())),",
            "execute(statements, Durability::Relaxed).await {\n            Ok(_) => Ok(Ok(())),",
        )],
    },
    Mutant {
        name: "the idempotency key is a second write",
        changes: &[
            (ORDER_STORE, "insert_order(order, claim, lease", "insert_order(order, None, lease"),
            (
                ORDER_STORE,
                "if self.insert(order, saga, claim, lease, context).await? {\n",
                "if self.insert(order, saga, claim, lease, context).await? {
            if let Some(claim) = claim {
                let second = sql(\"UPDATE orders SET key_scope = $1, key_fingerprint = $2, key_expires_at = $3 WHERE id = $4\")
                    .bind(bytes(&claim.scope)).bind(bytes(&claim.fingerprint)).bind(claim.expires_at).bind(order.id.to_string());
                let _ = self.database.execute(vec![second], Durability::Durable).await;
            }\n",
            ),
        ],
    },
    Mutant {
        name: "a retry has a new key",
        changes: &[(
            "components/order/src/payments.rs",
            "key: key.to_string(),\n            order_id: order.to_string(),\n            amount: Some(money_to(amount)),\n            method",
            "key: format!(\"{key}-{}\", settle_ports::World::random(&self.world).0),\n            order_id: order.to_string(),\n            amount: Some(money_to(amount)),\n            method",
        )],
    },
    Mutant {
        name: "a timeout is a failure",
        changes: &[(
            SAGA_STEPS,
            "                state.charge_deferred(now, wait)",
            "                Event::PaymentDeclined { payment_id: None, reason: FailureReason::lossy(\"timeout\") }",
        )],
    },
    Mutant {
        name: "a charge after the deadline (saga and driver)",
        changes: &[
            (ORDER_SAGA, "if deadline_passed || *at_acquirer {", "if *at_acquirer {"),
            (
                SAGA_STEPS,
                "let too_late = *effect == Effect::Charge && now >= saga.state().input.deadline;",
                "let too_late = false;",
            ),
        ],
    },
    Mutant {
        name: "an answer goes before the commit",
        changes: &[(
            SQL_PORT,
            "Durability::Durable => wit::Durability::Durable,",
            "Durability::Durable => wit::Durability::Relaxed,",
        )],
    },
    Mutant {
        name: "no fencing (journal and outbox)",
        changes: &[
            (ORDER_STORE, "INSERT INTO order_journal (", "INSERT OR REPLACE INTO order_journal ("),
            (ORDER_STORE, "INSERT INTO order_outbox (", "INSERT OR REPLACE INTO order_outbox ("),
        ],
    },
    Mutant {
        name: "a journal may have a hole",
        changes: &[(
            ORDER_STORE,
            "WHERE order_id = $8 AND seq = $9 AND at = $10 AND status = $11)",
            "WHERE order_id = $8 AND $9 + $10 >= 0 AND $11 <> '')",
        )],
    },
    Mutant {
        name: "a lost entry's place may be another's",
        changes: &[
            (
                ORDER_STORE,
                "AND seq = $9 AND at = $10 AND status = $11)",
                "AND seq = $9 AND $10 >= 0 AND $11 <> '')",
            ),
            SHORT_LEASE,
        ],
    },
    Mutant {
        name: "a cancel is relaxed",
        changes: &[
            (
                ORDER_SAGA,
                "            | Event::CancelRequested { .. }\n            | Event::Redriven",
                "            | Event::Redriven",
            ),
            (
                ORDER_SAGA,
                "            Event::PaymentApproved { .. }\n            | Event::PaymentPending",
                "            Event::CancelRequested { .. }\n            | Event::PaymentApproved { .. }\n            | Event::PaymentPending",
            ),
        ],
    },
    Mutant {
        name: "a decline is relaxed",
        changes: &[
            (
                ORDER_SAGA,
                "            | Event::PaymentDeclined { .. }\n            // An undo",
                "            // An undo",
            ),
            (
                ORDER_SAGA,
                "            Event::PaymentApproved { .. }\n            | Event::PaymentPending",
                "            Event::PaymentDeclined { .. }\n            | Event::PaymentApproved { .. }\n            | Event::PaymentPending",
            ),
        ],
    },
    Mutant {
        name: "a read shows what is stored",
        changes: &[(ORDER_DRIVER, "self.as_payment_knows(context, order).await\n", "Ok(order)\n")],
    },
    Mutant {
        name: "a cancel shows what is stored",
        changes: &[(
            ORDER_DRIVER,
            "        self.shown(context, order).await.map_err(OrderError::after_a_write)\n    }\n\n    // ---- what operators",
            "        Ok(order)\n    }\n\n    // ---- what operators",
        )],
    },
    Mutant {
        name: "a later version of a payment may be lost",
        changes: &[(
            PAYMENT_STORE,
            "        let durability = if changed.version == 0 { durability } else { Durability::Durable };\n",
            "",
        )],
    },
    Mutant {
        // Alone it is masked: the first refund of that key is found again, and is done.
        name: "a refund is not recognised by its key, and the last one is finished",
        changes: &[
            (
                PAYMENT_DRIVER,
                "if let Some(earlier) = document.payment.refund_by_key(refund_key) {",
                "if let Some(earlier) = document.payment.refund_by_key(refund_key).filter(|_| false) {",
            ),
            (
                "crates/payment-core/src/payment.rs",
                "self.refunds.iter().find(|refund| refund.key == key)",
                "self.refunds.iter().rev().find(|refund| refund.key == key)",
            ),
        ],
    },
    Mutant {
        // Alone it is masked: an order without an outcome is undone in the end, and that asks.
        name: "neither a lookup nor an undo asks the acquirer",
        changes: &[
            (
                PAYMENT_DRIVER,
                "let standing = self.acquirer.lookup(key).await?;\n            let Some(mut document)",
                "let standing = Standing::Unknown;\n            let Some(mut document)",
            ),
            (
                PAYMENT_DRIVER,
                "let standing = self.acquirer.void(key).await?;",
                "let standing = Standing::Voided;",
            ),
        ],
    },
    Mutant {
        name: "a capture is relaxed",
        changes: &[(
            PAYMENT_DRIVER,
            "payment.capture().map(|transfer| vec![transfer]), Durability::Durable)",
            "payment.capture().map(|transfer| vec![transfer]), Durability::Relaxed)",
        )],
    },
    Mutant {
        name: "an undo does not ask the acquirer",
        changes: &[(
            PAYMENT_DRIVER,
            "let standing = self.acquirer.void(key).await?;",
            "let standing = Standing::Voided;",
        )],
    },
    Mutant {
        name: "no tombstone (payment and acquirer)",
        changes: &[
            (
                PAYMENT_DRIVER,
                "            let mut document = found.unwrap_or_else(|| {\n                let amount =",
                "            if found.is_none() && captured == 0 {\n                let charge = Charge { key: key.clone(), order_id: order_id.clone(), amount, method: None };\n                let mut nothing = self.new_document(&charge).payment;\n                let _ = nothing.undo(0);\n                return Ok(nothing);\n            }\n            let mut document = found.unwrap_or_else(|| {\n                let amount =",
            ),
            (
                LEDGER,
                "    pub async fn void(&self, key: &str) -> Result<Standing, Error> {",
                "    pub async fn void(&self, key: &str) -> Result<Standing, Error> {\n        if self.find(key).await?.is_none() {\n            return Ok(Standing::Voided);\n        }",
            ),
        ],
    },
];

/// Builds and tries every mutant, or those whose name has `wanted`.
pub fn run(wanted: Option<&str>) -> Result<()> {
    build::all()?;
    let tree = build::target_dir().join("mutants");
    copy_sources(&tree)?;
    build_guests(&tree)?;
    assert_unharmed(&tree)?;
    let mut survivors = 0;
    for mutant in MUTANTS.iter().filter(|mutant| wanted.is_none_or(|wanted| mutant.name.contains(wanted))) {
        mutate(&tree, mutant)?;
        build_guests(&tree).with_context(|| format!("the mutant `{}` does not build", mutant.name))?;
        let caught = PROFILES.map(|profile| simulate(&tree, profile));
        let mut sum = 0;
        for ((profile, seeds), caught) in PROFILES.iter().zip(caught) {
            let caught = caught?;
            println!("{:<44} caught in {caught:>2} of seeds {seeds} ({profile})", mutant.name);
            sum += caught;
        }
        survivors += usize::from(sum == 0);
        copy_sources(&tree)?;
    }
    if survivors > 0 {
        bail!("{survivors} mutants survive");
    }
    Ok(())
}

/// Without a mutation no seed fails.
fn assert_unharmed(tree: &Path) -> Result<()> {
    for profile in PROFILES {
        let failed = simulate(tree, profile)?;
        if failed != 0 {
            bail!("without a mutation {failed} seeds of {profile:?} fail");
        }
    }
    Ok(())
}

/// Copies what differs, so that cargo builds only that again.
fn copy_sources(tree: &Path) -> Result<()> {
    for source in SOURCES {
        copy(Path::new(source), &tree.join(source))?;
    }
    // A workspace of the guests alone.
    let manifest = fs::read_to_string("Cargo.toml")?;
    let (before, rest) = manifest.split_once("members = [").context("no members in Cargo.toml")?;
    let (_, after) = rest.split_once(']').context("no end of members")?;
    let members = r#"members = ["crates/*", "components/*", "adapters/*", "proto", "tests/probe"]"#;
    let text = format!("{before}{members}{after}").replace("default-members = [\"xtask\"]\n", "");
    write_if_changed(&tree.join("Cargo.toml"), text.as_bytes())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    write_if_changed(to, &fs::read(from).with_context(|| from.display().to_string())?)
}

fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, bytes).with_context(|| file.display().to_string())
}

fn mutate(tree: &Path, mutant: &Mutant) -> Result<()> {
    for (file, from, to) in mutant.changes {
        let path: PathBuf = tree.join(file);
        let text = fs::read_to_string(&path)?;
        if text.matches(from).count() != 1 {
            bail!("the mutant `{}` does not fit {file} any more: `{from}`", mutant.name);
        }
        fs::write(&path, text.replace(from, to))?;
    }
    Ok(())
}

fn build_guests(tree: &Path) -> Result<()> {
    let toolchain = build::guest_toolchain()?;
    let guests = ["gateway", "identity", "order", "payment", "acquirer-simulator"];
    for guest in guests.map(|name| format!("settle-{name}")) {
        let mut cargo = build::guest_cargo(&toolchain);
        cargo.current_dir(tree).env("CARGO_TARGET_DIR", "target");
        cargo.args(["build", "--quiet", "--profile", build::GUEST_PROFILE, "--target", build::GUEST_TARGET]);
        check(cargo.args(["-p", &guest]))?;
    }
    Ok(())
}

/// How many seeds have a violation.
fn simulate(tree: &Path, (profile, seeds): (&str, &str)) -> Result<usize> {
    let mut sim = Command::new(build::target_dir().join("release/settle-sim"));
    sim.args(["--json", "--profile", profile, "--seeds", seeds, "--orders", ORDERS, "--manifest"])
        .arg(tree.join("spin.toml"));
    let output = sim.arg("--cache").arg(tree.join("cache")).output()?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    told.get("failed_seeds").and_then(Value::as_array).map(Vec::len).context("no failed_seeds")
}
