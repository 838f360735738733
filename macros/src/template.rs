//! Key templates: `user.<region>.<id>`, from text to tokens, or to the rule that is broken and the place where.
//!
//! A capture fills a whole token, so a template is a list of tokens. What a capture's name means, an argument or a field, is
//! not known here.

/// A key template, token by token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) source: String,
    pub(crate) tokens: Vec<Token>,
}

/// What stands between two dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Literal(String),
    Capture(Capture),
}

/// `<address.city>`, `<mail:escaped>`, `<path..>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capture {
    /// The name, without form: `address.city`.
    pub(crate) name: String,
    /// The name, part by part.
    pub(crate) path: Vec<String>,
    pub(crate) form: Form,
    /// Where it stands in the template, in characters.
    pub(crate) at: (usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Token,
    Escaped,
    Rest,
}

/// A broken rule, and the characters that break it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) rule: String,
    pub(crate) at: (usize, usize),
}

/// The message of a broken rule with the place under it: a literal has no spans of its own on stable Rust.
pub(crate) fn show(source: &str, broken: &Broken) -> String {
    let Broken { rule, at } = broken;
    // A caret line under text of another width would point elsewhere.
    if source.chars().any(|c| c.is_control()) || !source.is_ascii() || source.is_empty() {
        return rule.clone();
    }
    let carets = "^".repeat((at.1 - at.0).max(1));
    format!(
        "{rule}\n\n    \"{source}\"\n     {}{carets}",
        " ".repeat(at.0)
    )
}

fn broken<T>(rule: impl Into<String>, from: usize, to: usize) -> Result<T, Broken> {
    Err(Broken {
        rule: rule.into(),
        at: (from, to),
    })
}

/// Reads a template; the first broken rule of it otherwise.
pub(crate) fn parse(source: &str) -> Result<Template, Broken> {
    let chars: Vec<char> = source.chars().collect();
    if chars.is_empty() {
        return broken(
            "a key must not be empty; write a template, `\"user.<id>\"` say",
            0,
            0,
        );
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let end = token_end(&chars, at);
        tokens.push(token(&chars, at, end)?);
        if end == chars.len() {
            break;
        }
        at = end + 1;
    }
    check_rest(&tokens)?;
    if source.starts_with("_kv") {
        return broken(
            "keys that begin with `_kv` are reserved for the server; choose another first token",
            0,
            3,
        );
    }
    Ok(Template {
        source: source.to_owned(),
        tokens,
    })
}

/// The next dot that is not inside a capture.
fn token_end(chars: &[char], from: usize) -> usize {
    let mut inside = false;
    for (i, c) in chars.iter().enumerate().skip(from) {
        match c {
            '<' | '{' => inside = true,
            '>' | '}' => inside = false,
            // A capture that is never closed ends with the text.
            '.' if !inside => return i,
            _ => {}
        }
    }
    chars.len()
}

fn token(chars: &[char], from: usize, to: usize) -> Result<Token, Broken> {
    let text: String = chars[from..to].iter().collect();
    if text.is_empty() {
        let (place, rule) = if chars.len() == 1 {
            ((0, 1), "a dot alone is no key")
        } else if from == 0 {
            ((0, 1), "a key must not begin with a dot")
        } else if from == chars.len() {
            ((from - 1, from), "a key must not end with a dot")
        } else {
            (
                (from - 1, from + 1),
                "two dots in a row make an empty token",
            )
        };
        return broken(
            format!("{rule}: a key is tokens joined by single dots, `\"user.<id>\"` say"),
            place.0,
            place.1,
        );
    }
    match text.chars().next() {
        Some('<' | '{') => {
            let capture = capture(chars, from, to)?;
            if capture.at.1 == to {
                return Ok(Token::Capture(capture));
            }
            whole_token(chars, from, to)
        }
        _ => literal(chars, from, to),
    }
}

