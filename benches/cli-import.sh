#!/bin/sh
# The speed and the peak memory of `caskfile import` and `caskfile export`, beside those of sqlite3's `.import` and of
# a `SELECT` in its shell, on the same file and in the same run.
#
#     sh benches/cli-import.sh [RECORDS [ROUNDS [random|sorted]]]      default: 1000000 3 random
#
# The file has a record a line: a key of 16 bytes, a tab, a value of 100 bytes. 8,500,000 records are 1 GB. The keys come
# in random order, or, as a B-tree has it easiest, in their own. Both programs write all of it and sync once, at the end;
# sqlite3 keeps a table with the key as its primary key, WITHOUT ROWID, in one transaction, as its shell does by itself,
# and exports in the order of the keys; caskfile in the order in which they came. The rounds take turns; speeds are those
# of the median round, with the processor time that it took, user and system. Peak memory is the largest resident set of
# all rounds.
#
# Needs cargo, GNU time (/usr/bin/time) and sqlite3, in Debian's packages of these names; without sqlite3, its rows are
# left out. Everything lies in a temporary directory under $TMPDIR, with room for six times the file.
set -eu

records=${1:-1000000}
rounds=${2:-3}
order=${3:-random}
here=$(cd "$(dirname "$0")/.." && pwd)
[ -x /usr/bin/time ] || {
    echo "cli-import: /usr/bin/time is missing: apt-get install time" >&2
    exit 1
}
cargo build --quiet --release --features cli --manifest-path "$here/Cargo.toml"
caskfile=${CARGO_TARGET_DIR:-$here/target}/release/caskfile

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
awk -v records="$records" -v order="$order" 'BEGIN {
    srand(1)
    for (i = 0; i < records; i++) {
        key = order == "sorted" ? sprintf("%016d", i) : sprintf("%08d%08d", rand() * 1e8, rand() * 1e8)
        printf "%s\t%s%s%s%s%s%s%04d\n", key, key, key, key, key, key, key, i % 10000
    }
}' > input.tsv
bytes=$(wc -c < input.tsv)
echo "$records records, $bytes bytes, keys in $order order; $(nproc) processors"

# Runs a command, and notes its seconds, KiB and seconds of processor time under a name.
measure() {
    name=$1
    shift
    /usr/bin/time -f "$name %e %M %U %S" -a -o measured "$@"
}

for round in $(seq "$rounds"); do
    rm -f store.cask store.db
    measure import.caskfile "$caskfile" import --quiet --format tsv store.cask input.tsv
    measure export.caskfile "$caskfile" export --quiet --format tsv store.cask > caskfile.tsv
    if command -v sqlite3 > /dev/null; then
        measure import.sqlite3 sqlite3 store.db \
            'CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID' '.mode tabs' '.import input.tsv kv'
        measure export.sqlite3 sqlite3 store.db '.mode tabs' 'SELECT * FROM kv ORDER BY key' > sqlite3.tsv
        # Of two records with one key, caskfile keeps the later one and sqlite3 the first.
        [ "$round" != 1 ] || [ "$(cut -f 1 caskfile.tsv | LC_ALL=C sort | cksum)" = "$(cut -f 1 sqlite3.tsv | cksum)" ] ||
            { echo "cli-import: the exports have different keys" >&2; exit 1; }
    fi
done

printf '%-8s %-10s %10s %14s %12s %14s\n' "" "" "MB/s" "records/s" "peak MiB" "processor s"
for what in import.caskfile import.sqlite3 export.caskfile export.sqlite3; do
    sort -k 2,2n measured | awk -v what="$what" -v bytes="$bytes" -v records="$records" '
        $1 == what { n++; seconds[n] = $2; if ($3 > peak) peak = $3; busy[n] = $4 + $5 }
        END {
            if (n == 0) exit
            median = seconds[int((n + 1) / 2)]
            if (median == 0) median = 0.01
            split(what, name, ".")
            printf "%-8s %-10s %10.1f %14.0f %12.1f %14.2f\n", name[1], name[2], bytes / 1e6 / median, \
                records / median, peak / 1024, busy[int((n + 1) / 2)]
        }'
done
ls -l store.cask store.db 2> /dev/null | awk '{ printf "%s: %.1f MB\n", $NF, $5 / 1e6 }'
