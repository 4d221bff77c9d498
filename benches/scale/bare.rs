//! The floor: nothing but the calls, for containers with the settings that docket gives them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::INSTALLATION;

/// Whether somebody answers 200 there.
pub fn healthy(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let ask = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answer = [0; 12];
    stream.write_all(ask).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

/// Looks again until it is healthy.
pub async fn until_healthy(port: u16) {
    while !healthy(port) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Clone)]
pub struct Bare {
    pub docker: Docker,
    pub first_port: u16,
    pub workspaces: PathBuf,
}

impl Bare {
    /// Create, start, first 200, so many at a time. Returns the ids.
    pub async fn up(&self, sessions: u16, abreast: usize, always: bool) -> Vec<String> {
        let one = |n| self.one(n, always);
        stream::iter(0..sessions).map(one).buffer_unordered(abreast).collect().await
    }

    async fn one(&self, n: u16, always: bool) -> String {
        let port = self.first_port + n;
        let name = format!("docket-bench-bare-{n}");
        let workspace = self.workspaces.join(n.to_string());
        std::fs::create_dir_all(&workspace).unwrap();
        let body = body(port, workspace.display().to_string(), always);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let made = self.docker.create_container(Some(options), body).await.unwrap();
        self.docker.start_container(&made.id, None::<StartContainerOptions>).await.unwrap();
        until_healthy(port).await;
        made.id
    }

    /// Stop and remove, so many at a time.
    pub async fn down(&self, ids: &[String], abreast: usize) {
        let one = |id: String| async move {
            let stop = StopContainerOptionsBuilder::default().t(10).build();
            self.docker.stop_container(&id, Some(stop)).await?;
            let remove = RemoveContainerOptionsBuilder::default().v(true).build();
            self.docker.remove_container(&id, Some(remove)).await
        };
        let all = stream::iter(ids.to_vec()).map(one).buffer_unordered(abreast);
        all.try_collect::<Vec<()>>().await.unwrap();
    }

    /// What an operator must do at least to know that all are well: a listing, and a probe each.
    pub async fn look(&self, ports: &[u16]) {
        self.ids().await;
        let probe = |port: u16| tokio::task::spawn_blocking(move || healthy(port));
        let all = stream::iter(ports.to_vec()).map(probe).buffer_unordered(8);
        assert!(all.all(async |well| well.unwrap()).await);
    }

    /// Ids of docket's containers.
    pub async fn ids(&self) -> Vec<String> {
        let label = format!("docket.dev/installation={INSTALLATION}");
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.docker.list_containers(Some(options)).await.unwrap();
        listed.into_iter().filter_map(|row| row.id).collect()
    }

    /// The first process of a container, and since when it runs.
    pub async fn process(&self, id: &str) -> (i32, String) {
        let seen = self.docker.inspect_container(id, None::<InspectContainerOptions>).await;
        let state = seen.unwrap().state.unwrap();
        (state.pid.unwrap() as i32, state.started_at.unwrap())
    }
}

fn body(port: u16, workspace: String, always: bool) -> ContainerCreateBody {
    let binding =
        PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
    let restart =
        RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), ..RestartPolicy::default() };
    ContainerCreateBody {
        image: Some("docket-sample:latest".into()),
        exposed_ports: Some(vec!["3000/tcp".into()]),
        host_config: Some(HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(64 << 20),
            nano_cpus: Some(1_000_000_000),
            pids_limit: Some(64),
            init: Some(true),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            network_mode: Some(format!("docket-{INSTALLATION}")),
            tmpfs: Some(HashMap::from([("/tmp".into(), "rw,noexec,nosuid,size=1g".into())])),
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(workspace),
                target: Some("/opt/workspace".into()),
                ..Mount::default()
            }]),
            port_bindings: Some(HashMap::from([("3000/tcp".into(), Some(vec![binding]))])),
            restart_policy: always.then_some(restart),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
