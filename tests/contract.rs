//! What is written down agrees with what runs: protos, WIT prose, problems, manifest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto};
use settle_proto::payment_v1 as wire;
use settle_tests::host::root;

fn proto(path: &str) -> FileDescriptorProto {
    let compiled = protox::compile([path], [root().join("proto")]).unwrap();
    let set = prost_types::FileDescriptorSet::decode(compiled.encode_to_vec().as_slice()).unwrap();
    set.file.into_iter().find(|file| file.name() == path).unwrap()
}

fn payment_proto() -> FileDescriptorProto {
    proto("settle/payment/v1/payment.proto")
}

/// Encodes a value for each field by its number and type in the `.proto`: a reader that knows
/// another number or type would not give it back.
fn sample(message: &DescriptorProto, of: &BTreeMap<String, DescriptorProto>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in &message.field {
        let tag = u32::try_from(field.number()).unwrap();
        match field.r#type() {
            Type::Int64 => prost::encoding::int64::encode(tag, &i64::from(tag), &mut bytes),
            Type::String => prost::encoding::string::encode(tag, &field.name().to_owned(), &mut bytes),
            Type::Double => prost::encoding::double::encode(tag, &(f64::from(tag) + 0.5), &mut bytes),
            Type::Bool => prost::encoding::bool::encode(tag, &true, &mut bytes),
            Type::Enum => prost::encoding::int32::encode(tag, &1, &mut bytes),
            Type::Message => {
                let inner = sample(&of[field.type_name().rsplit('.').next().unwrap()], of);
                prost::encoding::bytes::encode(tag, &inner, &mut bytes);
            }
            other => panic!("{other:?} is not used yet"),
        }
    }
    bytes
}

fn round_trip<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).unwrap().encode_to_vec()
}

#[test]
fn rust_messages_have_the_fields_of_the_proto() {
    let file = payment_proto();
    let of: BTreeMap<String, DescriptorProto> =
        file.message_type.iter().map(|message| (message.name().to_owned(), message.clone())).collect();
    for (name, message) in &of {
        let bytes = sample(message, &of);
        let again = match name.as_str() {
            "Money" => round_trip::<wire::Money>(&bytes),
            "Payment" => round_trip::<wire::Payment>(&bytes),
            "ProcessRequest" => round_trip::<wire::ProcessRequest>(&bytes),
            "ProcessResponse" => round_trip::<wire::ProcessResponse>(&bytes),
            "LookUpRequest" => round_trip::<wire::LookUpRequest>(&bytes),
            "LookUpResponse" => round_trip::<wire::LookUpResponse>(&bytes),
            "UndoRequest" => round_trip::<wire::UndoRequest>(&bytes),
            "UndoResponse" => round_trip::<wire::UndoResponse>(&bytes),
            other => panic!("{other} has no Rust type"),
        };
        assert_eq!(again, bytes, "{name}");
    }
}

#[test]
fn the_described_system_s_messages_have_the_fields_of_its_protos() {
    use settle_proto::compat::{orders, payments};
    for (path, service) in
        [("compat/orders.proto", orders::SERVICE), ("compat/payments.proto", payments::SERVICE)]
    {
        let file = proto(path);
        assert_eq!(format!("{}.{}", file.package(), file.service[0].name()), service);
        for message in &file.message_type {
            let bytes = sample(message, &BTreeMap::new());
            let again = match message.name() {
                "CreateOrderRequest" => round_trip::<orders::CreateOrderRequest>(&bytes),
                "OrderResponse" => round_trip::<orders::OrderResponse>(&bytes),
                "PaymentRequest" => round_trip::<payments::PaymentRequest>(&bytes),
                "RefundRequest" => round_trip::<payments::RefundRequest>(&bytes),
                "PaymentResponse" => round_trip::<payments::PaymentResponse>(&bytes),
                other => panic!("{other} has no Rust type"),
            };
            assert_eq!(again, bytes, "{}", message.name());
        }
    }
}

