//! The config as a whole.
