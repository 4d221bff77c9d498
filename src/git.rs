//! Specs that are kept in git: the branch is asked at intervals, a new commit is fetched and
//! judged, and what is good as a whole becomes the watched directory at once.
//!
//! 1. `remote` reads where that is.
//! 2. `program` calls the git program, which does all that is git's.
//! 3. `decide` says what to do about what git said, and judges a revision.
//! 4. `place` keeps revisions in the state directory, and says which is in force.
//!
//! Whatever fails, the last good revision stays in force: nothing ends because a server is away, a
//! branch is gone, or somebody merged what docket cannot read.
#![expect(clippy::disallowed_methods, reason = "the shell: it has the clock and the cache")]

mod decide;
mod place;
mod program;
mod remote;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::model::{Bounds, Origin, OriginState, Timestamp};
use decide::{Blob, Memory, Revision, Step};
use place::Place;
use program::{Call, CallError, Git};

pub use remote::{Remote, Transport};

/// Within this the branch has to be told.
const ASK_WITHIN: Duration = Duration::from_secs(45);
/// Within this a commit has to be fetched.
const FETCH_WITHIN: Duration = Duration::from_mins(5);
/// Within this git has to answer what it has here.
const READ_WITHIN: Duration = Duration::from_mins(1);
/// Most that git tells at once, but for the contents of files.
const WORDS_MAX: u64 = 64 << 20;
/// What is fetched stands here.
const TIP: &str = "refs/docket/tip";

/// What is followed, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The repository, its branch and directory.
    pub remote: Remote,
    /// Where revisions are kept.
    pub cache: PathBuf,
    /// The time between two looks.
    pub interval: Duration,
    /// Who may sign commits: a file of allowed signers (ssh-keygen(1)), or the home of a GnuPG
    /// keyring. `None`: nobody has to.
    pub verify: Option<PathBuf>,
    /// A file with user names and passwords, as git-credential-store(1) has it.
    pub credentials: Option<PathBuf>,
    /// The private key that ssh shows. `None`: those of the user that docket runs as.
    pub ssh_key: Option<PathBuf>,
    /// The host keys that ssh believes. `None`: those that this user and machine know.
    pub known_hosts: Option<PathBuf>,
}

impl Options {
    /// The directory to be watched: a link to the revision in force.
    pub fn watched(cache: &Path) -> PathBuf {
        cache.join("current")
    }
}

