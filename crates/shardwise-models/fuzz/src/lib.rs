//! What must hold of any bytes that are loaded, sound or hostile: they are refused, or answer what they themselves say.
//!
//! Shared by the fuzz targets and by `tests/mutants.rs`.

pub mod book;
pub mod checks;
pub mod container;
