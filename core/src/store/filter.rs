//! Filters of subjects: which subjects one matches, which filters it makes superfluous, and the filters of one consumer
//! for many readers. The server refuses a consumer two of whose filters could match one subject.

/// Filters of one consumer. The server compares each with each when it makes one.
const MAX_FILTERS: usize = 128;

/// Whether a subject is of this form: `*` stands for one token, `>` for one or more at the end.
pub(super) fn matches(filter: &str, subject: &str) -> bool {
    if !filter.contains('*') {
        // Most are one key, or everything under a prefix.
        return match filter.strip_suffix('>') {
            Some(prefix) => subject.len() > prefix.len() && subject.starts_with(prefix),
            None => subject == filter,
        };
    }
    let mut tokens = subject.split('.');
    for part in filter.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Whether every subject of `narrow` is one of `wide`.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    let mut narrow = narrow.split('.');
    for part in wide.split('.') {
        match (part, narrow.next()) {
            (">", Some(_)) => return true,
            (_, Some(">")) => return false,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

/// Whether each of these filters is covered by one of those.
pub(super) fn all_covered(by: &[String], filters: &[String]) -> bool {
    let covered = |filter: &String| by.iter().any(|wide| covers(wide, filter));
    filters.iter().all(covered)
}

/// Whether some subject is matched by both.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// The narrowest filter that covers both.
fn widen(one: &str, other: &str) -> String {
    let mut wide: Vec<&str> = Vec::new();
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => break,
            (Some(a), Some(b)) if a != ">" && b != ">" => wide.push(if a == b { a } else { "*" }),
            _ => {
                wide.push(">");
                break;
            }
        }
    }
    wide.join(".")
}

/// How much two filters have in common: the tokens that they begin with, and those that are equal at all.
fn likeness(one: &str, other: &str) -> (usize, usize) {
    let pairs = || one.split('.').zip(other.split('.'));
    let first = pairs().take_while(|(a, b)| a == b).count();
    (first, pairs().filter(|(a, b)| a == b).count())
}

/// Filters that match whatever any of these does, and no subject twice. They match little more, unless they would be too
/// many: then those most alike become one.
pub(super) fn union<'f>(filters: impl IntoIterator<Item = &'f str>) -> Vec<String> {
    let mut union: Vec<String> = Vec::new();
    for filter in filters {
        if union.iter().any(|wide| covers(wide, filter)) {
            continue;
        }
        let mut filter = filter.to_owned();
        if union.len() == MAX_FILTERS {
            let alike = |other: &&String| likeness(other, &filter);
            if let Some(other) = union.iter().max_by_key(alike) {
                filter = widen(&filter, other);
            }
        }
        // Two that overlap become one, which may overlap with a third.
        while let Some(at) = union.iter().position(|other| overlap(other, &filter)) {
            let other = union.swap_remove(at);
            if !covers(&filter, &other) {
                filter = widen(&filter, &other);
            }
        }
        union.push(filter);
    }
    union.sort_unstable();
    union
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_tokens_match() {
        assert!(matches("a.*", "a.b") && matches("a.>", "a.b.c") && matches("a.b", "a.b"));
        assert!(!matches("a.*", "a.b.c") && !matches("a.>", "a") && !matches("a", "ab"));
        assert!(!matches("a.*", "ab.c") && !matches("a.>", "ab.c"));
    }

    #[test]
    fn a_wider_filter_covers_a_narrower_one() {
        for (wide, narrow) in [(">", "a"), ("a.>", "a.*"), ("a.>", "a.*.>"), ("a.*", "a.b")] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
            assert!(!covers(narrow, wide), "{narrow} {wide}");
        }
        assert!(!covers("a.*", "a.>") && !covers("a.b", "a.*") && !covers("a.>", "a"));
    }

    #[test]
    fn a_union_matches_all_and_nothing_twice() {
        let of = |filters: &[&str]| union(filters.iter().copied());
        assert_eq!(of(&["k.a", "k.b", "k.a"]), ["k.a", "k.b"]);
        assert_eq!(of(&["k.a", "k.>", "k.b"]), ["k.>"]);
        assert_eq!(of(&["k.a", "k.b", "k.>"]), ["k.>"]);
        assert_eq!(of(&["k.*.c", "k.b.*"]), ["k.*.*"]);
        assert_eq!(of(&["k.*.c", "k.b.>"]), ["k.*.>"]);
        assert_eq!(of(&["k.*.c", "k.x", "k.b.*", "k.y.z"]), ["k.*.*", "k.x"]);
    }

    #[test]
    fn of_too_many_filters_those_most_alike_become_one() {
        let users = (0..2 * MAX_FILTERS).map(|n| format!("b.user.{n}.name"));
        let others = ["b.order.1", "b.order.2"].map(str::to_owned);
        let many: Vec<String> = others.into_iter().chain(users).collect();
        let union = union(many.iter().map(String::as_str));
        assert_eq!(union, ["b.order.1", "b.order.2", "b.user.*.name"]);
    }

    #[test]
    fn no_two_filters_of_a_union_overlap() {
        // All filters of up to three tokens over a small alphabet, three at a time.
        let tokens = ["a", "b", "*"];
        let mut all: Vec<String> = tokens.iter().map(|t| (*t).to_owned()).collect();
        for a in tokens {
            all.push(format!("{a}.>"));
            for b in tokens {
                all.push(format!("{a}.{b}"));
            }
        }
        for a in &all {
            for b in &all {
                for c in &all {
                    let union = union([a.as_str(), b, c]);
                    assert!(all_covered(&union, &[a.clone(), b.clone(), c.clone()]));
                    for (i, one) in union.iter().enumerate() {
                        let rest = union.iter().skip(i + 1);
                        assert!(
                            rest.into_iter().all(|other| !overlap(one, other)),
                            "{union:?}"
                        );
                    }
                }
            }
        }
    }
}
