//! The built binary on a real engine, as a user runs it: files dropped, containers killed by hand,
//! the operator killed, the end states compared.

mod api;
mod chaos;
mod crash;
mod dashboard;
mod disk;
mod drift;
mod exact;
mod examples;
mod faults;
mod gitops;
mod hostile;
mod image;
mod lazy;
mod life;
mod metrics;
mod points;
mod promises;
mod proxy;
mod registry;
mod rig;
mod seed;
mod semantics;
mod store;
mod store_faults;
