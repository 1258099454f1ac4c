#!/bin/sh
# Builds the programs and runs every test. Arguments go to the test runner, e.g. ./test.sh retries
#
# The tests start their own redis-server, backends and routers on free ports of 127.0.0.1; nothing
# that already runs on this machine is used. Uses cargo-nextest where it is installed, else cargo's
# own runner. NEXTEST_PROFILE=ci (the default when CI is set) runs on after a failure.
set -eu

cd "$(dirname "$0")"
PATH=$PATH:$HOME/.cargo/bin

say() { printf '%s\n' "$*"; }
fail() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else fail "neither root nor sudo here; please run as root: $*"
    fi
}

install_missing() {
    packages=
    command -v redis-server >/dev/null 2>&1 || packages="$packages redis-server"
    command -v cc >/dev/null 2>&1 || packages="$packages gcc libc6-dev"
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null 2>&1 || fail "please install redis-server and a C linker (cc)"
    say "Installing$packages: the tests run against a real redis-server, and Rust links with cc"
    as_root apt-get update -qq
    # The names are to be split into words.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

command -v cargo >/dev/null 2>&1 || fail "cargo not found: install Rust from https://rustup.rs"
install_missing

# The process tests run the binaries, and a test run alone builds only those of packages that have
# test targets of their own.
cargo build --workspace --bins --locked

if cargo nextest --version >/dev/null 2>&1; then
    [ -z "${CI:-}" ] || NEXTEST_PROFILE=${NEXTEST_PROFILE:-ci}
    export NEXTEST_PROFILE="${NEXTEST_PROFILE:-default}"
    exec cargo nextest run --workspace --locked "$@"
fi
say "cargo-nextest is not installed: using cargo test"
run_on=
[ -z "${CI:-}" ] || run_on=--no-fail-fast
# --bins, --lib and --tests: documentation tests are a step of .ci/run.
exec cargo test --workspace --locked --lib --bins --tests ${run_on:+"$run_on"} -- "$@"
