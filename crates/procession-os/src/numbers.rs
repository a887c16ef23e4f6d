//! Vectors of numbers as bytes, for generic functions, whose type parameter may be such a vector.
//!
//! A generic function cannot compare its type with `Vec<f32>` unless the type is `'static`. The functions here can,
//! since no number has a lifetime. The bytes of a number are in the order of the machine.

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::slice;

use crate::memory::prefer_huge_pages;

/// A number without padding, for which each pattern of bits is a value: an integer or a float of at most 64 bits.
pub trait PlainNumber: private::NumberType + Copy + 'static {}

mod private {
    /// Implemented for numbers only.
    pub trait NumberType {}
}

macro_rules! plain_numbers {
    ($($type:ty)*) => {
        $(impl private::NumberType for $type {}
        impl PlainNumber for $type {})*
    };
}

plain_numbers!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);

/// The id of a type that may have lifetimes. Types that differ only in their lifetimes have the same id.
#[inline(always)]
pub fn type_id_of<T: ?Sized>() -> TypeId {
    trait HasTypeId {
        fn type_id_of(&self) -> TypeId
        where
            Self: 'static;
    }
    impl<T: ?Sized> HasTypeId for PhantomData<T> {
        #[inline(always)]
        fn type_id_of(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }
    let marker = PhantomData::<T>;
    let marker: &dyn HasTypeId = &marker;
    // SAFETY: only the lifetime changes, for this call. The value has no size, and the method does not look at it: it
    // returns a constant, in which there are no lifetimes.
    let marker = unsafe { mem::transmute::<&dyn HasTypeId, &(dyn HasTypeId + 'static)>(marker) };
    marker.type_id_of()
}

/// The bytes of the numbers, if `sequence` is a `&Vec<T>` or a `&[T]`.
#[inline]
pub fn bytes_of<T: PlainNumber, S>(sequence: &S) -> Option<&[u8]> {
    let id = type_id_of::<S>();
    let numbers: &[T] = if id == TypeId::of::<&'static Vec<T>>() {
        // SAFETY: `S` is a `&Vec<T>` of some lifetime, at least as long as that of `sequence`. `T` has no lifetimes.
        unsafe { *(&raw const *sequence).cast::<&Vec<T>>() }
    } else if id == TypeId::of::<&'static [T]>() {
        // SAFETY: the same for a `&[T]`.
        unsafe { *(&raw const *sequence).cast::<&[T]>() }
    } else {
        return None;
    };
    // SAFETY: all bytes of these numbers are initialized, and borrowed for as long as the numbers are.
    Some(unsafe { slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) })
}

/// The numbers that have these bytes, if `V` is `Vec<T>`. Bytes behind the last whole number are left out.
#[inline]
pub fn vec_of<T: PlainNumber, V>(bytes: &[u8]) -> Option<V> {
    if type_id_of::<V>() != TypeId::of::<Vec<T>>() {
        return None;
    }
    let numbers = ManuallyDrop::new(read::<T>(bytes));
    // SAFETY: `V` is `Vec<T>`, which has no lifetimes. `read` moves the vector, and `numbers` is never dropped.
    Some(unsafe { (&raw const numbers).cast::<V>().read() })
}

fn read<T: PlainNumber>(bytes: &[u8]) -> Vec<T> {
    let len = bytes.len() / size_of::<T>();
    let mut numbers = Vec::<T>::with_capacity(len);
    prefer_huge_pages(numbers.spare_capacity_mut());
    // SAFETY: the vector has room for `len` numbers. It is new, so its memory does not overlap with `bytes`. The copy
    // initializes `len` numbers, since each pattern of bits is a value.
    unsafe {
        let room = numbers.as_mut_ptr().cast::<u8>();
        room.copy_from_nonoverlapping(bytes.as_ptr(), len * size_of::<T>());
        numbers.set_len(len);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of_floats<S>(sequence: S) -> Option<Vec<u8>> {
        bytes_of::<f32, S>(&sequence).map(<[u8]>::to_vec)
    }

    #[test]
    fn vectors_and_slices_of_the_number_are_found_and_nothing_else() {
        let floats = vec![0.5_f32, -0.0, f32::from_bits(0x7fc0_1234)];
        let bytes = floats.iter().flat_map(|float| float.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(bytes_of_floats(&floats), Some(bytes.clone()));
        assert_eq!(bytes_of_floats(&floats[..]), Some(bytes));
        assert_eq!(bytes_of_floats(&Vec::<f32>::new()), Some(Vec::new()));
        assert_eq!(bytes_of_floats(floats.clone()), None, "not borrowed");
        assert_eq!(bytes_of_floats(&[0.5_f32; 3]), None, "an array");
        assert_eq!(bytes_of_floats(&vec![1_u32]), None, "another number");
        assert_eq!(bytes_of_floats(&&floats), None, "borrowed twice");
        assert_eq!(bytes_of_floats(floats.iter()), None);
    }

    #[test]
    fn only_a_vector_of_the_number_is_made() {
        let bytes = [1.5_f64.to_ne_bytes(), f64::NEG_INFINITY.to_ne_bytes()].concat();
        let floats = vec_of::<f64, Vec<f64>>(&bytes[..]).expect("of this type");
        assert_eq!(floats, [1.5, f64::NEG_INFINITY]);
        assert_eq!(vec_of::<f64, Vec<f64>>(&bytes[..15]).expect("of this type"), [1.5]);
        let off_by_one = [&[0], &bytes[..]].concat();
        assert_eq!(vec_of::<f64, Vec<f64>>(&off_by_one[1..]).expect("of this type"), floats);
        assert_eq!(vec_of::<f64, Vec<u64>>(&bytes[..]), None);
        assert_eq!(vec_of::<f64, Box<[f64]>>(&bytes[..]), None);
        assert_eq!(vec_of::<u8, Vec<u8>>(&bytes[..]).as_ref(), Some(&bytes));
        assert_eq!(vec_of::<u64, Vec<u64>>(&[]), Some(Vec::new()));
        let long = vec![7; 9 << 20];
        assert!(vec_of::<u8, Vec<u8>>(&long[..]).expect("of this type") == long);
    }

    #[test]
    fn lifetimes_make_no_other_type() {
        fn id_of_pair<'s>(_: &'s str) -> TypeId {
            type_id_of::<(&'s str, &'static str)>()
        }
        let text = String::from("x");
        assert_eq!(id_of_pair(&text), TypeId::of::<(&'static str, &'static str)>());
        assert_ne!(type_id_of::<Vec<f32>>(), type_id_of::<Vec<u32>>());
    }
}
