//! The manual pages.

#[cfg(unix)]
use std::process::Command;

use crate::support::Sandbox;

/// Returns the names of the commands in the help.
fn commands(sandbox: &Sandbox) -> Vec<String> {
    let help = sandbox.ok(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let (list, _) = rest.split_once("\n\n").unwrap();
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(first).filter(|name| name != "help").collect()
}

#[test]
fn every_command_has_a_manual_page() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["man", "made/man1"]);
    let names = commands(&sandbox);
    assert!(names.len() > 15 && names.contains(&"edit".to_owned()), "{names:?}");
    assert_eq!(ran.stderr, format!("wrote {} pages to made/man1\n", names.len() + 6));
    let mut expected: Vec<String> = names.iter().map(|n| format!("cubbyhole-{n}.1")).collect();
    // Subcommands have pages too.
    expected.extend(["cubbyhole.1", "cubbyhole-config-show.1"].map(str::to_owned));
    let keys = ["generate", "list", "rotate", "shred"];
    expected.extend(keys.map(|action| format!("cubbyhole-key-{action}.1")));
    expected.sort();
    let folder = sandbox.path("made/man1");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let mut pages: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    assert_eq!(pages, expected);
    for page in &pages {
        let text = read(page);
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"] {
            assert!(text.contains(&format!(".SH {section}\n")), "{page}: {section}");
        }
        // Every page has the global options and the name of the manual.
        assert!(text.contains("\\-\\-store") && text.contains("Cubbyhole manual"), "{page}");
    }
    let whole = read("cubbyhole.1");
    for name in &names {
        assert!(whole.contains(&format!("cubbyhole\\-{name}(1)")), "{name}");
    }
    // Writing again replaces existing pages with the same text.
    let before: Vec<String> = pages.iter().map(|page| read(page)).collect();
    sandbox.write("made/man1/cubbyhole-put.1", "an old page");
    assert_eq!(sandbox.json(&["man", "made/man1"])[0]["pages"], pages.len());
    assert_eq!(pages.iter().map(|page| read(page)).collect::<Vec<_>>(), before);
    assert_eq!(sandbox.files(), ["made"]);
    #[cfg(unix)]
    check(&pages.iter().map(|page| folder.join(page)).collect::<Vec<_>>());
}

/// Asserts that the formatter has no warnings.
#[cfg(unix)]
fn check(pages: &[std::path::PathBuf]) {
    let mut command = Command::new(cubbyhole_testkit::groff().unwrap());
    command.args(["-man", "-Tutf8", "-Kutf8", "-ww", "-z"]).args(pages);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn folder_that_cannot_be_created_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "");
    let message = sandbox.fails(6, &["man", "file"]);
    assert!(message.contains("cannot create the folder file"), "{message}");
}
