//! The manual pages.

#[cfg(unix)]
use std::process::Command;

use crate::support::Place;

/// The names of the commands, as the help lists them.
fn commands(place: &Place) -> Vec<String> {
    let help = place.ok(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let (list, _) = rest.split_once("\n\n").unwrap();
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(first).filter(|name| name != "help").collect()
}

#[test]
fn each_command_has_a_page() {
    let place = Place::new();
    let ran = place.run(&["man", "made/man1"]);
    let names = commands(&place);
    assert!(names.len() > 15 && names.contains(&"edit".to_owned()), "{names:?}");
    assert_eq!(ran.stderr, format!("wrote {} pages to made/man1\n", names.len() + 2));
    let mut expected: Vec<String> = names.iter().map(|n| format!("cubbyhole-{n}.1")).collect();
    // A command that has some of its own has their pages too.
    expected.extend(["cubbyhole.1", "cubbyhole-config-show.1"].map(str::to_owned));
    expected.sort();
    let folder = place.path("made/man1");
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
        // The options of the whole tool are in every page, and each says where it belongs.
        assert!(text.contains("\\-\\-store") && text.contains("Cubbyhole manual"), "{page}");
    }
    let whole = read("cubbyhole.1");
    for name in &names {
        assert!(whole.contains(&format!("cubbyhole\\-{name}(1)")), "{name}");
    }
    // Again, over what is there: the same pages.
    let before: Vec<String> = pages.iter().map(|page| read(page)).collect();
    place.write("made/man1/cubbyhole-put.1", "an old page");
    assert_eq!(place.json(&["man", "made/man1"])[0]["pages"], pages.len());
    assert_eq!(pages.iter().map(|page| read(page)).collect::<Vec<_>>(), before);
    assert_eq!(place.files(), ["made"]);
    #[cfg(unix)]
    check(&pages.iter().map(|page| folder.join(page)).collect::<Vec<_>>());
}

/// That the formatter finds nothing to warn of.
#[cfg(unix)]
fn check(pages: &[std::path::PathBuf]) {
    let mut command = Command::new(cubbyhole_testkit::groff().unwrap());
    command.args(["-man", "-Tutf8", "-Kutf8", "-ww", "-z"]).args(pages);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_folder_that_cannot_be_is_an_error() {
    let place = Place::new();
    place.write("file", "");
    let message = place.fails(6, &["man", "file"]);
    assert!(message.contains("cannot make the folder file"), "{message}");
}
