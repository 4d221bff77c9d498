//! Providers against small servers and files.
