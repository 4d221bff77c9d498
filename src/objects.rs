//! Object stores: a directory, and S3.

pub mod directory;
pub mod s3;
mod store;

pub use store::Store;
