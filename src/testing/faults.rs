//! The weather between the operator and its doors, all of it from one seed.
//!
//! 1. A [`Sky`] is one run's chance, trace and switches; it outlives every operator of the run.
//! 2. A [`Life`] is one operator's process. It can be cut at any effect: from then on nothing it
//!    asks for is ever answered, so nothing of it goes on.
//! 3. [`Weathered`] wraps any door. What is asked of a server (engine, object store) is done in a
//!    task of the server's, whether or not the asker still lives or waits: effects can land late.
//!    What is done to the own disk happens or does not, and ends with the process.

mod doors;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

pub use doors::Weathered;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It never arrives, and the asker is told so.
    Refused,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It never arrives, and nobody says so.
    Hangs,
    /// It is done at once, and nobody says so.
    HangsAfter,
    /// It is done long after the asker gave up.
    Late,
}

/// How a call fails for its asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Not done.
    Refused,
    /// Not known to be done.
    Broken,
    /// Not known to be done; nobody answered within the deadline.
    Timeout,
}

/// Where a lost question or answer matters, it is lost more often.
const CHANGES: &[&str] = &["create container", "start container", "stop container", "put", "swap"];

/// Called after each effect, with its name.
type Check = Box<dyn Fn(&str) + Send + Sync>;

/// One run's chance and its trace.
pub struct Sky {
    chance: Mutex<SmallRng>,
    began: Instant,
    calm: AtomicBool,
    /// Per mille of calls that go wrong while it is not calm.
    per_mille: u64,
    hash: AtomicU64,
    calls: AtomicU64,
    faults: Mutex<BTreeMap<String, u64>>,
    log: Option<Mutex<Vec<String>>>,
    check: Mutex<Option<Arc<Check>>>,
}

impl fmt::Debug for Sky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sky").field("calm", &self.calm).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A good mixer of 64 bits (splitmix64).
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Sky {
    /// The sky of a seed: so many calls in a thousand go wrong; `trace`: keep what happens.
    pub fn new(seed: u64, per_mille: u64, trace: bool) -> Arc<Sky> {
        Arc::new(Sky {
            chance: Mutex::new(SmallRng::seed_from_u64(mix(seed))),
            began: Instant::now(),
            calm: AtomicBool::new(false),
            per_mille,
            hash: AtomicU64::new(seed),
            calls: AtomicU64::new(0),
            faults: Mutex::default(),
            log: trace.then(Mutex::default),
            check: Mutex::new(None),
        })
    }

    /// What is looked at after each effect.
    pub fn set_check(&self, check: impl Fn(&str) + Send + Sync + 'static) {
        *locked(&self.check) = Some(Arc::new(Box::new(check)));
    }

    /// From now on nothing goes wrong any more; what is late still comes.
    pub fn calm(&self) {
        self.calm.store(true, SeqCst);
    }

    /// Whether it is calm.
    pub fn is_calm(&self) -> bool {
        self.calm.load(SeqCst)
    }

    /// Time since the run began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes what happened into the trace.
    pub fn note(&self, what: impl fmt::Display) {
        let text = format!("{:>10.3} {what}", self.now().as_secs_f64());
        let mut hash = self.hash.load(SeqCst);
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = mix(hash ^ u64::from_le_bytes(word));
        }
        self.hash.store(hash, SeqCst);
        if let Some(log) = &self.log {
            locked(log).push(text);
        }
    }

    /// Fingerprint of everything that happened.
    pub fn hash(&self) -> u64 {
        self.hash.load(SeqCst)
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// What went wrong how often.
    pub fn faults(&self) -> BTreeMap<String, u64> {
        locked(&self.faults).clone()
    }

    /// The trace, if it was kept.
    pub fn log(&self) -> Vec<String> {
        self.log.as_ref().map(|log| std::mem::take(&mut *locked(log))).unwrap_or_default()
    }

    /// A number below `below`, from the weather's own chance.
    pub fn below(&self, below: u64) -> u64 {
        locked(&self.chance).random_range(0..below.max(1))
    }

    fn checked(&self, operation: &str) {
        let check = locked(&self.check).clone();
        if let Some(check) = check {
            check(operation);
        }
    }

    /// Draws what becomes of a call: the fault, the way there, the way back.
    fn draw(&self, operation: &str, local: bool) -> (Fault, Duration, Duration) {
        self.calls.fetch_add(1, SeqCst);
        let (dice, kind, there, back, slow) = {
            let mut chance = locked(&self.chance);
            (
                chance.random_range(0..1000_u64),
                chance.random_range(0..12_u32),
                chance.random_range(0..30_000_u64),
                chance.random_range(0..30_000_u64),
                chance.random_range(0..100_u32),
            )
        };
        let scale = if local { 40 } else { 1 };
        let mut there = Duration::from_micros(there / scale);
        let back = Duration::from_micros(back / scale);
        if self.is_calm() {
            return (Fault::None, there, back);
        }
        if slow < 2 {
            there *= 300;
        }
        let weight = if CHANGES.contains(&operation) { 4 } else { 1 };
        let fault = match kind {
            _ if dice >= self.per_mille * weight => Fault::None,
            0..4 => Fault::Refused,
            4..8 => Fault::AnswerLost,
            8 => Fault::Hangs,
            9 => Fault::HangsAfter,
            _ => Fault::Late,
        };
        if fault != Fault::None {
            *locked(&self.faults).entry(format!("{operation} {fault:?}")).or_default() += 1;
        }
        (fault, there, back)
    }
}

