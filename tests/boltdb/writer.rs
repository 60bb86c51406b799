//! Files that a test makes page by page. Their keys must be in order.

pub const SIZE: usize = 1024;

fn set(bytes: &mut [u8], at: usize, len: usize, number: u64) {
    bytes[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
}

/// A key and a value.
pub type Borrowed<'a> = (&'a [u8], &'a [u8]);

/// A field of an element: where in it, how long, and what.
type Field = (usize, usize, u64);

/// A page of elements, each with its fields but for its position, and its key and value.
fn page<const N: usize>(kind: u64, elements: &[([Field; N], Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 16 + 16 * elements.len()];
    set(&mut bytes, 8, 2, kind);
    set(&mut bytes, 10, 2, elements.len() as u64);
    for (number, (fields, content)) in elements.iter().enumerate() {
        let at = 16 + 16 * number;
        let position = (bytes.len() - at) as u64;
        set(&mut bytes, at + if kind == 1 { 0 } else { 4 }, 4, position);
        for &(field, len, value) in fields {
            set(&mut bytes, at + field, len, value);
        }
        bytes.extend_from_slice(content);
    }
    let more = bytes.len() / SIZE;
    set(&mut bytes, 12, 4, more as u64);
    bytes.resize((more + 1) * SIZE, 0);
    bytes
}

/// A leaf with pairs or, with flag 1, buckets.
pub fn leaf(flags: u64, pairs: &[Borrowed<'_>]) -> Vec<u8> {
    let element = |(key, value): &Borrowed<'_>| {
        ([(0, 4, flags), (8, 4, key.len() as u64), (12, 4, value.len() as u64)], [*key, *value].concat())
    };
    page(2, &pairs.iter().map(element).collect::<Vec<_>>())
}

/// A branch that leads to pages.
pub fn branch(children: &[(&[u8], u64)]) -> Vec<u8> {
    let element = |(key, child): &(&[u8], u64)| ([(4, 4, key.len() as u64), (8, 8, *child)], key.to_vec());
    page(1, &children.iter().map(element).collect::<Vec<_>>())
}

/// A file of these pages, from page 2 on, which is the root. Its meta page has no checksum. It says that it has `count` pages, or as many as it has.
pub fn file(pages: &[Vec<u8>], count: Option<u64>) -> Vec<u8> {
    let mut bytes = vec![0; 2 * SIZE];
    for page in pages {
        let (at, number) = (bytes.len(), (bytes.len() / SIZE) as u64);
        bytes.extend_from_slice(page);
        set(&mut bytes, at, 8, number);
    }
    let count = count.unwrap_or((bytes.len() / SIZE) as u64);
    for (field, len, number) in [(0, 4, 0xED0C_DAED), (4, 4, 2), (8, 4, SIZE as u64), (16, 8, 2), (40, 8, count)] {
        set(&mut bytes, 16 + field, len, number);
    }
    bytes
}

/// A file of buckets with a leaf each.
pub fn buckets(buckets: &[(&[u8], Vec<Borrowed<'_>>)]) -> Vec<u8> {
    let leaves: Vec<Vec<u8>> = buckets.iter().map(|(_, pairs)| leaf(0, pairs)).collect();
    // The root has one page.
    let mut next = 3;
    let mut roots = Vec::new();
    for leaf in &leaves {
        let mut header = [0; 16];
        set(&mut header, 0, 8, next);
        roots.push(header);
        next += (leaf.len() / SIZE) as u64;
    }
    let names: Vec<Borrowed<'_>> = buckets.iter().zip(&roots).map(|((name, _), root)| (*name, &root[..])).collect();
    let root = leaf(1, &names);
    assert_eq!(root.len(), SIZE);
    file(&[vec![root], leaves].concat(), None)
}
