//! What may stand in a literal: durations, sizes, semantic versions, names, subjects. Pure functions from text to value
//! or to the rule that is broken; where the literal stood, the caller knows.

use std::time::Duration;

const DURATION_FORM: &str =
    "write a number and a unit: `\"500ms\"`, `\"5s\"`, `\"10m\"`, `\"1h30m\"`, `\"7d\"`, `\"2w\"`";

/// `"1h30m"`: numbers with the units ms, s, m, h, d, w.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(format!("a duration cannot be negative; {DURATION_FORM}"));
    }
    let mut millis: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("a duration must not be empty; {DURATION_FORM}"));
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.len() - after.trim_start_matches(char::is_alphabetic).len();
        let (unit, after) = after.split_at(letters);
        if number.is_empty() {
            return Err(format!("`{text}` is no duration; {DURATION_FORM}"));
        }
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "" => {
                return Err(format!(
                    "`{number}` has no unit; write `\"{number}s\"` for seconds"
                ));
            }
            _ => {
                return Err(format!(
                    "`{unit}` is no unit of time: they are `ms`, `s`, `m`, `h`, `d` and `w`; {DURATION_FORM}"
                ));
            }
        };
        let part = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(scale));
        // The server keeps durations as nanoseconds in 63 bits.
        millis = part
            .and_then(|part| millis.checked_add(part))
            .filter(|millis| *millis <= 9_223_372_036_854)
            .ok_or_else(|| format!("`{text}` is longer than the server can count (292 years)"))?;
        rest = after.trim_start();
    }
    if millis == 0 {
        return Err(format!(
            "a duration of nothing has no meaning here; {DURATION_FORM}"
        ));
    }
    Ok(Duration::from_millis(millis))
}

/// `"64MiB"`: bytes, with the units B, KiB, MiB, GiB, TiB and KB, MB, GB, TB.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => 0,
    };
    let form = "write a number of bytes, or one with a unit: `\"64KiB\"`, `\"64MiB\"`, `\"1GiB\"`";
    if number.is_empty() || scale == 0 {
        return Err(format!("`{text}` is no size; {form}"));
    }
    match number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
    {
        Some(0) => Err(format!(
            "a bound of nothing would refuse every value; {form}"
        )),
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(format!("`{text}` is more than the server can count")),
    }
}

/// Semantic version 2.0.0, by its own grammar.
pub(crate) fn semver(text: &str) -> Result<(), String> {
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let identifier = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let numbers: Vec<&str> = core.split('.').collect();
    let fine = numbers.len() == 3
        && numbers.iter().all(|part| number(part))
        && build.is_none_or(|build| build.split('.').all(identifier))
        && pre.is_none_or(|pre| {
            pre.split('.').all(|part| {
                identifier(part) && (number(part) || !part.bytes().all(|b| b.is_ascii_digit()))
            })
        });
    if fine {
        return Ok(());
    }
    let mut message = format!("`{text}` is no semantic version: that is `major.minor.patch`");
    // What was probably meant: without a leading `v`, and with the missing zeros.
    let bare = core.trim_start_matches(['v', 'V']);
    let mut parts: Vec<String> = bare.split('.').map(str::to_owned).collect();
    if parts.len() <= 3 && parts.iter().all(|part| number(part)) {
        parts.resize(3, "0".to_owned());
        message.push_str(&format!("; write `\"{}\"`", parts.join(".")));
    } else {
        message.push_str(", three numbers, `\"1.0.0\"` say");
    }
    Err(message)
}

/// A name of a service, an endpoint, a bucket: `[A-Za-z0-9_-]+`. `what` is the subject of the sentence.
pub(crate) fn name(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!(
            "{what} must not be empty; it is made of letters, digits, `_` and `-`"
        ));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let Some(bad) = text.chars().find(|c| !fits(*c)) else {
        return Ok(());
    };
    let proposal: String = text
        .chars()
        .map(|c| if fits(c) { c } else { '_' })
        .collect();
    Err(format!(
        "{what} is made of letters, digits, `_` and `-` of ASCII, and {bad:?} is none of them; write `\"{proposal}\"`"
    ))
}

/// A subject to publish to, or a part of one: tokens joined by dots, no wildcards.
pub(crate) fn subject(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("a subject must not be empty; leave the option out for the default".into());
    }
    if let Some(wild) = text.split('.').find(|token| *token == "*" || *token == ">") {
        return Err(format!(
            "`{wild}` is a wildcard, and an endpoint has one subject; name the token, `\"a.b\"` say"
        ));
    }
    if let Some(bad) = text
        .chars()
        .find(|c| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
    {
        let proposal: String = text
            .chars()
            .map(|c| if c == bad { '_' } else { c })
            .collect();
        return Err(format!(
            "a subject cannot hold {bad:?}; write `{proposal:?}`"
        ));
    }
    if text.split('.').any(str::is_empty) {
        return Err(format!(
            "`{text}` has an empty token: a subject is tokens joined by single dots, `\"orders.eu\"` say"
        ));
    }
    if text.starts_with('$') {
        return Err("subjects that begin with `$` belong to the server (`$SRV`, `$JS`, `$KV`); choose another".into());
    }
    if text == "_INBOX" || text.starts_with("_INBOX.") {
        return Err("`_INBOX` is where replies go; choose another subject".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_units() {
        for (text, millis) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("5 s", 5_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "5",
            "-5s",
            "0s",
            "1 fortnight",
            "s",
            "5 s x",
            "99999999999w",
            "1.5h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(duration("5").is_err_and(|message| message.contains("\"5s\"")));
    }

    #[test]
    fn sizes_know_both_kinds_of_units() {
        assert_eq!(size("1048576"), Ok(1 << 20));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1 GB"), Ok(1_000_000_000));
        for text in ["", "MiB", "64mib", "0", "-1", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions_follow_the_official_grammar() {
        for text in [
            "0.0.0",
            "1.2.3",
            "1.0.0-alpha.1",
            "1.0.0-0A.is.legal",
            "1.0.0+x-y.001",
            "1.0.0--",
        ] {
            assert_eq!(semver(text), Ok(()), "{text}");
        }
        for text in [
            "", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0-01", "1.0.0-", "1.0.0+", "1.0.0-ü",
            "1.0.0.0",
        ] {
            assert!(semver(text).is_err(), "{text}");
        }
        assert!(semver("1.0").is_err_and(|message| message.contains("`\"1.0.0\"`")));
        assert!(semver("v2").is_err_and(|message| message.contains("`\"2.0.0\"`")));
    }

    #[test]
    fn names_and_subjects_are_what_the_server_takes() {
        assert!(name("a name", "user-profiles_2").is_ok());
        assert!(name("a name", "user.profiles").is_err_and(|m| m.contains("user_profiles")));
        assert!(name("a name", "").is_err());
        assert!(subject("profiles.eu").is_ok());
        for text in [
            "", "a b", "a.>", "a.*", "$SRV.x", "a..b", ".a", "a.", "_INBOX.x", "a>b",
        ] {
            assert!(subject(text).is_err(), "{text}");
        }
    }
}
