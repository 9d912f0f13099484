//! What an executable is, by what it says of itself: the build information that Go leaves in every program.
//!
//! The format is that of Go's `debug/buildinfo` (read there, in go1.26, and tried with programs of go1.16 to go1.26): a header
//! of 32 bytes at a multiple of 16, in the section `.go.buildinfo`, or where the section headers were stripped somewhere in
//! the data segment. Since Go 1.18 the texts follow it; before, it has pointers to them. No crate that is kept well reads
//! this; the ELF around it is taken apart with `elf`, which has neither unsafe code nor dependencies.
//!
//! Most programs of a node are not Go's, and some are large. So only headers are read of them: the names of their sections
//! tell.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, PoisonError, RwLock};

use elf::abi::{PF_W, PF_X, PT_LOAD, PT_NOTE};
use elf::endian::{AnyEndian, EndianParse as _};
use elf::file::{FileHeader, parse_ident};
use elf::parse::{ParseAt, ParsingTable};
use elf::section::SectionHeader;
use elf::segment::ProgramHeader;
use seaworthy_evidence::{ErrorKind, EvidenceError};

use crate::procfs::{Executable as File, FileId};

/// What an executable is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A program of Go that says what it was made of.
    Go(Build),
    /// A program of Go that does not: made before Go 1.13, or not from modules.
    GoUntold,
    /// No program of Go.
    Other,
}

/// What a program of Go was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The package that was built, for example `go.etcd.io/etcd/server/v3`.
    pub package: String,
    /// The module of that package.
    pub main: Option<Module>,
    /// The modules of the packages that are linked into it.
    pub dependencies: Vec<Module>,
}

/// A module of Go, in some version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its path, by which it is imported.
    pub path: String,
    /// Its version; `(devel)` where the build did not know it.
    pub version: String,
    /// The version of what was built in its place. Empty where that was a folder, of which nothing else is known.
    pub replaced_by: Option<String>,
}

impl Module {
    /// Returns the version of what was built.
    pub fn built(&self) -> &str {
        self.replaced_by.as_deref().unwrap_or(&self.version)
    }
}

/// The executables that processes run. Each is read once, however many run it.
#[derive(Debug, Default)]
pub struct Programs {
    known: RwLock<HashMap<FileId, Arc<Told>>>,
}

/// What an executable is, or why that is not known.
pub type Told = Result<Program, EvidenceError>;

impl Programs {
    /// Returns what the file is, if it has been read before.
    pub fn known(&self, id: &FileId) -> Option<Arc<Told>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Returns what `file` is.
    pub fn of(&self, file: &File<'_>) -> Arc<Told> {
        if let Some(known) = file.id().ok().and_then(|id| self.known(&id)) {
            return known;
        }
        let (opened, id) = match file.open() {
            Ok(opened) => opened,
            Err(error) => return Arc::new(Err(error)),
        };
        let read = |offset, buffer: &mut [u8]| opened.read_at(buffer, offset);
        let told = Arc::new(self::read(read).map_err(|error| error.at(file.origin())));
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&told));
        told
    }
}

/// Most bytes that are read of one table or text.
const MAX_PART: usize = 1 << 20;
/// Most bytes of a data segment that are searched; the linker puts the header near its beginning.
const MAX_SEARCHED: u64 = 32 << 20;
/// No program of Go is smaller, packed or not: its runtime alone is larger.
const SMALLEST: u64 = 128 << 10;
/// How much is searched at a time: a multiple of [`ALIGNMENT`].
const CHUNK: usize = 256 << 10;
/// How much is read first. The tables of most programs that are needed first lie within it.
const HEAD: usize = 4096;

const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGNMENT: u64 = 16;
const HEADER: usize = 32;
/// What frames the text that tells the modules, before and behind.
const FRAME: usize = 16;

/// Returns what the executable is that `read` reads: it fills as much of a buffer as there is from an offset, and says how
/// much.
///
/// # Errors
///
/// What `read` fails with; `Malformed` where the headers contradict the file, `TooLarge`, and `Unsupported` where it says
/// nothing and has no section headers, as a packed program.
pub fn read(read: impl Fn(u64, &mut [u8]) -> io::Result<usize>) -> Result<Program, EvidenceError> {
    let mut head = vec![0; HEAD];
    let length = fill(&read, 0, &mut head)?;
    head.truncate(length);
    let Some(ident) = head.get(..elf::abi::EI_NIDENT).filter(|ident| ident.starts_with(&elf::abi::ELFMAGIC))
    else {
        return Ok(Program::Other);
    };
    let ident = parse_ident::<AnyEndian>(ident).map_err(malformed)?;
    let header = FileHeader::parse_tail(ident, head.get(elf::abi::EI_NIDENT..).unwrap_or_default())
        .map_err(malformed)?;
    let mut executable = Executable { read, head, header, segments: Vec::new() };
    executable.segments = executable.table(header.e_phoff, header.e_phnum, header.e_phentsize)?;
    executable.program()
}

