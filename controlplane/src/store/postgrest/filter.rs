//! Reads of tables and functions: which rows, in which order. Names are written in this program; values may be anything, and the only way to a
//! query string writes them so that they stay values.
//!
//! Only what PostgREST 12 and 16 both take. `like` is missing on purpose: it has no way to write a `*` that is one.

use std::fmt::{Display, Write as _};

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Eq,
    Lt,
    Lte,
    Gt,
    Gte,
}

impl Comparison {
    const fn word(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
        }
    }
}

/// A condition on rows. It is written by [`Query`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Condition);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Compare(&'static str, Comparison, String),
    Null(&'static str),
    OneOf(&'static str, Vec<String>),
    Any(Vec<Filter>),
    All(Vec<Filter>),
}

impl Filter {
    fn compare(column: &'static str, comparison: Comparison, value: &impl Display) -> Self {
        Self(Condition::Compare(column, comparison, value.to_string()))
    }

    /// Equal to.
    #[must_use]
    pub fn eq(column: &'static str, value: &impl Display) -> Self {
        Self::compare(column, Comparison::Eq, value)
    }

    /// Less than.
    #[must_use]
    pub fn lt(column: &'static str, value: &impl Display) -> Self {
        Self::compare(column, Comparison::Lt, value)
    }

    /// Less than or equal to.
    #[must_use]
    pub fn lte(column: &'static str, value: &impl Display) -> Self {
        Self::compare(column, Comparison::Lte, value)
    }

    /// Greater than.
    #[must_use]
    pub fn gt(column: &'static str, value: &impl Display) -> Self {
        Self::compare(column, Comparison::Gt, value)
    }

    /// Greater than or equal to.
    #[must_use]
    pub fn gte(column: &'static str, value: &impl Display) -> Self {
        Self::compare(column, Comparison::Gte, value)
    }

    /// Without a value.
    #[must_use]
    pub fn null(column: &'static str) -> Self {
        Self(Condition::Null(column))
    }

    /// Equal to one of these.
    #[must_use]
    pub fn one_of(column: &'static str, values: impl IntoIterator<Item = impl Display>) -> Self {
        Self(Condition::OneOf(column, values.into_iter().map(|value| value.to_string()).collect()))
    }

    /// At least one of these holds.
    #[must_use]
    pub fn any(filters: Vec<Self>) -> Self {
        Self(Condition::Any(filters))
    }

    /// Each of these holds.
    #[must_use]
    pub fn all(filters: Vec<Self>) -> Self {
        Self(Condition::All(filters))
    }

    /// A parameter of its own: the value stands to its end, whatever is in it, so only the URL's own encoding is needed.
    fn parameter(&self) -> (String, String) {
        match &self.0 {
            Condition::Compare(column, comparison, value) => {
                ((*column).to_owned(), format!("{}.{value}", comparison.word()))
            }
            Condition::Null(column) => ((*column).to_owned(), "is.null".to_owned()),
            Condition::OneOf(column, values) => ((*column).to_owned(), format!("in.{}", list(values))),
            Condition::Any(filters) => ("or".to_owned(), nested(filters)),
            Condition::All(filters) => ("and".to_owned(), nested(filters)),
        }
    }

    /// Within `or` and `and`, where commas, dots and brackets mean something.
    fn within(&self) -> String {
        match &self.0 {
            Condition::Compare(column, comparison, value) => {
                format!("{column}.{}.{}", comparison.word(), quoted(value))
            }
            Condition::Null(column) => format!("{column}.is.null"),
            Condition::OneOf(column, values) => format!("{column}.in.{}", list(values)),
            Condition::Any(filters) => format!("or{}", nested(filters)),
            Condition::All(filters) => format!("and{}", nested(filters)),
        }
    }
}

fn nested(filters: &[Filter]) -> String {
    format!("({})", filters.iter().map(Filter::within).collect::<Vec<_>>().join(","))
}

fn list(values: &[String]) -> String {
    format!("({})", values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(","))
}

/// A value among others: in quotes, in which only quotes and backslashes mean something.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What is read. Columns are written as PostgREST writes them; of some tables not all are ours to read, and those have to be named.
#[derive(Debug, Clone)]
pub struct Query {
    from: &'static str,
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Columns of a table or of a function's rows, `columns` as PostgREST writes them.
    #[must_use]
    pub fn of(from: &'static str, columns: &'static str) -> Self {
        Self { from, parameters: vec![("select".to_owned(), columns.to_owned())] }
    }

    /// Only rows for which this holds.
    #[must_use]
    pub fn only(mut self, filter: &Filter) -> Self {
        self.parameters.push(filter.parameter());
        self
    }

    /// Only if there is a condition.
    #[must_use]
    pub fn only_if(self, filter: Option<Filter>) -> Self {
        match filter {
            Some(filter) => self.only(&filter),
            None => self,
        }
    }

    /// Rows of a table that is embedded, or of this one if `embedded` is empty, in this order, at most so many: the server has a most of its
    /// own, which it applies without a word.
    #[must_use]
    pub fn page(mut self, embedded: &'static str, order: &'static str, most: u32) -> Self {
        let prefix = if embedded.is_empty() { String::new() } else { format!("{embedded}.") };
        self.parameters.push((format!("{prefix}order"), order.to_owned()));
        self.parameters.push((format!("{prefix}limit"), most.to_string()));
        self
    }

    /// Path and query, below the address of PostgREST.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        let mut out = self.from.to_owned();
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            out.push(if index == 0 { '?' } else { '&' });
            percent_encoded(&mut out, name);
            out.push('=');
            percent_encoded(&mut out, value);
        }
        out
    }
}

/// Everything but what no URL gives a meaning to.
fn percent_encoded(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
