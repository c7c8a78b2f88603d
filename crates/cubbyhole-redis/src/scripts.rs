//! The Lua scripts, one for each atomic operation.

use std::sync::LazyLock;

/// A script and its SHA-1 digest, by which servers identify it.
pub(crate) struct Script {
    pub(crate) source: &'static str,
    pub(crate) digest: String,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, digest: redis::Script::new(source).get_hash().to_owned() }
    }
}

/// The only script without the prelude.
pub(crate) static PUT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("../scripts/put.lua")));

macro_rules! scripts {
    ($($name:ident: $($file:literal)+;)*) => {
        $(pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new(concat!(include_str!("../scripts/prelude.lua"), $(include_str!($file)),+))
        });)*
    };
}

scripts! {
    WRITE: "../scripts/write.lua";
    ENTRIES: "../scripts/reading.lua" "../scripts/entries.lua";
    EXTEND: "../scripts/reading.lua" "../scripts/extend.lua";
    STAT: "../scripts/stat.lua";
    TOUCH: "../scripts/touch.lua";
    TAKE: "../scripts/take.lua";
    PAGE: "../scripts/page.lua";
    COUNT: "../scripts/count.lua";
    USAGE: "../scripts/usage.lua";
    DELETE_PREFIX: "../scripts/delete_prefix.lua";
    SWEEP: "../scripts/sweep.lua";
    ERASE: "../scripts/erase.lua";
    RECONCILE: "../scripts/reconcile.lua";
    REGISTER: "../scripts/register.lua";
    UNLIST: "../scripts/unlist.lua";
    RIGHTS: "../scripts/rights.lua";
}
