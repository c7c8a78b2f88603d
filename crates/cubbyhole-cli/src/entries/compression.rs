//! Compression of exports with Zstandard. The name of the file decides when writing, its first
//! bytes when reading. Other formats are recognised and refused with a hint at the tool for them.

use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use crate::output::{shell_quoted, shown_path};

/// The first bytes of a data frame. No JSON text begins with them.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The first bytes of a skippable frame, after a byte from 0x50 to 0x5f. Files of `pzstd` begin
/// with one.
const SKIPPABLE_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];

/// The length of the longest magic number.
const HEAD_BYTES: usize = 6;

const BUFFER_BYTES: usize = 256 * 1024;

/// The largest window that the format allows, as a power of two, to read files of `zstd --long=31`.
/// Memory of this size is only used if the header of the file requires it.
const WINDOW_LOG_MAX: u32 = if cfg!(target_pointer_width = "64") { 31 } else { 30 };

/// A format that the tool does not support.
struct Foreign {
    name: &'static str,
    /// The first bytes of its files; empty if they do not identify the format.
    magic: &'static [u8],
    extensions: &'static [&'static str],
    /// The command that decompresses a file to stdout.
    unpack: Option<&'static str>,
    /// The command that compresses stdin to stdout.
    pack: Option<&'static str>,
}

const FOREIGN: [Foreign; 10] = [
    foreign("gzip", b"\x1f\x8b", &["gz", "tgz"], "gunzip -c", "gzip"),
    foreign("xz", b"\xfd7zXZ\0", &["xz", "txz"], "xz -dc", "xz"),
    foreign("bzip2", b"BZh", &["bz2", "bz", "tbz", "tbz2"], "bzip2 -dc", "bzip2"),
    foreign("LZ4", b"\x04\x22\x4d\x18", &["lz4"], "lz4 -dc", "lz4"),
    foreign("compress", b"\x1f\x9d", &["z"], "uncompress -c", "compress"),
    foreign("zip", b"PK\x03\x04", &["zip"], "unzip -p", "zip"),
    foreign("lzip", b"LZIP", &["lz"], "lzip -dc", "lzip"),
    foreign("LZMA", b"\x5d\0\0", &["lzma"], "xz -dc --format=lzma", "xz --format=lzma"),
    foreign("Brotli", b"", &["br"], "brotli -dc", "brotli"),
    Foreign {
        name: "7z",
        magic: b"7z\xbc\xaf\x27\x1c",
        extensions: &["7z"],
        unpack: Some("7z x -so"),
        pack: None,
    },
];

const fn foreign(
    name: &'static str,
    magic: &'static [u8],
    extensions: &'static [&'static str],
    unpack: &'static str,
    pack: &'static str,
) -> Foreign {
    Foreign { name, magic, extensions, unpack: Some(unpack), pack: Some(pack) }
}

/// Whether a file with this name is written compressed.
pub(crate) fn names_zstd(path: &Path) -> bool {
    has_extension(path, &["zst"])
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|found| extensions.iter().any(|e| found.eq_ignore_ascii_case(e)))
}

/// Refuses a name whose extension denotes an unsupported format.
///
/// # Errors
/// The message, with an alternative.
pub(crate) fn check_name_to_write(path: &Path) -> Result<(), String> {
    let foreign = FOREIGN.iter().find(|foreign| has_extension(path, foreign.extensions));
    let format = match foreign {
        Some(foreign) => foreign.name,
        None if has_extension(path, &["zstd"]) => "its name says",
        None => return Ok(()),
    };
    let shown = shown_path(path);
    let better = shown_path(&path.with_extension("zst"));
    let mut text = format!(
        "cannot write {shown} as {format}: an export is plain text, or Zstandard if the name ends \
         in .zst; name it {better}"
    );
    if let Some(pack) = foreign.and_then(|foreign| foreign.pack) {
        text.push_str(&format!(", or pipe the export to `{pack}`"));
    }
    Err(text)
}

