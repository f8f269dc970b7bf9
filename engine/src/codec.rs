//! Bytes in and out. Reading is total: any bytes give a value or a [`DecodeError`](crate::error::DecodeError), and nothing is
//! allocated that the bytes left could not fill.
//!
//! The layout is written down in `docs/format.md` and pinned by a golden file.

mod ops;
mod patch;
mod reader;
mod snapshot;
mod writer;

pub(crate) use ops::{decode_ops, encode_op, write_value};
pub use patch::Patch;
pub(crate) use reader::Reader;
pub(crate) use snapshot::{pack_snapshot, unpack_snapshot};
pub(crate) use writer::Writer;