/// The version of the git program, as it tells it.
///
/// # Errors
/// Why it cannot be had, for people.
pub fn version() -> Result<String, String> {
    let told = std::process::Command::new("git")
        .arg("version")
        .output()
        .map_err(|error| CallError::NotStarted(error).to_string())?;
    Ok(String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

/// Follows a repository. What was in force in an earlier run is in force until it was asked.
#[derive(Debug)]
pub struct Follower {
    options: Options,
    bounds: watch::Receiver<Bounds>,
    place: Place,
    memory: Memory,
    tell: watch::Sender<Option<Origin>>,
    origin: Origin,
}

/// How a look ended, if not well.
#[derive(Debug)]
struct Trouble {
    state: OriginState,
    errors: Vec<String>,
}

impl Trouble {
    fn of(state: OriginState, why: impl std::fmt::Display) -> Trouble {
        Trouble { state, errors: vec![why.to_string()] }
    }

    fn unreachable(error: CallError) -> Trouble {
        Trouble::of(OriginState::Unreachable, error)
    }

    fn failed(error: std::io::Error) -> Trouble {
        Trouble::of(OriginState::Failed, format!("the revision cannot be put in place: {error}"))
    }
}

impl Follower {
    /// Opens the cache; git is not called yet.
    ///
    /// # Errors
    /// The cache cannot be made.
    pub fn open(
        options: Options,
        bounds: watch::Receiver<Bounds>,
    ) -> std::io::Result<(Follower, watch::Receiver<Option<Origin>>)> {
        let place = Place::open(&options)?;
        let current = place.current();
        let origin = Origin {
            source: options.remote.to_string(),
            state: OriginState::Waiting,
            revision: current.as_ref().map_or("", Revision::as_str).to_owned(),
            newest: String::new(),
            answered_at: None,
            fetched_at: None,
            next_look: None,
            failures: 0,
            errors: Vec::new(),
        };
        let (tell, told) = watch::channel(Some(origin.clone()));
        let memory = Memory { current, ..Memory::default() };
        Ok((Follower { options, bounds, place, memory, tell, origin }, told))
    }

    /// Follows until nobody can ask any more: who asks wants a look now. `swapped` is told when
    /// another revision came into force, and after a look that was asked for.
    pub async fn follow(mut self, mut asked: mpsc::Receiver<()>, swapped: mpsc::Sender<()>) {
        loop {
            let before = self.memory.current.clone();
            let looked = self.look().await;
            self.note(looked);
            if self.memory.current != before {
                let _it_lists_anyway = swapped.try_send(());
            }
            let wait = decide::wait(self.options.interval, self.origin.failures, rand::random());
            self.origin.next_look = chrono::TimeDelta::from_std(wait).ok().map(|wait| now() + wait);
            self.tell.send_replace(Some(self.origin.clone()));
            tokio::select! {
                () = tokio::time::sleep(wait) => (),
                ask = asked.recv() => match ask {
                    Some(()) => { let _it_lists_anyway = swapped.try_send(()); }
                    None => return,
                },
            }
        }
    }

    /// Says how a look ended, in the log only if it ended otherwise than the one before.
    fn note(&mut self, looked: Result<(), Trouble>) {
        let (state, errors) = match looked {
            Ok(()) => (OriginState::Current, Vec::new()),
            Err(trouble) => (trouble.state, trouble.errors),
        };
        let revision = self.memory.current.as_ref().map_or("", Revision::as_str).to_owned();
        let is_news = (state, &errors, &revision)
            != (self.origin.state, &self.origin.errors, &self.origin.revision);
        let silent = matches!(state, OriginState::Unreachable | OriginState::Failed);
        self.origin.failures = if silent { self.origin.failures.saturating_add(1) } else { 0 };
        let source = &self.origin.source;
        if is_news && errors.is_empty() {
            tracing::info!(%source, %revision, "the newest revision is in force");
        } else if is_news {
            let why = errors.join("\n");
            tracing::warn!(%source, %state, in_force = %revision, %why, "specs stay as they are");
        }
        self.origin.state = state;
        self.origin.errors = errors;
        self.origin.revision = revision;
    }

    /// One look: the newest commit is in force afterwards, or there is a reason.
    async fn look(&mut self) -> Result<(), Trouble> {
        let git = Git::new(&self.place.repository(), &self.options);
        self.prepare(&git).await?;
        let reference = self.options.remote.reference();
        let words = ["ls-remote", "--", &self.options.remote.url, &reference];
        let told = self.ask(&git, &words, ASK_WITHIN).await.map_err(Trouble::unreachable)?;
        self.origin.answered_at = Some(now());
        let newest = decide::newest(&told, &reference);
        newest.as_ref().map_or("", Revision::as_str).clone_into(&mut self.origin.newest);
        let bounds = self.bounds.borrow().clone();
        match (decide::next(&self.memory, newest.as_ref(), &bounds), newest) {
            (Step::Rest, _) => Ok(()),
            (Step::Refuse(errors), _) => Err(Trouble { state: OriginState::Refused, errors }),
            (Step::Judge { fetch: false }, Some(newest)) => self.admit(newest, bounds).await,
            (Step::Judge { .. }, Some(_)) => {
                let fetched = self.fetch(&git).await?;
                self.admit(fetched, bounds).await
            }
            (Step::Hold | Step::Judge { .. }, _) => {
                let what = match &self.options.remote.branch {
                    Some(branch) => format!("there is no branch `{branch}`"),
                    None => "it has no HEAD: name a branch".to_owned(),
                };
                Err(Trouble::of(OriginState::Missing, what))
            }
        }
    }

    /// Makes the repository that git fetches into, if it is not there.
    async fn prepare(&self, git: &Git) -> Result<(), Trouble> {
        if self.place.repository().join("HEAD").is_file() {
            return Ok(());
        }
        let path = self.place.repository().display().to_string();
        let words = ["init", "--quiet", "--bare", "--template=", "--", &path];
        self.ask(git, &words, READ_WITHIN).await.map_err(|error| match error {
            CallError::NotStarted(_) => Trouble::unreachable(error),
            error => Trouble::of(OriginState::Failed, error),
        })?;
        Ok(())
    }

    /// Fetches the branch's newest commit, and nothing of its past. What was left half done, a lock
    /// among it, goes with the repository.
    async fn fetch(&mut self, git: &Git) -> Result<Revision, Trouble> {
        let what = format!("+{}:{TIP}", self.options.remote.reference());
        let words = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--",
            &self.options.remote.url,
            &what,
        ];
        self.memory.fetched = None;
        let fetched = match self.ask(git, &words, FETCH_WITHIN).await {
            Ok(_) => {
                let commit = format!("{TIP}^{{commit}}");
                let words = ["rev-parse", "--verify", &commit];
                self.ask(git, &words, READ_WITHIN).await
            }
            Err(error) => Err(error),
        };
        match fetched {
            Ok(told) => {
                let Some(revision) = Revision::parse(told.trim()) else {
                    let why = "git told no commit's id after the fetch";
                    return Err(Trouble::of(OriginState::Failed, why));
                };
                self.origin.fetched_at = Some(now());
                revision.as_str().clone_into(&mut self.origin.newest);
                self.memory.fetched = Some(revision.clone());
                Ok(revision)
            }
            Err(error) => {
                self.place.forget_repository().map_err(Trouble::failed)?;
                Err(Trouble::unreachable(error))
            }
        }
    }

    /// Judges a fetched commit, and puts it in force if it is good.
    async fn admit(&mut self, revision: Revision, bounds: Bounds) -> Result<(), Trouble> {
        let git = Git::new(&self.place.repository(), &self.options);
        self.verify(git, &revision).await?;
        let git = Git::new(&self.place.repository(), &self.options);
        let (files, mut errors) = match self.read(&git, &revision).await {
            Ok(Ok(files)) => (files, Vec::new()),
            Ok(Err(errors)) => (BTreeMap::new(), errors),
            Err(trouble) => {
                // What was fetched is no good: the next look fetches anew.
                self.memory.fetched = None;
                self.place.forget_repository().map_err(Trouble::failed)?;
                return Err(trouble);
            }
        };
        let (remote, within) = (self.options.remote.clone(), bounds.clone());
        let judged = tokio::task::spawn_blocking(move || {
            if errors.is_empty() {
                errors = decide::judge(&files, &remote, &within);
            }
            (files, errors)
        });
        let (files, errors) = judged.await.map_err(|error| Trouble::failed(error.into()))?;
        if !errors.is_empty() {
            self.memory.refused = Some((revision, bounds, errors.clone()));
            return Err(Trouble { state: OriginState::Refused, errors });
        }
        let (place, whose) = (self.place.clone(), revision.clone());
        let put = tokio::task::spawn_blocking(move || place.put(&whose, &files)).await;
        put.map_err(std::io::Error::from).flatten().map_err(Trouble::failed)?;
        self.memory.current = Some(revision);
        self.memory.refused = None;
        Ok(())
    }

    /// Whether the commit is signed by one who may.
    async fn verify(&self, git: Git, revision: &Revision) -> Result<(), Trouble> {
        let Some(verify) = &self.options.verify else { return Ok(()) };
        let refused = |why: String| Trouble::of(OriginState::Refused, why);
        let shown = verify.display();
        let found = std::fs::metadata(verify)
            .map_err(|error| refused(format!("git.verify: {shown}: {error}")))?;
        if found.mode() & 0o022 != 0 {
            let why = "others can write to it, so anybody could sign: chmod go-w it";
            return Err(refused(format!("git.verify: {shown}: {why}")));
        }
        let git = git.trusting(Some(verify));
        let words = ["verify-commit", revision.as_str()];
        match self.ask(&git, &words, READ_WITHIN).await {
            Ok(_) => Ok(()),
            Err(error @ CallError::Failed { .. }) => {
                let CallError::Failed { told, .. } = &error else { return Ok(()) };
                let why = if told.starts_with("exit status") { "it is not signed" } else { told };
                let id = revision.as_str();
                Err(refused(format!("commit {id} is not signed by one who may: {why}")))
            }
            Err(error) => Err(Trouble::of(OriginState::Failed, error)),
        }
    }

    /// The spec files of a commit's directory, or what is wrong with it.
    async fn read(
        &self,
        git: &Git,
        revision: &Revision,
    ) -> Result<Result<BTreeMap<String, Vec<u8>>, Vec<String>>, Trouble> {
        let failed = |error: CallError| Trouble::of(OriginState::Failed, error);
        let path = &self.options.remote.path;
        let tree = match path.as_str() {
            "" => format!("{}^{{tree}}", revision.as_str()),
            path => format!("{}:{path}", revision.as_str()),
        };
        let words = ["ls-tree", "-r", "-z", "-l", "--full-tree", &tree];
        let listed = match self.call(git, &words, Vec::new(), WORDS_MAX).await {
            Ok(listed) => listed,
            Err(CallError::Failed { .. }) if !path.is_empty() => {
                return Ok(Err(vec![format!("{path}: there is no such directory in the commit")]));
            }
            Err(error) => return Err(failed(error)),
        };
        let blobs = match decide::spec_files(&listed, &self.options.remote) {
            Ok(blobs) => blobs,
            Err(errors) => return Ok(Err(errors)),
        };
        let ids: String = blobs.iter().map(|blob| format!("{}\n", blob.id)).collect();
        let most = blobs.iter().map(|blob: &Blob| blob.size + 128).sum();
        let words = ["cat-file", "--batch"];
        let told = self.call(git, &words, ids.into_bytes(), most).await.map_err(failed)?;
        decide::contents(&told, &blobs).map(Ok).ok_or_else(|| {
            Trouble::of(OriginState::Failed, "git told other files than were asked for")
        })
    }

    async fn ask(&self, git: &Git, words: &[&str], within: Duration) -> Result<String, CallError> {
        let call = Call { words, input: Vec::new(), most: WORDS_MAX, within };
        Ok(String::from_utf8_lossy(&git.call(call).await?).into_owned())
    }

    async fn call(
        &self,
        git: &Git,
        words: &[&str],
        input: Vec<u8>,
        most: u64,
    ) -> Result<Vec<u8>, CallError> {
        git.call(Call { words, input, most, within: READ_WITHIN }).await
    }
}

fn now() -> Timestamp {
    chrono::Utc::now()
}
