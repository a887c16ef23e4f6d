//! Types of every kind, with the values that encodings change or refuse: what a task or an output
//! may be made of. Equality is bit for bit.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CString, OsString};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroI128, NonZeroU64, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeInclusive};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What may be seen of each type.
pub(crate) trait Visit {
    fn visit<T>(&mut self, name: &'static str, about: &'static str, values: Vec<T>)
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug + Clone;
}

macro_rules! zoo {
    ($($name:ident: $type:ty, $about:literal, [$($value:expr),* $(,)?];)*) => {
        /// A value of any of the types.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub(crate) enum Animal {
            $($name($type)),*
        }

        /// The values of each type: its name, what it is, its values.
        pub(crate) fn all() -> Vec<(&'static str, &'static str, Vec<Animal>)> {
            vec![$((stringify!($name), $about, vec![$(Animal::$name($value)),*])),*]
        }

        /// Shows each type itself.
        pub(crate) fn show(visit: &mut impl Visit) {
            $(visit.visit::<$type>(stringify!($name), $about, vec![$($value),*]);)*
        }
    };
}

/// A float of which each bit counts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct F64(pub(crate) f64);

impl PartialEq for F64 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct F32(pub(crate) f32);

impl PartialEq for F32 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// A key that is a float.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Total(F64);

