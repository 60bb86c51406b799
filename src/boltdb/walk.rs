//! The walk through all buckets of a file.
//!
//! A bucket is a tree of pages. Its branches lead to pages with higher and higher keys. An element of a leaf is a pair or a bucket;
//! the value of a bucket is the number of its first page and a sequence number, 8 bytes each, or, if the number is 0, the one page of a
//! small bucket follows.
//!
//! The walk keeps the branches on its way in a list, and calls itself for a bucket in a bucket, of which a name has room for few.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use byteorder::{ByteOrder, LittleEndian};

use super::error::BoltError;
use super::file::BoltFile;
use super::page::Page;
use crate::format::MAX_BUCKET_LEN;

/// The number of a bucket's first page, and its sequence number.
const BUCKET_HEADER_LEN: usize = 16;

/// Between the names of a bucket and of one in it.
const SEPARATOR: u8 = b'/';

/// No tree is as high: a branch has two children at least, and a file less than 2^63 pages.
const HIGHEST: usize = 64;

/// A pair of a BoltDB file: see [`BoltFile::visit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoltPair<'a> {
    /// The name of its bucket, after those of the buckets that this one is in, with slashes between them.
    pub bucket: &'a [u8],
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The number of the page that has it.
    pub page: u64,
    /// Where its page says where it is, in bytes from the start of the file.
    pub offset: u64,
}

/// How much a BoltDB file has: see [`BoltFile::visit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Contents {
    /// How many buckets, those without pairs and those in other buckets included.
    pub buckets: u64,
    /// How many pairs.
    pub pairs: u64,
    /// The bytes of all keys and values.
    pub bytes: u64,
}

/// One pass over a file.
pub(super) struct Walk<'f, F> {
    file: &'f BoltFile,
    each: F,
    /// A bit for each page that was used, up to the last of them.
    used: Vec<u64>,
    /// The names that could be those of two buckets: of a bucket in a bucket, or with a slash in them.
    ambiguous: Names,
    contents: Contents,
}

/// A page on the way, and where it is.
struct Place {
    page: Page,
    number: u64,
    /// Where the page begins, in bytes from the start of page `number`. A small bucket has its page in a value.
    at: usize,
    /// The next element.
    next: usize,
    /// The key that all keys of the page are below.
    to: Option<KeyOnWay>,
}

/// A key of a branch on the way, which stays there as long as its children do.
#[derive(Debug, Clone, Copy)]
struct KeyOnWay {
    level: usize,
    element: usize,
}

