//! The host's side of `wit/`, generated.

wasmtime::component::bindgen!({
    inline: "package settle:host;
             world capabilities {
                 import settle:sql/database@0.1.0;
                 import settle:config/store@0.1.0;
                 import settle:limits/limiter@0.1.0;
                 import settle:unary/client@0.1.0;
             }",
    path: ["../wit/sql", "../wit/config", "../wit/limits", "../wit/unary"],
    with: { "settle:sql/database.database": crate::sql::Opened },
});

/// The answers that a component gives in one piece.
pub mod unary {
    wasmtime::component::bindgen!({
        inline: "package settle:host-unary;
                 world unary { export settle:unary/handler@0.1.0; }",
        path: ["../wit/unary"],
    });
}

/// What the host itself calls in a component, on a timer.
pub mod recovery {
    wasmtime::component::bindgen!({
        inline: "package settle:host-recovery;
                 world recoverable { export settle:recovery/recovery@0.1.0; }",
        path: ["../wit/recovery"],
    });
}
