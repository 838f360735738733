//! Runs every case, and sees to it that none is left out: a case that nobody runs is worse than none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_case_says_what_it_said() {
    let cases = trybuild::TestCases::new();
    cases.pass("cases/pass/*.rs");
    cases.compile_fail("cases/fail/*.rs");
}

/// The files of `cases/<folder>` that end in `extension`, without their extension.
fn stems(folder: &str, extension: &str) -> BTreeSet<PathBuf> {
    files(&cases().join(folder))
        .into_iter()
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .map(|file| file.with_extension(""))
        .collect()
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_failing_case_has_its_text_and_every_text_its_case() {
    assert_eq!(stems("fail", "rs"), stems("fail", "stderr"));
    assert!(stems("fail", "rs").len() > 100);
    assert!(stems("pass", "stderr").is_empty());
}

#[test]
fn no_case_stands_where_the_globs_do_not_look() {
    for folder in files(&cases()) {
        let name = folder.file_name().unwrap();
        assert!(name == "fail" || name == "pass", "{folder:?}");
        for file in files(&folder) {
            let extension = file.extension().and_then(|found| found.to_str());
            assert!(matches!(extension, Some("rs" | "stderr")), "{file:?}");
        }
    }
}

#[test]
fn no_text_depends_on_the_machine_that_wrote_it() {
    for file in files(&cases().join("fail")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for place in ["/home/", "/root/", "/tmp/", "/Users/", "C:\\"] {
            assert!(!text.contains(place), "{file:?} names {place}");
        }
    }
}
