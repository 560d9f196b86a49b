//! The commands against a server of scripted answers on the loopback interface.

#[cfg(test)]
mod batches;
#[cfg(test)]
mod cloud;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod estimate;
#[cfg(test)]
mod money;
mod object;
mod owner;
#[cfg(test)]
mod run;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod terminal;
