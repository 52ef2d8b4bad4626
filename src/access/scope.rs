//! Which sub-processes somebody may touch.

use std::fmt;

use glob::Pattern;

/// What stands before a pattern that is about groups.
const GROUP: &str = "group:";
/// The longest pattern in bytes.
const LONGEST: usize = 128;

/// A set of sub-processes, by patterns of their names or of their groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// `None`: every sub-process, and the daemon itself.
    patterns: Option<Vec<Allowed>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Allowed {
    Name(Pattern),
    Group(Pattern),
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is no pattern of names: {why}")]
pub struct InvalidPattern {
    shown: String,
    why: String,
}

impl Scope {
    /// Everything, the daemon itself too.
    pub const ALL: Self = Self { patterns: None };

    /// What these patterns match: of names, such as `device-*`, or of groups, such as `group:core`. In a pattern `*` stands for any text, `?` for one
    /// character, `[ab]` for one of these. Without a pattern it is nothing.
    ///
    /// # Errors
    /// One of them is no pattern.
    pub fn of<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, InvalidPattern> {
        let parsed = patterns.into_iter().map(|text| {
            let no = |why: String| InvalidPattern { shown: text.chars().take(LONGEST).collect(), why };
            let (about_groups, pattern) = text.strip_prefix(GROUP).map_or((false, text), |rest| (true, rest));
            if pattern.is_empty() || text.len() > LONGEST {
                return Err(no(format!("it is 1 to {LONGEST} bytes")));
            }
            let pattern = Pattern::new(pattern).map_err(|error| no(error.msg.to_owned()))?;
            Ok(if about_groups { Allowed::Group(pattern) } else { Allowed::Name(pattern) })
        });
        Ok(Self { patterns: Some(parsed.collect::<Result<_, _>>()?) })
    }

    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        self.patterns.is_none()
    }

    /// Whether a sub-process of this name and group is in it.
    pub fn covers(&self, name: &str, group: Option<&str>) -> bool {
        let Some(patterns) = &self.patterns else { return true };
        patterns.iter().any(|allowed| match allowed {
            Allowed::Name(pattern) => pattern.matches(name),
            Allowed::Group(pattern) => group.is_some_and(|group| pattern.matches(group)),
        })
    }
}

/// The patterns, for people.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(patterns) = &self.patterns else { return f.write_str("everything") };
        for (at, allowed) in patterns.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            match allowed {
                Allowed::Name(pattern) => write!(f, "{pattern}")?,
                Allowed::Group(pattern) => write!(f, "{GROUP}{pattern}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_groups_are_covered_by_their_own_patterns() {
        let scope = Scope::of(["device-*", "group:core"]).unwrap();
        assert!(scope.covers("device-1", None) && scope.covers("x", Some("core")) && scope.covers("device-1", Some("other")));
        assert!(!scope.covers("x", None) && !scope.covers("core", None) && !scope.covers("x", Some("device-1")));
        assert!(!scope.covers("my-device-1", None), "a pattern is about the whole name");
        assert!(!scope.covers("group:core", None));
        assert_eq!(scope.to_string(), "device-*, group:core");
        assert!(Scope::ALL.covers("anything", None) && Scope::ALL.is_all() && !scope.is_all());
        let nothing = Scope::of([]).unwrap();
        assert!(!nothing.covers("a", Some("b")) && !nothing.is_all());
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for bad in ["", "group:", "[", "a**b", &"x".repeat(LONGEST + 1)] {
            assert!(Scope::of([bad]).is_err(), "{bad:?}");
        }
    }
}
