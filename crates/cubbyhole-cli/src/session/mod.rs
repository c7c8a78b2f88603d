//! The store and the settings of one command.

mod choice;
pub(crate) mod config_file;
mod confirm;
mod open;
mod settings;
pub(crate) mod store_url;

pub(crate) use self::choice::{NamedBy, Origin, STORE_VARIABLE, StoreChoice};
pub(crate) use self::confirm::confirm;
pub(crate) use self::open::{Session, same_file};
pub(crate) use self::settings::{ChosenStore, EffectiveStore, Options, Settings};
