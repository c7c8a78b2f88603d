//! The parts that every private server is made of.
//!
//! - `folder`: the temporary folder of a server, and the user that owns it
//! - `install`: finds a server's programs, and installs missing ones
//! - `port`: free ports on 127.0.0.1
//! - `preload`: C libraries loaded with `LD_PRELOAD`, and the file that controls each
//! - `server`: starts, stops, kills and pauses a server program
//! - `table`: the process table, and signals
//! - `wait`: polls until a condition holds
//! - `watcher`: stops a server when its owner ends, even if the owner is killed

pub(crate) mod folder;
pub(crate) mod install;
pub(crate) mod port;
pub(crate) mod preload;
pub(crate) mod server;
pub(crate) mod table;
pub(crate) mod wait;
pub(crate) mod watcher;
