//! x
mod cas_write;
mod holder;
mod owner;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod task_record;
