//! What the documents name is there, and what they forbid is not done.

use nats_service_tests::workspace;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files of a kind under a folder.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// All Rust sources under a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    files(folder, "rs")
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_engine_knows_neither_service_nor_client() {
    let src = workspace().join("core/src");
    for (part, strangers) in [
        ("store", &["crate::service", "crate::client"][..]),
        ("wire", &["crate::service", "crate::client"]),
        (
            "streaming",
            &["crate::service", "crate::client", "crate::store"],
        ),
        ("client", &["crate::service"]),
        ("service", &["crate::client"]),
    ] {
        for path in sources(&src.join(part)) {
            let text = read(&path);
            for stranger in strangers {
                assert!(
                    !text.contains(stranger),
                    "{} names {stranger}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_file_and_every_test_that_the_architecture_names_is_there() {
    let root = workspace();
    let text = read(&root.join("docs/ARCHITECTURE.md"));
    let mut tests = BTreeSet::new();
    for folder in [
        "core/src",
        "macros/src",
        "tests/support",
        "tests/tests",
        "ui-tests/tests",
    ] {
        for path in sources(&root.join(folder)) {
            let text = read(&path);
            let names = text.split("fn ").skip(1);
            tests.extend(names.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
    let is_name = |word: &str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let mut named = 0;
    for word in quoted(&text) {
        if is_name(word) {
            named += 1;
            assert!(tests.contains(word), "there is no test `{word}`");
        } else if word.contains('/') && (word.ends_with(".rs") || word.ends_with('/')) {
            assert!(root.join(word).exists(), "there is no `{word}`");
        }
    }
    assert!(named > 20, "{named} tests are named");
}

#[test]
fn the_links_between_the_documents_lead_somewhere() {
    let root = workspace();
    let documents = files(&root.join("docs"), "md");
    for path in documents.into_iter().chain([root.join("README.md")]) {
        let text = read(&path);
        let folder = path.parent().expect("a folder");
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            assert!(target.exists(), "{}: {link}", path.display());
            if section.is_empty() {
                continue;
            }
            let headings = read(&target);
            let headings = headings.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| {
                let heading = line.trim_start_matches('#').trim().to_lowercase();
                heading
                    .chars()
                    .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect::<String>()
            });
            assert!(
                anchors.any(|anchor| anchor == section),
                "{}: {link}",
                path.display()
            );
        }
    }
}

#[test]
fn every_page_of_the_guide_is_in_its_index_and_is_tested() {
    let folder = workspace().join("docs/guide");
    let index = read(&folder.join("README.md"));
    let tested = read(&workspace().join("tests/support/lib.rs"));
    let (_, tested) = tested.split_once("pages! {").expect("the list of pages");
    let (tested, _) = tested.split_once('}').expect("its end");
    for page in files(&folder, "md") {
        let stem = page.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.expect("a name");
        if stem == "README" {
            continue;
        }
        assert!(index.contains(&format!("]({stem}.md)")), "{stem}");
        assert!(tested.split_whitespace().any(|word| word == stem), "{stem}");
    }
}