/// One operator's process.
#[derive(Debug)]
pub struct Life {
    sky: Arc<Sky>,
    name: String,
    dead: AtomicBool,
    died: tokio::sync::Notify,
    points: AtomicU64,
    /// The process is cut at this point; 0: never.
    cut_at: AtomicU64,
    /// A planted bug: calls have no deadline.
    no_deadlines: bool,
}

impl Life {
    /// A process under this sky that is cut at its `cut_at`-th point (0: never).
    pub fn new(sky: Arc<Sky>, name: &str, cut_at: u64, no_deadlines: bool) -> Arc<Life> {
        Arc::new(Life {
            sky,
            name: name.to_owned(),
            dead: AtomicBool::new(false),
            died: tokio::sync::Notify::new(),
            points: AtomicU64::new(0),
            cut_at: AtomicU64::new(cut_at),
            no_deadlines,
        })
    }

    /// Waits until it was cut.
    pub async fn ended(&self) {
        if !self.dead.load(SeqCst) {
            self.died.notified().await;
        }
    }

    /// How many points it has passed.
    pub fn points(&self) -> u64 {
        self.points.load(SeqCst)
    }

    /// Ends it now.
    pub fn cut(&self) {
        self.dead.store(true, SeqCst);
        self.died.notify_one();
    }

    /// A place where the process can be cut. After that nothing of it runs on.
    async fn point(&self, side: &str, operation: &str) {
        if !self.dead.load(SeqCst) {
            let number = self.points.fetch_add(1, SeqCst) + 1;
            if number != self.cut_at.load(SeqCst) || self.sky.is_calm() {
                return;
            }
            self.sky.note(format_args!("{} CUT {side} {operation}", self.name));
            self.cut();
        }
        std::future::pending::<()>().await;
    }

    /// A question to a server. It is carried out even when the asker is cut or gives up meanwhile.
    async fn remote<T, E>(
        &self,
        operation: &'static str,
        key: &str,
        deadline: Duration,
        call: Pin<Box<dyn Future<Output = Result<T, E>> + Send>>,
        fail: impl Fn(Loss) -> E + Send + Sync + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        self.point("before", operation).await;
        let (fault, there, back) = self.sky.draw(operation, false);
        let late = Duration::from_secs(5 + self.sky.below(60));
        let (answer, asked) = tokio::sync::oneshot::channel();
        let sky = Arc::clone(&self.sky);
        let fail = Arc::new(fail);
        let fails = Arc::clone(&fail);
        let what = format!("{} {operation} {key}", self.name);
        tokio::spawn(async move {
            sleep(there).await;
            match fault {
                Fault::Hangs => {
                    sky.note(format_args!("{what} hangs, not done"));
                    return std::future::pending().await;
                }
                Fault::Refused => {
                    sky.note(format_args!("{what} fails, not done"));
                    let _nobody_waits = answer.send(Err(fails(Loss::Refused)));
                    return;
                }
                Fault::Late => sleep(deadline + late).await,
                _ => (),
            }
            let result = call.await;
            match &result {
                Ok(_) => sky.note(format_args!("{what} done ({fault:?})")),
                Err(error) => sky.note(format_args!("{what}: {error} ({fault:?})")),
            }
            sky.checked(&what);
            match fault {
                Fault::HangsAfter => std::future::pending().await,
                Fault::AnswerLost => {
                    sleep(back).await;
                    let _nobody_waits = answer.send(Err(fails(Loss::Broken)));
                }
                _ => {
                    sleep(back).await;
                    let _nobody_waits = answer.send(result);
                }
            }
        });
        let deadline = if self.no_deadlines { Duration::MAX / 4 } else { deadline };
        let result = if self.no_deadlines {
            asked.await.unwrap_or_else(|_| Err(fail(Loss::Broken)))
        } else {
            match tokio::time::timeout(deadline, asked).await {
                Ok(result) => result.unwrap_or_else(|_| Err(fail(Loss::Broken))),
                Err(_) => Err(fail(Loss::Timeout)),
            }
        };
        self.point("after", operation).await;
        result
    }

    /// An effect on the own disk: it happens or not, and ends with the process.
    async fn local<T, E: fmt::Display>(
        &self,
        operation: &'static str,
        key: &str,
        call: impl Future<Output = Result<T, E>> + Send,
        fail: impl Fn(Loss) -> E + Send,
    ) -> Result<T, E> {
        self.point("before", operation).await;
        let (fault, there, back) = self.sky.draw(operation, true);
        sleep(there).await;
        // Cut meanwhile, at another point: the lock is its successor's by now.
        if self.dead.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        let result = match fault {
            Fault::Refused | Fault::Hangs => Err(fail(Loss::Refused)),
            _ => call.await,
        };
        match &result {
            Ok(_) => {
                self.sky.note(format_args!("{} {operation} {key} done ({fault:?})", self.name));
            }
            Err(error) => {
                self.sky.note(format_args!("{} {operation} {key}: {error}", self.name));
            }
        }
        self.sky.checked(operation);
        sleep(back).await;
        self.point("after", operation).await;
        match fault {
            Fault::None | Fault::Refused | Fault::Hangs => result,
            Fault::AnswerLost | Fault::HangsAfter | Fault::Late => {
                result.and_then(|_| Err(fail(Loss::Broken)))
            }
        }
    }
}
