//! Runs the executable. Each test has a separate folder.

#[cfg(test)]
mod clock;
#[cfg(test)]
#[cfg(unix)]
mod completing;
#[cfg(test)]
mod deletion;
#[cfg(test)]
mod demo;
#[cfg(test)]
#[cfg(unix)]
mod edit;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod entries;
#[cfg(test)]
mod erasure;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod exports;
#[cfg(test)]
mod idle_ttl;
#[cfg(test)]
#[cfg(unix)]
mod keys;
#[cfg(test)]
mod kill_import;
#[cfg(test)]
#[cfg(unix)]
mod layers;
#[cfg(test)]
mod lines;
#[cfg(test)]
mod listings;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod manual;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod profiles;
#[cfg(test)]
#[path = "../support/program.rs"]
mod program;
#[cfg(test)]
mod rerooting;
#[cfg(test)]
mod support;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(test)]
mod transfer;
#[cfg(test)]
mod usage;
