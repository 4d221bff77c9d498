//! What several tests need.

pub mod image;
