//! The object store's door: real S3.

pub mod s3;
