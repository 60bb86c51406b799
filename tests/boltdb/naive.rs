//! A second reader of BoltDB files, which checks nothing: of a file that is in order it must read the same.

/// A pair, with the path of its bucket.
pub type Pair = (Vec<u8>, Vec<u8>, Vec<u8>);

struct Reader<'b> {
    bytes: &'b [u8],
    page_size: usize,
    pairs: Vec<Pair>,
}

fn number(bytes: &[u8], at: usize, len: usize) -> usize {
    bytes[at..at + len].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The 64 bytes of a meta page, with the checksum that belongs to them.
pub fn checksum(meta: &[u8]) -> u64 {
    meta[..56].iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3))
}

/// Where the meta pages that hold have their 64 bytes, the newest last. `None` of a page size that differs.
pub fn metas(bytes: &[u8], page_size: usize) -> Vec<usize> {
    let holds = |at: &usize| {
        bytes.get(*at..at + 64).is_some_and(|meta| {
            (number(meta, 0, 4), number(meta, 4, 4)) == (0xED0C_DAED, 2)
                && number(meta, 8, 4) == page_size
                && [0, checksum(meta)].contains(&(number(meta, 56, 8) as u64))
        })
    };
    let mut found: Vec<usize> = [16, page_size + 16].into_iter().filter(holds).collect();
    found.sort_by_key(|at| number(bytes, at + 48, 8));
    // The first one counts if both are as new.
    if let [first, second] = found[..] {
        if number(bytes, first + 48, 8) == number(bytes, second + 48, 8) {
            found = vec![page_size + 16, 16];
        }
    }
    found
}

/// All pairs, in the order of the walk.
pub fn read(bytes: &[u8], page_size: usize) -> Vec<Pair> {
    let mut reader = Reader { bytes, page_size, pairs: Vec::new() };
    let meta = *metas(bytes, page_size).last().expect("a meta page");
    reader.page(number(bytes, meta + 16, 8) * page_size, &[]);
    reader.pairs
}

impl Reader<'_> {
    fn page(&mut self, start: usize, bucket: &[u8]) {
        let bytes = self.bytes;
        let is_branch = number(bytes, start + 8, 2) == 1;
        for element in 0..number(bytes, start + 10, 2) {
            let at = start + 16 + 16 * element;
            if is_branch {
                self.page(number(bytes, at + 8, 8) * self.page_size, bucket);
                continue;
            }
            let key_at = at + number(bytes, at + 4, 4);
            let value_at = key_at + number(bytes, at + 8, 4);
            let (key, value) = (&bytes[key_at..value_at], &bytes[value_at..value_at + number(bytes, at + 12, 4)]);
            if number(bytes, at, 4) & 1 == 0 {
                self.pairs.push((bucket.to_vec(), key.to_vec(), value.to_vec()));
                continue;
            }
            let name = if bucket.is_empty() { key.to_vec() } else { [bucket, b"/", key].concat() };
            match number(value, 0, 8) {
                0 => self.page(value_at + 16, &name),
                root => self.page(root * self.page_size, &name),
            }
        }
    }
}
