//! Work by recursion on input from outside. Compilers follow references and nested parts by calling themselves, and
//! assert what they believe of their input; no input may end the process. A panic is an error, and the stack fits what
//! the bounds on the input allow.

/// Pages that are not touched cost nothing.
const STACK_BYTES: usize = 256 * 1_024 * 1_024;

/// Does it on a thread of its own.
pub fn apart<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sublet-apart".to_owned()).stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, work).map_err(|error| format!("no thread could be started: {error}"))?;
        running.join().unwrap_or_else(|_| Err("the compiler failed on it".to_owned()))
    })
}