/// Something stands beside a capture, `user-<id>`: says what to write.
fn whole_token<T>(chars: &[char], from: usize, to: usize) -> Result<T, Broken> {
    let mut proposal = String::new();
    for c in &chars[from..to] {
        match c {
            '<' | '{' => {
                let trimmed = proposal.trim_end_matches(['-', '_', '/', '=']).len();
                proposal.truncate(trimmed);
                if !proposal.is_empty() && !proposal.ends_with('.') {
                    proposal.push('.');
                }
                proposal.push('<');
            }
            '>' | '}' => proposal.push_str(">."),
            '-' | '_' | '/' | '=' if proposal.ends_with(">.") => {}
            c => proposal.push(*c),
        }
    }
    let proposal = proposal.trim_end_matches('.');
    broken(
        format!(
            "a capture fills a whole token, so that no two values share a key; write `{proposal}`"
        ),
        from,
        to,
    )
}

fn literal(chars: &[char], from: usize, to: usize) -> Result<Token, Broken> {
    let text: String = chars[from..to].iter().collect();
    if let Some(open) = text.chars().position(|c| c == '<' || c == '{') {
        // Other mistakes first: they are what the reader has to mend anyhow.
        if open > 0 {
            literal(chars, from, from + open)?;
        }
        capture(chars, from + open, to)?;
        return whole_token(chars, from, to);
    }
    for (i, c) in text.chars().enumerate() {
        let place = from + i;
        let alone = text.chars().count() == 1;
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '=') => {}
            '*' => {
                return broken(
                    "`*` is a wildcard, and those are for filters; a key names its place: `<name>`",
                    place,
                    place + 1,
                );
            }
            '>' if alone => {
                return broken(
                    "`>` is a wildcard, and those are for filters; for several tokens write `<path..>`",
                    place,
                    place + 1,
                );
            }
            '>' | '}' => {
                let name: String = text.chars().take(i).collect();
                return broken(
                    format!("`{c}` closes a capture that was never opened; write `<{name}>`"),
                    from,
                    place + 1,
                );
            }
            c if c.is_whitespace() => {
                return broken(
                    format!(
                        "white space ({c:?}) is not in the alphabet of keys; tokens are joined by dots, `user.<id>`"
                    ),
                    place,
                    place + 1,
                );
            }
            c => {
                let dots = if c == ':' {
                    "; tokens are joined by dots, `user.<id>`"
                } else {
                    ""
                };
                return broken(
                    format!(
                        "{c:?} is not in the alphabet of keys: letters, digits and `-` `_` `/` `=` of ASCII{dots}"
                    ),
                    place,
                    place + 1,
                );
            }
        }
    }
    Ok(Token::Literal(text))
}

/// Reads the capture that opens at `from`; what follows it before `to` is the caller's.
fn capture(chars: &[char], from: usize, to: usize) -> Result<Capture, Broken> {
    let open = chars[from];
    let (right, wrong) = if open == '<' { ('>', '}') } else { ('}', '>') };
    let Some(length) = chars[from + 1..to]
        .iter()
        .position(|c| matches!(c, '>' | '}' | '<' | '{'))
    else {
        let inner: String = chars[from + 1..to].iter().collect();
        let name = inner.split(['.', ' ']).next().unwrap_or_default();
        let name = if name.is_empty() { "id" } else { name };
        return broken(
            format!(
                "a capture is opened by `{open}` and never closed; write `{open}{name}{right}`"
            ),
            from,
            to,
        );
    };
    let close = from + 1 + length;
    let inner: String = chars[from + 1..close].iter().collect();
    if chars[close] == wrong {
        return broken(
            format!(
                "a capture opened by `{open}` is closed by `{right}`; write `{open}{inner}{right}`"
            ),
            from,
            close + 1,
        );
    }
    if chars[close] != right {
        return broken(
            format!("a capture is opened twice; close the first with `{right}`"),
            from,
            close + 1,
        );
    }
    let at = (from, close + 1);
    if inner.trim().is_empty() {
        return broken(
            "a capture needs a name: an argument, or a field of the request, `<id>` say",
            at.0,
            at.1,
        );
    }
    let (name, form) = match inner.split_once(':') {
        Some((name, "escaped")) => (name, Form::Escaped),
        Some((name, form)) => {
            return broken(
                format!(
                    "`{form}` is no form of a capture: `<{name}>` is one token, `<{name}:escaped>` is any text made one token, `<{name}..>` is several tokens"
                ),
                at.0,
                at.1,
            );
        }
        None => match inner.strip_suffix("..") {
            Some(name) => (name, Form::Rest),
            None => (inner.as_str(), Form::Token),
        },
    };
    let path: Vec<String> = name.split('.').map(str::to_owned).collect();
    if let Some(bad) = path.iter().find(|part| !is_field(part)) {
        return broken(
            format!(
                "`{bad}` is no name of an argument or a field; a capture is one, or several joined by dots: `<id>`, `<address.city>`"
            ),
            at.0,
            at.1,
        );
    }
    Ok(Capture {
        name: name.to_owned(),
        path,
        form,
        at,
    })
}

