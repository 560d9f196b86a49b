//! One simulated month, from usage to invoices and to the journal that outside programs check.

#[cfg(test)]
mod month;
