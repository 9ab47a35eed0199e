//! Tokens that an attacker would try, by class, against the running services. Each class has a control:
//! a token made by the same hands that is good.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use settle_tests::client::Client;
use settle_tests::host::Host;

/// An attacker who also has the right key, to make what the right key would never sign.
struct Forge {
    key: SigningKey,
    own: SigningKey,
    public: [u8; 32],
    head: Value,
    claims: Value,
    now: u64,
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

impl Forge {
    fn of(host: &Host, token: &str) -> Self {
        let seed: [u8; 32] =
            URL_SAFE_NO_PAD.decode(host.secret("token_signing_key")).unwrap().try_into().unwrap();
        let key = SigningKey::from_bytes(&seed);
        let parts: Vec<&str> = token.split('.').collect();
        let (head, claims) = (decoded(parts[0]), decoded(parts[1]));
        let now = claims["iat"].as_u64().unwrap();
        let public = key.verifying_key().to_bytes();
        Self { key, own: SigningKey::from_bytes(&[9; 32]), public, head, claims, now }
    }

    fn signed(&self, head: &str, claims: &str, key: &SigningKey) -> String {
        let text = format!("{}.{}", b64(head), b64(claims));
        let signature = key.sign(text.as_bytes());
        format!("{text}.{}", b64(signature.to_bytes()))
    }

    /// By the right key.
    fn right(&self, head: &Value, claims: &Value) -> String {
        self.signed(&head.to_string(), &claims.to_string(), &self.key)
    }

    fn with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims.clone();
        claims[name] = value;
        claims
    }

