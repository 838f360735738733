//! What a template makes of values and of keys, and what it refuses.

use super::*;
use std::borrow::Cow;

const fn capture(name: &'static str, form: CaptureForm, source: KeySource) -> Segment {
    Segment::Capture(Capture { name, form, source })
}

const TENANT: KeyTemplate = KeyTemplate {
    source: "user.<region>.<id>",
    segments: &[
        Segment::Literal("user."),
        capture("region", CaptureForm::Token, KeySource::Request),
        Segment::Literal("."),
        capture("id", CaptureForm::Token, KeySource::Request),
    ],
};
const MADE: KeyTemplate = KeyTemplate {
    source: "<response.id>.<mail:escaped>.<response.path..>",
    segments: &[
        capture("response.id", CaptureForm::Token, KeySource::Response),
        Segment::Literal("."),
        capture("mail", CaptureForm::Escaped, KeySource::Request),
        Segment::Literal("."),
        capture("response.path", CaptureForm::Rest, KeySource::Response),
    ],
};

#[test]
fn no_value_can_leave_its_token() {
    let rule = |id: &str| TENANT.key(&[&"eu", &id]).unwrap_err().rule();
    assert_eq!(rule(""), KeyRule::Empty);
    assert_eq!(rule("7.admin"), KeyRule::Dot);
    assert_eq!(rule("*"), KeyRule::Wildcard);
    assert_eq!(rule(">"), KeyRule::Wildcard);
    assert_eq!(rule("a b"), KeyRule::Character(' '));
    assert_eq!(rule("a\r\n"), KeyRule::Character('\r'));
    assert_eq!(rule("ü"), KeyRule::Character('ü'));
    assert_eq!(rule(&"x".repeat(1025)), KeyRule::TooLong);
    assert_eq!(TENANT.key(&[&"eu", &7_u64]).unwrap(), "user.eu.7");
}

#[test]
fn a_filter_holds_only_the_wildcards_it_was_asked_for() {
    assert_eq!(TENANT.filter(&[&"eu", &Any]).unwrap(), "user.eu.*");
    assert_eq!(
        TENANT.filter(&[&"*", &Any]).unwrap_err().rule(),
        KeyRule::Wildcard
    );
    assert_eq!(MADE.filter(&[&Any, &"a@b", &Any]).unwrap(), "*.YUBi.>");
}

#[test]
fn a_key_is_taken_apart_as_it_was_made() {
    assert_eq!(
        TENANT.parse("user.eu.7").unwrap(),
        [("region", Cow::Borrowed("eu")), ("id", Cow::Borrowed("7"))]
    );
    assert_eq!(TENANT.parse("user.eu"), None);
    assert_eq!(TENANT.parse("user.eu.7.x"), None);
    let parts = MADE.parse("9.YUBi.x.y").unwrap();
    assert_eq!(parts[1], ("mail", Cow::Borrowed("a@b")));
    assert_eq!(parts[2], ("response.path", Cow::Borrowed("x.y")));
}

#[test]
fn captures_of_the_answer_are_filled_in_after_those_of_the_request() {
    let mut keys = Keys::new([TENANT, MADE]);
    keys.request("eu").unwrap();
    keys.request(&7).unwrap();
    keys.request("a@b").unwrap();
    keys.request_done();
    keys.response(&9).unwrap();
    keys.response("x.y").unwrap();
    let made = keys.finish();
    let made: Vec<_> = made.iter().map(Option::as_deref).collect();
    assert_eq!(made, [Some("user.eu.7"), Some("9.YUBi.x.y")]);
}

#[test]
fn a_key_that_is_left_out_takes_any_value_and_does_not_disturb_the_others() {
    let mut keys = Keys::new([MADE, MADE]);
    keys.request("a@b").unwrap();
    keys.request("c").unwrap();
    keys.request_done();
    keys.skip(0);
    for value in ["*", "", "9", "x.y"] {
        keys.response(value).unwrap();
    }
    assert_eq!(keys.finish(), [None, Some("9.Yw.x.y".to_owned())]);
}

#[test]
fn a_reserved_or_broken_raw_key_is_refused() {
    assert_eq!(check_key("_kv.x").unwrap_err().rule(), KeyRule::Reserved);
    assert_eq!(check_key("a..b").unwrap_err().rule(), KeyRule::Empty);
    assert_eq!(check_key("a.*").unwrap_err().rule(), KeyRule::Wildcard);
    assert!(check_key("a/b=c.d-e_f").is_ok());
}
