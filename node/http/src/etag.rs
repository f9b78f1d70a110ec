//! Versions as entity tags, and the conditions clients put on them (RFC 9110, 8.8.3 and 13.1).

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::problem::Problem;

/// The strong entity tag of a version.
pub(crate) fn of(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes are header text")
}

/// What a header asks of the current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `*`: there is a current version.
    Any,
    /// One of these versions is the current one. Tags that are none of ours match nothing.
    OneOf(Vec<u64>),
}

impl Condition {
    /// Whether the current version (`None`: there is none) is among those named.
    pub(crate) fn holds(&self, current: Option<u64>) -> bool {
        match self {
            Self::Any => current.is_some(),
            Self::OneOf(versions) => current.is_some_and(|version| versions.contains(&version)),
        }
    }
}

/// The conditions of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preconditions {
    /// `If-Match`: the write happens only when this holds.
    pub(crate) if_match: Option<Condition>,
    /// `If-None-Match`: the write happens only when this does not hold.
    pub(crate) if_none_match: Option<Condition>,
}

impl Preconditions {
    /// Reads both headers.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            if_match: condition(headers, &header::IF_MATCH, Comparison::Strong)?,
            if_none_match: condition(headers, &header::IF_NONE_MATCH, Comparison::Weak)?,
        })
    }

    /// Whether a write may go on from this version (`None`: there is no such resource).
    pub(crate) fn check(&self, current: Option<u64>) -> Result<(), Problem> {
        if self
            .if_match
            .as_ref()
            .is_some_and(|condition| !condition.holds(current))
        {
            return Err(Problem::precondition_failed("If-Match", current));
        }
        if self
            .if_none_match
            .as_ref()
            .is_some_and(|condition| condition.holds(current))
        {
            return Err(Problem::precondition_failed("If-None-Match", current));
        }
        Ok(())
    }

    /// Whether nothing was asked.
    pub(crate) fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }
}

/// `If-Match` compares strongly (a weak tag never matches), `If-None-Match` weakly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn condition(
    headers: &HeaderMap,
    name: &HeaderName,
    comparison: Comparison,
) -> Result<Option<Condition>, Problem> {
    let mut versions = None;
    for value in headers.get_all(name) {
        let text = value
            .to_str()
            .map_err(|_opaque| Problem::header(name.as_str()))?;
        if text.trim() == "*" {
            return Ok(Some(Condition::Any));
        }
        let versions = versions.get_or_insert_with(Vec::new);
        for tag in tags_of(name, text)? {
            versions.extend(version_of(name, tag, comparison)?);
        }
    }
    Ok(versions.map(Condition::OneOf))
}

/// The tags of one header line; at least one.
fn tags_of<'a>(name: &HeaderName, line: &'a str) -> Result<Vec<&'a str>, Problem> {
    let tags: Vec<_> = line
        .split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .collect();
    if tags.is_empty() {
        Err(Problem::header(name.as_str()))
    } else {
        Ok(tags)
    }
}

fn version_of(
    name: &HeaderName,
    tag: &str,
    comparison: Comparison,
) -> Result<Option<u64>, Problem> {
    let (weak, opaque) = match tag.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, tag),
    };
    let inner = opaque
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|inner| !inner.contains('"'))
        .ok_or_else(|| Problem::header(name.as_str()))?;
    if weak && comparison == Comparison::Strong {
        return Ok(None);
    }
    Ok(inner.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: HeaderName, value: &'static str) -> Result<Preconditions, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        Preconditions::read(&headers)
    }

    #[test]
    fn if_match_holds_for_a_named_version_only() {
        let conditions = read(header::IF_MATCH, "\"7\", \"9\"").expect("valid");
        assert!(conditions.check(Some(9)).is_ok());
        assert!(conditions.check(Some(8)).is_err());
        assert!(conditions.check(None).is_err());
    }

    #[test]
    fn if_match_star_wants_something_to_be_there() {
        let conditions = read(header::IF_MATCH, "*").expect("valid");
        assert!(conditions.check(Some(1)).is_ok());
        assert!(conditions.check(None).is_err());
    }

    #[test]
    fn if_none_match_star_wants_nothing_to_be_there() {
        let conditions = read(header::IF_NONE_MATCH, "*").expect("valid");
        assert!(conditions.check(None).is_ok());
        assert!(conditions.check(Some(1)).is_err());
    }

    #[test]
    fn weak_tags_match_weakly_only() {
        let write = read(header::IF_MATCH, "W/\"7\"").expect("valid");
        assert!(write.check(Some(7)).is_err());
        let read = read(header::IF_NONE_MATCH, "W/\"7\"").expect("valid");
        assert!(read.check(Some(7)).is_err());
    }

    #[test]
    fn a_tag_without_quotes_is_a_bad_header() {
        assert!(read(header::IF_MATCH, "7").is_err());
        assert!(read(header::IF_MATCH, "\"a\"b\"").is_err());
        assert!(read(header::IF_MATCH, "").is_err());
    }

    #[test]
    fn a_foreign_tag_matches_nothing() {
        let conditions = read(header::IF_MATCH, "\"abc\"").expect("valid");
        assert!(conditions.check(Some(1)).is_err());
    }
}
