//! `settle.payment.v1`. Field numbers and meaning: `proto/settle/payment/v1/payment.proto`.

use prost::{Enumeration, Message};

pub const SERVICE: &str = "settle.payment.v1.PaymentService";

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Money {
    #[prost(int64, tag = "1")]
    pub minor: i64,
    #[prost(string, tag = "2")]
    pub currency: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum PaymentStatus {
    Unspecified = 0,
    Authorizing = 1,
    Unknown = 2,
    Captured = 3,
    Declined = 4,
    Voided = 5,
    PartiallyRefunded = 6,
    Refunded = 7,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Payment {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(string, tag = "3")]
    pub order_id: String,
    #[prost(enumeration = "PaymentStatus", tag = "4")]
    pub status: i32,
    #[prost(message, optional, tag = "5")]
    pub amount: Option<Money>,
    #[prost(int64, tag = "6")]
    pub captured: i64,
    #[prost(int64, tag = "7")]
    pub refunded: i64,
    #[prost(string, tag = "8")]
    pub decline_reason: String,
    #[prost(bool, tag = "9")]
    pub undone: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProcessRequest {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub order_id: String,
    #[prost(message, optional, tag = "3")]
    pub amount: Option<Money>,
    #[prost(string, tag = "4")]
    pub method: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ProcessOutcome {
    Unspecified = 0,
    Captured = 1,
    Declined = 2,
    Pending = 3,
    Voided = 4,
    ExistsWithDifferentAmount = 5,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProcessResponse {
    #[prost(enumeration = "ProcessOutcome", tag = "1")]
    pub outcome: i32,
    #[prost(message, optional, tag = "2")]
    pub payment: Option<Payment>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct LookUpRequest {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub order_id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct LookUpResponse {
    #[prost(message, optional, tag = "1")]
    pub payment: Option<Payment>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct UndoRequest {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub order_id: String,
    #[prost(message, optional, tag = "3")]
    pub amount: Option<Money>,
    #[prost(string, tag = "4")]
    pub reason: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct UndoResponse {
    #[prost(message, optional, tag = "1")]
    pub payment: Option<Payment>,
}
