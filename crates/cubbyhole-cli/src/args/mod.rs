//! The arguments of the command line: global options, value parsers and usage errors.

pub(crate) mod globals;
pub(crate) mod parse;
pub(crate) mod scope;
pub(crate) mod usage_error;
