#!/bin/sh
# A first session with the command line, on real input: the Unicode Character Database goes into a store, is listed,
# a compare-and-swap is won and another one lost, the store is compacted, and comes out again as it went in.
#
#     sh examples/first-session.sh [UnicodeData.txt]
#
# Each command is shown before it runs. The store lies in a temporary directory, which is removed again.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
input=${1:-$here/tests/data/UnicodeData.txt}
[ -f "$input" ] || {
    echo "first-session: $input: no such file; give the path of a UnicodeData.txt" >&2
    exit 1
}
input=$(cd "$(dirname "$input")" && pwd)/$(basename "$input")

cargo build --quiet --release --features cli --manifest-path "$here/Cargo.toml"
PATH=${CARGO_TARGET_DIR:-$here/target}/release:$PATH

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
# The shell's own way: what a reader would type is what runs.
ln -s "$input" UnicodeData.txt

# Shows a command, runs it, and insists on its exit code.
expect() {
    wanted=$1
    shift
    printf '\n$ %s\n' "$*"
    code=0
    sh -c "$*" 2>&1 || code=$?
    [ "$code" = 0 ] || printf '[exit code %d]\n' "$code"
    [ "$code" = "$wanted" ] || {
        echo "first-session: exit code $code, expected $wanted" >&2
        exit 1
    }
}

expect 0 "caskfile put my.cask colour blue"
expect 0 "caskfile get my.cask colour; echo"
expect 1 "caskfile get my.cask color"
expect 8 "caskfile get mine.cask colour"

echo
echo "# The database: a line is fields with semicolons between them, of which the first one is the key."
raw="--format tsv --separator ';' --no-escapes"
expect 0 "caskfile import my.cask UnicodeData.txt --bucket unicode $raw"
expect 0 "caskfile list my.cask --bucket unicode 1F60 --limit 3"
expect 0 "caskfile list my.cask --bucket unicode --keys --reverse | head -2"
expect 0 "caskfile buckets my.cask"

echo
echo "# Compare-and-swap: a write needs the current index."
expect 0 "caskfile get my.cask colour --last-index; echo"
index=$(caskfile get my.cask colour --last-index | head -1)
expect 0 "caskfile cas my.cask colour red --if-last-index $index"
expect 3 "caskfile cas my.cask colour green --if-last-index $index"
expect 3 "caskfile cas my.cask colour green --if-absent"

echo
echo "# Several changes at once, with a condition, all or nothing."
expect 0 "echo '{\"op\":\"put\",\"key\":\"leader\",\"value\":\"me\",\"if_absent\":true}' | caskfile batch my.cask"
expect 3 "echo '{\"op\":\"put\",\"key\":\"leader\",\"value\":\"you\",\"if_absent\":true}' | caskfile batch my.cask"

echo
echo "# The same import again, as a nightly job would run it, leaves dead records; compaction removes them."
expect 0 "caskfile import my.cask UnicodeData.txt --bucket unicode $raw --quiet"
expect 0 "caskfile stats my.cask"
expect 0 "caskfile compact my.cask"
expect 0 "caskfile verify my.cask"

echo
echo "# What comes out is what went in: the export is in the order in which the pairs were set."
expect 0 "caskfile export my.cask --bucket unicode $raw > exported"
expect 0 "cmp UnicodeData.txt exported && echo the same"
expect 0 "caskfile export my.cask --quiet | caskfile import copy.cask --quiet && caskfile get copy.cask leader; echo"

echo
echo "# When something is wrong."
expect 2 "caskfile put my.cask colour"
expect 2 "caskfile my.cask get colour"
expect 2 "caskfile delete-prefix my.cask ''"
expect 6 "caskfile get UnicodeData.txt colour"
expect 7 "printf 'a\\t1\\nno tab\\n' | caskfile import my.cask --format tsv"
expect 8 "caskfile put no/such/directory/my.cask colour blue"
expect 0 "cp my.cask damaged.cask && printf X | dd of=damaged.cask bs=1 seek=100000 conv=notrunc status=none"
echo
echo "# A get reads what it needs, so other keys can still be read; verify reads everything."
expect 0 "caskfile get damaged.cask colour; echo"
expect 5 "caskfile verify damaged.cask"
expect 0 "caskfile salvage damaged.cask rescued.cask && caskfile get rescued.cask colour; echo"

echo
echo "Everything was as it should be; the temporary directory is removed."
