//! A page of a tree: a branch, which leads to other pages, or a leaf, which has pairs and buckets.
//!
//! ```text
//! 0   8       number of the page
//! 8   2       kind: 1 branch, 2 leaf (4 meta, 16 free list)
//! 10  2       count of elements
//! 12  4       how many pages follow that belong to it
//! 16  16 each elements:  branch: position 4, length of the key 4, page 8
//!                        leaf: flags 4, position 4, length of the key 4, length of the value 4
//!             keys and values, in the order of the elements, without gaps
//! ```
//!
//! A position counts from the start of its element. [`Page::parse`] checks all of it, so that the other methods cannot fail. A page of a
//! file is read in two parts, so that its elements are checked before there is memory for its keys and values.

use byteorder::{ByteOrder, LittleEndian};

pub(super) const PAGE_HEADER_LEN: usize = 16;
const ELEMENT_LEN: usize = 16;

const BRANCH: u16 = 1;
const LEAF: u16 = 2;

/// The flag of an element whose value is a bucket.
const BUCKET: u32 = 1;

/// The first fields of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) number: u64,
    kind: u16,
    count: u16,
    /// How many pages follow that belong to it.
    pub(super) overflow: u32,
}

/// What is wrong with a page, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageFault {
    pub(super) at: usize,
    pub(super) reason: String,
}

/// A branch or a leaf whose elements are all in it, in the order of their keys.
#[derive(Debug)]
pub(super) struct Page {
    /// Up to the end of the last element's value, at least.
    bytes: Vec<u8>,
    len: usize,
    is_branch: bool,
    count: usize,
}

/// One element, as its fields say.
struct Element {
    key: usize,
    value: usize,
    end: usize,
}

impl PageHeader {
    pub(super) fn read(bytes: &[u8; PAGE_HEADER_LEN]) -> PageHeader {
        PageHeader {
            number: LittleEndian::read_u64(bytes),
            kind: LittleEndian::read_u16(&bytes[8..]),
            count: LittleEndian::read_u16(&bytes[10..]),
            overflow: LittleEndian::read_u32(&bytes[12..]),
        }
    }

    /// Where the fields of its elements end, in bytes from the start of the page.
    pub(super) fn elements_end(&self) -> usize {
        PAGE_HEADER_LEN + usize::from(self.count) * ELEMENT_LEN
    }
}

/// A page whose keys and values are still to be read. Its elements were checked.
#[derive(Debug)]
pub(super) struct PartOfPage(Page);

impl PartOfPage {
    /// Takes the first bytes of a page of `len` bytes: its header and its elements, or all of it if it is too short for them.
    pub(super) fn parse(bytes: Vec<u8>, len: usize) -> Result<PartOfPage, PageFault> {
        Page::parse_elements(bytes, len).map(PartOfPage)
    }

    /// Where the last value ends, in bytes from the start of the page.
    pub(super) fn end(&self) -> usize {
        self.0.end()
    }

    /// The bytes that were read. They must be continued up to [`end`](PartOfPage::end).
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.0.bytes
    }

    /// Takes the page, which is read now.
    pub(super) fn whole(self) -> Result<Page, PageFault> {
        self.0.check_order()
    }
}

impl Page {
    /// Takes the bytes of a page, with those of the pages that belong to it.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Page, PageFault> {
        let len = bytes.len();
        Page::parse_elements(bytes, len)?.check_order()
    }

    /// Checks everything but the keys.
    fn parse_elements(bytes: Vec<u8>, len: usize) -> Result<Page, PageFault> {
        let fault = |at: usize, reason: &str| Err(PageFault { at, reason: reason.to_owned() });
        let Some(header) = bytes.first_chunk() else { return fault(0, "it is too short for a page") };
        let header = PageHeader::read(header);
        let count = usize::from(header.count);
        let is_branch = match header.kind {
            BRANCH if count == 0 => return fault(10, "a branch without elements"),
            BRANCH => true,
            LEAF => false,
            kind => return fault(8, &format!("kind {kind:#x} where a branch or a leaf must be")),
        };
        let page = Page { bytes, len, is_branch, count };
        let mut end = header.elements_end();
        if end > len {
            return fault(10, &format!("{count} elements do not fit into the page"));
        }
        for number in 0..count {
            let at = page.at(number);
            let Some(element) = page.element(number) else {
                return fault(at, &format!("element {number} is not in the page"));
            };
            if element.key != end {
                return fault(at, &format!("element {number} does not begin where the one before ends"));
            }
            end = element.end;
            if !page.is_branch && page.field(number, 0) & !BUCKET != 0 {
                return fault(at, &format!("element {number} has unknown flags {:#x}", page.field(number, 0)));
            }
        }
        Ok(page)
    }

    fn check_order(self) -> Result<Page, PageFault> {
        match (1..self.count).find(|&number| self.key(number - 1) >= self.key(number)) {
            None => Ok(self),
            Some(number) => {
                let reason = format!("the key of element {number} is not above the one before");
                Err(PageFault { at: self.at(number), reason })
            }
        }
    }

    /// Where in the page an element is.
    pub(super) fn at(&self, number: usize) -> usize {
        PAGE_HEADER_LEN + number * ELEMENT_LEN
    }

    fn field(&self, number: usize, field: usize) -> u32 {
        LittleEndian::read_u32(&self.bytes[self.at(number) + field..])
    }

    /// `None` if it reaches out of the page.
    fn element(&self, number: usize) -> Option<Element> {
        let (position, key_len, value_len) = match self.is_branch {
            true => (self.field(number, 0), self.field(number, 4), 0),
            false => (self.field(number, 4), self.field(number, 8), self.field(number, 12)),
        };
        // No sum of four such numbers is above what 64 bits hold.
        let key = self.at(number) + position as usize;
        let value = key + key_len as usize;
        let end = value + value_len as usize;
        (end <= self.len).then_some(Element { key, value, end })
    }

    fn checked(&self, number: usize) -> Element {
        self.element(number).unwrap_or(Element { key: 0, value: 0, end: 0 })
    }

    pub(super) fn is_branch(&self) -> bool {
        self.is_branch
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where the elements end, in bytes from the start of the page.
    pub(super) fn end(&self) -> usize {
        self.count.checked_sub(1).map_or(PAGE_HEADER_LEN, |last| self.checked(last).end)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn key(&self, number: usize) -> &[u8] {
        let Element { key, value, .. } = self.checked(number);
        &self.bytes[key..value]
    }

    /// The value of a leaf's element.
    pub(super) fn value(&self, number: usize) -> &[u8] {
        let Element { value, end, .. } = self.checked(number);
        &self.bytes[value..end]
    }

    /// Where in the page a value is.
    pub(super) fn value_at(&self, number: usize) -> usize {
        self.checked(number).value
    }

    /// Whether the value of a leaf's element is a bucket.
    pub(super) fn is_bucket(&self, number: usize) -> bool {
        !self.is_branch && self.field(number, 0) & BUCKET != 0
    }

    /// The page that a branch's element leads to.
    pub(super) fn child(&self, number: usize) -> u64 {
        LittleEndian::read_u64(&self.bytes[self.at(number) + 8..])
    }
}
