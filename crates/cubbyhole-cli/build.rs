//! Compiles the part that runs before Rust's runtime: `src/output/streams/closed.c`.

#[expect(clippy::disallowed_macros, reason = "cargo reads the output of a build script")]
fn main() {
    println!("cargo::rerun-if-changed=src/output/streams/closed.c");
    // Elsewhere there are no numbered streams that the runtime replaces.
    if std::env::var_os("CARGO_CFG_UNIX").is_some() {
        cc::Build::new()
            .file("src/output/streams/closed.c")
            .warnings_into_errors(true)
            // Nothing refers to it by name.
            .link_lib_modifier("+whole-archive")
            .compile("cubbyhole_closed_streams");
    }
}