    fn without(&self, name: &str) -> Value {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    fn head_with(&self, name: &str, value: Value) -> Value {
        let mut head = self.head.clone();
        head[name] = value;
        head
    }

    // ---- classes ----

    fn no_algorithm(&self) -> Vec<String> {
        let good = self.right(&self.head, &self.claims);
        let signature = good.rsplit('.').next().unwrap().to_owned();
        let names = ["none", "None", "NONE", "nOnE", "none ", "", "null", "None\u{0}"];
        let mut heads: Vec<Value> = names.iter().map(|name| self.head_with("alg", json!(name))).collect();
        heads.extend([json!(null), json!(0), json!([]), json!({})].map(|alg| self.head_with("alg", alg)));
        heads.push(json!({ "typ": "JWT" }));
        let of_head = |head: &Value| {
            let text = format!("{}.{}", b64(head.to_string()), b64(self.claims.to_string()));
            ["", "AA", &signature].map(|end| format!("{text}.{end}"))
        };
        heads.iter().flat_map(of_head).collect()
    }

    fn public_key_as_secret(&self) -> Vec<String> {
        let x = b64(self.public);
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#);
        let der =
            [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &self.public]
                .concat();
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
        let secrets =
            [self.public.to_vec(), x.into_bytes(), jwk.into_bytes(), der, pem.into_bytes(), Vec::new()];
        let mut tokens = Vec::new();
        for secret in &secrets {
            for alg in ["HS256", "HS384", "HS512", "hs256", "EdDSA"] {
                for kid in [self.head["kid"].clone(), Value::Null] {
                    let head = json!({ "alg": alg, "kid": kid, "typ": "JWT" });
                    let text = format!("{}.{}", b64(head.to_string()), b64(self.claims.to_string()));
                    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
                    mac.update(text.as_bytes());
                    tokens.push(format!("{text}.{}", b64(mac.finalize().into_bytes())));
                }
            }
        }
        tokens
    }

    fn other_algorithms(&self) -> Vec<String> {
        let names = [
            "HS256",
            "HS384",
            "HS512",
            "RS256",
            "RS384",
            "RS512",
            "PS256",
            "PS384",
            "PS512",
            "ES256",
            "ES384",
            "ES512",
            "ES256K",
            "eddsa",
            "EDDSA",
            "Ed25519",
            "Ed448",
            "ML-DSA-44",
            "dir",
            "A256GCM",
            "RSA-OAEP",
        ];
        names.iter().map(|name| self.right(&self.head_with("alg", json!(name)), &self.claims)).collect()
    }

    fn key_ids(&self) -> Vec<String> {
        let kid = self.head["kid"].as_str().unwrap();
        let texts = [
            "../../../../etc/passwd",
            "/dev/null",
            "file:///dev/null",
            "' OR '1'='1",
            "1; DROP TABLE identity_users",
            "x' UNION SELECT 'AA",
            "",
            " ",
            "null",
            "0",
            "*",
            "%",
            "\u{0}",
            "\n",
            "${jndi:ldap://a}",
            "http://127.0.0.1/jwks",
            "{{7*7}}",
            "\u{202e}",
            "..",
            "a/../b",
        ];
        let mut kids: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
        kids.extend(
            [
                format!("{kid} "),
                format!(" {kid}"),
                format!("{kid}\u{0}"),
                kid.to_uppercase(),
                kid[1..].to_owned(),
            ]
            .map(Value::from),
        );
        kids.extend([
            json!(null),
            json!(0),
            json!(true),
            json!([kid]),
            json!({ "kid": kid }),
            json!("x".repeat(2000)),
        ]);
        let by = |key: &SigningKey| {
            let sign = |kid: &Value| {
                self.signed(&self.head_with("kid", kid.clone()).to_string(), &self.claims.to_string(), key)
            };
            kids.iter().map(sign).collect::<Vec<_>>()
        };
        [by(&self.own), by(&self.key)].concat()
    }

    fn embedded_keys(&self) -> Vec<String> {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(self.own.verifying_key().to_bytes()), "kid": "own" });
        let set = json!({ "keys": [jwk] });
        let named = [
            ("jwk", jwk.clone()),
            ("jwks", set.clone()),
            ("jku", json!("http://127.0.0.1:1/jwks.json")),
            ("jku", json!("https://identity.internal.evil.example/.well-known/jwks.json")),
            ("x5u", json!("http://127.0.0.1:1/cert.pem")),
            ("x5c", json!([STANDARD.encode([0x30, 0x00])])),
            ("x5t", json!(b64([0; 20]))),
            ("x5t#S256", json!(b64([0; 32]))),
            ("url", json!("http://127.0.0.1:1/")),
            ("epk", jwk.clone()),
        ];
        let mut tokens = Vec::new();
        for (name, value) in named {
            for kid in [self.head["kid"].clone(), json!("own"), Value::Null] {
                let mut head = self.head_with(name, value.clone());
                head["kid"] = kid;
                tokens.push(self.signed(&head.to_string(), &self.claims.to_string(), &self.own));
            }
        }
        tokens
    }

    fn critical_extensions(&self) -> Vec<String> {
        let rows = [
            json!(["b64"]),
            json!(["exp"]),
            json!(["unknown"]),
            json!(["alg"]),
            json!(["kid"]),
            json!([]),
            json!("exp"),
            json!(0),
            json!({}),
            json!(["http://example.com/UNDEFINED"]),
            json!(["b64", "exp"]),
            json!([1]),
            json!(true),
        ];
        let mut heads: Vec<Value> = rows.map(|crit| self.head_with("crit", crit)).into();
        let mut unencoded = self.head_with("crit", json!(["b64"]));
        unencoded["b64"] = json!(false);
        heads.push(unencoded);
        heads.iter().map(|head| self.right(head, &self.claims)).collect()
    }

    fn times(&self) -> Vec<String> {
        let bad = [
            json!(0),
            json!(1),
            json!(self.now - 3600),
            json!(-1),
            json!("never"),
            json!(format!("{}", self.now + 60)),
            json!(null),
            json!(true),
            json!([self.now + 60]),
            json!({}),
            json!(1e300),
            json!(-0.5),
            json!(i64::MIN),
        ];
        let mut claims: Vec<Value> = bad.iter().map(|exp| self.with("exp", exp.clone())).collect();
        let future = [
            json!(self.now + 3600),
            json!(u64::MAX),
            json!("soon"),
            json!(null),
            json!([]),
            json!(-1),
            json!(1e300),
        ];
        claims.extend(future.iter().map(|iat| self.with("iat", iat.clone())));
        let later =
            [json!(self.now + 3600), json!(u64::MAX), json!("soon"), json!([]), json!(1e300), json!({})];
        claims.extend(later.iter().map(|nbf| self.with("nbf", nbf.clone())));
        claims.extend([self.without("exp"), self.without("iat")]);
        claims.iter().map(|claims| self.right(&self.head, claims)).collect()
    }

    fn other_names(&self) -> Vec<String> {
        let (iss, aud) = (self.claims["iss"].as_str().unwrap(), self.claims["aud"].as_str().unwrap());
        let mut claims = Vec::new();
        for (name, right) in [("iss", iss), ("aud", aud)] {
            let other = [
                json!(""),
                json!("other"),
                json!(right.to_uppercase()),
                json!(format!("{right}/")),
                json!(format!("{right} ")),
                json!(format!(" {right}")),
                json!(format!("{right}\u{0}")),
                json!([right]),
                json!([right, "other"]),
                json!([]),
                json!(null),
                json!(0),
                json!({ "a": right }),
                json!(format!("https://{right}")),
                json!(["other"]),
                json!("*"),
            ];
            claims.extend(other.iter().map(|value| self.with(name, value.clone())));
            claims.push(self.without(name));
        }
        for audience in ["payment", "identity", "gateway "] {
            claims.push(self.with("aud", json!(audience)));
        }
        for role in [
            json!("admin"),
            json!("ADMIN"),
            json!("Root"),
            json!(["Admin"]),
            json!(null),
            json!(1),
            json!(""),
        ] {
            claims.push(self.with("role", role));
        }
        for name in ["sub", "jti", "role"] {
            claims.push(self.without(name));
        }
        for sub in [json!(""), json!(null), json!(1), json!([]), json!("a\u{0}b"), json!("x".repeat(200))] {
            claims.push(self.with("sub", sub));
        }
        let heads = ["at+jwt", "JWE", "dpop+jwt", "JOSE", "secevent+jwt", "", "application/jwt", "jwt\u{0}"];
        let mut tokens: Vec<String> = claims.iter().map(|claims| self.right(&self.head, claims)).collect();
        tokens.extend(heads.iter().map(|typ| self.right(&self.head_with("typ", json!(typ)), &self.claims)));
        tokens.extend(
            [json!(0), json!([]), json!({})].map(|typ| self.right(&self.head_with("typ", typ), &self.claims)),
        );
        tokens
    }

    fn doubled(&self) -> Vec<String> {
        let text = self.claims.to_string();
        let head = self.head.to_string();
        let twice = |json: &str, member: &str| format!("{{{member},{}", &json[1..]);
        let after = |json: &str, member: &str| format!("{},{member}}}", &json[..json.len() - 1]);
        let mut tokens = Vec::new();
        for member in [
            r#""role":"Admin""#,
            r#""role":"User""#,
            r#""sub":"other""#,
            r#""exp":99999999999"#,
            r#""aud":"payment""#,
            r#""iss":"other""#,
            r#""iat":0"#,
            r#""jti":"other""#,
            r#""exp":0"#,
        ] {
            tokens.push(self.signed(&head, &twice(&text, member), &self.key));
            tokens.push(self.signed(&head, &after(&text, member), &self.key));
        }
        for member in [r#""alg":"none""#, r#""alg":"HS256""#, r#""kid":"x""#, r#""typ":"JWE""#] {
            tokens.push(self.signed(&twice(&head, member), &text, &self.key));
            tokens.push(self.signed(&after(&head, member), &text, &self.key));
        }
        tokens
    }

    fn odd_json(&self) -> Vec<String> {
        let (head, text) = (self.head.to_string(), self.claims.to_string());
        let bodies = [
            String::new(),
            "null".into(),
            "0".into(),
            "true".into(),
            "\"\"".into(),
            "[]".into(),
            "{}".into(),
            format!("[{text}]"),
            format!("{text}{text}"),
            format!("{text}x"),
            format!("{text},"),
            format!("\u{feff}{text}"),
            format!("/**/{text}"),
            text.replace('"', "'"),
            text.replace("\":", "\" :: "),
            text[..text.len() - 1].to_owned(),
            text[1..].to_owned(),
            format!("{{\"a\":{}", "[".repeat(500)),
            text.replacen('{', "{\"exp\":NaN,", 1),
            text.replacen('{', "{\"x\":01,", 1),
            format!("{}\0", text),
            text.replacen('{', "{,", 1),
            text.replacen("\"sub\"", "sub", 1),
        ];
        let mut tokens: Vec<String> = bodies.iter().map(|body| self.signed(&head, body, &self.key)).collect();
        let heads = [
            String::new(),
            "null".into(),
            "[]".into(),
            "{}".into(),
            "\"EdDSA\"".into(),
            format!("[{head}]"),
            format!("{head}{head}"),
            format!("{head}x"),
            format!("\u{feff}{head}"),
            head.replace('"', "'"),
            head[1..].to_owned(),
            format!("{head}\0"),
        ];
        tokens.extend(heads.iter().map(|head| self.signed(head, &text, &self.key)));
        tokens
    }

    fn re_encoded(&self) -> Vec<String> {
        let good = self.right(&self.head, &self.claims);
        let parts: Vec<&str> = good.split('.').collect();
        let bytes: Vec<Vec<u8>> = parts.iter().map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        let mut tokens = Vec::new();
        for at in 0..3 {
            let mut put = |part: String| {
                let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
                parts[at] = part;
                let token = parts.join(".");
                // White space around the whole is the header's, not the token's.
                if token.trim() != good {
                    tokens.push(token);
                }
            };
            put(URL_SAFE.encode(&bytes[at]));
            put(STANDARD.encode(&bytes[at]));
            put(format!("{}=", parts[at]));
            put(format!("{}==", parts[at]));
            put(format!("{}A", parts[at]));
            put(format!("{} ", parts[at]));
            put(format!(" {}", parts[at]));
            put(format!("{}%3D", parts[at]));
            put(format!("{}\t", parts[at]));
            put(parts[at][..parts[at].len() - 1].to_owned());
            put(bytes[at].iter().map(|byte| format!("{byte:02x}")).collect());
            put(b64(parts[at]));
            // The bits past the last byte: another spelling of the same bytes.
            let last = parts[at].chars().last().unwrap();
            for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
                .chars()
                .filter(|c| *c != last)
            {
                put(format!("{}{other}", &parts[at][..parts[at].len() - 1]));
            }
        }
        // The same signature with another S: S + L, which a lax verifier takes for the same.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut signature = bytes[2].clone();
        let mut carry = 0_u16;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        tokens.push(format!("{}.{}.{}", parts[0], parts[1], b64(signature)));
        tokens
    }

    fn cut(&self) -> Vec<String> {
        let good = self.right(&self.head, &self.claims);
        let parts: Vec<&str> = good.split('.').collect();
        let (head, body, end) = (parts[0], parts[1], parts[2]);
        let mut tokens = vec![
            format!("{head}.{body}"),
            format!("{head}.{body}."),
            format!(".{body}.{end}"),
            format!("{head}..{end}"),
            format!("{head}.{body}.{end}."),
            format!("{head}.{body}.{end}.{end}"),
            format!(".{head}.{body}.{end}"),
            format!("{head}.{body}.{end}.a.b"),
            "..".into(),
            ".".into(),
            "a.b.c".into(),
            head.into(),
            format!("{body}.{head}.{end}"),
            format!("{head},{body},{end}"),
            format!("{head}.{body}.{}", b64([0; 64])),
            format!("{head}.{body}.{}", b64([0xff; 64])),
            format!("{head}.{body}.{}", b64([0; 63])),
            format!("{head}.{body}.{}", b64([0; 65])),
            "x".repeat(5000),
        ];
        // One bit of the claims, with the signature of the others.
        let claims = URL_SAFE_NO_PAD.decode(body).unwrap();
        for at in 0..claims.len() {
            let mut flipped = claims.clone();
            flipped[at] ^= 1;
            tokens.push(format!("{head}.{}.{end}", b64(flipped)));
        }
        tokens
    }
}