impl Eq for Total {}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Total {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.0.total_cmp(&other.0.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Colour {
    Red,
    #[serde(rename = "grün")]
    Green,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum VariantKey {
    Number(u8),
    Named { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Point {
    x: i8,
    y: i8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Empty {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Newtype(F64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pair(Option<u8>, String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Renamed {
    first_name: String,
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maybe: Option<u8>,
    #[serde(default)]
    listed: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Shape {
    Nothing,
    Circle(F64),
    Line(F64, F64),
    Box { width: F64, height: Option<F64> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum Internal {
    Nothing,
    Numbers { whole: u64, part: F64, small: F32 },
    Place(Point),
    Choice { maybe: Option<u8>, letter: char, colour: Colour },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum InternalWide {
    Wide { number: u128 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum InternalMap {
    Map { by_number: BTreeMap<u32, u8> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data")]
pub(crate) enum Adjacent {
    Nothing,
    One(F64),
    Two(u8, String),
    Named { wide: u128 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Untagged {
    Flag(bool),
    Whole(i64),
    Part(F64),
    Text(String),
    List(Vec<Untagged>),
    Place(Point),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flat {
    id: u64,
    #[serde(flatten)]
    place: Point,
    #[serde(flatten)]
    more: BTreeMap<String, F64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlatUnits {
    #[serde(flatten)]
    units: BTreeMap<String, Option<()>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlatOption {
    #[serde(flatten)]
    hints: Option<Hints>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hints {
    hint: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlatKeys {
    id: u8,
    #[serde(flatten)]
    by_number: BTreeMap<u32, u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Tree {
    Leaf(F64),
    Node(Box<Tree>, Box<Tree>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct List {
    value: u8,
    next: Option<Box<List>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generic<T> {
    marker: PhantomData<T>,
    value: Option<T>,
}

fn f64s(values: impl IntoIterator<Item = f64>) -> Vec<F64> {
    values.into_iter().map(F64).collect()
}

fn tree(depth: u32) -> Tree {
    match depth {
        0 => Tree::Leaf(F64(0.1)),
        _ => Tree::Node(Box::new(tree(depth - 1)), Box::new(Tree::Leaf(F64(-0.0)))),
    }
}

fn list(len: u8) -> List {
    let end = List { value: 0, next: None };
    (0..len).fold(end, |list, value| List { value, next: Some(Box::new(list)) })
}

fn map<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    entries.into_iter().collect()
}

const NAN: f64 = f64::from_bits(0xfff8_0000_dead_beef);

zoo! {
    Bool: bool, "`bool`", [true, false];
    Int8: (i8, u8), "`i8`, `u8`", [(i8::MIN, u8::MAX), (-1, 0)];
    Int16: (i16, u16), "`i16`, `u16`", [(i16::MIN, u16::MAX), (i16::MAX, 128)];
    Int32: (i32, u32), "`i32`, `u32`", [(i32::MIN, u32::MAX), (-1, 1 << 31)];
    Int64: (i64, u64), "`i64`, `u64`",
        [(i64::MIN, u64::MAX), (i64::MAX, (1 << 53) + 1), (-((1 << 53) + 1), 0)];
    Int128: (i128, u128), "`i128`, `u128`",
        [(i128::MIN, u128::MAX), (i128::MAX, 0), (-1, 1 << 64)];
    NonZero: (NonZeroU64, NonZeroI128), "`NonZero`",
        [(NonZeroU64::MAX, NonZeroI128::MIN), (NonZeroU64::MIN, NonZeroI128::MAX)];
    Wrapped: (Wrapping<u8>, Saturating<i64>, Reverse<u8>), "`Wrapping`, `Saturating`, `Reverse`",
        [(Wrapping(255), Saturating(i64::MIN), Reverse(3))];
    Float64: F64, "`f64`: finite, every bit", [
        F64(0.09144338512092887), F64(0.1), F64(-0.0), F64(0.0), F64(f64::MAX), F64(f64::MIN),
        F64(f64::MIN_POSITIVE), F64(f64::from_bits(1)), F64(5e-324), F64(1e23), F64(1.0), F64(1e300),
        F64(9_007_199_254_740_993.0), F64(f64::EPSILON), F64(f64::from_bits(0x000f_ffff_ffff_ffff)),
    ];
    Float32: F32, "`f32`: finite, every bit", [
        F32(0.1), F32(-0.0), F32(f32::MAX), F32(f32::MIN_POSITIVE), F32(f32::from_bits(1)),
        F32(16_777_217.0), F32(3.4e38), F32(f32::from_bits(0x007f_ffff)), F32(7.038531e-26),
    ];
    Infinite: (F64, F32), "`f64`, `f32`: infinities",
        [(F64(f64::INFINITY), F32(1.0)), (F64(1.0), F32(f32::NEG_INFINITY))];
    NotANumber: (F64, F32), "`f64`, `f32`: NaN, with its payload", [
        (F64(f64::NAN), F32(1.0)), (F64(NAN), F32(1.0)), (F64(1.0), F32(f32::NAN)),
        (F64(f64::from_bits(0x7ff0_0000_0000_0001)), F32(f32::from_bits(0xff80_0001))),
    ];
    MaybeFloat: Option<F64>, "`Option<f64>`: NaN and infinities",
        [Some(F64(f64::NAN)), Some(F64(f64::NEG_INFINITY)), Some(F64(NAN))];
    Char: char, "`char`", ['a', '\0', '"', 'ß', '\u{1F1E7}', char::MAX];
    Text: String, "`String`", [
        String::new(), "\0\u{1}\u{7f}\\\"\r\n\u{2028}".to_owned(), "e\u{301} 🇧🇷 \u{10ffff}".to_owned(),
        "null".to_owned(), "x".repeat(100_000),
    ];
    BorrowedText: (Cow<'static, str>, Box<str>, Arc<str>), "`Cow<str>`, `Box<str>`, `Arc<str>`",
        [("a".into(), "ü".into(), "".into())];
    UnitValue: (), "`()`", [()];
    UnitStruct: Unit, "a unit struct", [Unit];
    EmptyStruct: Empty, "a struct without fields", [Empty {}];
    Marker: PhantomData<String>, "`PhantomData`", [PhantomData];
    NewtypeStruct: Newtype, "a newtype struct", [Newtype(F64(0.1)), Newtype(F64(-0.0))];
    TupleStruct: Pair, "a tuple struct", [Pair(None, "a".to_owned()), Pair(Some(0), String::new())];
    Tuple: (u8, (F64, String), ()), "nested tuples", [(1, (F64(0.3), "x".to_owned()), ())];
    Struct: Renamed, "a struct with `rename`, `default`, `skip_serializing_if`", [
        Renamed { first_name: "A".to_owned(), kind: 1, maybe: None, listed: vec![] },
        Renamed { first_name: String::new(), kind: 0, maybe: Some(0), listed: vec![1, 2] },
    ];
    Generics: Generic<F64>, "a generic struct",
        [Generic { marker: PhantomData, value: Some(F64(0.7)) }, Generic { marker: PhantomData, value: None }];
    Choice: Option<u8>, "`Option`", [None, Some(0), Some(255)];
    MaybeUnit: Option<()>, "`Option<()>`", [None, Some(())];
    MaybeUnitStruct: Option<Unit>, "`Option` of a unit struct", [None, Some(Unit)];
    NestedOption: Option<Option<u8>>, "`Option<Option<u8>>`", [None, Some(None), Some(Some(1))];
    DeepOption: Vec<Option<Option<Option<bool>>>>, "options three deep",
        [vec![None, Some(Some(Some(false)))], vec![Some(None)], vec![Some(Some(None)), None]];
    Outcome: Result<Option<u8>, String>, "`Result`", [Ok(None), Ok(Some(1)), Err("no".to_owned())];
    Enum: Shape, "an enum with variants of each kind", [
        Shape::Nothing, Shape::Circle(F64(0.1)), Shape::Line(F64(1.0), F64(-0.0)),
        Shape::Box { width: F64(2.0), height: None }, Shape::Box { width: F64(2.0), height: Some(F64(0.1)) },
    ];
    InternallyTagged: Internal, "an internally tagged enum", [
        Internal::Nothing, Internal::Place(Point { x: -1, y: 127 }),
        Internal::Numbers { whole: u64::MAX, part: F64(-0.0), small: F32(0.1) },
        Internal::Numbers { whole: 0, part: F64(1.0), small: F32(16_777_216.0) },
        Internal::Choice { maybe: None, letter: 'ü', colour: Colour::Green },
        Internal::Choice { maybe: Some(1), letter: '"', colour: Colour::Red },
    ];
    InternallyTaggedWide: InternalWide, "an internally tagged enum with `u128` above 64 bits",
        [InternalWide::Wide { number: u128::MAX }];
    InternallyTaggedMap: InternalMap, "an internally tagged enum with a map by numbers",
        [InternalMap::Map { by_number: map([(1, 2), (u32::MAX, 0)]) }];
    AdjacentlyTagged: Adjacent, "an adjacently tagged enum", [
        Adjacent::Nothing, Adjacent::One(F64(0.1)), Adjacent::Two(1, "b".to_owned()),
        Adjacent::Named { wide: u128::MAX },
    ];
    UntaggedEnum: Untagged, "an untagged enum", [
        Untagged::Flag(true), Untagged::Whole(i64::MIN), Untagged::Whole(1), Untagged::Part(F64(1.0)),
        Untagged::Part(F64(-0.0)), Untagged::Part(F64(0.1)), Untagged::Text("1".to_owned()),
        Untagged::List(vec![Untagged::Whole(1), Untagged::List(vec![]), Untagged::Part(F64(1e300))]),
        Untagged::Place(Point { x: 1, y: 2 }),
    ];
    Flattened: Flat, "a struct with `flatten`", [
        Flat { id: u64::MAX, place: Point { x: 1, y: -2 }, more: map([("a".to_owned(), F64(0.1))]) },
        Flat { id: 0, place: Point { x: 0, y: 0 }, more: map([]) },
    ];
    FlattenedUnits: FlatUnits, "a flattened map of `Option<()>`",
        [FlatUnits { units: map([("a".to_owned(), None), ("b".to_owned(), Some(()))]) }];
    FlattenedOption: FlatOption, "a flattened `Option` of a struct that may be empty",
        [FlatOption { hints: None }, FlatOption { hints: Some(Hints { hint: Some(1) }) }];
    FlattenedKeys: FlatKeys, "a flattened map by numbers",
        [FlatKeys { id: 1, by_number: map([(7, 8)]) }];
    Json: serde_json::Value, "`serde_json::Value`", [
        json!(null), json!({"a": [u64::MAX, i64::MIN, 0.1, -0.0, 1.0, null, true, "x"], "b": {}}),
        json!(0.09144338512092887), json!("$serde_json::private::Number"),
    ];
    MaybeJson: Option<serde_json::Value>, "`Option<serde_json::Value>` with `null`",
        [None, Some(json!(null)), Some(json!([null]))];
    Bytes: serde_bytes::ByteBuf, "`serde_bytes::ByteBuf`",
        [serde_bytes::ByteBuf::from(vec![0, 255, 128]), serde_bytes::ByteBuf::new()];
    ByteVector: Vec<u8>, "`Vec<u8>`", [vec![], (0..=255).collect()];
    CText: CString, "`CString`", [c"a\xff".to_owned(), c"".to_owned()];
    OsText: OsString, "`OsString`, not UTF-8 too",
        ["ä".into(), OsString::from_vec(vec![b'a', 0xff, 0xfe])];
    Path: PathBuf, "`PathBuf`", ["/tmp/ä b".into(), PathBuf::new()];
    NonUtf8Path: PathBuf, "`PathBuf` that is not UTF-8",
        [OsString::from_vec(vec![b'/', 0xff]).into()];
    Span: Duration, "`Duration`", [Duration::MAX, Duration::ZERO, Duration::new(1, 999_999_999)];
    Moment: SystemTime, "`SystemTime`",
        [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::new(4_000_000_000, 1)];
    Timestamp: (jiff::Timestamp, jiff::SignedDuration), "`jiff::Timestamp`, `jiff::SignedDuration`",
        [(jiff::Timestamp::MAX, jiff::SignedDuration::MIN), (jiff::Timestamp::UNIX_EPOCH, jiff::SignedDuration::MIN)];
    Civil: jiff::civil::DateTime, "`jiff::civil::DateTime`",
        [jiff::civil::DateTime::MIN, jiff::civil::DateTime::MAX];
    Address: (IpAddr, SocketAddr), "`IpAddr`, `SocketAddr`", [
        ([127, 0, 0, 1].into(), ([0, 0, 0, 0], 80).into()),
        ("fe80::1".parse().expect("an address"), "[::1]:65535".parse().expect("an address")),
    ];
    Id: uuid::Uuid, "`uuid::Uuid`", [uuid::Uuid::max(), uuid::Uuid::from_u128(7)];
    Ranges: (Range<u64>, RangeInclusive<i8>, Bound<F64>), "`Range`, `RangeInclusive`, `Bound`",
        [(0..u64::MAX, -1..=1, Bound::Unbounded), (Range { start: 2, end: 1 }, 0..=0, Bound::Excluded(F64(0.1)))];
    Array: [F64; 3], "an array", [[F64(0.1), F64(-0.0), F64(1e-320)]];
    Arrays: ([u8; 32], [(); 2]), "arrays of bytes and units", [([7; 32], [(); 2])];
    Vector: Vec<F64>, "`Vec<f64>`", [vec![], f64s((0..1000).map(|n| f64::from(n) / 997.0))];
    Vectors: Vec<Vec<Option<String>>>, "nested `Vec`s",
        [vec![], vec![vec![], vec![None, Some(String::new())]]];
    Units: Vec<()>, "`Vec<()>`", [vec![(); 3], vec![]];
    Deque: (VecDeque<i8>, LinkedList<bool>), "`VecDeque`, `LinkedList`",
        [([1, -2].into(), [true].into()), ([].into(), [].into())];
    Heap: Sorted, "`BinaryHeap`", [Sorted(BinaryHeap::from([3, 1, 2]))];
    Set: BTreeSet<Option<char>>, "`BTreeSet`", [[None, Some('a')].into(), [].into()];
    HashedSet: HashSet<(u8, String)>, "`HashSet`", [(0..20).map(|n| (n, n.to_string())).collect()];
    TextKeys: BTreeMap<String, F64>, "a map by `String`",
        [map([("".to_owned(), F64(0.1)), ("\"\n".to_owned(), F64(1.0))]), map([])];
    HashedMap: HashMap<u64, String>, "`HashMap` by `u64`", [(0..20).map(|n| (n << 58, n.to_string())).collect()];
    IntKeys: BTreeMap<i128, u8>, "a map by `i128`", [map([(i128::MIN, 1), (0, 2), (i128::MAX, 3)])];
    BoolKeys: BTreeMap<bool, char>, "a map by `bool`", [map([(true, 'a'), (false, 'b')])];
    CharKeys: BTreeMap<char, ()>, "a map by `char`", [map([('"', ()), ('ß', ())])];
    EnumKeys: BTreeMap<Colour, u8>, "a map by an enum without data",
        [map([(Colour::Red, 1), (Colour::Green, 2)])];
    FloatKeys: BTreeMap<Total, u8>, "a map by floats", [map([(Total(F64(-0.0)), 1), (Total(F64(0.1)), 2)])];
    NotANumberKeys: BTreeMap<Total, u8>, "a map by floats, with NaN", [map([(Total(F64(NAN)), 1)])];
    TupleKeys: BTreeMap<(u8, String), u8>, "a map by tuples",
        [map([((1, "a".to_owned()), 1), ((1, String::new()), 2)])];
    VectorKeys: BTreeMap<Vec<u8>, u8>, "a map by `Vec`s", [map([(vec![], 1), (vec![1, 2], 2)])];
    OptionKeys: BTreeMap<Option<u8>, u8>, "a map by `Option`s", [map([(None, 1), (Some(1), 2)])];
    StructKeys: BTreeMap<Point, u8>, "a map by structs", [map([(Point { x: 1, y: 2 }, 1)])];
    VariantKeys: BTreeMap<VariantKey, u8>, "a map by an enum with data",
        [map([(VariantKey::Number(1), 1), (VariantKey::Named { name: "a".to_owned() }, 2)])];
    UnitKeys: BTreeMap<(), u8>, "a map by `()`", [map([((), 1)])];
    NestedMap: BTreeMap<String, BTreeMap<u8, Vec<Option<F64>>>>, "nested maps",
        [map([("a".to_owned(), map([(1, vec![None, Some(F64(0.1))])]))])];
    Recursive: Tree, "a tree", [tree(0), tree(20)];
    Linked: List, "a list, 100 deep", [list(0), list(100)];
    DeeplyLinked: List, "a list, 200 deep", [list(200)];
}

/// A heap, which has no order of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Sorted(BinaryHeap<u8>);

impl PartialEq for Sorted {
    fn eq(&self, other: &Self) -> bool {
        self.0.clone().into_sorted_vec() == other.0.clone().into_sorted_vec()
    }
}
