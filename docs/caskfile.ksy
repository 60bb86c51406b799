meta:
  id: caskfile
  title: caskfile, a single-file append-only log store
  file-extension: cask
  endian: le
  license: MIT OR Apache-2.0
doc: |
  The layout of FORMAT.md, version 1.0. It checks no checksums, so it takes the bytes of a torn tail for a record. Only a
  reader with all the checks of FORMAT.md knows which records count.
seq:
  - id: header
    type: file_header
  - id: roots
    type: roots
    if: header.features.has_roots
  - id: records
    type: record
    repeat: until
    repeat-until: _.is_end_mark or _io.eof
    if: not _io.eof
types:
  file_header:
    seq:
      - id: magic
        contents: [0xca, 0x53, 0x4b, 0x46, 0x0d, 0x0a, 0x1a, 0x0a]
      - id: major
        type: u2
        valid: 1
      - id: minor
        type: u2
      - id: features
        type: features
        size: 4
      - id: file_id
        size: 16
      - id: base_seq
        type: u8
        valid:
          max: '0x3fffffffffffffff'
      - id: created
        type: u8
        doc: seconds since 1970-01-01 00:00 UTC
      - id: complete_after
        type: u8
        doc: the floor plus 1, or 0 if base_seq is the floor
      - id: reserved
        size: 4
      - id: crc
        type: u4
        doc: CRC-32 of the 60 bytes before
  features:
    meta:
      bit-endian: le
    seq:
      - id: has_roots
        type: b1
        doc: the record ROOTS follows the file header
  roots:
    seq:
      - id: header_crc
        type: u4
      - id: body_crc
        type: u4
        valid: 0
      - id: header
        type: record_header
      - id: slots
        type: slot
        repeat: expr
        repeat-expr: 2
  slot:
    seq:
      - id: generation
        type: u8
        doc: of the slots that hold, the one with the higher generation is the root; 0 if the slot is empty
      - id: synced_to
        type: u8
        doc: everything before this offset was on stable storage when the slot was written
      - id: snapshot
        type: u8
        doc: the offset of a SNAPSHOT before that; 0 if there is none
      - id: reserved
        size: 36
      - id: crc
        type: u4
        doc: CRC-32 of file_id, the slot's offset (u8), and the 60 bytes before
  record:
    doc: A record, or the end mark, which has nothing but its first two fields.
    seq:
      - id: header_crc
        type: u4
        doc: CRC-32 of file_id, the record's offset (u8), and bytes 4 to 23 of this header; 0 is stored as 1
      - id: body_crc
        type: u4
        doc: CRC-32 of bytes 9 to 23 of this header, full key and value
      - id: header
        type: record_header
        if: not is_end_mark
      - id: full_key
        size: header.key_len
        type:
          switch-on: header.kind
          cases:
            'kind::put': full_key
            'kind::delete': full_key
            'kind::put_with': full_key
            'kind::put_owned': full_key
        if: not is_end_mark
      - id: value
        size: header.value_len
        type:
          switch-on: header.kind
          cases:
            'kind::synced_to': offset
            'kind::put_with': put_with
            'kind::session': session
            'kind::put_owned': put_owned
            'kind::snapshot': snapshot
        if: not is_end_mark
      - id: padding
        size: 'rest < wanted ? rest : wanted'
        doc: zeros up to a multiple of 8; may be missing at the end of the file
    instances:
      is_end_mark:
        value: header_crc == 0 and body_crc == 0
      wanted:
        value: (8 - _io.pos % 8) % 8
      rest:
        value: _io.size - _io.pos
  record_header:
    seq:
      - id: flags
        type: flags
        size: 1
      - id: kind
        type: u1
        enum: kind
      - id: key_len
        type: u2
      - id: value_len
        type: u4
        valid:
          max: 0x40000000
      - id: seq
        type: u8
  flags:
    meta:
      bit-endian: le
    seq:
      - id: synced
        type: b1
        doc: everything before this record was on stable storage when it was written
      - id: more
        type: b1
        doc: the batch goes on with the next record
      - id: unknown
        type: b6
        valid: 0
  full_key:
    seq:
      - id: bucket_len
        type: u1
      - id: bucket
        size: bucket_len
      - id: key
        size-eos: true
  offset:
    seq:
      - id: offset
        type: u8
  put_with:
    seq:
      - id: deadline
        type: u8
        doc: in milliseconds since 1970-01-01 00:00 UTC; from then on the pair is hidden. 0 if it has none
      - id: session
        type: u8
        doc: reserved, written as 0, not checked
      - id: acquired
        type: u8
        doc: reserved, written as 0, not checked
      - id: value
        size-eos: true
  session:
    doc: Of several records of one session, the last one counts.
    seq:
      - id: session
        type: u8
        doc: the sequence number of the session's first record
      - id: owner
        type: u8
        valid:
          max: '0x1fffffffffffffff'
        doc: the owner has a lock on the byte of this file that is this far above 2^60
      - id: nonce
        type: u8
      - id: ttl
        type: u8
        valid:
          min: 1
        doc: in milliseconds
      - id: deadline
        type: u8
        doc: in milliseconds of the monotonic clock, less the time namespace's offset; 0 ends the session
      - id: boot
        size: 16
        doc: which boot of which machine that clock belongs to
      - id: base_seq
        type: u8
        doc: that of the file in which the record was written first
  put_owned:
    seq:
      - id: deadline
        type: u8
        doc: as in a put_with
      - id: session
        type: u8
        valid:
          min: 1
        doc: the pair is hidden from the end of this session on
      - id: acquired
        type: u8
        doc: the sequence number of the record that took the lock, which is its fencing token; 0 if the pair is no lock
      - id: value
        size-eos: true
  snapshot:
    doc: It counts only if the root leads to it. The parts are in the values of records of the kind IMAGE.
    seq:
      - id: version
        type: u4
      - id: hash
        type: u4
        doc: 1 is SipHash-1-3 with file_id as its key
      - id: check
        type: u8
        doc: the hash of the 8 bytes "caskfile"
      - id: covered_to
        type: u8
        doc: the image is that of the log before this offset
      - id: covered_seq
        type: u8
      - id: records
        type: u8
      - id: keys
        type: u8
      - id: live_bytes
        type: u8
      - id: part_bits
        type: u4
      - id: leaves
        type: u4
        doc: the number of leaves of the order; 0 if it is not stored
      - id: directory
        type: u8
        doc: offset of the order's directory
      - id: directory_crc
        type: u4
        doc: CRC-32 of file_id, the directory's offset (u8), and its bytes
      - id: since_event
        type: u4
        doc: covered_seq plus 1, less the sequence number of the last event before covered_to; 0 if that is not stated
      - id: parts
        type: part_entry
        repeat: eos
        doc: Those of the 2^part_bits parts. In version 2, those of the records with a lifetime follow.
  part_entry:
    seq:
      - id: offset
        type: u8
        doc: of the part's bytes in the file; 0 if the part has no keys. For a record with a lifetime, where it stands
      - id: count
        type: u4
        doc: the number of keys in the part; 1 for a record
      - id: crc
        type: u4
        doc: CRC-32 of file_id, the part's offset (u8), and its bytes; header_crc of a record
  leaf_entry:
    doc: The directory is leaf_entry times the snapshot's number of leaves.
    seq:
      - id: offset
        type: u8
        doc: of the leaf's bytes in the file
      - id: count
        type: u4
        doc: the number of entries in the leaf
      - id: crc
        type: u4
        doc: CRC-32 of file_id, the leaf's offset (u8), and its bytes
      - id: first
        type: order_entry
  order_entry:
    seq:
      - id: key
        size: 16
        doc: the first bytes of the full key
      - id: rest
        type: u8
        doc: bytes 16 and 17 of the full key, its length up to 19, and 40 bits of the put's offset / 8
enums:
  kind:
    0x01: put
    0x02: delete
    0x04: put_with
    0x05: session
    0x06: put_owned
    0x80: mark
    0x81: synced_to
    0x82: moved
    0xc0: roots
    0xc1: image
    0xc2: snapshot