/// A field's name, or the number of a tuple's.
fn is_field(part: &str) -> bool {
    use syn::ext::IdentExt as _;
    use syn::parse::Parser as _;
    // `r#type` is written `type` here.
    if part.contains('#') || matches!(part, "_" | "self" | "Self" | "super" | "crate") {
        return false;
    }
    if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
        return part.parse::<u32>().is_ok();
    }
    syn::Ident::parse_any
        .parse_str(part)
        .is_ok_and(|ident| ident == part)
}

/// Several tokens have no end of their own, so they are the end of the key.
fn check_rest(tokens: &[Token]) -> Result<(), Broken> {
    let rest = |token: &Token| match token {
        Token::Capture(capture) if capture.form == Form::Rest => Some(capture.clone()),
        _ => None,
    };
    let mut all = tokens.iter().filter_map(rest);
    if let (Some(_), Some(second)) = (all.next(), all.next()) {
        return broken(
            "only one capture can take several tokens: with two, nobody knows where one ends",
            second.at.0,
            second.at.1,
        );
    }
    let Some((_, front)) = tokens.split_last() else {
        return Ok(());
    };
    if let Some(early) = front.iter().find_map(rest) {
        return broken(
            format!(
                "`<{0}..>` takes all tokens up to the end, so it comes last; for one token write `<{0}>`",
                early.name
            ),
            early.at.0,
            early.at.1,
        );
    }
    Ok(())
}

impl Template {
    pub(crate) fn captures(&self) -> impl Iterator<Item = &Capture> {
        self.tokens.iter().filter_map(|token| match token {
            Token::Capture(capture) => Some(capture),
            Token::Literal(_) => None,
        })
    }

    /// Whether both make the same key of the same values.
    pub(crate) fn tokens_alike(&self, other: &Template) -> bool {
        self.tokens.len() == other.tokens.len()
            && self
                .tokens
                .iter()
                .zip(&other.tokens)
                .all(|pair| match pair {
                    (Token::Literal(a), Token::Literal(b)) => a == b,
                    (Token::Capture(a), Token::Capture(b)) => a.name == b.name && a.form == b.form,
                    _ => false,
                })
    }