/// Refuses a file of an unsupported format, and rewinds the file.
pub(crate) fn check_file_to_read(file: &mut (impl Read + Seek), path: &Path) -> io::Result<()> {
    let head = head_of(file)?;
    file.rewind()?;
    check_head(&head, Some(path))
}

fn head_of(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    // A pipe may deliver its first bytes one by one.
    source.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn check_head(head: &[u8], path: Option<&Path>) -> io::Result<()> {
    let found =
        FOREIGN.iter().find(|foreign| !foreign.magic.is_empty() && head.starts_with(foreign.magic));
    let Some(Foreign { name, unpack, .. }) = found else { return Ok(()) };
    let mut text =
        format!("it is compressed by {name}, but an import reads only plain text and Zstandard");
    if let Some(unpack) = unpack {
        let file = path.map(|path| format!(" {}", shell_quoted(&shown_path(path))));
        let file = file.unwrap_or_default();
        text.push_str(&format!("; use `{unpack}{file} | cubbyhole import -`"));
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

fn is_zstd(head: &[u8]) -> bool {
    match head {
        [first, rest @ ..] if rest.starts_with(&SKIPPABLE_MAGIC) => first & 0xf0 == 0x50,
        head => head.starts_with(&ZSTD_MAGIC),
    }
}

/// Returns a reader of the text, which is decompressed if necessary. Blocks until the first bytes
/// arrive.
pub(crate) fn reader(
    source: Box<dyn Read + Send>,
    path: Option<&Path>,
) -> io::Result<Box<dyn BufRead + Send>> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let head = head_of(&mut source)?;
    check_head(&head, path)?;
    let compressed = is_zstd(&head);
    if path.is_some_and(names_zstd) && !compressed {
        let text = "it is not compressed by Zstandard, although its name ends in .zst; check that the \
                    file is complete";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let whole = io::Cursor::new(head).chain(source);
    if !compressed {
        return Ok(Box::new(whole));
    }
    let mut decoder = zstd::Decoder::with_buffer(whole)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        reader(Box::new(io::Cursor::new(bytes)), None)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn compression_is_detected_by_the_first_bytes() {
        for text in ["", "{", "{\"a\":1}\n{\"b\":2}\n"] {
            assert_eq!(read(text.as_bytes().to_vec()).unwrap(), text);
            let compressed = zstd::encode_all(text.as_bytes(), 1).unwrap();
            assert_eq!(read(compressed.clone()).unwrap(), text);
            // Concatenated files.
            assert_eq!(read([compressed.clone(), compressed].concat()).unwrap(), text.repeat(2));
        }
    }

    /// Builds a skippable frame.
    fn skippable(nibble: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [&[0x50 | nibble], &SKIPPABLE_MAGIC[..], &length, content].concat()
    }

    #[test]
    fn skippable_frames_are_skipped_at_any_position() {
        let one = zstd::encode_all(&b"one\n"[..], 1).unwrap();
        let two = zstd::encode_all(&b"two\n"[..], 19).unwrap();
        for nibble in 0..16 {
            for content in [&b""[..], b"\x10\0\0\0", &[0x28; 300_000]] {
                let skip = || skippable(nibble, content);
                assert_eq!(read([skip(), one.clone()].concat()).unwrap(), "one\n");
                assert_eq!(read([one.clone(), skip()].concat()).unwrap(), "one\n");
                let many = [skip(), skip(), one.clone(), skip(), two.clone(), skip()].concat();
                assert_eq!(read(many).unwrap(), "one\ntwo\n");
                assert_eq!(read(skip()).unwrap(), "");
            }
        }
        // `pzstd` writes the compressed length before each frame.
        let length =
            |frame: &[u8]| skippable(0, &u32::try_from(frame.len()).unwrap().to_le_bytes());
        let parallel = [length(&one), one.clone(), length(&two), two.clone()].concat();
        assert_eq!(read(parallel).unwrap(), "one\ntwo\n");
        // A truncated skippable frame, and bytes after a frame that are not a frame.
        let mut cut = [one.clone(), skippable(3, b"content")].concat();
        cut.truncate(cut.len() - 2);
        assert!(read(cut).is_err());
        assert!(read([one, b"{\"a\":1}\n".to_vec()].concat()).is_err());
    }

    #[test]
    fn frames_with_a_wide_window_are_read() {
        let text = "a line of text\n".repeat(1000);
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.window_log(if cfg!(target_pointer_width = "64") { 30 } else { 29 }).unwrap();
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        assert_eq!(read(encoder.finish().unwrap()).unwrap(), text);
    }

    #[test]
    fn unsupported_format_is_refused_with_its_tool() {
        for (bytes, name, unpack) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "gzip", "gunzip -c"),
            (b"\xfd7zXZ\0\0", "xz", "xz -dc"),
            (b"BZh91AY", "bzip2", "bzip2 -dc"),
            (b"\x04\x22\x4d\x18\x64", "LZ4", "lz4 -dc"),
            (b"\x1f\x9d\x90", "compress", "uncompress -c"),
            (b"PK\x03\x04\x14", "zip", "unzip -p"),
            (b"7z\xbc\xaf\x27\x1c\0", "7z", "7z x -so"),
        ] {
            let error = read(bytes.to_vec()).unwrap_err().to_string();
            let command = format!("`{unpack} | cubbyhole import -`");
            assert!(error.contains(&format!("by {name},")) && error.contains(&command), "{error}");
            let path = Some(Path::new("it's.zst"));
            let error = reader(Box::new(bytes), path).map(drop).unwrap_err().to_string();
            let command = format!(r"`{unpack} 'it'\''s.zst' | cubbyhole import -`");
            assert!(error.contains(&command), "{error}");
        }
        for text in ["", "\u{feff}{}", " {}", "{}", "P", "BZ"] {
            assert_eq!(read(text.as_bytes().to_vec()).unwrap(), text);
        }
    }

    #[test]
    fn name_of_an_unsupported_format_is_refused() {
        for (name, parts) in [
            ("a.jsonl.gz", ["as gzip", "a.jsonl.zst", "`gzip`"]),
            ("A.GZ", ["as gzip", "A.zst", "`gzip`"]),
            ("a.xz", ["as xz", "a.zst", "`xz`"]),
            ("a.tbz2", ["as bzip2", "a.zst", "`bzip2`"]),
            ("a.Z", ["as compress", "a.zst", "`compress`"]),
            ("a.zip", ["as zip", "a.zst", "`zip`"]),
            ("a.7z", ["as 7z", "a.zst", "Zstandard"]),
            ("a.zstd", ["name says", "a.zst", "Zstandard"]),
        ] {
            let refused = check_name_to_write(Path::new(name)).unwrap_err();
            assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
        }
        for name in ["a.jsonl", "a", "gz", ".gz", "a.gz.jsonl", "a.zst", "a.ZST", "a.json"] {
            assert_eq!(check_name_to_write(Path::new(name)), Ok(()), "{name}");
        }
    }

    #[test]
    fn truncated_file_is_an_error() {
        let mut compressed = zstd::encode_all("text ".repeat(1000).as_bytes(), 1).unwrap();
        compressed.truncate(compressed.len() - 3);
        assert!(read(compressed).is_err());
    }

    #[test]
    fn uncompressed_file_named_zst_is_an_error() {
        for bytes in [&b""[..], b"{}\n"] {
            assert!(reader(Box::new(bytes), Some(Path::new("a.zst"))).is_err());
        }
    }

    #[test]
    fn file_name_decides_compression_when_writing() {
        assert!(names_zstd(Path::new("a.jsonl.zst")) && names_zstd(Path::new("A.ZST")));
        assert!(!names_zstd(Path::new("a.jsonl")) && !names_zstd(Path::new("zst")));
    }
}
