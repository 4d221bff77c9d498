//! Object stores behind one door: a directory of this machine.

pub mod directory;
