//! An extension module of Python with a process pool inside. A worker is another interpreter, which imports
//! the module and serves. A crash in a task raises an exception, and the interpreter of the user goes on.

use procession::{Executor, ProcessPool, Registry, worker};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

#[procession::task]
fn checksum(bytes: Vec<u8>) -> u32 {
    if bytes == b"crash" {
        std::process::abort();
    }
    bytes.into_iter().map(u32::from).sum()
}

/// What a worker runs in place of the program of the user. It does not return.
#[pyfunction]
fn serve() {
    worker::serve_if_asked(Registry::collected());
}

/// The checksums of several texts, or an exception for the first that has none.
#[pyfunction]
fn checksums(py: Python<'_>, texts: Vec<String>) -> PyResult<Vec<u32>> {
    let python: String = py.import("sys")?.getattr("executable")?.extract()?;
    let failed = |error: &dyn std::error::Error| PyRuntimeError::new_err(error.to_string());
    // During the wait, other threads of the interpreter run.
    py.detach(|| {
        let pool = ProcessPool::builder()
            .workers(2)
            .worker_program(python)
            .worker_args(["-c", "import checksums; checksums.serve()"])
            .build()
            .map_err(|error| failed(&error))?;
        let tasks = texts.into_iter().map(|text| checksum(text.into_bytes()));
        pool.map(tasks).collect::<Result<_, _>>().map_err(|error| failed(&error))
    })
}

#[pymodule(name = "checksums")]
fn extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(serve, module)?)?;
    module.add_function(wrap_pyfunction!(checksums, module)?)
}
