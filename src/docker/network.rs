//! The installation's own bridge: containers on it cannot reach each other, and are published on
//! the operator's address only.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};

use tokio::time::Instant;

use super::failure::Op;
use super::firewall::{self, Isolation};
use super::request::network_name;
use super::{Docker, READ};
use crate::world::{EngineError, EngineErrorKind, LABEL_INSTALLATION};

/// The bridge driver's switch for traffic between containers.
const ICC: &str = "com.docker.network.bridge.enable_icc";
/// The bridge driver's name for the interface, if one was chosen.
const INTERFACE: &str = "com.docker.network.bridge.name";

/// How long rules are trusted to stay: others reload firewalls.
const RULES_TRUSTED: Duration = Duration::from_mins(1);

impl Docker {
    /// Makes the own bridge if it is not there, checks it, and keeps its tenants off the host's
    /// network as far as that is permitted; says how far.
    ///
    /// # Errors
    /// [`EngineErrorKind::Conflict`] if a network of that name is foreign or open: what to do is
    /// in the message.
    pub async fn isolation(&self) -> Result<Isolation, EngineError> {
        // One at a time: two creates at once make two networks of one name.
        let mut known = self.shared.isolation.lock().await;
        let interface = self.own_network().await?;
        if let Some((same, seen, outcome)) = &*known
            && *same == interface
            && seen.elapsed() < RULES_TRUSTED
        {
            return Ok(outcome.clone());
        }
        let outcome = firewall::isolate(&interface, &network_name(&self.identity)).await;
        let is_news = known.as_ref().is_none_or(|(_, _, before)| *before != outcome);
        if let (Isolation::Open(why), true) = (&outcome, is_news) {
            tracing::warn!("tenants may reach the host's network: {why}");
        }
        *known = Some((interface, Instant::now(), outcome.clone()));
        Ok(outcome)
    }

    /// Makes the bridge if it is not there and checks that it is ours and closed. Returns the
    /// name of its interface on the engine's machine.
    async fn own_network(&self) -> Result<String, EngineError> {
        let name = network_name(&self.identity);
        if let Some(found) = self.look_at_network(&name).await? {
            return self.check_network(&name, &found);
        }
        let body = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            options: Some(HashMap::from([(ICC.to_owned(), "false".to_owned())])),
            labels: Some(HashMap::from([(
                LABEL_INSTALLATION.to_owned(),
                self.identity.installation.to_string(),
            )])),
            ..Default::default()
        };
        let client = self.client().await?;
        let made = self.call(Op::CreateNetwork, READ, client.create_network(body)).await;
        // Somebody was quicker: what counts is what is there now.
        if let Err(error) = made
            && error.kind != EngineErrorKind::Conflict
        {
            return Err(error);
        }
        match self.look_at_network(&name).await? {
            Some(found) => self.check_network(&name, &found),
            None => Err(Op::CreateNetwork.error(
                EngineErrorKind::Broken,
                format!("network `{name}` was made and is not there"),
            )),
        }
    }

    async fn look_at_network(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        let client = self.client().await?;
        let look = client.inspect_network(name, None::<InspectNetworkOptions>);
        match self.call(Op::InspectNetwork, READ, look).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.message.contains("ambiguous") => self.oldest_of(name).await,
            Err(error) if error.kind == EngineErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Two networks of one name are what a create that was cut off and made again may leave: the
    /// oldest of ours stays, the others go if nobody uses them.
    async fn oldest_of(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        let client = self.client().await?;
        let label = format!("{LABEL_INSTALLATION}={}", self.identity.installation);
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let list = client.list_networks(Some(options));
        let mut ours = self.call(Op::InspectNetwork, READ, list).await?;
        ours.retain(|network| network.name.as_deref() == Some(name));
        ours.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        let mut ids = ours.into_iter().filter_map(|network| network.id);
        let Some(first) = ids.next() else { return Ok(None) };
        for id in ids {
            let remove = client.remove_network(&id);
            if let Err(error) = self.call(Op::CreateNetwork, READ, remove).await {
                tracing::debug!(%error, "a second network of our name is in use");
            }
        }
        let look = client.inspect_network(&first, None::<InspectNetworkOptions>);
        self.call(Op::InspectNetwork, READ, look).await.map(Some)
    }

    fn check_network(&self, name: &str, found: &NetworkInspect) -> Result<String, EngineError> {
        check(name, self.identity.installation.as_str(), found)
            .map_err(|why| Op::InspectNetwork.error(EngineErrorKind::Conflict, why))
    }
}

fn check(name: &str, installation: &str, found: &NetworkInspect) -> Result<String, String> {
    let value = |map: &Option<HashMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    // An id prefix finds a network too.
    let is_named = found.name.as_deref() == Some(name);
    if !is_named || value(&found.labels, LABEL_INSTALLATION) != installation {
        return Err(format!(
            "network `{name}` is there and was not made by this installation: remove it with \
             `docker network rm {name}`, or choose another `installation`"
        ));
    }
    let is_bridge = found.driver.as_deref() == Some("bridge");
    if !is_bridge || value(&found.options, ICC) != "false" {
        return Err(format!(
            "network `{name}` lets containers reach each other ({ICC} is not false): stop its \
             containers and remove it with `docker network rm {name}`; docket makes it anew"
        ));
    }
    let id = found.id.as_deref().unwrap_or_default();
    match value(&found.options, INTERFACE) {
        chosen if !chosen.is_empty() => Ok(chosen),
        _ => Ok(format!("br-{}", id.get(..12).unwrap_or(id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(label: &str, icc: &str) -> NetworkInspect {
        NetworkInspect {
            name: Some("docket-here".to_owned()),
            id: Some("0123456789abcdef".to_owned()),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from([(LABEL_INSTALLATION.to_owned(), label.to_owned())])),
            options: Some(HashMap::from([(ICC.to_owned(), icc.to_owned())])),
            ..Default::default()
        }
    }

    #[test]
    fn only_a_closed_bridge_of_this_installation_is_used() {
        let check = |found| check("docket-here", "here", &found);
        assert_eq!(check(network("here", "false")), Ok("br-0123456789ab".to_owned()));
        assert!(check(network("there", "false")).unwrap_err().contains("not made by"));
        assert!(check(network("", "false")).unwrap_err().contains("not made by"));
        assert!(check(network("here", "true")).unwrap_err().contains("reach each other"));
        let open = NetworkInspect { options: None, ..network("here", "false") };
        assert!(check(open).unwrap_err().contains("reach each other"));
    }
}
