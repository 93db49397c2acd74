//! Python's pickles, read as data: the opcodes of protocol 2 that torch's checkpoints are made of.
//!
//! Nothing is ever executed: a class or function is its name, a call is the name beside its arguments. So a pickle that
//! asks for `os.system` is a pickle that holds the words "os" and "system". What the values mean is not known here.
//!
//! Values lie in one list and name each other by number, as a pickle's memo does, so that shared values are not copied
//! and reading needs no recursion. They may form circles: whoever walks them must count his steps.

mod machine;

use self::machine::Machine;

/// The longest pickle: that of the largest checkpoint is a tenth of it.
pub(super) const MOST_BYTES: u64 = 16 << 20;
/// The most values, marks and remembered values at a time.
const MOST_VALUES: usize = 1 << 20;
/// The longest dictionary in which is searched: a network has some hundred names.
const MOST_ENTRIES: usize = 4096;

/// A read pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

/// Which value of a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(u32);

/// A value. What it holds it names by number.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number that does not fit.
    Huge,
    Float(f64),
    Text(&'a str),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function: its module and name.
    Global(&'a str, &'a str),
    /// A class or function with what it would be called with.
    Object(Box<Object>),
    /// What lies elsewhere: torch names storages so.
    Persistent(Id),
}

#[derive(Debug, PartialEq)]
pub(super) struct Object {
    pub(super) class: Id,
    pub(super) args: Id,
    /// What would become its attributes.
    pub(super) state: Option<Id>,
    /// What would be put into it, if it is a kind of dictionary.
    pub(super) items: Vec<(Id, Id)>,
}

/// Bytes that are no pickle, or not one that torch would write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its pickle can't be read at byte {at}: {reason}")]
pub struct PickleError {
    pub at: usize,
    pub reason: PickleReason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleReason {
    #[error("it ends here, before it is complete")]
    End,
    #[error("opcode 0x{0:02x} is none that torch writes")]
    Opcode(u8),
    #[error("protocol {0} is none that torch writes, it writes 2")]
    Protocol(u8),
    #[error("it takes a value where there is none")]
    Stack,
    #[error("it closes what was never opened")]
    Mark,
    #[error("value {0} is remembered nowhere")]
    Memo(u32),
    #[error("it puts something into what can't hold it")]
    Container,
    #[error("keys and values do not come in pairs")]
    Pairs,
    #[error("a text is not UTF-8")]
    Utf8,
    #[error("it has more than {MOST_VALUES} values")]
    Values,
}

impl<'a> Pickle<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let mut machine = Machine::new(bytes);
        loop {
            let at = machine.at();
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { values: machine.into_values(), root }),
                Err(reason) => return Err(PickleError { at, reason }),
            }
        }
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn get(&self, id: Id) -> &Value<'a> {
        self.values.get(id.0 as usize).unwrap_or(&Value::None)
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(int) => Some(*int),
            _ => None,
        }
    }

    pub(super) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(ids) | Value::List(ids) => Some(ids),
            _ => None,
        }
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        match self.get(id) {
            Value::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    pub(super) fn object(&self, id: Id) -> Option<&Object> {
        match self.get(id) {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// What a dictionary holds, or a kind of it. `None` also for one that is too long to be searched again and again.
    pub(super) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        let entries = match self.get(id) {
            Value::Dict(entries) => entries,
            Value::Object(object) => &object.items,
            _ => return None,
        };
        (entries.len() <= MOST_ENTRIES).then_some(entries)
    }

    /// The value of a key; of several the last one, as in Python.
    pub(super) fn value(&self, dict: Id, key: &str) -> Option<Id> {
        let entries = self.entries(dict)?;
        entries.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests;
