//! What several tests need.

pub mod browser;
pub mod image;
