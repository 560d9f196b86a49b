//! Documents of every kind of invoice. They are left in `target/tmp/documents` for `tests/outside/documents.py`, and to
//! look at.

#[cfg(test)]
mod sample;
#[cfg(test)]
mod sums;
