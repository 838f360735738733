//! The command line: words, and `--name value` pairs. Left out: anything that a parser of the ecosystem does better, since
//! the users are us.

use crate::Result;
use std::collections::BTreeMap;
use std::str::FromStr;

/// What was typed.
#[derive(Debug)]
pub(crate) struct Args {
    words: Vec<String>,
    options: BTreeMap<String, String>,
}

impl Args {
    pub(crate) fn parse(typed: impl IntoIterator<Item = String>) -> Result<Self> {
        let (mut words, mut options) = (Vec::new(), BTreeMap::new());
        let mut typed = typed.into_iter();
        while let Some(word) = typed.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = typed
                        .next()
                        .ok_or_else(|| format!("--{name} wants a value"))?;
                    options.insert(name.to_owned(), value);
                }
                None => words.push(word),
            }
        }
        Ok(Self { words, options })
    }

    /// The first word; `list` when there is none.
    pub(crate) fn command(&self) -> &str {
        self.words.first().map_or("list", String::as_str)
    }

    pub(crate) fn word(&self, at: usize) -> Result<&str> {
        let word = self.words.get(at).map(String::as_str);
        word.ok_or_else(|| format!("word {at} of the command is missing").into())
    }

    pub(crate) fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.options.get(name) else {
            return Ok(None);
        };
        let value = text.parse();
        value
            .map(Some)
            .map_err(|_| format!("--{name} {text}: not understood").into())
    }

    pub(crate) fn required<T: FromStr>(&self, name: &str) -> Result<T> {
        let value = self.optional(name)?;
        value.ok_or_else(|| format!("--{name} is missing").into())
    }
}

#[cfg(test)]
mod tests {
    use super::Args;

    fn typed(line: &str) -> Args {
        Args::parse(line.split_whitespace().map(str::to_owned)).expect("well formed")
    }

    #[test]
    fn words_and_options_come_in_any_order() {
        let args = typed("echo --rounds 3 more --seconds 0.5");
        assert_eq!(args.command(), "echo");
        assert_eq!(args.word(1).expect("a second word"), "more");
        assert_eq!(args.required::<usize>("rounds").expect("given"), 3);
        assert_eq!(args.optional::<f64>("seconds").expect("given"), Some(0.5));
        assert_eq!(args.optional::<f64>("absent").expect("optional"), None);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(Args::parse(["--rounds".to_owned()]).is_err());
        assert!(
            typed("echo --rounds x")
                .required::<usize>("rounds")
                .is_err()
        );
        assert!(typed("echo").required::<usize>("rounds").is_err());
    }
}
