//! [`Lines`]: a stream in pieces of whole lines, in bounded memory.

use std::fs::File;
use std::io::{self, Read};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

/// How much is read at a time.
const PIECE: usize = 1 << 20;

/// The longest line: a value of the largest size, completely escaped, and a little more. The buffer grows with the line.
const LONGEST_LINE: u64 = (4 << 30) + PIECE as u64;

/// Reads a stream in pieces of whole lines.
///
/// A piece is as much as can be read without waiting, up to a mebibyte. So records that come slowly are not held back.
pub struct Lines {
    source: File,
    buffer: Vec<u8>,
    /// The last piece is `buffer[..handed]`.
    handed: usize,
    filled: usize,
    /// Bytes in all pieces so far.
    pub position: u64,
}

impl Lines {
    pub fn new(source: File) -> Lines {
        Lines { source, buffer: vec![0; PIECE], handed: 0, filled: 0, position: 0 }
    }

    /// The next piece: lines with their newlines, which only the last line of the input may lack. `None` at the end.
    pub fn next_piece(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.copy_within(self.handed..self.filled, 0);
        self.filled -= std::mem::take(&mut self.handed);
        let mut lines_end = memchr::memrchr(b'\n', &self.buffer[..self.filled]).map(|at| at + 1);
        loop {
            if self.filled == self.buffer.len() {
                if lines_end.is_some() {
                    break;
                }
                if self.filled as u64 >= LONGEST_LINE {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of more than 4 GiB"));
                }
                self.buffer.try_reserve_exact(self.filled).map_err(|_| io::ErrorKind::OutOfMemory)?;
                self.buffer.resize(2 * self.filled, 0);
            }
            if lines_end.is_some() && !self.has_more_now()? {
                break;
            }
            let read = match self.source.read(&mut self.buffer[self.filled..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if read == 0 {
                lines_end = Some(self.filled);
                break;
            }
            let new = &self.buffer[self.filled..self.filled + read];
            lines_end = memchr::memrchr(b'\n', new).map(|at| self.filled + at + 1).or(lines_end);
            self.filled += read;
        }
        self.handed = lines_end.unwrap_or(self.filled);
        self.position += self.handed as u64;
        Ok((self.handed > 0).then(|| &self.buffer[..self.handed]))
    }

    /// Whether reading would not wait: always so for a file.
    fn has_more_now(&self) -> io::Result<bool> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut source = [PollFd::new(&self.source, PollFlags::IN)];
        // A signal to stop is handled elsewhere.
        Ok(retry_on_intr(|| poll(&mut source, Some(&at_once)))? > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn file_with(bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("caskfile-lines-{}-{}", std::process::id(), bytes.len()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn pieces_end_where_lines_end() {
        let mut input = Vec::new();
        // Some lines are longer than a piece, and the last one has no newline.
        for len in [0, 10, PIECE - 1, PIECE, 3 * PIECE + 7, 0, 0, 5, 2 * PIECE, 100] {
            input.extend(std::iter::repeat_n(b'x', len));
            input.push(b'\n');
        }
        input.extend_from_slice(b"the last");
        let mut lines = Lines::new(file_with(&input));
        let mut found = Vec::new();
        while let Some(piece) = lines.next_piece().unwrap() {
            found.extend_from_slice(piece);
            assert!(piece.ends_with(b"\n") || found.len() == input.len());
        }
        assert!(found == input);
        assert_eq!(lines.position, input.len() as u64);
        assert!(lines.next_piece().unwrap().is_none());
    }

    #[test]
    fn an_empty_input_has_no_piece() {
        assert!(Lines::new(file_with(b"")).next_piece().unwrap().is_none());
    }
}
