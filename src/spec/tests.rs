//! What `spec` promises, as examples.

mod complaints;
mod merging;
