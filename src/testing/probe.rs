//! The health probe over the fake engine: who answers at an address, and how soon after its start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::world::{Probe, ProbeOutcome};

use super::engine::{Answer, Machine};

/// Asks the containers of a fake engine.
#[derive(Clone, Debug)]
pub struct FakeProbe(Arc<Machine>);

impl FakeProbe {
    /// A probe of this machine's containers.
    pub fn new(machine: Arc<Machine>) -> FakeProbe {
        FakeProbe(machine)
    }
}

impl Probe for FakeProbe {
    async fn probe(&self, address: SocketAddr, _path: &str, timeout: Duration) -> ProbeOutcome {
        let unhealthy = |why: &str| ProbeOutcome::Unhealthy(why.to_owned());
        match self.0.ask(address) {
            Answer::Ok => ProbeOutcome::Healthy,
            Answer::NotYet => unhealthy("503 Service Unavailable"),
            Answer::Nobody => unhealthy("connection refused"),
            Answer::Silence => {
                tokio::time::sleep(timeout).await;
                unhealthy("no answer in time")
            }
        }
    }
}
