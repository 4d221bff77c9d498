//! What is printed, from fixed views; what is refused.
