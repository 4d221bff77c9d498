//! The API over a real socket, with a loop that answers from a script.