#[test]
fn the_protos_are_lint_clean() {
    let buf = settle_tests::host::target().join("api-tools/bin/buf");
    assert!(buf.exists(), "{} is missing: run `cargo xtask test`", buf.display());
    let output =
        std::process::Command::new(buf).arg("lint").current_dir(root().join("proto")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// `SETTLE_WRITE=1` writes them.
#[test]
fn reflection_hands_out_the_protos() {
    use settle_proto::descriptors::{HEALTH, ORDERS, PAYMENT_V1, PAYMENTS};
    for (file, name) in
        [(ORDERS, "orders"), (PAYMENTS, "payments"), (PAYMENT_V1, "payment_v1"), (HEALTH, "health")]
    {
        let proto = proto(file.path);
        assert_eq!(proto.package(), file.package);
        assert_eq!(format!("{}.{}", proto.package(), proto.service[0].name()), file.service);
        let encoded = proto.encode_to_vec();
        let path = root().join(format!("proto/descriptors/{name}.binpb"));
        if std::env::var_os("SETTLE_WRITE").is_some() {
            std::fs::write(&path, &encoded).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), encoded, "{}: run with SETTLE_WRITE=1", path.display());
    }
}

#[test]
fn rust_enums_have_the_values_of_the_proto() {
    for of in payment_proto().enum_type {
        let known: fn(i32) -> Option<String> = match of.name() {
            "PaymentStatus" => |value| wire::PaymentStatus::try_from(value).ok().map(|v| format!("{v:?}")),
            "ProcessOutcome" => |value| wire::ProcessOutcome::try_from(value).ok().map(|v| format!("{v:?}")),
            other => panic!("{other} has no Rust type"),
        };
        for value in &of.value {
            let rust = known(value.number()).unwrap_or_else(|| panic!("{} is not known", value.name()));
            let shouted = value.name().replace('_', "");
            assert!(shouted.ends_with(&rust.to_uppercase()), "{} is {rust}", value.name());
        }
        assert_eq!(known(i32::try_from(of.value.len()).unwrap()), None);
    }
}

#[test]
fn rust_knows_the_service_and_its_methods() {
    let file = payment_proto();
    let service = &file.service[0];
    assert_eq!(format!("{}.{}", file.package(), service.name()), wire::SERVICE);
    let methods: Vec<&str> = service.method.iter().map(|method| method.name()).collect();
    let server = std::fs::read_to_string(root().join("components/payment/src/rpc.rs")).unwrap();
    for method in methods {
        assert!(server.contains(&format!("Some(\"/{method}\")")), "payment does not serve {method}");
    }
}

/// Every function, type and case of `wit/` that has meaning says it.
#[test]
fn every_wit_function_has_prose() {
    for package in ["sql", "config", "limits", "acquirer", "identity", "payment", "order", "recovery"] {
        let folder = root().join("wit").join(package);
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let mut documented = false;
            for line in text.lines().map(str::trim) {
                let declares = ["interface ", "resource "].iter().any(|word| line.starts_with(word))
                    || line.contains(": func(")
                    || line.contains(" func(");
                let is_doc = line.starts_with("///");
                assert!(!declares || is_doc || documented, "{}: `{line}` has no prose", path.display());
                documented = is_doc || (documented && line.starts_with('@'));
            }
        }
    }
}

#[test]
fn problems_are_documented_and_nothing_else_is() {
    let document = std::fs::read_to_string(root().join("docs/problems.md")).unwrap();
    let source = std::fs::read_to_string(root().join("crates/service-kit/src/problem.rs")).unwrap();
    let describe = source.split("fn describe").nth(1).unwrap().split("pub fn name").next().unwrap();
    let in_code: Vec<&str> = describe
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| text.contains('-') || *text == "unauthenticated")
        .chain(["forbidden", "internal", "unavailable"])
        .filter(|text| !text.contains(' '))
        .collect();
    assert!(in_code.len() >= 15, "{in_code:?}");
    for name in &in_code {
        assert!(document.contains(&format!("| `{name}` |")), "docs/problems.md does not list {name}");
    }
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    for row in rows {
        let name = row.split('`').nth(1).unwrap();
        assert!(in_code.contains(&name), "docs/problems.md lists {name}, which no code answers");
    }
}

#[test]
fn the_manifest_grants_each_service_its_own_database() {
    let manifest = settle_host::manifest::Manifest::read(&root().join("spin.toml")).unwrap();
    let mut owners = BTreeMap::new();
    for (name, component) in &manifest.component {
        for database in &component.limits().databases {
            assert_eq!(owners.insert(database.clone(), name.clone()), None, "{database} has two owners");
        }
    }
    let ports: Vec<(&str, u16)> =
        manifest.tool().listeners.iter().map(|(name, listener)| (name.as_str(), listener.port)).collect();
    let expected = [
        ("gateway", 8000),
        ("gateway_grpc", 9080),
        ("identity", 5010),
        ("order", 5011),
        ("payment", 5012),
        ("payment_grpc", 50051),
    ];
    assert_eq!(ports, expected);
    for name in &manifest.tool().generated {
        assert!(manifest.variables[name].secret, "{name} is generated and must be a secret");
        assert_eq!(manifest.variables[name].default.as_deref(), Some(""), "no default secret");
    }
}
