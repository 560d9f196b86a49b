//! The safetensors container: an 8-byte little-endian header length, a JSON header, the data.
//!
//! Source of the format: the README of the safetensors project.
//!
//! Invariants: every tensor's range lies inside the file and has exactly the bytes its shape
//! and type say; checked before anything is allocated for it.

use std::collections::HashMap;

use serde::Deserialize;
use sublet_core::Result;

use super::bytes::{ByteSource, invalid};
use crate::matrix::Storage;

/// Largest header accepted, in bytes.
const HEADER_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// One file's tensors by name.
pub struct Safetensors {
    source: ByteSource,
    data_start: u64,
    tensors: HashMap<String, TensorEntry>,
}

#[derive(Deserialize)]
struct TensorEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Safetensors {
    pub fn open(source: ByteSource) -> Result<Self> {
        let length_bytes = source.read(0, 8)?;
        let header_length = u64::from_le_bytes(length_bytes.try_into().expect("eight bytes were read"));
        if header_length > HEADER_BYTES_MAX {
            return Err(invalid(source.name(), "is not a safetensors file: its header length is absurd"));
        }
        let header = source.read(8, header_length)?;
        let mut raw: HashMap<String, serde_json::Value> = serde_json::from_slice(&header)
            .map_err(|error| invalid(source.name(), format!("its header is not valid JSON ({error})")))?;
        raw.remove("__metadata__");
        let mut tensors = HashMap::with_capacity(raw.len());
        for (name, value) in raw {
            let entry: TensorEntry = serde_json::from_value(value)
                .map_err(|error| invalid(source.name(), format!("tensor {name} is described wrongly ({error})")))?;
            tensors.insert(name, entry);
        }
        let data_start = 8 + header_length;
        Ok(Self { source, data_start, tensors })
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads a tensor, `None` if there is none of this name.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Option<Storage>> {
        let Some(entry) = self.tensors.get(name) else { return Ok(None) };
        if !entry.shape.iter().copied().eq(shape.iter().map(|size| *size as u64)) {
            let problem = format!("tensor {name} has shape {:?}, config.json asks for {shape:?}", entry.shape);
            return Err(invalid(self.source.name(), problem));
        }
        let width: u64 = match entry.dtype.as_str() {
            "F32" => 4,
            "F16" | "BF16" => 2,
            other => {
                let problem = format!("tensor {name} has type {}; F32, F16 and BF16 work", short(other));
                return Err(invalid(self.source.name(), problem));
            }
        };
        let (start, end) = entry.data_offsets;
        let expected = entry.shape.iter().try_fold(width, |product, size| product.checked_mul(*size));
        let offset = self.data_start.checked_add(start);
        let (Some(length), Some(offset)) = (end.checked_sub(start).filter(|length| Some(*length) == expected), offset) else {
            return Err(invalid(self.source.name(), format!("tensor {name} has offsets that do not fit its shape")));
        };
        let bytes = self.source.read(offset, length)?;
        Ok(Some(match entry.dtype.as_str() {
            "F32" => Storage::F32(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()),
            "F16" => Storage::F16(bytes.as_chunks().0.iter().map(|chunk| u16::from_le_bytes(*chunk)).collect()),
            _ => Storage::Bf16(bytes.as_chunks().0.iter().map(|chunk| u16::from_le_bytes(*chunk)).collect()),
        }))
    }

    pub fn file(&self) -> &str {
        self.source.name()
    }
}

fn short(text: &str) -> String {
    text.chars().take(20).collect()
}