/// An executable whose headers have been read.
struct Executable<R> {
    read: R,
    /// Its beginning.
    head: Vec<u8>,
    header: FileHeader<AnyEndian>,
    segments: Vec<ProgramHeader>,
}

/// What the names of sections say.
#[derive(Default)]
struct Sections {
    /// Where the build information is in memory.
    information: Option<Range<u64>>,
    /// Whether one of the others is of a kind that only Go makes.
    go: bool,
}

impl<R: Fn(u64, &mut [u8]) -> io::Result<usize>> Executable<R> {
    fn program(&self) -> Result<Program, EvidenceError> {
        let (go, range) = match self.sections() {
            Some(Sections { information: Some(range), .. }) => (true, range),
            Some(Sections { go: true, .. }) => (true, self.data()),
            Some(_) => return Ok(Program::Other),
            None => (self.has_go_note(), self.data()),
        };
        match self.search(range)?.map(|at| self.texts(at)).transpose()?.flatten() {
            Some(text) => Ok(Build::parse(&text).map_or(Program::GoUntold, Program::Go)),
            None if go => Ok(Program::GoUntold),
            None if fill(&self.read, SMALLEST, &mut [0])? == 0 => Ok(Program::Other),
            None => {
                let message = "it has neither section headers nor build information, as a packed program";
                Err(EvidenceError::new(ErrorKind::Unsupported, message))
            }
        }
    }

    /// Returns what the names of the sections say; `None` when it has none, or they cannot be read.
    fn sections(&self) -> Option<Sections> {
        let header = &self.header;
        let sections: Vec<SectionHeader> = self
            .table(header.e_shoff, header.e_shnum, header.e_shentsize)
            .ok()
            .filter(|all: &Vec<_>| !all.is_empty())?;
        let names = sections.get(usize::from(header.e_shstrndx))?;
        let names = self.part(names.sh_offset, usize::try_from(names.sh_size).ok()?).ok()?;
        let mut found = Sections::default();
        for section in sections {
            let name = names.get(section.sh_name as usize..).unwrap_or_default();
            match name.split(|b| *b == 0).next().unwrap_or_default() {
                b".go.buildinfo" => {
                    found.information =
                        Some(section.sh_addr..section.sh_addr.saturating_add(section.sh_size));
                }
                b".note.go.buildid" | b".gopclntab" | b".data.rel.ro.gopclntab" => found.go = true,
                _ => {}
            }
        }
        Some(found)
    }

    /// Returns the first data segment, as `debug/buildinfo` chooses it, as far as the file has it.
    fn data(&self) -> Range<u64> {
        let data = self.segments.iter().find(|s| s.p_type == PT_LOAD && s.p_flags & (PF_X | PF_W) == PF_W);
        data.map_or(0..0, |data| data.p_vaddr..data.p_vaddr.saturating_add(data.p_filesz))
    }

    /// Returns whether one of its notes is that of Go's linker, by which it tells a build from another.
    fn has_go_note(&self) -> bool {
        self.segments.iter().filter(|s| s.p_type == PT_NOTE).any(|segment| {
            let size = usize::try_from(segment.p_filesz).unwrap_or(usize::MAX).min(HEAD);
            let notes = self.part(segment.p_offset, size).unwrap_or_default();
            // Length of the name, length of what follows, type, name.
            notes.chunks_exact(4).any(|word| word == b"Go\0\0")
        })
    }

    /// Returns the address in `range` at which the build information begins.
    fn search(&self, range: Range<u64>) -> Result<Option<u64>, EvidenceError> {
        let mut at = range.start.checked_next_multiple_of(ALIGNMENT).unwrap_or(range.end);
        let begin = at;
        let mut chunk = vec![0; CHUNK.min(usize::try_from(range.end.saturating_sub(at)).unwrap_or(CHUNK))];
        while at < range.end {
            if at - begin >= MAX_SEARCHED {
                let message = format!("more than the {MAX_SEARCHED} bytes of data that are searched at most");
                return Err(EvidenceError::new(ErrorKind::TooLarge, message));
            }
            let wanted = chunk.len().min(usize::try_from(range.end - at).unwrap_or(CHUNK));
            let length = match (self.offset(at), chunk.get_mut(..wanted)) {
                (Some(offset), Some(chunk)) => fill(&self.read, offset, chunk)?,
                _ => 0,
            };
            let found = chunk.get(..length).unwrap_or_default();
            if let Some(index) = found.chunks(ALIGNMENT as usize).position(|line| line.starts_with(MAGIC)) {
                return Ok(Some(at + index as u64 * ALIGNMENT));
            }
            if length < CHUNK {
                break;
            }
            at += length as u64;
        }
        Ok(None)
    }

