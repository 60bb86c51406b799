//go:build ignore

// Writes the BoltDB files of this directory with the real libraries, and beside each what those read from it: a line for each
// pair, with the path of its bucket, its key and its value in hexadecimal digits. README.md says how to run it.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	old "github.com/boltdb/bolt"
	"github.com/docker/libkv/store"
	libkv "github.com/docker/libkv/store/boltdb"
	bbolt "go.etcd.io/bbolt"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Pages of 1024 bytes make trees of several levels from few keys. Without NoGrowSync the library gives a file 32 KiB at once.
func open(path string, noFreelistSync bool) *bbolt.DB {
	_ = os.Remove(path)
	db, err := bbolt.Open(path, 0644, &bbolt.Options{PageSize: 1024, NoGrowSync: true, NoFreelistSync: noFreelistSync})
	check(err)
	return db
}

func update(db *bbolt.DB, change func(tx *bbolt.Tx)) {
	check(db.Update(func(tx *bbolt.Tx) error {
		change(tx)
		return nil
	}))
}

func bucket(tx *bbolt.Tx, path ...string) *bbolt.Bucket {
	b, err := tx.CreateBucketIfNotExists([]byte(path[0]))
	check(err)
	for _, name := range path[1:] {
		b, err = b.CreateBucketIfNotExists([]byte(name))
		check(err)
	}
	return b
}

func put(b *bbolt.Bucket, key, value string) {
	check(b.Put([]byte(key), []byte(value)))
}

func small() {
	_ = os.Remove("small.db")
	db, err := bbolt.Open("small.db", 0644, &bbolt.Options{PageSize: 4096})
	check(err)
	update(db, func(tx *bbolt.Tx) {
		put(bucket(tx, "fruit"), "apple", "red")
		put(bucket(tx, "fruit"), "pear", "green")
		put(bucket(tx, "tool"), "saw", "")
	})
	check(db.Close())
}

// Every kind of page, of bucket, of key and of value.
func shapes(path string, noFreelistSync bool) {
	db := open(path, noFreelistSync)
	update(db, func(tx *bbolt.Tx) {
		// Three levels: a page has room for five such keys.
		deep := bucket(tx, "deep")
		for n := 0; n < 60; n++ {
			put(deep, fmt.Sprintf("%03d", n)+strings.Repeat("k", 170), fmt.Sprintf("value %d", n))
		}
		many := bucket(tx, "many")
		for n := 0; n < 200; n++ {
			put(many, fmt.Sprintf("key %04d", n), strings.Repeat("v", n%30))
		}
		// A leaf with overflow pages, and a branch with one.
		put(bucket(tx, "large"), "value", strings.Repeat("large ", 900))
		put(bucket(tx, "large"), "small", "s")
		for n := 0; n < 7; n++ {
			put(bucket(tx, "long keys"), fmt.Sprint(n)+strings.Repeat("l", 900), "value of a long key")
		}
		bytes := bucket(tx, "\xff\x00")
		put(bytes, "\x00", "\x00")
		put(bytes, "\x00\x00", "zeros")
		put(bytes, "\xff\xff", "\xff")
		put(bytes, "empty value", "")
	})
	update(db, func(tx *bbolt.Tx) {
		bucket(tx, "empty")
		outer := bucket(tx, "outer")
		put(outer, "before", "a pair before the buckets in it")
		put(outer, "zzz", "and one after them")
		check(outer.SetSequence(7))
		put(bucket(tx, "outer", "inner"), "inline", "a bucket without a page of its own")
		for n := 0; n < 40; n++ {
			put(bucket(tx, "outer", "paged"), fmt.Sprintf("%03d", n), strings.Repeat("p", 60))
		}
		put(bucket(tx, "outer", "paged", "deepest"), "key", "three buckets down")
		bucket(tx, "outer", "void")
	})
	update(db, func(tx *bbolt.Tx) {
		// Pages that are free now.
		for n := 50; n < 150; n++ {
			check(bucket(tx, "many").Delete([]byte(fmt.Sprintf("key %04d", n))))
		}
	})
	// The older meta page does not have this one.
	update(db, func(tx *bbolt.Tx) { put(bucket(tx, "zz last"), "key", "of the last transaction") })
	check(db.Close())
}

