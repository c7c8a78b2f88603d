//! Usage errors of the real command line.

use clap::Parser;

use super::*;
use crate::cli::Cli;

#[test]
fn usage_error_is_one_line() {
    for arguments in [
        &["cubbyhole", "get", "acme"][..],
        &["cubbyhole", "get", "acme", "k", "--entyr"],
        &["cubbyhole", "gte"],
        &["cubbyhole", "put", "acme", "k", "v", "--ttl", "0s"],
    ] {
        let error = Cli::try_parse_from(arguments).unwrap_err();
        let line = one_line(&error.render().to_string());
        assert!(!line.contains('\n') && !line.contains("error:"), "{line}");
    }
}