    /// Whether some key is of both forms.
    pub(crate) fn overlaps(&self, other: &Template) -> bool {
        let (mut a, mut b) = (self.tokens.iter(), other.tokens.iter());
        let is_rest =
            |token: &Token| matches!(token, Token::Capture(capture) if capture.form == Form::Rest);
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(left), Some(right)) => {
                    if is_rest(left) || is_rest(right) {
                        return true;
                    }
                    if let (Token::Literal(left), Token::Literal(right)) = (left, right)
                        && left != right
                    {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: &str) -> (usize, usize) {
        parse(source).expect_err(source).at
    }

    #[test]
    fn both_signs_mean_the_same() {
        let (angle, brace) = (parse("user.<id>").unwrap(), parse("user.{id}").unwrap());
        assert_eq!(angle.tokens, brace.tokens);
    }

    #[test]
    fn forms_and_paths_are_read() {
        let template = parse("<a.b>.x.<mail:escaped>.<response.path..>").unwrap();
        let captures: Vec<_> = template
            .captures()
            .map(|capture| (capture.name.as_str(), capture.form, capture.path.len()))
            .collect();
        assert_eq!(
            captures,
            [
                ("a.b", Form::Token, 2),
                ("mail", Form::Escaped, 1),
                ("response.path", Form::Rest, 2)
            ]
        );
        assert_eq!(parse("<type>.<pair.0>").unwrap().tokens.len(), 2);
    }

    #[test]
    fn a_mistake_is_found_where_it_is() {
        assert_eq!(place(""), (0, 0));
        assert_eq!(place("."), (0, 1));
        assert_eq!(place(".a"), (0, 1));
        assert_eq!(place("a."), (1, 2));
        assert_eq!(place("a..b"), (1, 3));
        assert_eq!(place("user.<id"), (5, 8));
        assert_eq!(place("user.id>"), (5, 8));
        assert_eq!(place("user.<>"), (5, 7));
        assert_eq!(place("user.<id}"), (5, 9));
        assert_eq!(place("user <id>"), (4, 5));
        assert_eq!(place("us er.<id>"), (2, 3));
        assert_eq!(place("*.<id>"), (0, 1));
        assert_eq!(place("user.>"), (5, 6));
        assert_eq!(place("user-<id>"), (0, 9));
        assert_eq!(place("<path..>.x"), (0, 8));
        assert_eq!(place("<a..>.<b..>"), (6, 11));
        assert_eq!(place("<a:hex>"), (0, 7));
        assert_eq!(place("<self>"), (0, 6));
        assert_eq!(place("_kv.<id>"), (0, 3));
        assert_eq!(place("<<id>>"), (0, 2));
        assert_eq!(place("<9x>"), (0, 4));
        assert_eq!(place("<r#type>"), (0, 8));
    }

    #[test]
    fn a_partial_token_is_answered_with_a_whole_one() {
        let rule = |source| parse(source).unwrap_err().rule;
        assert!(
            rule("user-<id>").contains("`user.<id>`"),
            "{}",
            rule("user-<id>")
        );
        assert!(rule("<a>-<b>").contains("`<a>.<b>`"), "{}", rule("<a>-<b>"));
        assert!(
            rule("x.<id>_v1").contains("`<id>.v1`"),
            "{}",
            rule("x.<id>_v1")
        );
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let alphabet = ['a', '.', '<', '>', '{', '}', ':', ' ', '*', 'ü', '0'];
        for length in 0..=5_u32 {
            for number in 0..alphabet.len().pow(length) {
                let text: String = (0..length)
                    .map(|i| alphabet[number / alphabet.len().pow(i) % alphabet.len()])
                    .collect();
                if let Err(error) = parse(&text) {
                    show(&text, &error);
                }
            }
        }
    }

    #[test]
    fn two_templates_overlap_when_a_key_can_be_of_both() {
        let overlap = |a: &str, b: &str| parse(a).unwrap().overlaps(&parse(b).unwrap());
        assert!(overlap("user.<id>", "user.<name>"));
        assert!(overlap("<kind>.<id>", "user.<name>"));
        assert!(overlap("user.<path..>", "user.<id>.x"));
        assert!(!overlap("user.<id>", "report.<id>"));
        assert!(!overlap("user.<id>", "user.<id>.x"));
        assert!(!overlap("user.<path..>", "user"));
        assert!(!overlap("a.<x>.b", "a.<x>.c"));
    }
}
