//! Bytes in and out. Reading is total: any bytes give a value or a
//! [`DecodeError`](crate::error::DecodeError), and nothing is allocated that the bytes left could not fill.
//!
//! The layout is written down in `docs/format.md` and pinned by golden files.

mod block;
mod columns;
mod fields;
mod keys;
mod ops;
mod patch;
mod patch_state;
mod reader;
mod remainder;
mod snapshot;
mod state;
mod writer;

pub(crate) use block::{decode_block, encode_block};
pub(crate) use columns::InColumns;
use columns::{Column, Sink, Source};
pub(crate) use fields::{field_number, read_field, write_field};
pub(crate) use ops::{
    BYTES_KIND, OpReader, OpWriter, Scope, TEXT_KIND, TEXT_KINDS, read_content, value_kind,
    write_content,
};
pub use patch::{CheckedPatch, Patch};
pub(crate) use patch::{Kind, Section, for_each_section, pack_changes, pack_sections};
pub use patch_state::PatchState;
pub(crate) use reader::Reader;
use reader::unzigzag;
pub(crate) use remainder::{decode_remainder, encode_remainder};
pub(crate) use snapshot::{LogHead, pack, unpack, unpack_first};
pub(crate) use state::{StateReader, encode_state};
pub(crate) use writer::Writer;
use writer::zigzag;
