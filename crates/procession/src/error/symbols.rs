//! Names the function at an offset of a program's or library's file. It reads the symbol table alone, so a
//! release build without debug information has names, too.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use object::elf::{self, FileHeader64};
use object::read::elf::{ElfFile64, FileHeader, SectionHeader};
use object::{NativeEndian, Object, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};
use procession_os::regular_file;

use super::backtrace::{FileId, Mapped};

/// The functions of a file, by address.
struct Symbols {
    /// Offset in the file, address, and length of each part that is loaded.
    segments: Vec<(u64, u64, u64)>,
    /// Sorted by address, one for each.
    functions: Vec<Function>,
    /// The sum of the lengths of the names.
    name_bytes: usize,
}

struct Function {
    address: u64,
    length: u64,
    name: String,
}

/// The symbol tables that were read, [`MOST_FILES`] at most. A program that crashes repeatedly does so in the
/// same files, which are read once.
static READ: Mutex<Option<HashMap<FileId, Arc<Symbols>>>> = Mutex::new(None);
const MOST_FILES: usize = 16;
/// Bounds for files that were made to exhaust the memory of this process. Symbols beyond them have no names.
const MOST_SYMBOLS: usize = 2_000_000;
/// Of all symbol tables of a file, without the names.
const MOST_TABLE_BYTES: u64 = 128 << 20;
/// Of the names of a file, and of those that are kept.
const MOST_NAME_BYTES: usize = 256 << 20;
const LONGEST_NAME: usize = 1000;

pub(super) fn function_at(mapped: &Mapped) -> Option<String> {
    let read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let known = read.as_ref().and_then(|read| read.get(&mapped.id).cloned());
    drop(read);
    known.or_else(|| read_and_keep(mapped))?.function_at(mapped.offset)
}

fn read_and_keep(mapped: &Mapped) -> Option<Arc<Symbols>> {
    // If the worker ran the program of this process, this link leads to it after it was deleted or replaced.
    let paths = [&*mapped.path, Path::new("/proc/self/exe")];
    let file = paths.iter().find_map(|path| open_same(path, mapped.id))?;
    let symbols = Arc::new(Symbols::read(file)?);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let read = read.get_or_insert_default();
    let name_bytes: usize = read.values().map(|symbols| symbols.name_bytes).sum();
    if read.len() >= MOST_FILES || name_bytes + symbols.name_bytes > MOST_NAME_BYTES {
        read.clear();
    }
    read.insert(mapped.id, Arc::clone(&symbols));
    Some(symbols)
}

/// The file at this path, if it is the one that the worker had mapped. The worker may have put a pipe in its place.
fn open_same(path: &Path, id: FileId) -> Option<File> {
    let file = regular_file::to_read(path).ok()?;
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let same = metadata.ino() == id.inode
        && rustix::fs::major(device) == id.major
        && rustix::fs::minor(device) == id.minor;
    same.then_some(file)
}

impl Symbols {
    fn read(file: File) -> Option<Self> {
        let cache = ReadCache::new(file);
        if !has_bounded_tables(&cache) {
            return None;
        }
        let object = ElfFile64::<NativeEndian, _>::parse(&cache).ok()?;
        let segments = object.segments().map(|segment| {
            let (offset, length) = segment.file_range();
            (offset, segment.address(), length)
        });
        let segments = segments.collect();
        let (mut functions, mut name_bytes) = (Vec::new(), 0);
        for symbol in object.symbols().chain(object.dynamic_symbols()).take(MOST_SYMBOLS) {
            if symbol.kind() == SymbolKind::Text && symbol.is_definition() {
                let name = symbol.name_bytes().unwrap_or_default();
                // The whole name: all that was read is held until the end.
                name_bytes += name.len();
                if name_bytes > MOST_NAME_BYTES {
                    break;
                }
                let name = &name[..name.len().min(LONGEST_NAME)];
                let name = String::from_utf8_lossy(name).into_owned();
                let (address, length) = (symbol.address(), symbol.size());
                functions.push(Function { address, length, name });
            }
        }
        Some(Self { segments, functions: one_for_each_address(functions), name_bytes })
    }

    fn function_at(&self, offset: u64) -> Option<String> {
        let within = |(start, _, length): &&(u64, u64, u64)| {
            offset.checked_sub(*start).is_some_and(|distance| distance < *length)
        };
        let (start, address, _) = self.segments.iter().find(within)?;
        let address = address.checked_add(offset - start)?;
        let behind = self.functions.partition_point(|function| function.address <= address);
        let Function { address: start, length, name } =
            self.functions.get(behind.checked_sub(1)?)?;
        // Functions that are written in assembly may have no length.
        let is_in = *length == 0 || address - start < *length;
        is_in.then(|| demangled(name))
    }
}

