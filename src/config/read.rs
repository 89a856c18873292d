//! Reads TOML with the place of every key and value at hand, so that whatever is wrong can be pointed at.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, Setting};
use super::paths::Base;
use crate::domain::time::in_words;

/// A configuration file, or the absence of one: an empty text.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// One table whose keys are known to be the table's own.
#[derive(Clone, Debug)]
pub(super) struct Table<'a> {
    document: &'a Document,
    /// `[[site]]`, `[issuer.corp]`; empty for the top level.
    name: String,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
}

/// One value, with the words to speak of it.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    document: &'a Document,
    table: String,
    key: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl Document {
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>, ConfigError> {
        DeTable::parse(&self.text).map_err(|error| ConfigError::Syntax {
            place: self.place(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })
    }

    pub(super) fn root<'a>(&'a self, parsed: &'a Spanned<DeTable<'a>>, known: &[&str]) -> Result<Table<'a>, ConfigError> {
        Table { document: self, name: String::new(), span: 0..0, entries: parsed.get_ref() }.with_keys(known)
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        Place::File { path: self.path.clone(), line, column: before[line_start..].chars().count() + 1 }
    }
}

impl<'a> Table<'a> {
    fn with_keys(self, known: &[&str]) -> Result<Self, ConfigError> {
        let strangers = self.entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        match strangers.min_by_key(|key| key.span().start) {
            None => Ok(self),
            Some(key) => Err(ConfigError::UnknownKey {
                place: self.document.place(key.span().start),
                key: key.get_ref().to_string(),
                table: self.name,
                known: known.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.document.place(self.span.start)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The table `[key]`, or `empty` in its place where there is none.
    pub(super) fn section(&self, key: &str, known: &[&str], empty: &'a DeTable<'a>) -> Result<Self, ConfigError> {
        let name = format!("[{key}]");
        match self.get(key) {
            Some(field) => field.table(&name, known),
            None => Ok(Self { document: self.document, name, span: 0..0, entries: empty }),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        let value = self.entries.get(key)?;
        Some(Field { document: self.document, table: self.name.clone(), key: key.to_owned(), value })
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, hint: &str) -> Result<Field<'a>, ConfigError> {
        self.get(key).ok_or_else(|| self.missing(key, hint))
    }

    pub(super) fn missing(&self, key: &str, hint: &str) -> ConfigError {
        ConfigError::MissingKey { at: Setting::new(self.place(), &join(&self.name, key)).into(), hint: format!("write {hint}") }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.get(key).map(|field| field.text().map(str::to_owned)).transpose()
    }

    pub(super) fn path(&self, key: &str, base: &Base) -> Result<Option<PathBuf>, ConfigError> {
        self.get(key).map(|field| field.path(base)).transpose()
    }

    pub(super) fn duration(&self, key: &str, range: RangeInclusive<Duration>, default: Duration) -> Result<Duration, ConfigError> {
        self.get(key).map_or(Ok(default), |field| field.duration(range))
    }

    pub(super) fn choose<T: Copy>(&self, key: &str, choice: &Choice<'_, T>, default: T) -> Result<T, ConfigError> {
        self.get(key).map_or(Ok(default), |field| field.choose(choice))
    }

    /// Refuses keys that the table may have, but not in this case: `case` says which, "mode \"standalone\"".
    pub(super) fn only(&self, keys: &[&str], case: &str) -> Result<(), ConfigError> {
        let others = self.entries.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
        match others.min_by_key(|key| key.span().start) {
            None => Ok(()),
            Some(key) => {
                let at = Setting::new(self.document.place(key.span().start), &join(&self.name, key.get_ref()));
                Err(at.rejected(format!("does not apply to {case}"), format!("keys that do: {}", keys.join(", "))))
            }
        }
    }
}

/// The words that a key takes.
pub(super) struct Choice<'c, T> {
    /// What they are, in the singular: "key type".
    pub(super) what: &'static str,
    /// The words and their meanings.
    pub(super) words: &'c [(&'static str, T)],
    /// Words that a later release will take.
    pub(super) later: &'c [&'static str],
}

