//! Steps that touch a container: made, started, stopped, removed. The intent is written before,
//! the outcome after.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{
    Container, ContainerId, ContainerState, Identity, Intent, Network, Operation, Reason, Record,
    Scope, Target, Timestamp, container_name,
};
use crate::plan::classify_end;
use crate::world::{
    BindMount, Clock, Count, CreateRequest, Engine, EngineError, EngineErrorKind, Ledger, Objects,
    Workspaces,
};

use super::execute::{Run, StepError, place};
use super::facts::note_end;

impl<E, O, W, L, C> Run<'_, E, O, W, L, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    /// Labels, mounts and all: what the engine is asked for.
    pub(super) async fn request(
        &self,
        record: &Record,
        attempt: u32,
        port: Option<u16>,
    ) -> Result<CreateRequest, StepError> {
        let applied = &record.applied;
        let spec = &applied.resolved;
        // A restart asked for meanwhile wants the image looked up anew: the next plan does.
        let image = applied.image.as_ref().ok_or(StepError::Interrupted)?;
        let user_scope = spec.workspace.scope == Scope::User;
        let target = if user_scope {
            spec.workspace.mount_path.clone()
        } else {
            spec.workspace.mount_path.join("active").join(record.case.as_str())
        };
        let place = place(record);
        let source = self.doors.workspaces.host_path(&place, user_scope);
        let mut mounts = vec![BindMount { source, target, read_only: false }];
        for (name, file) in &spec.container.secrets {
            let allowed = &self.doors.secret_files;
            let staged = self.doors.workspaces.stage_secret(&record.uid, name, file, allowed);
            let target = PathBuf::from("/run/secrets").join(name);
            mounts.push(BindMount { source: staged.await?, target, read_only: true });
        }
        mounts.extend(spec.container.mounts.iter().map(|mount| BindMount {
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
        }));
        if spec.container.security.docker_socket {
            let target = PathBuf::from("/var/run/docker.sock");
            let source = self.doors.engine_socket.clone();
            mounts.push(BindMount { source, target, read_only: false });
        }
        let hash = crate::spec::fingerprint(spec, &image.id, record.port);
        Ok(CreateRequest {
            name: container_name(&self.doors.identity.prefix, &record.name, attempt),
            image_id: image.id.clone(),
            spec: spec.container.clone(),
            host_port: port,
            mounts,
            labels: labels(&self.doors.identity, record, attempt, hash),
        })
    }

    pub(super) async fn create(
        &mut self,
        attempt: u32,
        port: Option<u16>,
    ) -> Result<(), StepError> {
        let now = self.now();
        self.change(|record| {
            record.attempt = attempt;
            record.restarts = 0;
            record.ready_since = None;
            record.intent = Some(intent(Operation::Create, attempt, now, Reason::InProgress));
        })
        .await?;
        let record = self.record()?;
        let request = self.request(&record, attempt, port).await?;
        if request.spec.network == Network::Docket {
            self.doors.engine.ensure_network().await?;
        }
        let permit = self.doors.lanes.engine.acquire().await;
        let created = self.doors.engine.create(&request).await;
        drop(permit);
        match created {
            Ok(id) => {
                self.touched.push(id.clone());
                self.made = Some(id);
                self.event(false, "Created", &format!("container {}", request.name));
                Ok(())
            }
            Err(error) if error.kind == EngineErrorKind::NameTaken => {
                self.name_taken(&request.name, attempt, error).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ours: it is found by the next listing and adopted. Foreign: the next number.
    pub(super) async fn name_taken(
        &self,
        name: &str,
        attempt: u32,
        error: EngineError,
    ) -> Result<(), StepError> {
        match self.doors.engine.holder_of(name).await? {
            Some(false) => {
                let message = format!("a foreign container has the name {name}");
                self.event(true, "NameConflict", &message);
                self.change(|record| {
                    record.attempt = attempt;
                    record.intent = None;
                })
                .await?;
                Err(error.into())
            }
            Some(true) | None => Err(StepError::LookAgain(format!("the name {name} was taken"))),
        }
    }

    pub(super) async fn start(&mut self, target: &Target, restart: bool) -> Result<(), StepError> {
        let id = match target {
            Target::Seen(id) => id.clone(),
            Target::Made => self.made.clone().ok_or_else(|| {
                StepError::LookAgain("the container to start was not made".to_owned())
            })?,
        };
        let now = self.now();
        self.touched.push(id.clone());
        if matches!(target, Target::Seen(_)) && !restart {
            self.prove(&id).await?;
        }
        self.change(|record| {
            let attempt = record.attempt;
            record.intent = Some(intent(Operation::Start, attempt, now, Reason::InProgress));
            record.ready_since = None;
        })
        .await?;
        let permit = self.doors.lanes.engine.acquire().await;
        self.doors.engine.start(&id).await?;
        drop(permit);
        self.change(|record| {
            record.intent = None;
            record.paused = None;
            record.ran_since = record.ran_since.or(Some(now));
            record.restarts += u32::from(restart);
            if !restart {
                record.restart_after = record.restart_after.filter(|n| *n >= record.attempt);
            }
            record.failures.remove(&Operation::Create);
            record.failures.remove(&Operation::Start);
        })
        .await?;
        let record = self.record()?;
        if restart || record.attempt > 1 {
            let why = record.last_termination.as_ref().map_or("Unknown", |end| end.reason.word());
            self.doors.meter.count(Count::Restarts, why, 1);
        }
        let (reason, what) = if restart { ("Restarted", "again") } else { ("Started", "") };
        self.event(false, reason, format!("container {id} was started {what}").trim_end());
        Ok(())
    }

    /// A container that was found made, by a run that may not have lived to compare it: what is
    /// not as it was to be is never started. Nothing is in it yet, so another is made instead.
    async fn prove(&self, id: &ContainerId) -> Result<(), StepError> {
        let record = self.record()?;
        let port = record.port.filter(|_| record.applied.resolved.container.port != 0);
        let request = self.request(&record, record.attempt, port).await?;
        let Some(difference) = self.doors.engine.compare(id, &request).await? else {
            return Ok(());
        };
        self.doors.engine.remove(id).await?;
        let message = format!("container {id} was not made as asked for: {difference}");
        self.event(true, &Reason::HardeningDropped.to_string(), &message);
        Err(StepError::LookAgain(message))
    }

    pub(super) async fn stop(
        &mut self,
        id: &ContainerId,
        attempt: u32,
        grace: Duration,
        reason: Reason,
    ) -> Result<(), StepError> {
        let now = self.now();
        self.touched.push(id.clone());
        self.change(|record| {
            record.intent = Some(intent(Operation::Stop, attempt, now, reason));
            record.ready_since = None;
            // It runs, so it may have written since: a start that landed late, for one.
            if let Some(ending) = &mut record.ending {
                ending.final_synced = false;
            }
        })
        .await?;
        self.doors.engine.stop(id, grace).await?;
        let seen = self.doors.engine.inspect(id).await?;
        if seen.is_some_and(|c| is_alive(&c)) {
            return Err(StepError::LookAgain(format!("container {id} was stopped and still runs")));
        }
        self.change(|record| {
            record.failures.remove(&Operation::Stop);
            record.paused = None;
        })
        .await?;
        self.event(false, "Stopped", &format!("container {id} was stopped ({reason})"));
        Ok(())
    }

    /// The proof of how it ended goes with it, so that is written down first.
    pub(super) async fn remove(
        &mut self,
        id: &ContainerId,
        attempt: u32,
        started_at: Option<Timestamp>,
    ) -> Result<(), StepError> {
        self.touched.push(id.clone());
        if let Some(seen) = self.doors.engine.inspect(id).await? {
            let record = self.record()?;
            if is_alive(&seen) {
                return Err(StepError::LookAgain(format!("container {id} runs")));
            }
            // What it wrote before it ended by itself is not stored: the next plan sees that start.
            if seen.detail.as_ref().and_then(|detail| detail.started_at) != started_at {
                let why = format!("container {id} was started since it was looked at");
                return Err(StepError::LookAgain(why));
            }
            let exited = seen.state == ContainerState::Exited && seen.uid == record.uid;
            if let (true, Some(detail)) = (exited, &seen.detail) {
                let end = classify_end(&record, &seen, detail, None);
                self.change(|record| note_end(record, end)).await?;
            }
            let _permit = self.doors.lanes.engine.acquire().await;
            self.doors.engine.remove(id).await?;
        }
        self.change(|record| {
            record.intent = record.intent.take().filter(|intent| intent.attempt != attempt);
            record.failures.remove(&Operation::Remove);
        })
        .await?;
        self.event(false, "Removed", &format!("container {id} was removed"));
        Ok(())
    }

    /// What came of a session that is over: it has no record that could tell how it is to end.
    pub(super) async fn remove_late(&mut self, id: &ContainerId) -> Result<(), StepError> {
        const GRACE: Duration = Duration::from_secs(10);
        self.touched.push(id.clone());
        let _permit = self.doors.lanes.engine.acquire().await;
        self.doors.engine.stop(id, GRACE).await?;
        self.doors.engine.remove(id).await?;
        self.event(false, "Removed", &format!("container {id} came late and was removed"));
        Ok(())
    }
}

pub(super) fn intent(operation: Operation, attempt: u32, at: Timestamp, reason: Reason) -> Intent {
    Intent { operation, attempt, at, reason }
}

pub(super) fn is_alive(container: &Container) -> bool {
    matches!(
        container.state,
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting
    )
}

pub(super) fn labels(
    identity: &Identity,
    record: &Record,
    attempt: u32,
    hash: String,
) -> BTreeMap<String, String> {
    use crate::world::{
        LABEL_ATTEMPT, LABEL_CASE, LABEL_INSTALLATION, LABEL_SESSION, LABEL_SPEC_HASH, LABEL_UID,
        LABEL_USER,
    };
    let mut labels = record.applied.resolved.container.labels.clone();
    labels.extend(
        [
            (LABEL_INSTALLATION, identity.installation.to_string()),
            (LABEL_SESSION, record.name.to_string()),
            (LABEL_UID, record.uid.to_string()),
            (LABEL_ATTEMPT, attempt.to_string()),
            (LABEL_SPEC_HASH, hash),
            (LABEL_USER, record.user.to_string()),
            (LABEL_CASE, record.case.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    labels
}