impl<'f, E: From<BoltError>, F: FnMut(BoltPair<'_>) -> Result<(), E>> Walk<'f, F> {
    pub(super) fn new(file: &'f BoltFile, each: F) -> Walk<'f, F> {
        Walk { file, each, used: Vec::new(), ambiguous: Names::default(), contents: Contents::default() }
    }

    pub(super) fn run(mut self) -> Result<Contents, E> {
        let root = self.page(self.file.root(), None, None).map_err(|error| match error {
            // The meta page leads to it.
            Lead::Number(reason) => self.file.damaged(self.file.meta_page(), 0, reason),
            Lead::Page(error) => error,
        })?;
        self.bucket(Place::first(root, self.file.root()), &mut Vec::new(), 0)?;
        Ok(self.contents)
    }

    /// Walks through a bucket, from its first page on.
    fn bucket(&mut self, first: Place, name: &mut Vec<u8>, depth: usize) -> Result<(), E> {
        let mut way = vec![first];
        loop {
            let levels = way.len();
            let Some(place) = way.last_mut() else { return Ok(()) };
            let element = place.next;
            if element == place.page.count() {
                way.pop();
                continue;
            }
            place.next += 1;
            if !place.page.is_branch() {
                self.element(place, element, name, depth)?;
                continue;
            }
            let (number, at) = (place.number, place.at + place.page.at(element));
            if levels == HIGHEST {
                return Err(self.file.damaged(number, at, format!("the tree has more than {HIGHEST} levels")).into());
            }
            let to = match element + 1 {
                next if next < place.page.count() => Some(KeyOnWay { level: levels - 1, element: next }),
                _ => place.to,
            };
            let branch = &way[levels - 1].page;
            let (child, from) = (branch.child(element), branch.key(element));
            let below = to.map(|to| way[to.level].page.key(to.element));
            let page = self.page(child, Some(from), below).map_err(|lead| lead.at(self.file, number, at))?;
            way.push(Place { to, ..Place::first(page, child) });
        }
    }

    /// A pair of a leaf, or a bucket.
    fn element(&mut self, place: &Place, element: usize, name: &mut Vec<u8>, depth: usize) -> Result<(), E> {
        let Place { page, number, .. } = place;
        let (key, value) = (page.key(element), page.value(element));
        let at = place.at + page.at(element);
        if !page.is_bucket(element) {
            if depth == 0 {
                return Err(self.file.damaged(*number, at, "a pair that is in no bucket").into());
            }
            self.contents.pairs += 1;
            self.contents.bytes += (key.len() + value.len()) as u64;
            let offset = self.file.offset_of(*number) + at as u64;
            return (self.each)(BoltPair { bucket: name, key, value, page: *number, offset });
        }
        let refused = |reason: String| {
            let (path, page, offset) = (self.file.path().to_owned(), *number, self.file.offset_of(*number) + at as u64);
            Err(BoltError::Refused { path, page, offset, reason }.into())
        };
        if key.is_empty() {
            return Err(self.file.damaged(*number, at, "a bucket without a name").into());
        }
        let outer = name.len();
        let (len, max) = (outer + usize::from(depth > 0) + key.len(), MAX_BUCKET_LEN);
        if len > max {
            return refused(format!(
                "a bucket's name has at most {max} bytes, and this one has {len}, with those of the buckets that it is in"
            ));
        }
        if depth > 0 {
            name.push(SEPARATOR);
        }
        name.extend_from_slice(key);
        let is_ambiguous = depth > 0 || key.contains(&SEPARATOR);
        if is_ambiguous && !self.ambiguous.insert(name).map_err(|NoMemory| self.file.no_memory())? {
            return refused(
                "two buckets would have one name: a slash is in a name, and between those of a bucket and one in it"
                    .into(),
            );
        }
        self.contents.buckets += 1;
        let first = self.first_page(place, element, at)?;
        self.bucket(first, name, depth + 1)?;
        name.truncate(outer);
        Ok(())
    }

    /// The first page of a bucket, as the element says.
    fn first_page(&mut self, place: &Place, element: usize, at: usize) -> Result<Place, BoltError> {
        let (value, number) = (place.page.value(element), place.number);
        let damaged = |reason: &str| Err(self.file.damaged(number, at, reason));
        let Some((header, page)) = value.split_at_checked(BUCKET_HEADER_LEN) else {
            return damaged("the value is too short for a bucket");
        };
        let root = LittleEndian::read_u64(header);
        if root != 0 {
            if !page.is_empty() {
                return damaged("a bucket with pages of its own has one in its value as well");
            }
            let page = self.page(root, None, None).map_err(|error| error.at(self.file, number, at))?;
            return Ok(Place::first(page, root));
        }
        let page_at = place.at + place.page.value_at(element) + BUCKET_HEADER_LEN;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(page.len()).map_err(|_| self.file.no_memory())?;
        bytes.extend_from_slice(page);
        let page = Page::parse(bytes).map_err(|fault| {
            self.file.damaged(number, page_at + fault.at, format!("in a small bucket: {}", fault.reason))
        })?;
        if page.is_branch() || (0..page.count()).any(|element| page.is_bucket(element)) {
            return Err(self.file.damaged(number, page_at, "a small bucket has pairs only"));
        }
        if page.end() != page.len() {
            return Err(self.file.damaged(number, page_at, "a small bucket does not end where its pairs end"));
        }
        Ok(Place { at: page_at, ..Place::first(page, number) })
    }

    /// Reads a page that an element leads to, for the first time. Its keys must be at or above `from`, if it is given, and below `to`.
    fn page(&mut self, number: u64, from: Option<&[u8]>, to: Option<&[u8]>) -> Result<Page, Lead> {
        let file = self.file;
        if number < 2 || number >= file.pages() {
            return Err(Lead::Number(format!("it leads to page {number} of a file of {} pages", file.pages())));
        }
        let header = file.header(number)?;
        let part = file.elements(&header)?;
        let last = number + u64::from(header.overflow);
        // 8,192 times less than the file has before that page, or even less.
        let missing = (last / 64 + 1).saturating_sub(self.used.len() as u64);
        let missing = usize::try_from(missing).map_err(|_| file.no_memory())?;
        self.used.try_reserve(missing).map_err(|_| file.no_memory())?;
        self.used.resize(self.used.len() + missing, 0);
        for used in number..=last {
            let (word, bit) = ((used / 64) as usize, 1 << (used % 64));
            if self.used[word] & bit != 0 {
                return Err(Lead::Number(format!("it leads to page {used}, which has another place already")));
            }
            self.used[word] |= bit;
        }
        let page = file.page(&header, part)?;
        // In the page, the order of the keys was checked.
        let Some(last) = page.count().checked_sub(1) else { return Ok(page) };
        if from.is_some_and(|from| page.key(0) < from) {
            return Err(file.damaged(number, 0, "its first key is below the one that leads to it").into());
        }
        if to.is_some_and(|to| page.key(last) >= to) {
            let reason = "its last key is not below the one that leads to the next page";
            return Err(file.damaged(number, 0, reason).into());
        }
        Ok(page)
    }
}

impl Place {
    /// The first element of a page.
    fn first(page: Page, number: u64) -> Place {
        Place { page, number, at: 0, next: 0, to: None }
    }
}

/// A set of names, of which it keeps hashes of 128 bits: a bucket takes more of the file than of this.
#[derive(Default)]
struct Names {
    hashes: HashSet<[u64; 2]>,
    seeds: [RandomState; 2],
}

struct NoMemory;

impl Names {
    /// Returns whether the name is new.
    fn insert(&mut self, name: &[u8]) -> Result<bool, NoMemory> {
        self.hashes.try_reserve(1).map_err(|_| NoMemory)?;
        Ok(self.hashes.insert(self.seeds.each_ref().map(|seed| seed.hash_one(name))))
    }
}

/// Why a page cannot be read that another one leads to.
enum Lead {
    /// The number is wrong, so the page that has it is damaged.
    Number(String),
    Page(BoltError),
}

impl Lead {
    /// The error, if the element at this place leads to the page.
    fn at(self, file: &BoltFile, page: u64, at: usize) -> BoltError {
        match self {
            Lead::Number(reason) => file.damaged(page, at, reason),
            Lead::Page(error) => error,
        }
    }
}

impl From<BoltError> for Lead {
    fn from(error: BoltError) -> Lead {
        Lead::Page(error)
    }
}