impl<'a> Field<'a> {
    /// The setting, for messages.
    pub(super) fn setting(&self) -> Setting {
        Setting::new(self.document.place(self.value.span().start), &join(&self.table, &self.key))
    }

    pub(super) fn rejected(&self, why: impl Display, hint: impl Display) -> ConfigError {
        self.setting().rejected(why, hint)
    }

    pub(super) fn unknown(&self, what: &'static str, value: &str, known: Vec<String>) -> ConfigError {
        ConfigError::Unknown { at: self.setting().into(), what, value: value.to_owned(), known }
    }

    pub(super) fn unsupported(&self, value: &str, supported: impl Display) -> ConfigError {
        ConfigError::Unsupported { at: self.setting().into(), value: value.to_owned(), supported: supported.to_string() }
    }

    fn wrong_type(&self, wanted: &'static str, hint: impl Display) -> ConfigError {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        ConfigError::WrongType { at: self.setting().into(), wanted, found: found.to_owned(), hint: hint.to_string() }
    }

    pub(super) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// A string with something in it.
    pub(super) fn text(&self) -> Result<&'a str, ConfigError> {
        let text = self.value.get_ref().as_str();
        let text = text.ok_or_else(|| self.wrong_type("a string", format!("put it in quotes: {} = \"…\"", self.key)))?;
        if text.trim().is_empty() {
            return Err(self.rejected("it is empty", "give it a value, or leave the key out"));
        }
        Ok(text)
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        let value = self.value.get_ref().as_bool();
        value.ok_or_else(|| self.wrong_type("true or false", format!("write {} = true, without quotes", self.key)))
    }

    /// The strings of a list, each as a field of its own. The list has at least one.
    pub(super) fn list(&self) -> Result<Vec<Self>, ConfigError> {
        let list = self.value.get_ref().as_array();
        let list = list.ok_or_else(|| self.wrong_type("a list", format!("write {} = [\"…\"]", self.key)))?;
        if list.is_empty() {
            return Err(self.rejected("the list is empty", "list at least one, or leave the key out"));
        }
        Ok(list.iter().map(|value| Self { value, ..self.clone() }).collect())
    }

    pub(super) fn path(&self, base: &Base) -> Result<PathBuf, ConfigError> {
        base.resolve(self.text()?).map_err(|why| self.rejected(why, "write the whole path"))
    }

    /// Program and arguments. A program with a slash is a path like any other; without, it is looked for in PATH.
    pub(super) fn program(&self, base: &Base) -> Result<Vec<String>, ConfigError> {
        let list =
            self.list().map_err(|_| self.wrong_type("a program and its arguments", "write [\"prog\", \"arg\"]; no shell is involved"))?;
        let mut argv = list.iter().map(|field| field.argument().map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
        if argv[0].contains('/') {
            argv[0] = list[0].path(base)?.to_string_lossy().into_owned();
        }
        Ok(argv)
    }

    /// The same, or nothing where the list is empty.
    pub(super) fn program_or_none(&self, base: &Base) -> Result<Option<Vec<String>>, ConfigError> {
        if self.value.get_ref().as_array().is_some_and(|list| list.is_empty()) { Ok(None) } else { self.program(base).map(Some) }
    }

    /// A string that may be empty, but cannot hold a NUL, which ends an argument.
    fn argument(&self) -> Result<&'a str, ConfigError> {
        let text = self.value.get_ref().as_str().ok_or_else(|| self.wrong_type("a list of strings", "put each argument in quotes"))?;
        if text.contains('\0') { Err(self.rejected("it holds a NUL character", "no argument can")) } else { Ok(text) }
    }

    pub(super) fn count(&self, range: RangeInclusive<u32>) -> Result<u32, ConfigError> {
        let value = self.value.get_ref().as_integer().and_then(|value| i64::from_str_radix(value.as_str(), value.radix()).ok());
        let value = value.ok_or_else(|| self.wrong_type("a number", format!("write {} = {}, without quotes", self.key, range.start())))?;
        let fits = u32::try_from(value).ok().filter(|value| range.contains(value));
        fits.ok_or_else(|| {
            self.rejected(format!("{value} is out of range"), format!("write a number from {} to {}", range.start(), range.end()))
        })
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
        const EXAMPLES: &str = r#"write a number and a unit: "7d", "36h", "90m" or "604800s""#;
        let text = self.value.get_ref().as_str().ok_or_else(|| self.wrong_type("a duration", EXAMPLES))?;
        let parsed = humantime::parse_duration(text).map_err(|_| self.rejected(format!("{text:?} is not a duration"), EXAMPLES))?;
        if range.contains(&parsed) {
            return Ok(parsed);
        }
        let (least, most) = (in_words(*range.start()), in_words(*range.end()));
        Err(self.rejected(format!("{text:?} is out of range"), format!("anything from {least} to {most}")))
    }

    pub(super) fn choose<T: Copy>(&self, choice: &Choice<'_, T>) -> Result<T, ConfigError> {
        let word = self.text()?;
        let known = || choice.words.iter().map(|(word, _)| (*word).to_owned());
        match choice.words.iter().find(|(known, _)| *known == word) {
            Some((_, meaning)) => Ok(*meaning),
            None if choice.later.contains(&word) => Err(self.unsupported(word, known().collect::<Vec<_>>().join(", "))),
            None => Err(self.unknown(choice.what, word, known().collect())),
        }
    }

    /// A table called `name`, with these keys.
    pub(super) fn table(&self, name: &str, known: &[&str]) -> Result<Table<'a>, ConfigError> {
        let hint = format!("write {name} on a line of its own, and its keys below it");
        let entries = self.value.get_ref().as_table().ok_or_else(|| self.wrong_type("a table", hint))?;
        Table { document: self.document, name: name.to_owned(), span: self.value.span(), entries }.with_keys(known)
    }

    /// A table inside this key: `{ kid = "…" }`.
    pub(super) fn inner(&self, example: &str, known: &[&str]) -> Result<Table<'a>, ConfigError> {
        let entries = self.value.get_ref().as_table().ok_or_else(|| self.wrong_type("a table", format!("write {example}")))?;
        Table { document: self.document, name: join(&self.table, &self.key), span: self.value.span(), entries }.with_keys(known)
    }

    /// The tables of `[[name]]`.
    pub(super) fn tables(&self, name: &str, known: &[&str]) -> Result<Vec<Table<'a>>, ConfigError> {
        let hint = format!("write {name} with double brackets: there can be several");
        let list = self.value.get_ref().as_array().ok_or_else(|| self.wrong_type("a list of tables", hint))?;
        list.iter().map(|value| Self { value, ..self.clone() }.table(name, known)).collect()
    }

    /// The values of a table whose keys are names that the user chooses, in the order of the names.
    pub(super) fn named(&self) -> Result<Vec<(&'a str, Self)>, ConfigError> {
        let hint = format!("write [{}.NAME] and its keys below it", self.key);
        let entries = self.value.get_ref().as_table().ok_or_else(|| self.wrong_type("a table of names", hint))?;
        let field = |name: &str, value| Self { document: self.document, table: join(&self.table, &self.key), key: name.to_owned(), value };
        Ok(entries.iter().map(|(name, value)| (name.get_ref().as_ref(), field(name.get_ref(), value))).collect())
    }
}

/// `[datastore] region`, `[issuer.corp] eab.kid`; the bare key at the top level.
fn join(table: &str, key: &str) -> String {
    match table {
        "" => key.to_owned(),
        table if table.ends_with(']') => format!("{table} {key}"),
        inner => format!("{inner}.{key}"),
    }
}

/// The directory that a file's relative paths start from.
pub(super) fn directory_of(path: &Path, current_dir: &Path) -> PathBuf {
    let whole = current_dir.join(path);
    whole.parent().map_or(whole.clone(), Path::to_path_buf)
}
