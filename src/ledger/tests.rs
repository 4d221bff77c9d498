//! Tests of the ledger on disk.
