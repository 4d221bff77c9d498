//! What the diff decides, as text; what manifests may say; and that nothing is ever lost.

mod history;
mod picture;
mod property;
mod text;
