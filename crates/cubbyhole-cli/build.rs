//! Compiles `src/output/streams/closed.c`, which runs before Rust's runtime.

#[expect(clippy::disallowed_macros, reason = "cargo reads the output of a build script")]
fn main() {
    println!("cargo::rerun-if-changed=src/output/streams/closed.c");
    // Only on Unix does the runtime replace closed streams.
    if std::env::var_os("CARGO_CFG_UNIX").is_some() {
        cc::Build::new()
            .file("src/output/streams/closed.c")
            .warnings_into_errors(true)
            // The constructor is not referenced, and would not be linked otherwise.
            .link_lib_modifier("+whole-archive")
            .compile("cubbyhole_closed_streams");
    }
}
