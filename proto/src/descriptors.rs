//! The `.proto` files as reflection hands them out: `FileDescriptorProto`s, made by a test that also
//! compares them (`SETTLE_WRITE=1` writes them anew).

/// A file, by its path under `proto/`.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub path: &'static str,
    pub package: &'static str,
    pub service: &'static str,
    /// An encoded `google.protobuf.FileDescriptorProto`.
    pub descriptor: &'static [u8],
}

pub const ORDERS: File = File {
    path: "compat/orders.proto",
    package: "orders",
    service: crate::compat::orders::SERVICE,
    descriptor: include_bytes!("../descriptors/orders.binpb"),
};
pub const PAYMENTS: File = File {
    path: "compat/payments.proto",
    package: "payments",
    service: crate::compat::payments::SERVICE,
    descriptor: include_bytes!("../descriptors/payments.binpb"),
};
pub const PAYMENT_V1: File = File {
    path: "settle/payment/v1/payment.proto",
    package: "settle.payment.v1",
    service: crate::payment_v1::SERVICE,
    descriptor: include_bytes!("../descriptors/payment_v1.binpb"),
};
pub const HEALTH: File = File {
    path: "grpc/health/v1/health.proto",
    package: "grpc.health.v1",
    service: crate::health_v1::SERVICE,
    descriptor: include_bytes!("../descriptors/health.binpb"),
};
