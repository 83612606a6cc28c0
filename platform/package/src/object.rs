//! What a binary says about itself: the machine it is for, its interpreter, the libraries it needs and where it looks for
//! them. Read from the program headers, as the loader does; nothing is executed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use object::elf;
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _};
use object::{Endianness, ReadCache, ReadRef};
use serde::{Deserialize, Serialize};

use crate::PackError;

#[cfg(target_arch = "x86_64")]
const HOST: (u16, &str) = (elf::EM_X86_64, "x86-64");
#[cfg(target_arch = "aarch64")]
const HOST: (u16, &str) = (elf::EM_AARCH64, "64-bit ARM");

/// Bound on a string within a binary.
const STRING_LIMIT: u64 = 4096;

/// A program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    /// The loader that starts it; none for libraries and static programs.
    pub(crate) interpreter: Option<PathBuf>,
    /// Libraries by name.
    pub(crate) needed: Vec<String>,
    /// Old-style search path, which also serves the libraries that it leads to.
    pub(crate) rpath: Vec<String>,
    /// New-style search path, for its own needs only.
    pub(crate) runpath: Vec<String>,
}

/// Reads a binary of this machine; None if it is none at all.
pub(crate) fn read(path: &Path) -> Result<Option<Object>, PackError> {
    let file = File::open(path).map_err(|e| PackError::io("read", path, e))?;
    let data = ReadCache::new(file);
    let data = &data;
    let Ok(magic) = data.read_bytes_at(0, 20) else { return Ok(None) };
    if !magic.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let (class, machine) = (magic[4], u16::from_le_bytes([magic[18], magic[19]]));
    if class != elf::ELFCLASS64 || magic[5] != elf::ELFDATA2LSB || machine != HOST.0 {
        let found = machine_name(class, machine);
        return Err(PackError::ForeignArchitecture { path: path.to_owned(), found, host: HOST.1.to_owned() });
    }
    parse(data).map(Some).map_err(|reason| PackError::Malformed { path: path.to_owned(), reason })
}

fn machine_name(class: u8, machine: u16) -> String {
    let name = match machine {
        elf::EM_X86_64 => "x86-64",
        elf::EM_AARCH64 => "64-bit ARM",
        elf::EM_386 => "32-bit x86",
        elf::EM_ARM => "32-bit ARM",
        elf::EM_RISCV => "RISC-V",
        elf::EM_PPC64 => "64-bit POWER",
        elf::EM_S390 => "s390x",
        other => return format!("machine number {other} (class {class})"),
    };
    name.to_owned()
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Object, String> {
    let text = |e: object::read::Error| e.to_string();
    let header = elf::FileHeader64::<Endianness>::parse(data).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    let segments = header.program_headers(endian, data).map_err(text)?;
    let mut object = Object::default();
    let mut dynamic: &[elf::Dyn64<Endianness>] = &[];
    for segment in segments {
        if let Some(interpreter) = segment.interpreter(endian, data).map_err(text)? {
            object.interpreter = Some(PathBuf::from(string(interpreter)));
        }
        if let Some(entries) = segment.dynamic(endian, data).map_err(text)? {
            dynamic = entries;
        }
    }
    let entries: Vec<(i64, u64)> = dynamic
        .iter()
        .map(|entry| (entry.tag(endian), entry.val(endian)))
        .take_while(|(tag, _)| *tag != elf::DT_NULL)
        .collect();
    let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let Some(strings) = value(elf::DT_STRTAB) else { return Ok(object) };
    let table = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find_map(|segment| {
            let (start, length) = (segment.p_vaddr(endian), segment.p_filesz(endian));
            let below = strings.checked_sub(start).filter(|below| *below < length)?;
            segment.p_offset(endian).checked_add(below)
        })
        .ok_or("its string table is in no segment")?;
    for (tag, offset) in entries {
        let read = || {
            let start = table.checked_add(offset).ok_or("a string is out of bounds")?;
            let end = start.saturating_add(STRING_LIMIT).min(data.len().map_err(|()| "its length is unknown")?);
            let bytes = data.read_bytes_at_until(start..end, 0).map_err(|()| "a string has no end")?;
            Ok::<_, String>(string(bytes))
        };
        match tag {
            elf::DT_NEEDED => object.needed.push(read()?),
            elf::DT_RPATH => object.rpath = split(&read()?),
            elf::DT_RUNPATH => object.runpath = split(&read()?),
            _ => {}
        }
    }
    Ok(object)
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn split(path: &str) -> Vec<String> {
    path.split(':').filter(|dir| !dir.is_empty()).map(str::to_owned).collect()
}

/// Whether the file cannot be read as a binary because it is for another machine.
pub(crate) fn is_foreign(error: &PackError) -> bool {
    matches!(error, PackError::ForeignArchitecture { .. })
}

/// The failure to look at what is not there.
pub(crate) fn is_absent(path: &Path) -> bool {
    matches!(std::fs::metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_names_its_loader_and_libraries() {
        let object = read(Path::new("/bin/ls")).unwrap().unwrap();
        assert!(object.interpreter.unwrap().to_string_lossy().contains("ld-"));
        assert!(object.needed.iter().any(|name| name.starts_with("libc.")));
    }

    #[test]
    fn what_is_no_binary_or_of_another_machine_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "text that is long enough to be looked at").unwrap();
        assert_eq!(read(&path).unwrap(), None);
        let mut bytes = std::fs::read("/bin/ls").unwrap();
        bytes[18] = 0xf3;
        bytes[19] = 0;
        std::fs::write(&path, &bytes).unwrap();
        let error = read(&path).unwrap_err();
        assert!(is_foreign(&error) && error.to_string().contains("RISC-V"), "{error}");
        std::fs::write(&path, &std::fs::read("/bin/ls").unwrap()[..100]).unwrap();
        assert!(matches!(read(&path), Err(PackError::Malformed { .. })));
    }
}
