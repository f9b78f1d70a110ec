//! Quantities as people write them: `30s`, `1500ms`, `8KiB`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A span of time: `250ms`, `30s`, `10m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A size: plain bytes, `8KiB`, `64MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

const SPANS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZES: [(&str, u64); 5] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("", 1),
    ("B", 1),
];

/// Splits a text into its number and the factor of its unit, and multiplies.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

impl Span {
    pub(super) fn parse(text: &str) -> Option<Self> {
        quantity(text, &SPANS).map(|millis| Self(Duration::from_millis(millis)))
    }
}

impl Size {
    fn parse(text: &str) -> Option<Self> {
        quantity(text, &SIZES).map(Self)
    }
}

/// The largest unit that divides the value.
fn show(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let best = units
        .iter()
        .filter(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))
        .max_by_key(|(_, factor)| *factor);
    let (unit, factor) = best.or_else(|| units.first()).copied().unwrap_or(("", 1));
    write!(f, "{}{unit}", value / factor)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(
            f,
            u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX),
            &SPANS,
        )
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &SIZES)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is no span of time; write 250ms, 30s, 10m, 1h or 7d"
            ))
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(bytes) => Ok(Self(bytes)),
            NumberOrText::Text(text) => Self::parse(&text).ok_or_else(|| {
                D::Error::custom(format!(
                    "`{text}` is no size; write 4096, 8KiB, 64MiB or 1GiB"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_written_and_shown_in_their_largest_unit() {
        for (text, millis, shown) in [
            ("250ms", 250, "250ms"),
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("0s", 0, "0ms"),
        ] {
            let span = Span::parse(text).unwrap();
            assert_eq!(span.0.as_millis(), millis);
            assert_eq!(span.to_string(), shown);
        }
        assert_eq!(Size::parse("8KiB").unwrap().0, 8192);
        assert_eq!(Size(8192).to_string(), "8KiB");
        assert_eq!(Size(1000).to_string(), "1000B");
        for bad in [
            "",
            "s",
            "3 weeks",
            "-1s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(Span::parse(bad).is_none(), "{bad}");
        }
    }
}
