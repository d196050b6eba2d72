//! Problems of the settings, as data: all of them are collected and shown at once.

use std::fmt;

/// Whether a problem stops the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The gateway refuses to start.
    Error,
    /// The gateway starts; the operator should know.
    Warning,
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the start.
    pub severity: Severity,
    /// The setting: a variable's name, or a key such as `integration[2].rate`.
    pub key: String,
    /// Where it was read: `environment`, or a file with its line.
    pub origin: String,
    /// What is wrong, in one sentence. Never holds a secret's value.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// All problems found while the settings were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem that stops the start.
    pub fn error(&mut self, key: &str, origin: &str, message: impl Into<String>, hint: Option<String>) {
        self.push(Severity::Error, key, origin, message.into(), hint);
    }

    /// Adds a problem that the operator should know of.
    pub fn warning(&mut self, key: &str, origin: &str, message: impl Into<String>, hint: Option<String>) {
        self.push(Severity::Warning, key, origin, message.into(), hint);
    }

    fn push(&mut self, severity: Severity, key: &str, origin: &str, message: String, hint: Option<String>) {
        self.0.push(Problem { severity, key: key.to_owned(), origin: origin.to_owned(), message, hint });
    }

    /// The problems in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Whether any of them stops the start.
    pub fn stop_the_start(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many there are of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|problem| problem.severity == severity).count()
    }

    /// A JSON array of the problems, for `check --json`.
    pub fn to_json(&self) -> serde_json::Value {
        self.0
            .iter()
            .map(|problem| {
                serde_json::json!({
                    "severity": problem.severity.as_str(),
                    "key": problem.key,
                    "origin": problem.origin,
                    "message": problem.message,
                    "hint": problem.hint,
                })
            })
            .collect()
    }
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})\n  {}", self.severity.as_str(), self.key, self.origin, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        Ok(())
    }
}
