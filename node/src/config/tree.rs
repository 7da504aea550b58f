use std::{collections::BTreeMap, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A value and its place, owned: the parser's own tree borrows the text.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    String(String),
    /// As written, and its value if 64 bits can hold it.
    Integer(String, Option<i64>),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
    /// What no configuration of ours uses: a float, a date.
    Other(&'static str),
}

/// Keys with their places, and what they stand for.
pub(super) type Table = BTreeMap<String, (Range<usize>, Node)>;

impl Value {
    /// What it is, with its article, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(..) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }

    pub(super) fn is_empty_array(&self) -> bool {
        matches!(self, Value::Array(items) if items.is_empty())
    }
}

pub(super) fn own_table(table: DeTable<'_>) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let mut node = own_value(value);
            // A table that only dotted keys imply has no place of its own: that of its key.
            if node.span.is_empty() {
                node.span = key.span();
            }
            (key.get_ref().to_string(), (key.span(), node))
        })
        .collect()
}

/// The parser bounds how deep values nest (80).
fn own_value(value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::String(string) => Value::String(string.into_owned()),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            Value::Integer(integer.to_string(), number)
        }
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Array(array) => Value::Array(array.into_iter().map(own_value).collect()),
        DeValue::Table(table) => Value::Table(own_table(table)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
    };
    Node { span, value }
}
