//! Names to addresses: the machine's resolver, and `localhost` with everything beneath it without
//! asking anybody (RFC 6761, 6.3). A server on this machine so can have its buckets in host names.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

/// Looks names up.
#[derive(Clone, Debug)]
pub(super) struct Resolver(GaiResolver);

impl Resolver {
    pub(super) fn new() -> Resolver {
        Resolver(GaiResolver::new())
    }
}

type Found = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for Resolver {
    type Response = Found;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Found>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if is_here(name.as_str()) {
            let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
            return Box::pin(std::future::ready(Ok(vec![here].into_iter())));
        }
        let asked = self.0.call(name);
        Box::pin(async move { Ok(asked.await?.collect::<Vec<_>>().into_iter()) })
    }
}

/// Whether a name is one beneath `localhost`. The name itself is the machine's: it may have ::1.
fn is_here(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let top = name.rsplit_once('.').map(|(_, top)| top);
    top.is_some_and(|top| top.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_beneath_localhost_is_here() {
        for name in ["bucket.localhost", "a.b.LocalHost", "bucket.localhost."] {
            assert!(is_here(name), "{name}");
        }
        for name in ["localhost", "localhost.example.com", "mylocalhost", "a.mylocalhost", ""] {
            assert!(!is_here(name), "{name}");
        }
    }
}