// As a container engine lays out its networks in local-kv.db.
func network() {
	_ = os.Remove("libkv.db")
	config := &store.Config{Bucket: "libnetwork", PersistConnection: true}
	kv, err := libkv.New([]string{"./libkv.db"}, config)
	check(err)
	root := "docker/network/v1.0/"
	ids := []string{strings.Repeat("1a2b3c4d", 8), strings.Repeat("5e6f7a8b", 8)}
	for n, id := range ids {
		json := fmt.Sprintf(`{"name":"net%d","id":"%s","networkType":"bridge","scope":"local","persist":true}`, n, id)
		check(kv.Put(root+"network/"+id+"/", []byte(json), nil))
		check(kv.Put(root+"endpoint_count/"+id+"/", []byte(`{"Count":1}`), nil))
		check(kv.Put(root+"bridge/"+id+"/", []byte(fmt.Sprintf(`{"ID":"%s","BridgeName":"br%d"}`, id, n)), nil))
		_, pair, err := kv.AtomicPut(root+"endpoint/"+id+"/"+ids[1-n]+"/", []byte(`{"name":"web"}`), nil, nil)
		check(err)
		_, _, err = kv.AtomicPut(root+"endpoint/"+id+"/"+ids[1-n]+"/", []byte(`{"name":"web","ip":"10.0.0.2"}`), pair, nil)
		check(err)
	}
	check(kv.Put(root+"idm/vxlan-id/", []byte(""), nil))
	kv.Close()
}

// The library before it was forked.
func before() {
	_ = os.Remove("boltdb.db")
	db, err := old.Open("boltdb.db", 0644, nil)
	check(err)
	db.NoGrowSync = true
	check(db.Update(func(tx *old.Tx) error {
		b, err := tx.CreateBucket([]byte("bucket"))
		check(err)
		for n := 0; n < 100; n++ {
			check(b.Put([]byte(fmt.Sprintf("key %03d", n)), bytes.Repeat([]byte{byte(n)}, 50)))
		}
		b, err = b.CreateBucket([]byte("inner"))
		check(err)
		return b.Put([]byte("key"), []byte("value"))
	}))
	check(db.Close())
}

// What caskfile has no place for.
func refused() {
	db := open("two-of-a-name.db", false)
	update(db, func(tx *bbolt.Tx) {
		put(bucket(tx, "a", "b"), "key", "in a bucket in a bucket")
		put(bucket(tx, "a/b"), "key", "in a bucket with a slash in its name")
	})
	check(db.Close())
	db = open("long-name.db", false)
	update(db, func(tx *bbolt.Tx) {
		put(bucket(tx, "outer", strings.Repeat("i", 250)), "key", "value")
	})
	check(db.Close())
}

// What the library reads, in its order.
func expect(path string) {
	db, err := bbolt.Open(path, 0644, &bbolt.Options{ReadOnly: true})
	check(err)
	file, err := os.Create(strings.TrimSuffix(path, ".db") + ".txt")
	check(err)
	out := bufio.NewWriter(file)
	var walk func(name []byte, b *bbolt.Bucket)
	walk = func(name []byte, b *bbolt.Bucket) {
		check(b.ForEach(func(key, value []byte) error {
			if value == nil {
				walk(append(append(append([]byte{}, name...), '/'), key...), b.Bucket(key))
				return nil
			}
			fmt.Fprintf(out, "%s\t%s\t%s\n", hex.EncodeToString(name), hex.EncodeToString(key), hex.EncodeToString(value))
			return nil
		}))
	}
	check(db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			panic(err)
		}
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			walk(append([]byte{}, name...), b)
			return nil
		})
	}))
	check(db.Close())
	check(out.Flush())
	check(file.Close())
}

func main() {
	small()
	shapes("shapes.db", false)
	shapes("no-freelist.db", true)
	network()
	before()
	refused()
	for _, path := range []string{"small.db", "shapes.db", "libkv.db", "boltdb.db"} {
		expect(path)
	}
}
