//! Black-box tests with real clients.
