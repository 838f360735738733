//! Where a reply may go.
//!
//! The reply subject comes from the caller, and the service publishes to it with its own rights. A caller that may only
//! send requests could otherwise make the service write `$KV.bucket.key` or call `$JS.API.STREAM.DELETE`. The server's
//! permissions do not stop that, so this module does: only inboxes are answered.

use crate::wire::subject::behind_gateway;
use std::fmt;

/// The inbox prefixes that are answered.
#[derive(Debug, Clone)]
pub(crate) struct ReplyRule {
    /// Each ends in a dot.
    prefixes: Vec<Box<str>>,
}

/// Why a reply subject is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forged {
    /// It begins with `$`: the server's own subjects.
    System,
    /// It has a wildcard.
    Wildcard,
    /// It is under none of the prefixes.
    Prefix,
}

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Forged::System => "it is one of the server's own subjects",
            Forged::Wildcard => "it holds a wildcard",
            Forged::Prefix => {
                "it is under no allowed inbox prefix; see `Server::allow_reply_prefix`"
            }
        })
    }
}

impl Default for ReplyRule {
    fn default() -> Self {
        Self {
            // `_R_` is what the server itself makes when a service is imported from another account; only that server
            // can resolve it, so a forged one leads nowhere.
            prefixes: vec!["_INBOX.".into(), "_R_.".into()],
        }
    }
}

impl ReplyRule {
    /// Adds a prefix, with or without its final dot.
    pub(crate) fn allow(&mut self, prefix: &str) {
        let prefix = prefix.trim_end_matches(['.', '>', '*']);
        if !prefix.is_empty() && !prefix.starts_with('$') {
            self.prefixes.push(format!("{prefix}.").into());
        }
    }

    /// Whether `reply` may be answered.
    pub(crate) fn check(&self, reply: &str) -> Result<(), Forged> {
        // The caller's own, which is what the far side of a gateway publishes to, is checked like any other.
        let inner = behind_gateway(reply).ok_or(Forged::Prefix)?;
        if inner.starts_with('$') {
            return Err(Forged::System);
        }
        if !self
            .prefixes
            .iter()
            .any(|prefix| inner.starts_with(&**prefix))
        {
            return Err(Forged::Prefix);
        }
        match has_wildcard(reply.as_bytes()) {
            true => Err(Forged::Wildcard),
            false => Ok(()),
        }
    }
}

/// Whether there is a `*` or a `>` anywhere. Looked for in blocks of a fixed length and to the end of each, which the compiler
/// makes a few instructions of; the last block overlaps the one before. This is done for every request.
fn has_wildcard(subject: &[u8]) -> bool {
    let either = |found, byte: &u8| found | (*byte == b'*') | (*byte == b'>');
    let in_block = |block: &[u8; 16]| block.iter().fold(false, either);
    let (blocks, rest) = subject.as_chunks();
    match subject.last_chunk() {
        Some(last) => blocks.iter().any(in_block) || in_block(last),
        None => rest.iter().fold(false, either),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inboxes_and_what_the_server_makes_of_them_are_answered() {
        let mut rule = ReplyRule::default();
        for reply in [
            "_INBOX.abc",
            "_INBOX.abc.1",
            "_R_.Xy12.Ab",
            "_GR_.aCBz.qwer._INBOX.abc.1",
        ] {
            assert_eq!(rule.check(reply), Ok(()), "{reply}");
        }
        assert_eq!(rule.check("_tenant.abc"), Err(Forged::Prefix));
        rule.allow("_tenant");
        assert_eq!(rule.check("_tenant.abc"), Ok(()));
        assert_eq!(rule.check("_tenants.abc"), Err(Forged::Prefix));
    }

    #[test]
    fn a_wildcard_is_found_wherever_it_stands() {
        let rule = ReplyRule::default();
        for length in 0..70 {
            let inbox = format!("_INBOX.{}", "a".repeat(length));
            assert_eq!(rule.check(&inbox), Ok(()), "{inbox}");
            for (at, wildcard) in (7..inbox.len()).flat_map(|at| [(at, "*"), (at, ">")]) {
                let mut forged = inbox.clone();
                forged.replace_range(at..=at, wildcard);
                assert_eq!(rule.check(&forged), Err(Forged::Wildcard), "{forged}");
            }
        }
    }

    #[test]
    fn subjects_that_would_do_harm_are_not() {
        let mut rule = ReplyRule::default();
        rule.allow("$KV");
        for (reply, why) in [
            ("$KV.b.victim", Forged::System),
            ("$JS.API.STREAM.DELETE.KV_b", Forged::System),
            ("$SYS.REQ.SERVER.PING", Forged::System),
            ("_GR_.aCBz.qwer.$KV.b.victim", Forged::System),
            ("_GR_.aCBz.qwer.orders.new", Forged::Prefix),
            ("_GR_.aCBz", Forged::Prefix),
            ("$GR.x._INBOX.abc", Forged::System),
            ("orders.new", Forged::Prefix),
            ("_INBOX.>", Forged::Wildcard),
            ("_INBOX.*.a", Forged::Wildcard),
            ("", Forged::Prefix),
        ] {
            assert_eq!(rule.check(reply), Err(why), "{reply}");
        }
    }
}
