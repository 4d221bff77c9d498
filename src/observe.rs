//! The world, looked at: complete answers or why there is none.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;

use crate::model::{
    CaseName, Container, ContainerId, Look, SessionName, Space, Timestamp, UserName, WorkspaceSeen,
};
use crate::world::{Engine, Workspaces};

/// How many looks at single things run side by side.
const ABREAST: usize = 8;

/// What one complete look found.
#[derive(Clone, Debug)]
pub struct Full {
    /// All containers of this installation, with detail where it could be had.
    pub containers: Look<BTreeMap<ContainerId, Container>>,
    /// The workspaces asked for.
    pub workspaces: BTreeMap<SessionName, Look<Option<WorkspaceSeen>>>,
    /// Space for workspaces.
    pub space: Look<Space>,
    /// When the engine's present run began, if it can be told.
    pub engine_started: Option<Timestamp>,
}

/// What one look at one session found.
#[derive(Clone, Debug)]
pub struct One {
    /// Each container asked for: there, proven absent, or unknown.
    pub containers: BTreeMap<ContainerId, Look<Option<Container>>>,
    /// Its workspace, if it was asked for.
    pub workspace: Option<Look<Option<WorkspaceSeen>>>,
}

/// Where a session's workspace is.
pub type Where = (UserName, CaseName);

/// Looks at everything. `known` are details from before: what is unchanged is not inspected
/// again.
pub async fn full<E: Engine, W: Workspaces>(
    engine: &E,
    workspaces: &W,
    places: BTreeMap<SessionName, Where>,
    known: &BTreeMap<ContainerId, Container>,
) -> Full {
    let containers = match engine.list().await {
        Ok(listed) => Look::Known(detailed(engine, listed, known).await),
        Err(error) => Look::Unknown(error.to_string()),
    };
    let looks = futures_util::stream::iter(places)
        .map(|(name, place)| async move { (name, workspace(workspaces, &place).await) })
        .buffered(ABREAST);
    let workspaces_seen = looks.collect().await;
    let space = match workspaces.space().await {
        Ok(space) => Look::Known(space),
        Err(error) => Look::Unknown(error.to_string()),
    };
    let engine_started = match &containers {
        Look::Known(_) => engine.info().await.ok().and_then(|info| info.started_at),
        Look::Unknown(_) => None,
    };
    Full { containers, workspaces: workspaces_seen, space, engine_started }
}

/// Inspects what is new or changed. A container whose inspection fails keeps its place in the
/// listing, without detail: the planner waits for it alone.
async fn detailed<E: Engine>(
    engine: &E,
    listed: Vec<Container>,
    known: &BTreeMap<ContainerId, Container>,
) -> BTreeMap<ContainerId, Container> {
    let look = |container: Container| async move {
        let same = known
            .get(&container.id)
            .filter(|before| before.state == container.state && before.detail.is_some());
        if let Some(before) = same {
            return Some(before.clone());
        }
        match engine.inspect(&container.id).await {
            Ok(seen) => seen,
            Err(_) => Some(container),
        }
    };
    let seen: Vec<Option<Container>> =
        futures_util::stream::iter(listed).map(look).buffered(ABREAST).collect().await;
    seen.into_iter().flatten().map(|container| (container.id.clone(), container)).collect()
}

async fn workspace<W: Workspaces>(
    workspaces: &W,
    (user, case): &Where,
) -> Look<Option<WorkspaceSeen>> {
    match workspaces.look(user, case).await {
        Ok(seen) => Look::Known(seen),
        Err(error) => Look::Unknown(error.to_string()),
    }
}

/// Looks at one session's containers and workspace.
pub async fn one<E: Engine, W: Workspaces>(
    engine: &E,
    workspaces: &W,
    ids: Vec<ContainerId>,
    place: Option<Where>,
) -> One {
    let mut containers = BTreeMap::new();
    for id in ids {
        let look = match engine.inspect(&id).await {
            Ok(seen) => Look::Known(seen),
            Err(error) => Look::Unknown(error.to_string()),
        };
        containers.insert(id, look);
    }
    let workspace = match place {
        Some(place) => Some(workspace(workspaces, &place).await),
        None => None,
    };
    One { containers, workspace }
}
