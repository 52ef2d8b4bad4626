//! Old parts of a stream, compressed so that a reader can begin in the middle.
//!
//! A gzip file may be several members one behind the other (RFC 1952, section 2.2), and every tool reads it as one. Each of ours holds one MiB of the
//! part, and says in an extra field of its header how long it is itself: a reader goes from header to header without unpacking what it does not want.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};

/// Bytes of the part in each member but the last.
const MEMBER: u64 = 1 << 20;
/// Extra field: two letters of ours, its length, and the length of the whole member (RFC 1952, section 2.3.1.1).
const EXTRA: [u8; 8] = [b'P', b'M', 4, 0, 0, 0, 0, 0];
/// Where in a member its length stands: behind ten bytes of header, the length of the extra fields, and the head of ours.
const LENGTH_AT: usize = 16;

/// Copies all of `source`, compressed. `wait` is called after each member, and ends it where it says so.
///
/// # Errors
/// Those of reading and writing; `Interrupted` where `go_on` says no.
pub fn compress(source: &mut impl Read, target: &mut impl Write, mut go_on: impl FnMut() -> bool) -> io::Result<()> {
    loop {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let member = GzBuilder::new().extra(EXTRA).write(Vec::new(), Compression::fast());
        let mut member = Counting { inner: member, bytes: 0 };
        io::copy(&mut Read::by_ref(source).take(MEMBER), &mut member)?;
        if member.bytes == 0 {
            return Ok(());
        }
        let mut bytes = member.inner.finish()?;
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        bytes.get_mut(LENGTH_AT..LENGTH_AT + 4).ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(&length.to_le_bytes());
        target.write_all(&bytes)?;
    }
}

struct Counting<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads at most `most` bytes from `at` of what [`compress`] has made, as far as one member reaches; nothing at the end.
///
/// # Errors
/// Those of reading; `InvalidData` where it was made by somebody else.
pub fn read_at(file: &mut File, at: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut start = 0_u64;
    for _ in 0..at / MEMBER {
        let mut header = [0; LENGTH_AT + 4];
        file.seek(SeekFrom::Start(start))?;
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Vec::new()),
            result => result?,
        }
        if header.get(12..16) != EXTRA.get(..4) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not compressed by procman"));
        }
        let length = header.last_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length));
        start += u64::from(length.max(1));
    }
    file.seek(SeekFrom::Start(start))?;
    let mut member = GzDecoder::new(io::BufReader::new(file));
    let skipped = at % MEMBER;
    if io::copy(&mut Read::by_ref(&mut member).take(skipped), &mut io::sink())? < skipped {
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    member.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 26) as u8 + b' '
        })
        .take(length)
        .collect()
    }

    fn packed(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        compress(&mut &bytes[..], &mut file, || true).unwrap();
        file
    }

    #[test]
    fn any_tool_reads_it() {
        let bytes = noise((MEMBER * 2 + 17) as usize);
        let mut file = packed(&bytes);
        file.rewind().unwrap();
        let output = Command::new("gzip").arg("-dc").stdin(Stdio::from(file)).output().unwrap();
        assert!(output.status.success() && output.stdout == bytes);
    }

    #[test]
    fn what_others_have_made_is_refused_and_so_is_going_on_without_leave() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&noise(100)).unwrap();
        assert_eq!(read_at(&mut file, MEMBER, 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read_at(&mut file, 0, 1).is_err());
        let mut left = 2;
        let result = compress(&mut &noise((MEMBER * 3) as usize)[..], &mut io::sink(), || {
            left -= 1;
            left > 0
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_is_read_from_anywhere(at in 0..MEMBER * 3, most in 0_usize..100_000) {
            let bytes = noise((MEMBER * 2 + 17) as usize);
            let mut file = packed(&bytes);
            let read = read_at(&mut file, at, most).unwrap();
            let rest = bytes.get(at as usize..).unwrap_or_default();
            let in_member = rest.len().min((MEMBER - at % MEMBER) as usize).min(most);
            prop_assert_eq!(&read[..], &rest[..in_member]);
        }
    }
}
