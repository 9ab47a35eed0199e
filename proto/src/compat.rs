//! `orders` and `payments`, the services of the described system, over gRPC and as JSON. Field numbers
//! and meaning: `proto/compat/`.
//!
//! JSON requests are read in lowerCamelCase and in snake_case; answers are as the described clients
//! read them.

use prost::Message;
use serde::{Deserialize, Serialize};

pub mod orders {
    use super::*;

    pub const SERVICE: &str = "orders.OrderService";

    #[derive(Clone, PartialEq, Message, Deserialize)]
    #[serde(default)]
    pub struct CreateOrderRequest {
        #[prost(string, tag = "1")]
        #[serde(alias = "userId")]
        pub user_id: String,
        #[prost(string, tag = "2")]
        #[serde(alias = "productId")]
        pub product_id: String,
        #[prost(double, tag = "3")]
        pub amount: f64,
    }

    #[derive(Clone, PartialEq, Eq, Message, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub struct OrderResponse {
        #[prost(string, tag = "1")]
        pub order_id: String,
        #[prost(string, tag = "2")]
        pub status: String,
        #[prost(string, tag = "3")]
        pub message: String,
    }
}

pub mod payments {
    use super::*;

    pub const SERVICE: &str = "payments.PaymentService";

    #[derive(Clone, PartialEq, Message, Deserialize)]
    #[serde(default)]
    pub struct PaymentRequest {
        #[prost(string, tag = "1")]
        #[serde(alias = "orderId")]
        pub order_id: String,
        #[prost(double, tag = "2")]
        pub amount: f64,
        #[prost(string, tag = "3")]
        #[serde(alias = "userId")]
        pub user_id: String,
    }

    #[derive(Clone, PartialEq, Eq, Message, Deserialize)]
    #[serde(default)]
    pub struct RefundRequest {
        #[prost(string, tag = "1")]
        #[serde(alias = "paymentId")]
        pub payment_id: String,
        #[prost(string, tag = "2")]
        pub reason: String,
    }

    #[derive(Clone, PartialEq, Eq, Message, Serialize)]
    pub struct PaymentResponse {
        #[prost(string, tag = "1")]
        pub payment_id: String,
        #[prost(bool, tag = "2")]
        pub success: bool,
        #[prost(string, tag = "3")]
        pub status_message: String,
    }
}
