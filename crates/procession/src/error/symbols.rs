//! Which function of a program or library is at an offset of its file: by the symbol table, without debug
//! information, so that a stripped release build needs no more than its symbols.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use object::{Object, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};

use super::backtrace::{FileId, Mapped};

/// The functions of a file, by address.
struct Symbols {
    /// Offset in the file, address, and length of each part that is loaded.
    segments: Vec<(u64, u64, u64)>,
    /// Address, length and name, sorted.
    functions: Vec<(u64, u64, String)>,
}

/// Tables that were read, at most so many: programs that crash again and again crash in the same files.
static READ: Mutex<Option<HashMap<FileId, Arc<Symbols>>>> = Mutex::new(None);
const MOST_FILES: usize = 16;
/// Bounds for a file that was made to exhaust the memory of this process.
const MOST_SYMBOLS: usize = 2_000_000;
const LONGEST_NAME: usize = 1000;

pub(super) fn function_at(mapped: &Mapped) -> Option<String> {
    let read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let known = read.as_ref().and_then(|read| read.get(&mapped.id).cloned());
    drop(read);
    known.or_else(|| read_and_keep(mapped))?.function_at(mapped.offset)
}

fn read_and_keep(mapped: &Mapped) -> Option<Arc<Symbols>> {
    // A program that was deleted or replaced is still there as this process, if it is the same.
    let paths = [&*mapped.path, Path::new("/proc/self/exe")];
    let file = paths.iter().find_map(|path| open_same(path, mapped.id))?;
    let symbols = Arc::new(Symbols::read(file)?);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let read = read.get_or_insert_default();
    if read.len() >= MOST_FILES {
        read.clear();
    }
    read.insert(mapped.id, Arc::clone(&symbols));
    Some(symbols)
}

/// The file at this path, if it is the one that the worker had mapped.
fn open_same(path: &Path, id: FileId) -> Option<File> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    // The worker may have replaced it by a pipe since then.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let device = metadata.dev();
    let same = metadata.ino() == id.inode
        && rustix::fs::major(device) == id.major
        && rustix::fs::minor(device) == id.minor;
    same.then_some(file)
}

impl Symbols {
    fn read(file: File) -> Option<Self> {
        let cache = ReadCache::new(file);
        let object = object::File::parse(&cache).ok()?;
        let segments = object.segments().map(|segment| {
            let (offset, length) = segment.file_range();
            (offset, segment.address(), length)
        });
        let mut functions = Vec::new();
        for symbol in object.symbols().chain(object.dynamic_symbols()).take(MOST_SYMBOLS) {
            if symbol.kind() == SymbolKind::Text && symbol.is_definition() {
                let name = symbol.name_bytes().unwrap_or_default();
                let name = &name[..name.len().min(LONGEST_NAME)];
                let name = String::from_utf8_lossy(name).into_owned();
                functions.push((symbol.address(), symbol.size(), name));
            }
        }
        let segments = segments.collect();
        functions.sort_unstable();
        functions.dedup_by_key(|(address, _, _)| *address);
        Some(Self { segments, functions })
    }

    fn function_at(&self, offset: u64) -> Option<String> {
        let within = |(start, _, length): &&(u64, u64, u64)| {
            offset.checked_sub(*start).is_some_and(|distance| distance < *length)
        };
        let (start, address, _) = self.segments.iter().find(within)?;
        let address = address.checked_add(offset - start)?;
        let behind = self.functions.partition_point(|(start, _, _)| *start <= address);
        let (start, length, name) = self.functions.get(behind.checked_sub(1)?)?;
        // Functions that are written in assembly may have no length.
        let is_in = *length == 0 || address - start < *length;
        is_in.then(|| format!("{:#}", rustc_demangle::demangle(name)))
    }
}
