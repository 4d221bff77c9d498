//! The health probe: one GET, status only.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

/// One probe's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// 200.
    Healthy,
    /// Any other answer, or none in time: why.
    Unhealthy(String),
}

/// Something that asks a container how it is.
pub trait Probe: Send + Sync + 'static {
    /// `GET path`: no redirect followed, at most 4 KiB read, `timeout` for all of it.
    fn probe(
        &self,
        address: SocketAddr,
        path: &str,
        timeout: Duration,
    ) -> impl Future<Output = ProbeOutcome> + Send;
}
