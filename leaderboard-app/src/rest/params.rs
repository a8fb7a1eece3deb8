//! The parameters of a request, from its query, a form or a JSON object, under one set of rules:
//! each at most once, none unknown, all of the right type.
//!
//! Unknown names are refused rather than ignored: `{"player":"alice","scroe":10}` would otherwise add
//! the default of 1 without a word.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::problem::{Code, Problem};

/// The parameters that a request gave, of those that it may give.
#[derive(Debug)]
pub(crate) struct Params {
    allowed: &'static [&'static str],
    /// Beside each allowed name what was given.
    given: Vec<Option<Value>>,
}

/// A value as it was written.
#[derive(Debug)]
enum Value {
    /// From a query or a form, where everything is text.
    Text(String),
    /// A JSON string.
    String(String),
    /// A JSON number, digit for digit.
    Number(String),
    /// `true` or `false` in JSON.
    Boolean(bool),
    /// Any other JSON value, by the name of its type.
    Other(&'static str),
}

impl Value {
    const fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::String(_) => "a string",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::Other(name) => name,
        }
    }
}

impl Params {
    /// Nothing given yet; these names are allowed.
    pub(crate) fn new(allowed: &'static [&'static str]) -> Self {
        Self { allowed, given: allowed.iter().map(|_| None).collect() }
    }

    /// Only a query, as reads have.
    pub(crate) fn of_query(
        query: Option<&str>,
        allowed: &'static [&'static str],
    ) -> Result<Self, Problem> {
        let mut params = Self::new(allowed);
        params.add_query(query)?;
        Ok(params)
    }

    /// Takes in the query of the URL.
    pub(crate) fn add_query(&mut self, query: Option<&str>) -> Result<(), Problem> {
        query.map_or(Ok(()), |query| self.add_pairs(query, "query"))
    }

    /// Takes in a body of `application/x-www-form-urlencoded`.
    pub(crate) fn add_form(&mut self, body: &[u8]) -> Result<(), Problem> {
        let form = std::str::from_utf8(body)
            .map_err(|_| Problem::refused(Code::MalformedParameters, "The form is not UTF-8."))?;
        if form.trim_start().starts_with('{') {
            // What `curl -d '{…}'` sends: the likeliest mistake, and a puzzling one.
            return Err(Problem::refused(
                Code::MalformedParameters,
                "The body looks like JSON but is declared as a form; send the header \
                 `Content-Type: application/json` with it.",
            ));
        }
        self.add_pairs(form, "form")
    }

    fn add_pairs(&mut self, text: &str, place: &str) -> Result<(), Problem> {
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, place)?;
            let value = decode(value, place)?;
            self.add(&name, Value::Text(value.into_owned()))?;
        }
        Ok(())
    }

    /// Takes in a JSON object.
    pub(crate) fn add_json(&mut self, body: &[u8]) -> Result<(), Problem> {
        let mut refusal = None;
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = Members { params: self, refusal: &mut refusal }
            .deserialize(&mut json)
            .and_then(|()| json.end());
        match (refusal, read) {
            (Some(problem), _) => Err(problem),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) if error.is_data() => Err(Problem::refused(
                Code::WrongType,
                "The body must be a JSON object, as in {\"player\":\"alice\",\"score\":10}.",
            )),
            (None, Err(error)) => Err(Problem::refused(
                Code::MalformedJson,
                format!("The body is not valid JSON: {error}."),
            )),
        }
    }

    fn add(&mut self, name: &str, value: Value) -> Result<(), Problem> {
        let Some(at) = self.allowed.iter().position(|allowed| *allowed == name) else {
            return Err(Problem::refused(
                Code::UnknownParameter,
                format!("`{}` is not known here; {}.", shortened(name), self.known()),
            ));
        };
        if self.given[at].is_some() {
            return Err(Problem::refused(
                Code::DuplicateParameter,
                format!("`{name}` is given more than once."),
            ));
        }
        self.given[at] = Some(value);
        Ok(())
    }

    fn known(&self) -> String {
        match self.allowed {
            [] => "nothing is".to_owned(),
            names => format!("known are: {}", names.join(", ")),
        }
    }

    /// Was it given?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.place(name).is_some_and(|at| self.given[at].is_some())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.allowed.iter().position(|allowed| *allowed == name)
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.place(name).and_then(|at| self.given[at].take())
    }

    /// A text, if it was given.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text) | Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a string", &other)),
        }
    }

    /// Yes or no, if it was given.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type(name, "true or false", &other)),
        }
    }

    /// A whole number within a range, if it was given.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Problem> {
        let digits = match self.take(name) {
            None => return Ok(None),
            Some(Value::Text(text)) if is_integer(&text) => text,
            Some(Value::Number(number)) if is_integer(&number) => number,
            Some(other) => return Err(wrong_type(name, "a whole number", &other)),
        };
        // What does not even fit an i64 is out of every range.
        match digits.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::refused(
                Code::OutOfRange,
                format!("`{name}` must be between {} and {}.", range.start(), range.end()),
            )),
        }
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn wrong_type(name: &str, wanted: &str, given: &Value) -> Problem {
    let detail = match given {
        Value::Text(text) | Value::Number(text) => {
            format!("`{name}` must be {wanted}, not `{}`.", shortened(text))
        }
        other => format!("`{name}` must be {wanted}, not {}.", other.type_name()),
    };
    Problem::refused(Code::WrongType, detail)
}

/// Enough of a client's text to recognise it by, in an error.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Decodes `+` and `%xx`, and refuses what is not UTF-8 then: a replacement character in a name would
/// make one player of two.
fn decode<'a>(text: &'a str, place: &str) -> Result<Cow<'a, str>, Problem> {
    let malformed = |what: &str| {
        Problem::refused(
            Code::MalformedParameters,
            format!("The {place} has {what} in `{}`.", shortened(text)),
        )
    };
    let stray = |(_, rest): (usize, &str)| {
        let digits = rest.as_bytes().get(1..3);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if text.match_indices('%').map(|(at, _)| (at, &text[at..])).any(stray) {
        return Err(malformed("a % that is not followed by two hexadecimal digits"));
    }
    if !text.contains(['%', '+']) {
        return Ok(text.into());
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(|text| text.into_owned().into())
        .map_err(|_| malformed("something that is not UTF-8"))
}

/// Reads a JSON object member by member into [`Params`].
struct Members<'a> {
    params: &'a mut Params,
    /// What was wrong with a member, if it was not the JSON.
    refusal: &'a mut Option<Problem>,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let raw: &RawValue = map.next_value()?;
            let text = raw.get();
            let value = match text.as_bytes().first() {
                Some(b'"') => match serde_json::from_str(text) {
                    Ok(string) => Value::String(string),
                    // Only now do escapes show that stand for no character.
                    Err(_) => {
                        let detail = format!("`{}` is not a valid JSON string.", shortened(&name));
                        *self.refusal = Some(Problem::refused(Code::MalformedJson, detail));
                        return Err(A::Error::custom("refused"));
                    }
                },
                Some(b'-' | b'0'..=b'9') => Value::Number(text.to_owned()),
                Some(b't') => Value::Boolean(true),
                Some(b'f') => Value::Boolean(false),
                Some(b'[') => Value::Other("an array"),
                Some(b'{') => Value::Other("an object"),
                _ => Value::Other("null"),
            };
            if let Err(problem) = self.params.add(&name, value) {
                *self.refusal = Some(problem);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
