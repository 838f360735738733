//! Cases that need features of the crate. The others, which say what to do without them, stand in the folder above.

#[test]
fn every_case_with_features_says_what_it_said() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}

#[test]
fn every_case_with_features_has_its_text() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let files = |extension: &str| {
        let entries = std::fs::read_dir(&folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .map(|path| path.with_extension(""))
            .collect();
        paths.sort();
        paths
    };
    assert_eq!(files("rs"), files("stderr"));
    assert!(!files("rs").is_empty());
}