    /// Returns the text that tells the modules, which the header at `address` leads to; `None` when it leads to none.
    fn texts(&self, address: u64) -> Result<Option<Vec<u8>>, EvidenceError> {
        const INLINE: u8 = 2;
        const BIG_ENDIAN: u8 = 1;
        let header = self.memory(address, HEADER)?;
        let [Some(size), Some(flags)] = [header.get(14).copied(), header.get(15).copied()] else {
            return Ok(None);
        };
        if flags & INLINE != 0 {
            let Some(version) = self.inline(address + HEADER as u64)? else { return Ok(None) };
            return self.inline(version.end)?.map(|text| self.memory_of(text)).transpose();
        }
        let endian = if flags & BIG_ENDIAN != 0 { AnyEndian::Big } else { AnyEndian::Little };
        let pointer = |bytes: &[u8], index: usize| -> Option<u64> {
            let mut at = index * usize::from(size);
            match size {
                4 => endian.parse_u32_at(&mut at, bytes).ok().map(u64::from),
                8 => endian.parse_u64_at(&mut at, bytes).ok(),
                _ => None,
            }
        };
        // A pointer to the version of Go, and one to the text, each to a string: its address and its length.
        let Some(string) = pointer(header.get(16..).unwrap_or_default(), 1) else { return Ok(None) };
        let string = self.memory(string, 2 * usize::from(size))?;
        let Some((text, length)) = pointer(&string, 0).zip(pointer(&string, 1)) else { return Ok(None) };
        Ok(Some(self.memory_of(text..text.saturating_add(length))?))
    }

    /// Returns where the text is whose length (a varint) is at `address`.
    fn inline(&self, address: u64) -> Result<Option<Range<u64>>, EvidenceError> {
        let bytes = self.memory(address, 10)?;
        let mut length = 0_u64;
        for (index, byte) in bytes.iter().enumerate() {
            length |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
            if byte & 0x80 == 0 {
                let begin = address.saturating_add(index as u64 + 1);
                return Ok(Some(begin..begin.saturating_add(length)));
            }
        }
        Ok(None)
    }

    fn memory_of(&self, range: Range<u64>) -> Result<Vec<u8>, EvidenceError> {
        self.memory(range.start, usize::try_from(range.end - range.start).unwrap_or(usize::MAX))
    }

    /// Returns `length` bytes at `address`, or as many as the file has of them; none where the address is in no segment.
    fn memory(&self, address: u64, length: usize) -> Result<Vec<u8>, EvidenceError> {
        self.offset(address).map_or_else(|| Ok(Vec::new()), |offset| self.part(offset, length))
    }

    /// Returns where in the file `address` is.
    fn offset(&self, address: u64) -> Option<u64> {
        let within = |s: &&ProgramHeader| address >= s.p_vaddr && address - s.p_vaddr < s.p_filesz;
        let segment = self.segments.iter().filter(|s| s.p_type == PT_LOAD).find(within)?;
        segment.p_offset.checked_add(address - segment.p_vaddr)
    }

    /// Returns the table of `count` entries at `offset` of the file.
    fn table<P: ParseAt>(&self, offset: u64, count: u16, size: u16) -> Result<Vec<P>, EvidenceError> {
        P::validate_entsize(self.header.class, usize::from(size)).map_err(malformed)?;
        let length = usize::from(count) * usize::from(size);
        let bytes = self.part(offset, length)?;
        if bytes.len() < length {
            return Err(EvidenceError::new(ErrorKind::Malformed, "a table of its header is not in the file"));
        }
        Ok(ParsingTable::new(self.header.endianness, self.header.class, &bytes).iter().collect())
    }

