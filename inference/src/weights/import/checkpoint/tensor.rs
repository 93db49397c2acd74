//! A tensor as torch pickles it: which entry of the archive holds its numbers, and where in there they are.
//!
//! Every size is checked against the entry's and against what may be read in all, before anything is read.

use std::io::{Read, Seek};

use candle_core::{DType, Device, Tensor};

use super::super::{
    Budget, TooLarge,
    pickle::{Id, Pickle, Value},
    zip::{Zip, ZipError, shortened},
};

/// More dimensions has no tensor of a network.
const MOST_DIMENSIONS: usize = 8;

/// A tensor that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    #[error("it is not pickled as torch does it")]
    Form,
    #[error("its numbers are a {0}; half, single or bfloat16 precision is wanted")]
    Type(String),
    #[error("it reaches beyond its storage")]
    Outside,
    #[error(transparent)]
    Large(#[from] TooLarge),
    #[error(transparent)]
    Zip(#[from] ZipError),
    #[error("its numbers can't be used")]
    Numbers(#[from] candle_core::Error),
}

pub(super) struct Tensors<'p, 'a, R> {
    pickle: &'p Pickle<'a>,
    zip: Zip<R>,
    folder: String,
    budget: Budget,
    /// Of what is read for them: many tensors may name one storage.
    storages: Budget,
}

/// Numbers in an entry of the archive.
struct Storage<'a> {
    kind: DType,
    key: &'a str,
    count: u64,
}

impl<'p, 'a, R: Read + Seek> Tensors<'p, 'a, R> {
    pub(super) fn new(pickle: &'p Pickle<'a>, zip: Zip<R>, folder: String) -> Self {
        Self { pickle, zip, folder, budget: Budget::default(), storages: Budget::default() }
    }

    /// As f32.
    pub(super) fn read(&mut self, id: Id) -> Result<Tensor, TensorError> {
        let args = self.arguments(id)?;
        let &[storage, offset, size, strides, ..] = args else { return Err(TensorError::Form) };
        let storage = self.storage(storage)?;
        let (shape, strides) = (self.sizes(size)?, self.sizes(strides)?);
        let offset = self.size(offset)?;
        if shape.len() > MOST_DIMENSIONS || shape.len() != strides.len() {
            return Err(TensorError::Form);
        }
        let count = self.budget.take(&shape)?;
        let whole = usize::try_from(storage.count).map_err(|_| TensorError::Outside)?;
        self.storages.take(&[whole])?;
        let end = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |end, (size, stride)| end.checked_add(size.saturating_sub(1).checked_mul(*stride)?));
        if count == 0 || end.is_none_or(|end| end >= whole) {
            return Err(TensorError::Outside);
        }
        let entry = format!("{}data/{}", self.folder, shortened(storage.key));
        let bytes = storage.count * storage.kind.size_in_bytes() as u64;
        if self.zip.size(&entry)? != bytes {
            return Err(TensorError::Outside);
        }
        let numbers = self.zip.read(&entry, bytes)?;
        let numbers = Tensor::from_raw_buffer(&numbers, storage.kind, &[whole], &Device::Cpu)?.to_dtype(DType::F32)?;
        if strides == contiguous(&shape) {
            return Ok(numbers.narrow(0, offset, count)?.reshape(shape)?.copy()?);
        }
        let numbers = numbers.to_vec1::<f32>()?;
        let taken: Vec<f32> =
            (0..count).filter_map(|at| numbers.get(offset + position(at, &shape, &strides)).copied()).collect();
        Ok(Tensor::from_vec(taken, shape, &Device::Cpu)?)
    }

    /// Of torch's function that makes a tensor; a parameter is a tensor with something around it.
    fn arguments(&self, id: Id) -> Result<&'p [Id], TensorError> {
        let call = |id: Id| {
            let object = self.pickle.object(id)?;
            Some((self.pickle.global(object.class)?, self.pickle.elements(object.args)?))
        };
        let mut id = id;
        // A parameter of a parameter is nothing that torch writes.
        for _ in 0..2 {
            match call(id).ok_or(TensorError::Form)? {
                (("torch._utils", "_rebuild_tensor_v2"), args) => return Ok(args),
                (("torch._utils", "_rebuild_parameter"), &[data, ..]) => id = data,
                _ => return Err(TensorError::Form),
            }
        }
        Err(TensorError::Form)
    }

    /// `('storage', torch.HalfStorage, key, device, count)`
    fn storage(&self, id: Id) -> Result<Storage<'a>, TensorError> {
        let Value::Persistent(id) = self.pickle.get(id) else { return Err(TensorError::Form) };
        let Some(&[tag, class, key, _, count]) = self.pickle.elements(*id) else { return Err(TensorError::Form) };
        let (Some("storage"), Some(("torch", class)), Some(key)) =
            (self.pickle.text(tag), self.pickle.global(class), self.pickle.text(key))
        else {
            return Err(TensorError::Form);
        };
        let kind = match class {
            "HalfStorage" => DType::F16,
            "FloatStorage" => DType::F32,
            "BFloat16Storage" => DType::BF16,
            other => return Err(TensorError::Type(shortened(other))),
        };
        Ok(Storage { kind, key, count: self.size(count)? as u64 })
    }

    fn size(&self, id: Id) -> Result<usize, TensorError> {
        self.pickle.int(id).and_then(|int| usize::try_from(int).ok()).ok_or(TensorError::Form)
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>, TensorError> {
        let ids = self.pickle.elements(id).filter(|ids| ids.len() <= MOST_DIMENSIONS).ok_or(TensorError::Form)?;
        ids.iter().map(|id| self.size(*id)).collect()
    }
}

fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        if let (Some(&inner), Some(&size)) = (strides.get(at), shape.get(at))
            && let Some(outer) = strides.get_mut(at - 1)
        {
            *outer = inner * size;
        }
    }
    strides
}

/// Where the number stands that is the `at`-th in the order of the dimensions.
fn position(mut at: usize, shape: &[usize], strides: &[usize]) -> usize {
    let mut position = 0;
    for (&size, stride) in shape.iter().zip(strides).rev() {
        position += at % size * stride;
        at /= size;
    }
    position
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_the_strides() {
        assert_eq!(contiguous(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(contiguous(&[]), [0; 0]);
        let shape = [2, 3, 4];
        for at in 0..24 {
            assert_eq!(position(at, &shape, &contiguous(&shape)), at);
        }
        // Transposed.
        let found: Vec<_> = (0..6).map(|at| position(at, &[2, 3], &[1, 2])).collect();
        assert_eq!(found, [0, 2, 4, 1, 3, 5]);
    }
}
