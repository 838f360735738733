//! Names: from one convention to another, and the nearest of a list. Nothing here knows of syntax or of NATS.

/// `UserProfiles` as `user_profiles`; runs of capitals stay together (`HTTPServer` is `http_server`).
pub(crate) fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (i, &c) in chars.iter().enumerate() {
        if c.is_uppercase() {
            let after_lower = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_numeric());
            let ends_run = i > 0
                && chars[i - 1].is_uppercase()
                && chars.get(i + 1).is_some_and(|next| next.is_lowercase());
            if after_lower || ends_run {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// `save_profile` as `SaveProfile`.
pub(crate) fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for part in name.split('_') {
        let mut chars = part.chars();
        if let Some(first) = chars.next() {
            out.extend(first.to_uppercase());
            out.push_str(chars.as_str());
        }
    }
    out
}

/// How many insertions, deletions, replacements and swaps of neighbours lie between two words.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The word of `known` that `word` was probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_lowercase().replace('-', "_");
    let within = (lower.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= within)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `a`, `b`, `c`: a list for a message.
pub(crate) fn list<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<String> = words
        .into_iter()
        .map(|word| format!("`{}`", word.as_ref()))
        .collect();
    quoted.join(", ")
}

/// `did you mean `x`? ` when something is near, and nothing otherwise.
pub(crate) fn did_you_mean(word: &str, known: &[&str]) -> String {
    nearest(word, known)
        .map(|near| format!("did you mean `{near}`? "))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_their_convention() {
        for (camel, snake) in [
            ("Profiles", "profiles"),
            ("UserProfiles", "user_profiles"),
            ("HTTPServer", "http_server"),
            ("KvV2Store", "kv_v2_store"),
            ("already_snake", "already_snake"),
            ("A", "a"),
            ("Überall", "überall"),
        ] {
            assert_eq!(snake_case(camel), snake);
        }
        assert_eq!(camel_case("save_profile"), "SaveProfile");
        assert_eq!(camel_case("_a__b"), "AB");
        assert_eq!(camel_case("get_v2"), "GetV2");
    }

    #[test]
    fn a_misspelt_word_finds_its_neighbour_and_a_foreign_one_finds_none() {
        let known = ["bucket", "key", "history", "max_value_size"];
        assert_eq!(nearest("buckt", &known), Some("bucket"));
        assert_eq!(nearest("bukcet", &known), Some("bucket"));
        assert_eq!(nearest("keys", &known), Some("key"));
        assert_eq!(nearest("History", &known), Some("history"));
        assert_eq!(nearest("max-value-size", &known), Some("max_value_size"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