    /// Returns `length` bytes at `offset` of the file, or as many as it has of them.
    fn part(&self, offset: u64, length: usize) -> Result<Vec<u8>, EvidenceError> {
        if length > MAX_PART {
            let message = format!("more than the {MAX_PART} bytes of a part that are read at most");
            return Err(EvidenceError::new(ErrorKind::TooLarge, message));
        }
        let within = usize::try_from(offset).ok().and_then(|at| self.head.get(at..at.checked_add(length)?));
        if let Some(known) = within {
            return Ok(known.to_vec());
        }
        let mut bytes = vec![0; length];
        let length = fill(&self.read, offset, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Fills `buffer` from `offset`, as far as there is something, and returns how far.
fn fill(
    read: &impl Fn(u64, &mut [u8]) -> io::Result<usize>,
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize, EvidenceError> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        // What is beyond the largest offset is beyond the end.
        let Some(at) = offset.checked_add(length as u64).filter(|at| i64::try_from(*at).is_ok()) else {
            break;
        };
        match read(at, rest) {
            Ok(0) => break,
            Ok(more) => length += more.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(EvidenceError::from_io(&error, "the executable")),
        }
    }
    Ok(length)
}

fn malformed(error: elf::ParseError) -> EvidenceError {
    EvidenceError::new(ErrorKind::Malformed, format!("the executable: {error}"))
}

impl Build {
    /// Returns what the framed `text` tells; `None` when it tells no package. Its lines are those of `go version -m`.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = text.get(FRAME..text.len().checked_sub(FRAME)?)?.strip_suffix(b"\n")?;
        let text = std::str::from_utf8(text).ok()?;
        let mut build = Self { package: String::new(), main: None, dependencies: Vec::new() };
        let mut last_is_main = false;
        for line in text.lines() {
            let mut words = line.split('\t');
            let kind = words.next().unwrap_or_default();
            let mut word = || words.next().unwrap_or_default().to_owned();
            match kind {
                "path" => build.package = word(),
                "mod" => {
                    build.main = Some(Module { path: word(), version: word(), replaced_by: None });
                    last_is_main = true;
                }
                "dep" => {
                    build.dependencies.push(Module { path: word(), version: word(), replaced_by: None });
                    last_is_main = false;
                }
                "=>" => {
                    let _path = word();
                    let module =
                        if last_is_main { build.main.as_mut() } else { build.dependencies.last_mut() };
                    if let Some(module) = module {
                        module.replaced_by = Some(word());
                    }
                }
                _ => {}
            }
        }
        Some(build).filter(|build| !build.package.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "path\tgo.etcd.io/etcd/server/v3\nmod\tgo.etcd.io/etcd/server/v3\t(devel)\t\n\
        dep\tgo.etcd.io/bbolt\tv1.3.6\th1:x=\ndep\tgo.etcd.io/etcd/api/v3\tv3.5.1\n=>\t../api\t\t\n\
        dep\texample.com/a\tv1.0.0\n=>\texample.com/b\tv2.0.0-k3s1\th1:y=\nbuild\t-trimpath=true\n";

    /// How the build information is found and told.
    #[derive(Clone, Copy)]
    struct Form {
        sections: &'static [&'static str],
        inline: bool,
        /// Where the segment of data is in memory.
        address: u64,
        /// What is before the header.
        before: usize,
    }

    const MODERN: Form =
        Form { sections: &[".go.buildinfo", ".shstrtab"], inline: true, address: 0x40_1000, before: 0 };

    /// Returns an executable of 64 bits with `text` as its build information.
    fn executable(text: &[u8], form: Form) -> Vec<u8> {
        const DATA: usize = 0x100;
        let mut data = vec![0; form.before];
        data.extend(MAGIC);
        let framed = [&[1; FRAME], text, &[2; FRAME]].concat();
        if form.inline {
            data.extend([8, 2]);
            data.resize(form.before + HEADER, 0);
            data.extend([4]);
            data.extend(b"go1x");
            data.extend([(framed.len() & 0x7f | 0x80) as u8, (framed.len() >> 7) as u8]);
            data.extend(&framed);
        } else {
            data.extend([8, 0]);
            let strings = form.address + data.len() as u64 + 16;
            for pointer in [strings, strings, strings + 16, framed.len() as u64] {
                data.extend(pointer.to_le_bytes());
            }
            data.extend(&framed);
        }
        let end = DATA + data.len();
        let mut names = vec![0];
        let mut sections = vec![[0; 64]];
        for name in form.sections {
            let (at, size) = match *name {
                ".shstrtab" => (end, 256),
                _ => (DATA + form.before, data.len() - form.before),
            };
            let mut section = [0; 64];
            section[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
            let address = form.address + form.before as u64;
            for (place, number) in [(16, address), (24, at as u64), (32, size as u64)] {
                section[place..place + 8].copy_from_slice(&number.to_le_bytes());
            }
            sections.push(section);
            names.extend(name.bytes().chain([0]));
        }
        names.resize(256, 0);
        let count = if form.sections.is_empty() { 0 } else { sections.len() as u16 };
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        let table = if count == 0 { 0 } else { end as u64 + 256 };
        for number in [0, 64, table] {
            file.extend(number.to_le_bytes());
        }
        for number in [0, 0, 64, 56, 1, 64, count, count.saturating_sub(1)] {
            file.extend(number.to_le_bytes());
        }
        file.extend([1_u32, 6].iter().flat_map(|n| n.to_le_bytes()));
        let size = data.len() as u64;
        file.extend([DATA as u64, form.address, 0, size, size, 4096].iter().flat_map(|n| n.to_le_bytes()));
        file.resize(DATA, 0);
        file.extend(data);
        file.extend(names);
        file.extend(sections.concat());
        file
    }

    fn told(file: &[u8]) -> Result<Program, ErrorKind> {
        let at = |offset: u64, buffer: &mut [u8]| {
            let rest = usize::try_from(offset).ok().and_then(|at| file.get(at..)).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        };
        read(at).map_err(|error| error.kind)
    }

    #[test]
    fn the_build_information_is_found_in_all_its_forms() {
        let forms = [
            MODERN,
            Form { inline: false, ..MODERN },
            Form { sections: &[], ..MODERN },
            Form { sections: &[], inline: false, before: 3 * CHUNK + 0x50, ..MODERN },
            Form { sections: &[".note.go.buildid", ".shstrtab"], before: 0x20, ..MODERN },
            Form { address: 0x40_1008, before: 8, sections: &[], ..MODERN },
        ];
        for (index, form) in forms.into_iter().enumerate() {
            let Ok(Program::Go(build)) = told(&executable(TEXT.as_bytes(), form)) else { panic!("{index}") };
            assert_eq!(build.package, "go.etcd.io/etcd/server/v3");
            assert_eq!(build.main.unwrap().built(), "(devel)");
            let built: Vec<_> = build.dependencies.iter().map(|m| (m.path.as_str(), m.built())).collect();
            let want = [
                ("go.etcd.io/bbolt", "v1.3.6"),
                ("go.etcd.io/etcd/api/v3", ""),
                ("example.com/a", "v2.0.0-k3s1"),
            ];
            assert_eq!(built, want);
            assert_eq!(build.dependencies[1].version, "v3.5.1");
        }
    }

    #[test]
    fn what_tells_nothing_is_told_from_what_is_not_of_go() {
        let form = |sections| Form { sections, before: 0x20, ..MODERN };
        let cases = [
            (executable(TEXT.as_bytes(), form(&[".text", ".shstrtab"])), Ok(Program::Other)),
            (executable(b"", MODERN), Ok(Program::GoUntold)),
            (executable(b"mod\tx\tv1\n", MODERN), Ok(Program::GoUntold)),
            (b"#!/bin/sh\n".to_vec(), Ok(Program::Other)),
            (Vec::new(), Ok(Program::Other)),
            (b"\x7fELF\x02\x01\x01".to_vec(), Ok(Program::Other)),
            (executable(TEXT.as_bytes(), MODERN)[..60].to_vec(), Err(ErrorKind::Malformed)),
        ];
        for (index, (file, want)) in cases.into_iter().enumerate() {
            assert_eq!(told(&file), want, "{index}");
        }
        // What packs a program leaves neither section headers nor anything of Go.
        let mut packed = executable(TEXT.as_bytes(), Form { sections: &[], ..MODERN });
        packed.truncate(0x100);
        assert_eq!(told(&packed), Ok(Program::Other), "it is too small for one of Go");
        packed.resize(SMALLEST as usize + 1, 0);
        assert_eq!(told(&packed), Err(ErrorKind::Unsupported));
    }

    #[test]
    fn an_executable_is_read_once() {
        let proc = crate::procfs::Proc::open("/proc").unwrap();
        let entry = proc.process(std::process::id()).unwrap();
        let programs = Programs::default();
        let first = programs.of(&entry.executable());
        assert_eq!(*first, Ok(Program::Other));
        assert!(Arc::ptr_eq(&first, &programs.of(&proc.executable(entry.pid()))));
        assert!(programs.of(&proc.executable(u32::MAX)).is_err());
    }

    #[test]
    fn little_is_read_of_what_is_not_of_go() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let read_bytes = std::cell::Cell::new(0);
        let program = read(|offset, buffer| {
            read_bytes.set(read_bytes.get() + buffer.len());
            std::os::unix::fs::FileExt::read_at(&file, buffer, offset)
        });
        assert_eq!(program.unwrap(), Program::Other);
        assert!(read_bytes.get() < 32 << 10, "{} bytes were read", read_bytes.get());
    }
}
