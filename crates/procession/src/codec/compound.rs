//! The serde traits for values with elements, implemented once for both encodings.

/// Implements the seven `Serialize…` traits for a type with these methods, all of which return
/// `Result<(), Refusal>`:
///
/// | method | writes |
/// |---|---|
/// | `element(value)` | an element of a sequence |
/// | `item(value)` | an element of a tuple |
/// | `field(name, value)` | a field of a struct |
/// | `key(key)`, `value(value)` | an entry of a map |
/// | `close(self)` | the end |
macro_rules! impl_compound {
    ($compound:ty) => {
        impl_compound!($compound, SerializeSeq, serialize_element, element);
        impl_compound!($compound, SerializeTuple, serialize_element, item);
        impl_compound!($compound, SerializeTupleStruct, serialize_field, item);
        impl_compound!($compound, SerializeTupleVariant, serialize_field, item);
        impl_compound!($compound, SerializeStruct);
        impl_compound!($compound, SerializeStructVariant);

        impl serde::ser::SerializeMap for $compound {
            type Ok = ();
            type Error = Refusal;

            #[inline]
            fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refusal> {
                self.key(key)
            }

            #[inline]
            fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
                self.value(value)
            }

            #[inline]
            fn end(self) -> Result<(), Refusal> {
                self.close()
            }
        }
    };
    ($compound:ty, $trait:ident, $method:ident, $does:ident) => {
        impl serde::ser::$trait for $compound {
            type Ok = ();
            type Error = Refusal;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
                self.$does(value)
            }

            #[inline]
            fn end(self) -> Result<(), Refusal> {
                self.close()
            }
        }
    };
    ($compound:ty, $trait:ident) => {
        impl serde::ser::$trait for $compound {
            type Ok = ();
            type Error = Refusal;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Refusal> {
                self.field(name, value)
            }

            #[inline]
            fn end(self) -> Result<(), Refusal> {
                self.close()
            }
        }
    };
}

pub(super) use impl_compound;
