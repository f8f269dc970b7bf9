//! Whether a value has only numbers that JSON can say.
//!
//! `serde_json` writes null for infinities and what is not a number, so whoever must not lose them has to
//! look before: here is a serializer that looks at every number and writes nothing.

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::Error as JsonError;

/// That all numbers in a value are finite.
///
/// # Errors
/// If one is not, or the value cannot be serialized.
pub(super) fn check_finite(value: &(impl Serialize + ?Sized)) -> Result<(), JsonError> {
    value.serialize(Finite)
}

#[derive(Clone, Copy)]
struct Finite;

type Checked = Result<(), JsonError>;

impl Finite {
    fn number(is_finite: bool) -> Checked {
        if is_finite { Ok(()) } else { Err(JsonError::custom("a number that is not finite")) }
    }
}

macro_rules! fine {
    ($($name:ident $type:ty),+ $(,)?) => {
        $(fn $name(self, _: $type) -> Checked {
            Ok(())
        })+
    };
}

macro_rules! opened {
    ($($name:ident($($type:ty),+)),+ $(,)?) => {
        $(fn $name(self, $(_: $type),+) -> Result<Self, JsonError> {
            Ok(self)
        })+
    };
}

impl Serializer for Finite {
    type Ok = ();
    type Error = JsonError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fine!(
        serialize_bool bool,
        serialize_i8 i8,
        serialize_i16 i16,
        serialize_i32 i32,
        serialize_i64 i64,
        serialize_i128 i128,
        serialize_u8 u8,
        serialize_u16 u16,
        serialize_u32 u32,
        serialize_u64 u64,
        serialize_u128 u128,
        serialize_char char,
        serialize_str &str,
        serialize_bytes &[u8],
        serialize_unit_struct &'static str,
    );

    fn serialize_f32(self, number: f32) -> Checked {
        Self::number(number.is_finite())
    }

    fn serialize_f64(self, number: f64) -> Checked {
        Self::number(number.is_finite())
    }

    fn serialize_none(self) -> Checked {
        Ok(())
    }

    fn serialize_unit(self) -> Checked {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Checked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Checked {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Checked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Checked {
        value.serialize(self)
    }

    opened!(
        serialize_seq(Option<usize>),
        serialize_tuple(usize),
        serialize_tuple_struct(&'static str, usize),
        serialize_tuple_variant(&'static str, u32, &'static str, usize),
        serialize_map(Option<usize>),
        serialize_struct(&'static str, usize),
        serialize_struct_variant(&'static str, u32, &'static str, usize),
    );
}

/// Everything inside a value is looked at in the same way.
macro_rules! inside {
    ($($trait:ident $name:ident ($($key:ty)?)),+ $(,)?) => {
        $(impl $trait for Finite {
            type Ok = ();
            type Error = JsonError;

            fn $name<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Checked {
                value.serialize(*self)
            }

            fn end(self) -> Checked {
                Ok(())
            }
        })+
    };
}

inside!(
    SerializeSeq serialize_element (),
    SerializeTuple serialize_element (),
    SerializeTupleStruct serialize_field (),
    SerializeTupleVariant serialize_field (),
    SerializeStruct serialize_field (&'static str),
    SerializeStructVariant serialize_field (&'static str),
);

impl SerializeMap for Finite {
    type Ok = ();
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Checked {
        key.serialize(*self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Checked {
        value.serialize(*self)
    }

    fn end(self) -> Checked {
        Ok(())
    }
}
