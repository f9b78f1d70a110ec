//! Resource patterns: text with `*`, `?` and variables.

use std::{collections::BTreeSet, sync::Arc};

/// One element of a pattern as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Character(char),
    /// `*`: any text, also none, also across levels.
    Any,
    /// `?`: one character.
    One,
    /// `${name}`.
    Variable(Arc<str>),
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    Unclosed,
    UnknownVariable(String),
}

/// A pattern ready to be matched.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    parts: Box<[Part]>,
}

/// Patterns of which one has to match. Patterns over a client's own topics begin alike, with a literal and a
/// variable; that beginning is compared once for all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    bundles: Vec<Bundle>,
}

#[derive(Clone, Debug)]
struct Bundle {
    /// Literals and variables only, so it matches in one way or not at all.
    head: Box<[Part]>,
    tails: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Any,
    One,
    /// Rank among the variables of the policy.
    Variable(u16),
}

/// Gives a variable's value, or `None` when there is no usable one: then the pattern matches nothing.
pub(super) trait Values {
    fn value(&self, variable: u16) -> Option<&str>;
}

/// For patterns without variables.
pub(super) struct NoValues;

impl Values for NoValues {
    fn value(&self, _variable: u16) -> Option<&str> {
        None
    }
}

/// Splits a pattern into tokens. `${*}`, `${?}` and `${$}` are the characters themselves.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TokenError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if let Some(inner) = rest.strip_prefix("${") {
            let (name, behind) = inner.split_once('}').ok_or(TokenError::Unclosed)?;
            tokens.push(variable(name)?);
            rest = behind;
            continue;
        }
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
        match character {
            // two stars match what one does
            '*' if tokens.last() == Some(&Token::Any) => {},
            '*' => tokens.push(Token::Any),
            '?' => tokens.push(Token::One),
            _ => tokens.push(Token::Character(character)),
        }
    }
    Ok(tokens)
}

fn variable(name: &str) -> Result<Token, TokenError> {
    match name {
        "*" => return Ok(Token::Character('*')),
        "?" => return Ok(Token::Character('?')),
        "$" => return Ok(Token::Character('$')),
        _ => {},
    }
    let known = name == "iot:ClientId"
        || name
            .strip_prefix("iot:Connection.Thing.")
            .is_some_and(|rest| !rest.is_empty())
        || name
            .strip_prefix("iot:Certificate.")
            .is_some_and(|rest| !rest.is_empty());
    if !known {
        return Err(TokenError::UnknownVariable(name.to_owned()));
    }
    Ok(Token::Variable(Arc::from(name)))
}

/// What is left of a pattern once it has matched `prefix`: the patterns such that one of them matches a name
/// exactly when the whole pattern matches `prefix` followed by the name. A variable never matches into the prefix.
pub(super) fn behind_prefix<'t>(tokens: &'t [Token], prefix: &str) -> Vec<&'t [Token]> {
    let mut places = BTreeSet::from([0]);
    for character in prefix.chars() {
        let mut next = BTreeSet::new();
        for mut place in places {
            if tokens.get(place) == Some(&Token::Any) {
                next.insert(place);
                // a star may also have ended: stars never follow one another
                place += 1;
            }
            let passes = match tokens.get(place) {
                Some(Token::Character(wanted)) => *wanted == character,
                Some(Token::One) => true,
                Some(Token::Any | Token::Variable(_)) | None => false,
            };
            if passes {
                next.insert(place + 1);
            }
        }
        places = next;
    }
    places
        .into_iter()
        .filter_map(|place| tokens.get(place..))
        .collect()
}

