//! Lists: all pairs of a range at one revision, in pages.

use caskfile::KvPair;
use etcd_client::{GetOptions, KeyValue};

use crate::cluster::Cluster;
use crate::error::Failure;
use crate::keys::{Keyspace, Range};

/// The most keys of a page. Large values make it smaller.
const PAGE: i64 = 1_000;

/// How often a list begins again because its revision was compacted. Each time is a compaction that came between two pages.
const BEGINNINGS: usize = 16;

/// What a range had at a revision.
pub(crate) struct List {
    pub revision: i64,
    pub found: Vec<KeyValue>,
}

impl List {
    pub(crate) fn pairs(&self, keys: &Keyspace) -> Vec<KvPair> {
        self.found.iter().map(|found| keys.pair(found)).collect()
    }
}

impl Cluster {
    /// Reads all pairs of a range as they are at one revision, which is not older than any answer before.
    pub(crate) async fn list(&self, range: &Range) -> Result<List, Failure> {
        let mut beginnings = 0;
        loop {
            match self.list_once(range).await {
                Err(failure) if failure.inner().is_compacted() && beginnings < BEGINNINGS => beginnings += 1,
                result => return result,
            }
        }
    }

    async fn list_once(&self, range: &Range) -> Result<List, Failure> {
        let mut list = List { revision: 0, found: Vec::new() };
        let (mut rest, mut limit) = (range.clone(), PAGE);
        loop {
            // Revision 0 is the newest one. The pages after the first are of its revision.
            let options = GetOptions::new().with_limit(limit).with_revision(list.revision);
            let mut page = match self.read(&rest, options).await {
                Err(failure) if failure.inner().is_answer_too_large() && limit > 1 => {
                    limit /= 2;
                    continue;
                }
                page => page?,
            };
            if list.revision == 0 {
                list.revision = page.header().map_or(0, |header| header.revision());
            }
            let more = page.more();
            list.found.extend(page.take_kvs());
            let Some(last) = list.found.last().filter(|_| more) else { return Ok(list) };
            // The next key in order.
            rest.key = [last.key(), b"\0"].concat();
        }
    }
}