/// Whether the tables that are read as a whole are not too large. The file may be one of a terabyte without
/// content.
fn has_bounded_tables(cache: &ReadCache<File>) -> bool {
    /// The number does not fit, and is elsewhere.
    const IN_SECTION: u16 = 0xffff;
    let endian = NativeEndian;
    let Ok(header) = FileHeader64::<NativeEndian>::parse(cache) else { return false };
    // Now they are two megabytes at most.
    let is_small = header.e_shnum(endian) != 0 && header.e_phnum(endian) != IN_SECTION;
    let Some(Ok(sections)) = is_small.then(|| header.section_headers(endian, cache)) else {
        return false;
    };
    let is_table = |kind| matches!(kind, elf::SHT_SYMTAB | elf::SHT_DYNSYM | elf::SHT_SYMTAB_SHNDX);
    let tables = sections.iter().filter(|section| is_table(section.sh_type(endian)));
    let sum = tables.map(|section| section.sh_size(endian)).fold(0_u64, u64::saturating_add);
    sum <= MOST_TABLE_BYTES
}

/// Of several functions at an address, the longest: others are labels, and parts of it.
fn one_for_each_address(mut functions: Vec<Function>) -> Vec<Function> {
    functions.sort_unstable_by(|a, b| {
        let by_length = || b.length.cmp(&a.length);
        a.address.cmp(&b.address).then_with(by_length).then_with(|| a.name.cmp(&b.name))
    });
    functions.dedup_by_key(|function| function.address);
    functions
}

/// A short name may stand for a very long one.
fn demangled(name: &str) -> String {
    let mut name = format!("{:#}", rustc_demangle::demangle(name));
    let is_end = |at: &usize| name.is_char_boundary(*at);
    let end = (0..=LONGEST_NAME.min(name.len())).rev().find(is_end).unwrap_or(0);
    name.truncate(end);
    name
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn the_longest_of_several_functions_at_an_address_is_told() {
        let function =
            |address, length, name: &str| Function { address, length, name: name.to_owned() };
        let functions = vec![
            function(16, 0, "a_label"),
            function(16, 8, "b_function"),
            function(16, 4, "a_part"),
            function(16, 8, "c_other_name"),
            function(24, 0, "assembly"),
        ];
        let functions = one_for_each_address(functions);
        let symbols = Symbols { segments: vec![(0, 0, 64)], functions, name_bytes: 0 };
        assert_eq!(symbols.function_at(15), None);
        assert_eq!(symbols.function_at(16).as_deref(), Some("b_function"));
        assert_eq!(symbols.function_at(23).as_deref(), Some("b_function"));
        assert_eq!(symbols.function_at(60).as_deref(), Some("assembly"));
        assert_eq!(symbols.function_at(64), None);
    }

    #[test]
    fn the_functions_of_this_program_are_found() {
        let symbols = Symbols::read(File::open("/proc/self/exe").expect("a program"));
        let symbols = symbols.expect("symbols");
        let is_known = |function: &Function| demangled(&function.name).contains("are_found");
        assert!(symbols.functions.iter().any(is_known));
        assert!(symbols.name_bytes > symbols.functions.len());
    }

    /// A file without content, of this length, whose header says where which sections are.
    fn sparse(len: u64, number: u16, kind: u32, size: u64) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        let mut header = vec![0_u8; 64 + 2 * 64];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        header[40..48].copy_from_slice(&64_u64.to_le_bytes()); // where the sections are
        header[52..62].copy_from_slice(&[64, 0, 56, 0, 0, 0, 64, 0, 0, 0]);
        header[60..62].copy_from_slice(&number.to_le_bytes());
        header[64 + 32..64 + 40].copy_from_slice(&size.to_le_bytes());
        header[128 + 4..128 + 8].copy_from_slice(&kind.to_le_bytes());
        header[128 + 32..128 + 40].copy_from_slice(&size.to_le_bytes());
        file.write_all(&header).expect("written");
        file.set_len(len).expect("a length");
        file.rewind().expect("its begin");
        file
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_sparse_file_with_tables_of_a_terabyte_is_not_read() {
        let has_bounded = |file| has_bounded_tables(&ReadCache::new(file));
        const TERABYTE: u64 = 1 << 40;
        assert!(has_bounded(sparse(TERABYTE, 2, elf::SHT_SYMTAB.0, 4_800)));
        for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM, elf::SHT_SYMTAB_SHNDX] {
            assert!(!has_bounded(sparse(TERABYTE, 2, kind.0, TERABYTE / 2)));
            assert!(Symbols::read(sparse(TERABYTE, 2, kind.0, TERABYTE / 2)).is_none());
        }
        // So many sections that their number is in the first of them.
        assert!(!has_bounded(sparse(TERABYTE, 0, 0, TERABYTE / 100)));
        assert!(!has_bounded(tempfile::tempfile().expect("a file")));
    }

    #[test]
    fn a_name_that_stands_for_a_long_one_is_cut() {
        let short = "_RMC0".to_owned() + &"INvC1a1b".repeat(100) + &"RB_".repeat(40);
        assert!(demangled(&short).len() <= LONGEST_NAME);
        assert_eq!(demangled(&"é".repeat(LONGEST_NAME)).len(), LONGEST_NAME);
        assert_eq!(demangled("_RNvC3app5thumb"), "app::thumb");
    }
}
