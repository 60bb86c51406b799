# Single tasks, for people and for CI: `.ci/run` is a list of them.
#
#   just                 lists the tasks
#   just check           before a commit: formatting, clippy, documentation, tests
#   just test --lib      words after a task's name go to its command
#
# `cargo install --locked just` installs the program. Every task also works without it: copy its lines.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

# Lists the tasks.
default:
    @just --list --unsorted

# The quick checks before a commit.
check: format-check clippy doc test

# Installs the tools that the other tasks need, where they are missing, and prints their versions.
[group('source')]
tools:
    command -v cargo-deny > /dev/null || cargo install --locked --quiet cargo-deny
    command -v cargo-fuzz > /dev/null || cargo install --locked --quiet cargo-fuzz
    cargo --version
    cargo deny --version
    cargo fuzz --version
    rustup run nightly rustc --version || { echo "fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }

# Formats everything.
[group('source')]
format:
    cargo fmt
    cargo fmt --manifest-path fuzz/Cargo.toml
    cargo fmt --manifest-path benches/compare/Cargo.toml
    cargo fmt --manifest-path examples/programs/Cargo.toml
    cargo fmt --manifest-path backends/etcd/Cargo.toml

# Fails if something is not formatted.
[group('source')]
format-check:
    cargo fmt --check
    cargo fmt --check --manifest-path fuzz/Cargo.toml
    cargo fmt --check --manifest-path benches/compare/Cargo.toml
    cargo fmt --check --manifest-path examples/programs/Cargo.toml
    cargo fmt --check --manifest-path backends/etcd/Cargo.toml

# Clippy with every combination of features.
[group('source')]
clippy:
    #!/usr/bin/env bash
    set -euo pipefail
    # The library is checked alone as well: the tests depend on the crate with the feature `testing`.
    for features in "" "--no-default-features" "--features boltdb" "--features testing" "--all-features"; do
        echo "--- lib $features"
        # shellcheck disable=SC2086  # nothing, or several words
        cargo clippy --quiet --lib $features -- -D warnings
        echo "--- all targets $features"
        # shellcheck disable=SC2086
        cargo clippy --quiet --all-targets $features -- -D warnings
    done

# Clippy for the comparison with other stores, without the engines that need a C compiler.
[group('source')]
clippy-compare:
    cargo clippy --quiet --manifest-path benches/compare/Cargo.toml --no-default-features --all-targets -- -D warnings

# Builds the documentation, of public and of private items; warnings are errors.
[group('source')]
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features --document-private-items

# Checks that the crate and its dependencies work with the oldest supported compiler.
[group('source')]
msrv:
    .ci/msrv

# Compares the list in docs/DEPENDENCIES.md with the crates that cargo builds.
[group('source')]
dependencies:
    .ci/dependencies

# Checks licences, versions, sources and banned crates; advisories where their database can be reached.
[group('source')]
deny:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo deny --all-features check licenses bans sources
    # The advisories are in a repository that cannot be reached from everywhere.
    if timeout 120 cargo deny fetch db > target/advisories.log 2>&1; then
        cargo deny --all-features check advisories
    else
        tail -1 target/advisories.log
        echo "the advisory database cannot be reached from here: advisories were NOT checked"
    fi

# All tests with the default features; with words, those tests: just test --test crash
[group('tests')]
test *args:
    cargo test "$@"

# Power cuts: every small world of up to two operations, and a sample of the others.
[group('tests')]
worlds:
    CASKFILE_WORLDS=0..6528 CASKFILE_THREADS=2 cargo test --test crash every_small -- --nocapture
    CASKFILE_WORLDS=1/1499 CASKFILE_THREADS=2 cargo test --test crash every_small -- --nocapture

# What `cargo test` samples: all bits, games and failing calls, and more lives and rounds. And on a real disk what it has in memory.
[group('tests')]
samples:
    CASKFILE_ROOTS=3000 CASKFILE_ROOTS_GAMES=1 CASKFILE_SNAPSHOTS=1500 CASKFILE_SNAPSHOT_CUTS=600 \
        cargo test --test crash -- roots:: snapshots::
    CASKFILE_BITS=1 CASKFILE_EVERY_BIT=1 cargo test --test damage -- truncated:: every_bit::
    CASKFILE_FAULT_LOOPS=all cargo test --test faults after_any_failing_call
    CASKFILE_REAL_DISK=1 cargo test --test contract by_default_keeps_the_contract
    CASKFILE_CONTENDED_ROUNDS=180 cargo test --test processes contended:: -- --nocapture
    CASKFILE_REAL_DISK=1 cargo test --test processes -- a_kill_during_compaction a_kill_during_creation a_kill_during_recovery

# Locks between processes in time namespaces, and with another boot identity. Fails where there can be no such namespaces.
[group('tests')]
namespaces:
    CASKFILE_NAMESPACES=1 cargo test --test processes namespaces::

# The tests that need the features `log` and `cli`, and the first session of README.
[group('tests')]
cli:
    # With both features, so that both have the same library.
    cargo test --features log,cli --test contract events
    cargo test --features log,cli --bin caskfile --test command -- --skip million::
    cargo test --release --features cli --test command million::
    sh examples/first-session.sh

# The page of `caskfile explore` in a headless Chromium.
[group('tests')]
explore:
    tests/explore/run

# docs/FORMAT.md: the reader that was written from it, Kaitai Struct, the pictures.
[group('tests')]
format-page:
    .ci/format-page

# The queue of writers in every order of threads (loom), a whole store in many (shuttle).
[group('tests')]
threads:
    #!/usr/bin/env bash
    set -euo pipefail
    # Both at once: each has a build of its own, and much of both is the work of one processor.
    RUSTFLAGS="--cfg loom" cargo test --quiet --lib --target-dir target/loom interleaved &
    loom=$!
    failed=0
    RUSTFLAGS="--cfg shuttle" cargo test --quiet --lib --target-dir target/shuttle interleaved || failed=$?
    wait $loom || failed=$?
    exit $failed

# Seeded bugs: each must be found by its test; with words, those bugs: just seeded no-sync
[group('tests')]
seeded *words:
    tests/seeded/run "$@"

# The examples.
[group('tests')]
examples:
    # With the feature that `cli` has compiled the library with.
    cargo run --quiet --release --features cli --example unicode
    cargo run --quiet --release --features cli --example service
    cargo run --quiet --release --features cli --example reload
    cargo run --quiet --release --features cli --example cache
    cargo run --quiet --release --features cli --example election
    cargo run --quiet --release --features cli --example jobs
    cargo run --quiet --release --features cli --example backends

# The programs of examples/programs, with their versions on SQLite, which need a C compiler.
[group('tests')]
programs:
    cargo test --quiet --manifest-path examples/programs/Cargo.toml --features sqlite

# The backend for etcd: clippy, and its tests over clusters on loopback. Installs etcd and protoc where they are missing.
[group('tests')]
etcd *args:
    #!/usr/bin/env bash
    set -euo pipefail
    if ! command -v etcd > /dev/null || ! command -v protoc > /dev/null; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends etcd-server protobuf-compiler > /dev/null
    fi
    cd backends/etcd
    for features in "" "--all-features"; do
        # shellcheck disable=SC2086  # nothing, or one word
        cargo clippy --locked --quiet --all-targets $features -- -D warnings
    done
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps
    cargo test --locked --quiet "$@"

# Seeded bugs of the backend for etcd, after `just etcd`; with words, those bugs: just etcd-seeded lock
[group('tests')]
etcd-seeded *words:
    backends/etcd/tests/seeded/run "$@"

# Seven processes at one store, killed again and again for SECONDS.
[group('tests')]
soak seconds="60":
    cargo run --quiet --release --features cli --example soak -- "$1"

# Fuzzing: each target for SECONDS; with a name, one target: just fuzz 600 salvage
[group('tests')]
fuzz seconds="20" *targets:
    fuzz/run "$@"

# The crash lab for SECONDS in all, with counts as docs/TESTING.md has them: just full 2400
[group('tests')]
full +args:
    tests/full "$@"

# Which lines the tests run; fails below 95 %.
[group('tests')]
coverage *args:
    .ci/coverage "$@"

# The benchmarks compile and run: a short run, whose figures mean nothing.
[group('measuring')]
bench-check:
    # The profile and the feature that `cli` has compiled the library with.
    cargo bench --quiet --profile release --features cli --bench basic -- --keys 20000 --rounds 1

# A benchmark: basic, bursts, fairness, group_commit or pause, with its options: just bench basic --keys 1000000
[group('measuring')]
bench name="basic" *args:
    cargo bench --bench "$1" -- "${@:2}"

# caskfile beside other stores: just compare run --keys 20000 --rounds 1
[group('measuring')]
compare *args:
    cd benches/compare && cargo run --release -- "$@"

# Counts words that make comments and pages hard to read; with a commit, in its files.
[group('measuring')]
words *args:
    tests/words "$@"

# Builds the package as the registry would get it, and compiles the tests of what is in it. Publishes nothing.
[group('release')]
package:
    .ci/package
