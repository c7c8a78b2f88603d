//! Compressed exports: Zstandard, by the file's name when writing and by its first bytes when
//! reading.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// How every frame begins. No JSON and no text does.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

const BUFFER_BYTES: usize = 256 * 1024;

/// Whether a file of this name is written compressed.
pub(crate) fn names_zstd(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zst"))
}

/// The text of a source that may be compressed, or is said to be. Waits for its first bytes.
pub(crate) fn reader(
    source: Box<dyn Read + Send>,
    named_so: bool,
) -> io::Result<Box<dyn BufRead + Send>> {
    let mut head = Vec::with_capacity(MAGIC.len());
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    // A pipe may give its first bytes one by one.
    source.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head)?;
    let compressed = head == MAGIC;
    if named_so && !compressed {
        let text = "it is not compressed by Zstandard, as its name says; is it whole?";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let whole = io::Cursor::new(head).chain(source);
    if !compressed {
        return Ok(Box::new(whole));
    }
    let decoder = zstd::Decoder::with_buffer(whole)?;
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        reader(Box::new(io::Cursor::new(bytes)), false)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn what_is_compressed_is_told_by_its_first_bytes() {
        for text in ["", "{", "{\"a\":1}\n{\"b\":2}\n"] {
            assert_eq!(read(text.as_bytes().to_vec()).unwrap(), text);
            let compressed = zstd::encode_all(text.as_bytes(), 1).unwrap();
            assert_eq!(read(compressed.clone()).unwrap(), text);
            // As `cat` puts files together.
            assert_eq!(read([compressed.clone(), compressed].concat()).unwrap(), text.repeat(2));
        }
    }

    #[test]
    fn what_was_cut_off_is_an_error() {
        let mut compressed = zstd::encode_all("text ".repeat(1000).as_bytes(), 1).unwrap();
        compressed.truncate(compressed.len() - 3);
        assert!(read(compressed).is_err());
    }

    #[test]
    fn what_is_named_so_and_is_not_is_an_error() {
        for bytes in [&b""[..], b"{}\n"] {
            assert!(reader(Box::new(bytes), true).is_err());
        }
    }

    #[test]
    fn the_name_decides_when_writing() {
        assert!(names_zstd(Path::new("a.jsonl.zst")) && names_zstd(Path::new("A.ZST")));
        assert!(!names_zstd(Path::new("a.jsonl")) && !names_zstd(Path::new("zst")));
    }
}
