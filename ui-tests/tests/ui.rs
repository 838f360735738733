//! Runs every case, and sees to it that none is left out.

#[test]
fn every_case_says_what_it_said() {
    let cases = trybuild::TestCases::new();
    cases.pass("cases/pass/*.rs");
    cases.compile_fail("cases/fail/*.rs");
}
