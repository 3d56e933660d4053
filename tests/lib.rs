//! Holds nothing: the package exists for its integration tests.
