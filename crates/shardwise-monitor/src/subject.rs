//! Subjects of the bus: where a shard publishes, and which subjects a filter takes.

use shardwise_types::{InvalidInput, ShardId};

/// Filter that takes what every shard publishes.
pub const ALL_SHARDS: &str = "lucent.metrics.shard.*";

const SHARD_PREFIX: &str = "lucent.metrics.shard.";
/// Longest shard id in bytes; escaped, it still is a subject that every broker takes.
const LONGEST_ID: usize = 128;

/// The subject on which a shard publishes, `lucent.metrics.shard.<id>`.
///
/// Bytes that a token may not hold (dots, wildcards, blanks, all but ASCII letters, digits, `-` and `_`) are written as
/// `%2E`.
///
/// # Errors
/// An id that is empty or longer than 128 bytes is refused.
pub fn shard_subject(shard: &ShardId) -> Result<String, InvalidInput> {
    Ok(format!("{SHARD_PREFIX}{}", shard_token(shard)?))
}

/// A shard's id as one token of a subject, or as part of a message id.
pub(crate) fn shard_token(shard: &ShardId) -> Result<String, InvalidInput> {
    let id = shard.as_str();
    if id.is_empty() || id.len() > LONGEST_ID {
        let problem = format!("an id of {} bytes; it must have 1 to {LONGEST_ID}", id.len());
        return Err(InvalidInput::new("shard", problem));
    }
    Ok(id.bytes().fold(String::with_capacity(id.len()), |mut token, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => token.push(char::from(byte)),
            _ => token.push_str(&format!("%{byte:02X}")),
        }
        token
    }))
}

/// Whether a filter takes a subject: `*` is any one token, `>` at the end is any one or more.
pub fn subject_matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut wanted = filter.split('.').peekable();
    while let Some(want) = wanted.next() {
        match (want, tokens.next()) {
            (">", Some(_)) => return wanted.peek().is_none(),
            ("*", Some(_)) => {}
            (want, Some(token)) if want == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_one_legal_token() {
        assert_eq!(shard_subject(&"shard-a_1".into()).unwrap(), "lucent.metrics.shard.shard-a_1");
        assert_eq!(shard_subject(&"a.b *>é\n".into()).unwrap(), "lucent.metrics.shard.a%2Eb%20%2A%3E%C3%A9%0A");
        assert_ne!(shard_subject(&"a%2E".into()), shard_subject(&"a.".into()), "no two ids share a subject");
        for id in [String::new(), "x".repeat(129)] {
            assert!(shard_subject(&ShardId::new(&id)).unwrap_err().to_string().contains("1 to 128"));
        }
        assert!(subject_matches(ALL_SHARDS, &shard_subject(&"a.b".into()).unwrap()));
    }

    #[test]
    fn wildcards_are_those_of_the_broker() {
        for (filter, subject, takes) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.b", "a", false),
            ("a", "a.b", false),
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.c", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
        ] {
            assert_eq!(subject_matches(filter, subject), takes, "{filter} {subject}");
        }
    }
}