impl Pattern {
    /// `rank` gives each variable its place among the policy's variables.
    pub(super) fn new(tokens: &[Token], mut rank: impl FnMut(&Arc<str>) -> u16) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        for token in tokens {
            let part = match token {
                Token::Character(character) => {
                    literal.push(*character);
                    continue;
                },
                Token::Any => Part::Any,
                Token::One => Part::One,
                Token::Variable(name) => Part::Variable(rank(name)),
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into_boxed_str()));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into_boxed_str()));
        }
        Self {
            parts: parts.into_boxed_slice(),
        }
    }

    /// Whether the whole text matches. No allocation.
    ///
    /// Each star first takes as little as it can; only the last star passed is ever widened, because what an
    /// earlier one could give back the later one can take. Behind the last star the end of the text decides at
    /// once, so that a long text and a hostile pattern cost O(text × pattern) at the very worst.
    pub(super) fn matches(&self, text: &str, values: &impl Values) -> bool {
        let mut parts = &*self.parts;
        let mut rest = text;
        let mut star: Option<(&[Part], &str)> = None;
        loop {
            let step = match parts.split_first() {
                None if rest.is_empty() => return true,
                None => None,
                Some((Part::Any, [])) => return true,
                Some((Part::Any, behind)) => {
                    star = Some((behind, rest));
                    parts = behind;
                    continue;
                },
                Some((part, behind)) => part.strip(rest, values).map(|rest| (behind, rest)),
            };
            if let Some(next) = step {
                (parts, rest) = next;
                continue;
            }
            let Some((behind, from)) = star else {
                return false;
            };
            let Some(wider) = widen(behind, from, values) else {
                return false;
            };
            star = Some((behind, wider));
            (parts, rest) = (behind, wider);
        }
    }
}

impl Patterns {
    pub(super) fn push(&mut self, pattern: Pattern) {
        let parts = pattern.parts.into_vec();
        let shares = matches!(parts.as_slice(), [Part::Literal(_), Part::Variable(_), ..]);
        let mut head = parts;
        let parts = head
            .split_off(if shares { 2 } else { 0 })
            .into_boxed_slice();
        let tail = Pattern { parts };
        match self.bundles.iter_mut().find(|bundle| *bundle.head == *head) {
            Some(bundle) => bundle.tails.push(tail),
            None => self.bundles.push(Bundle {
                head: head.into(),
                tails: vec![tail],
            }),
        }
    }

    pub(super) fn match_any(&self, text: &str, values: &impl Values) -> bool {
        self.bundles.iter().any(|bundle| {
            let rest = bundle
                .head
                .iter()
                .try_fold(text, |rest, part| part.strip(rest, values));
            rest.is_some_and(|rest| bundle.tails.iter().any(|tail| tail.matches(rest, values)))
        })
    }
}

impl Part {
    /// What is behind this part at the front of `text`.
    #[inline]
    fn strip<'t>(&self, text: &'t str, values: &impl Values) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => text.strip_prefix(&**literal),
            Self::Variable(variable) => text.strip_prefix(values.value(*variable)?),
            Self::One => skip_one(text),
            Self::Any => Some(text),
        }
    }

    /// Bytes this part takes, if that is certain.
    fn len(&self, values: &impl Values) -> Option<usize> {
        match self {
            Self::Literal(literal) => Some(literal.len()),
            Self::Variable(variable) => values.value(*variable).map(str::len),
            Self::One | Self::Any => None,
        }
    }
}

/// The next place further on at which what follows a star could begin.
fn widen<'t>(behind: &[Part], from: &'t str, values: &impl Values) -> Option<&'t str> {
    let next = skip_one(from)?;
    let certain = behind
        .iter()
        .try_fold(0, |sum: usize, part| Some(sum + part.len(values)?));
    if let Some(len) = certain {
        // nothing but literal text up to the end: there is one place for it
        return next.get(next.len().checked_sub(len)?..);
    }
    match behind.first() {
        Some(Part::Literal(literal)) => next.find(&**literal).and_then(|at| next.get(at..)),
        _ => Some(next),
    }
}

fn skip_one(text: &str) -> Option<&str> {
    let mut characters = text.chars();
    characters.next()?;
    Some(characters.as_str())
}

#[cfg(test)]
mod tests;
