//! Every name is this machine: tests never leave it, and hosts that route by name can be asked.

use std::future::{Ready, ready};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

#[derive(Clone, Copy, Debug)]
pub struct Loopback;

impl Service<Name> for Loopback {
    type Response = std::iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(std::iter::once((Ipv4Addr::LOCALHOST, 0).into())))
    }
}

pub fn connector() -> HttpConnector<Loopback> {
    let mut connector = HttpConnector::new_with_resolver(Loopback);
    connector.set_nodelay(true);
    connector
}
