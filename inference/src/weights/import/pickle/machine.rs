//! The machine that a pickle is a program for: a stack of values, marks in it, and a memo. Its opcodes make values and put
//! them into one another; those that would import or call note it.

use std::collections::HashMap;

use super::{Id, MOST_VALUES, Object, PickleReason, Value};

pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// How long the stack was at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

type Step<T> = Result<T, PickleReason>;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Where the next opcode stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn into_values(self) -> Vec<Value<'a>> {
        self.values
    }

    /// Follows one opcode; the root if it was the last one.
    pub(super) fn step(&mut self) -> Step<Option<Id>> {
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => match self.byte()? {
                2 | 3 => {}
                other => return Err(PickleReason::Protocol(other)),
            },
            b'(' => match self.marks.len() {
                MOST_VALUES.. => return Err(PickleReason::Values),
                _ => self.marks.push(self.stack.len()),
            },
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or(PickleReason::Stack)?;
                self.push_id(top)?;
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' => {
                let int = self.byte()?;
                self.push(Value::Int(int.into()))?;
            }
            b'M' => {
                let int = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()))?;
            }
            b'J' => {
                let int = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()))?;
            }
            0x8a => self.long()?,
            b'G' => {
                let float = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(float))?;
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                let text = self.take(length as usize)?;
                self.push(Value::Text(str::from_utf8(text).map_err(|_| PickleReason::Utf8)?))?;
            }
            // Texts of Python 2 and bytes: nobody here asks what is in them.
            b'U' | b'C' => {
                let length = self.byte()?;
                self.take(length.into())?;
                self.push(Value::Bytes)?;
            }
            b'T' | b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                self.take(length as usize)?;
                self.push(Value::Bytes)?;
            }
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b't' => {
                let ids = self.since_mark()?;
                self.push(Value::Tuple(ids))?;
            }
            count @ 0x85..=0x87 => {
                let ids = self.last(usize::from(count - 0x84))?;
                self.push(Value::Tuple(ids))?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b'a' => {
                let ids = self.last(1)?;
                self.append(ids)?;
            }
            b'e' => {
                let ids = self.since_mark()?;
                self.append(ids)?;
            }
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b's' => {
                let ids = self.last(2)?;
                self.set(&ids)?;
            }
            b'u' => {
                let ids = self.since_mark()?;
                self.set(&ids)?;
            }
            b'q' => {
                let number = self.byte()?;
                self.remember(number.into())?;
            }
            b'r' => {
                let number = u32::from_le_bytes(self.array()?);
                self.remember(number)?;
            }
            b'h' => {
                let number = self.byte()?;
                self.recall(number.into())?;
            }
            b'j' => {
                let number = u32::from_le_bytes(self.array()?);
                self.recall(number)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(module, name))?;
            }
            // A call, or an instance made without one: here both are a name with arguments.
            b'R' | 0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.push(Value::Object(Box::new(Object { class, args, state: None, items: Vec::new() })))?;
            }
            b'b' => {
                let state = self.pop()?;
                match self.top()? {
                    Value::Object(object) => object.state = Some(state),
                    _ => return Err(PickleReason::Container),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))?;
            }
            other => return Err(PickleReason::Opcode(other)),
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Step<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or(PickleReason::End)?;
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Step<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| PickleReason::End)
    }

    /// Up to the next line feed.
    fn line(&mut self) -> Step<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleReason::End)?;
        let line = self.take(length)?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| PickleReason::Utf8)
    }

    /// A whole number of any length, least byte first.
    fn long(&mut self) -> Step<()> {
        let length = self.byte()?;
        let bytes = self.take(length.into())?;
        let value = match bytes.len() {
            0..=8 => {
                let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
                let mut whole = [sign; 8];
                for (to, &from) in whole.iter_mut().zip(bytes) {
                    *to = from;
                }
                Value::Int(i64::from_le_bytes(whole))
            }
            _ => Value::Huge,
        };
        self.push(value)
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        let id = u32::try_from(self.values.len()).map_err(|_| PickleReason::Values)?;
        if self.values.len() >= MOST_VALUES {
            return Err(PickleReason::Values);
        }
        self.values.push(value);
        self.push_id(Id(id))
    }

    fn push_id(&mut self, id: Id) -> Step<()> {
        if self.stack.len() >= MOST_VALUES {
            return Err(PickleReason::Values);
        }
        self.stack.push(id);
        Ok(())
    }

    /// Values before the last mark can't be taken while it is open.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err(PickleReason::Stack);
        }
        self.stack.pop().ok_or(PickleReason::Stack)
    }

    fn last(&mut self, count: usize) -> Step<Vec<Id>> {
        let from = self.stack.len().checked_sub(count).filter(|&from| from >= self.floor());
        Ok(self.stack.split_off(from.ok_or(PickleReason::Stack)?))
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        let from = self.marks.pop().ok_or(PickleReason::Mark)?;
        Ok(self.stack.split_off(from.min(self.stack.len())))
    }

    /// The value on top of the stack, to be changed.
    fn top(&mut self) -> Step<&mut Value<'a>> {
        if self.stack.len() <= self.floor() {
            return Err(PickleReason::Stack);
        }
        let id = self.stack.last().ok_or(PickleReason::Stack)?;
        self.values.get_mut(id.0 as usize).ok_or(PickleReason::Stack)
    }

    fn append(&mut self, ids: Vec<Id>) -> Step<()> {
        match self.top()? {
            Value::List(list) => list.extend(ids),
            // Some kind of list: nobody here asks what is in it.
            Value::Object(_) => {}
            _ => return Err(PickleReason::Container),
        }
        Ok(())
    }

    fn set(&mut self, ids: &[Id]) -> Step<()> {
        let (pairs, []) = ids.as_chunks::<2>() else {
            return Err(PickleReason::Pairs);
        };
        let pairs = pairs.iter().map(|&[key, value]| (key, value));
        match self.top()? {
            Value::Dict(entries) => entries.extend(pairs),
            Value::Object(object) => object.items.extend(pairs),
            _ => return Err(PickleReason::Container),
        }
        Ok(())
    }

    fn remember(&mut self, number: u32) -> Step<()> {
        let id = *self.stack.last().ok_or(PickleReason::Stack)?;
        if self.memo.len() >= MOST_VALUES && !self.memo.contains_key(&number) {
            return Err(PickleReason::Values);
        }
        self.memo.insert(number, id);
        Ok(())
    }

    fn recall(&mut self, number: u32) -> Step<()> {
        let id = *self.memo.get(&number).ok_or(PickleReason::Memo(number))?;
        self.push_id(id)
    }
}
