//! Runs the real executable, each test in a folder of its own.

#[cfg(test)]
mod demo;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod entries;
#[cfg(test)]
mod kill_import;
#[cfg(test)]
mod lines;
#[cfg(test)]
mod listings;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod profiles;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transfer;
#[cfg(test)]
mod usage;
