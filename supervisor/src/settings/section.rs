//! Reading a table key by key, so that every mistake in a file is found in one go and told with the key it is at.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Such as `profiles.build.limits.pids`.
    pub(crate) key: String,
    /// Why it is refused; never a value of a secret.
    pub(crate) reason: String,
}

impl Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    at: String,
    table: Table,
    known: Vec<&'static str>,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Section<'a> {
    /// The table at `at`; the whole file has no name.
    pub(crate) fn new(at: impl Into<String>, value: Value, mistakes: &'a mut Vec<Mistake>) -> Self {
        let at = at.into();
        let table = match value {
            Value::Table(table) => table,
            other => {
                let reason = format!("a table is expected here, not a {}", other.type_str());
                mistakes.push(Mistake { key: at.clone(), reason });
                Table::new()
            }
        };
        Self { at, table, known: Vec::new(), mistakes }
    }

    /// The full name of a key.
    fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Notes a mistake at a key.
    pub(crate) fn wrong(&mut self, key: &str, reason: impl Display) {
        let key = self.path(key);
        self.mistakes.push(Mistake { key, reason: reason.to_string() });
    }

    /// The value of a key as it stands.
    pub(crate) fn raw(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// The value of a key; none if it is absent or wrong.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        let value = self.raw(key)?;
        match serde_path_to_error::deserialize::<_, T>(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let inner = error.path().to_string();
                let key = if inner == "." { key.to_owned() } else { format!("{key}.{inner}") };
                self.wrong(&key, error.inner().to_string().trim());
                None
            }
        }
    }

    /// The same, for a key that has to be there.
    pub(crate) fn required<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.wrong(key, "missing");
            return None;
        }
        self.take(key)
    }

    /// A list of texts, each read on its own; none if it is absent.
    pub(crate) fn list<T>(&mut self, key: &'static str) -> Option<Vec<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let texts: Vec<String> = self.take(key)?;
        let mut read = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(value) => read.push(value),
                Err(error) => self.wrong(&format!("{key}[{index}]"), error),
            }
        }
        Some(read)
    }

    /// Tables of one kind by their names, in order.
    pub(crate) fn named(&mut self, key: &'static str) -> Vec<(String, Value)> {
        match self.raw(key) {
            None => Vec::new(),
            Some(Value::Table(table)) => table.into_iter().collect(),
            Some(other) => {
                self.wrong(key, format!("tables with names are expected here, not a {}", other.type_str()));
                Vec::new()
            }
        }
    }

    /// A table below this one.
    pub(crate) fn inner(&mut self, at: &str, value: Value) -> Section<'_> {
        let at = self.path(at);
        Section::new(at, value, self.mistakes)
    }

    /// What nobody asked for is a mistake.
    pub(crate) fn finish(mut self) {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        let known = self.known.join(", ");
        for key in unknown {
            self.wrong(&key, format!("unknown key; known here are {known}"));
        }
    }
}
