//! Values as a file has them, and what is said of those that can't be used.

use std::ops::Range;

use toml::de::DeValue;

use super::{File, Value};
use crate::config::parse;

impl File<'_> {
    pub(super) fn accepted<T>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        result: Result<T, String>,
    ) -> Option<T> {
        result.map_err(|message| self.error(path, value.span(), message)).ok()
    }

    pub(super) fn pairs(&mut self, path: &str, value: &Value<'_>, example: &str) -> Vec<(String, String)> {
        let DeValue::Table(table) = value.get_ref() else {
            self.error(path, value.span(), format!("write {example}"));
            return Vec::new();
        };
        let pairs = table.iter().map(|(key, value)| (key.get_ref().to_string(), self.string(path, value)));
        pairs.filter_map(|(key, value)| Some((key, value?))).collect()
    }

    pub(super) fn choice<T>(&mut self, path: &str, value: &Value<'_>, choices: [(&str, T); 2]) -> Option<T> {
        let text = self.string(path, value)?;
        let [(first, _), (second, _)] = &choices;
        let message = format!("`{text}` is neither {first} nor {second}");
        let chosen = choices.into_iter().find(|(name, _)| *name == text).map(|(_, value)| value);
        if chosen.is_none() {
            self.error(path, value.span(), message);
        }
        chosen
    }

    pub(super) fn parsed<T>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        parse: impl Fn(&str) -> Result<T, parse::Unreadable>,
    ) -> Option<T> {
        let text = self.string(path, value)?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(unreadable) => {
                let origin = self.places.origin(&value.span());
                self.problems.error(path, &origin, unreadable.message, unreadable.hint);
                None
            }
        }
    }

    pub(super) fn string(&mut self, path: &str, value: &Value<'_>) -> Option<String> {
        let DeValue::String(text) = value.get_ref() else {
            self.error(path, value.span(), "it isn't a string".to_owned());
            return None;
        };
        Some(text.to_string())
    }

    pub(super) fn boolean(&mut self, path: &str, value: &Value<'_>) -> Option<bool> {
        let DeValue::Boolean(value) = value.get_ref() else {
            self.error(path, value.span(), "it is neither true nor false".to_owned());
            return None;
        };
        Some(*value)
    }

    pub(super) fn strings(&mut self, path: &str, value: &Value<'_>) -> Vec<(String, Range<usize>)> {
        let DeValue::Array(items) = value.get_ref() else {
            self.error(path, value.span(), "it isn't an array of strings".to_owned());
            return Vec::new();
        };
        let items = items.iter().map(|item| (self.string(path, item), item.span()));
        items.filter_map(|(item, span)| Some((item?, span))).collect()
    }

    pub(super) fn unknown(&mut self, key: &str, path: &str, span: Range<usize>, known: &[&str]) {
        let path = if path.is_empty() { key } else { path };
        let nearest = known.iter().min_by_key(|name| strsim::damerau_levenshtein(key, name));
        let hint = nearest.map(|name| format!("did you mean `{name}`?"));
        let origin = self.places.origin(&span);
        self.problems.error(path, &origin, "this key isn't known", hint);
    }

    pub(super) fn error(&mut self, path: &str, span: Range<usize>, message: String) {
        let origin = self.places.origin(&span);
        self.problems.error(path, &origin, message, None);
    }
}