async fn status(client: &Client, token: &str) -> u16 {
    // Bytes that no header may have are never sent.
    let Ok(value) = http::HeaderValue::from_str(&format!("Bearer {token}")) else { return 401 };
    let header = [("authorization", value.to_str().unwrap_or("Bearer"))];
    client.send(http::Method::GET, &format!("{}/v1/orders", client.order), &header, "").await.unwrap().status
}

#[tokio::test]
async fn no_hostile_token_is_accepted() {
    let host = Host::start(&["--set", "client_requests_per_minute=0", "--set", "user_requests_per_minute=0"]);
    let admin = host.edge().admin().await;
    let forge = Forge::of(&host, &admin.token);
    let classes: BTreeMap<&str, Vec<String>> = [
        ("no algorithm", forge.no_algorithm()),
        ("public key as a shared secret", forge.public_key_as_secret()),
        ("another algorithm", forge.other_algorithms()),
        ("key id", forge.key_ids()),
        ("embedded key or its address", forge.embedded_keys()),
        ("critical extension", forge.critical_extensions()),
        ("times", forge.times()),
        ("issuer, audience, type, role, subject", forge.other_names()),
        ("a name twice", forge.doubled()),
        ("odd JSON", forge.odd_json()),
        ("another encoding", forge.re_encoded()),
        ("cut, or changed after signing", forge.cut()),
    ]
    .into();
    let (mut seen, mut accepted) = (HashSet::new(), Vec::new());
    for (class, tokens) in &classes {
        // By the same hands, and good: the class is refused for what it is.
        let control = forge.right(&forge.head, &forge.with("jti", json!(format!("control of {class}"))));
        assert_eq!(status(&admin, &control).await, 200, "the control of {class}");
        let mut count = 0;
        for token in tokens.iter().filter(|token| seen.insert((*token).clone())) {
            count += 1;
            match status(&admin, token).await {
                401 => {}
                other => accepted.push(format!("{class}: {other} for {token}")),
            }
        }
        println!("{class:<40} {count:>4} refused");
    }
    println!("{:<40} {:>4}, accepted {}", "hostile tokens", seen.len(), accepted.len());
    assert!(seen.len() >= 500, "{}", seen.len());
    assert!(accepted.is_empty(), "{accepted:#?}");
}
