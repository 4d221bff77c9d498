//! Rows of the platform that docket replaces, each with a test named after it.
