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

# One test plays its corpus against Debian's nginx as well. Only the program is wanted, while installing
# the package would start a service: so it is unpacked below target/ and nowhere else. Where that fails
# the tests go on: the one that wants it says so, and fails only when CI is set.
unpack_nginx() {
    if command -v nginx >/dev/null 2>&1 || [ -x target/nginx/usr/sbin/nginx ]; then return 0; fi
    if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg >/dev/null 2>&1; then
        say "No nginx and no apt-get here: the tests that want nginx are left out"
        return 0
    fi
    say "Unpacking Debian's nginx below target/nginx: one test compares how it reads requests"
    if ! fetch_nginx; then
        say "nginx could not be unpacked: the tests that want it are left out"
        return 0
    fi
    # Of what the package depends on, only libraries, and only if one of them is missing.
    if ldd target/nginx/usr/sbin/nginx | grep -q 'not found'; then
        libraries=$(sed 's/([^)]*)//g; s/|[^,]*//g' target/nginx/depends | tr -d ' ' | tr ',' '\n' |
            grep -E '^(lib|zlib)' | tr '\n' ' ')
        say "Installing libraries that nginx needs: $libraries"
        # The names are to be split into words. In a shell of its own: without them it goes on, too.
        # shellcheck disable=SC2086
        (as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-upgrade --no-install-recommends $libraries >/dev/null) ||
            rm -r target/nginx
    fi
}

# The program is in nginx since Debian 12, in nginx-light before.
fetch_nginx() {
    rm -rf target/nginx target/nginx.new
    mkdir -p target/nginx.new
    for package in nginx nginx-light; do
        # In a shell of its own, for it ends where there is no root.
        download "$package" || { (as_root apt-get update -qq) && download "$package"; } || return 1
        for file in target/nginx.new/*.deb; do
            dpkg -x "$file" target/nginx.new &&
                dpkg-deb -f "$file" Depends >target/nginx.new/depends || return 1
            rm "$file"
        done
        [ ! -x target/nginx.new/usr/sbin/nginx ] || break
    done
    [ -x target/nginx.new/usr/sbin/nginx ] && mv target/nginx.new target/nginx
}

download() {
    # As root apt wants to become another user, who may not write here.
    (cd target/nginx.new && apt-get -qq -o APT::Sandbox::User=root download "$1" >/dev/null)
}

command -v cargo >/dev/null 2>&1 || fail "cargo not found: install Rust from https://rustup.rs"
install_missing
unpack_nginx

# The programs that the tests start (router, marathon-sync, demo-backend, fake-marathon) are built with the
# tests of their packages, so each dependency is compiled once. The benchmarks are not needed here.
if cargo nextest --version >/dev/null 2>&1; then
    [ -z "${CI:-}" ] || NEXTEST_PROFILE=${NEXTEST_PROFILE:-ci}
    export NEXTEST_PROFILE="${NEXTEST_PROFILE:-default}"
    exec cargo nextest run --workspace --exclude bench --locked "$@"
fi
say "cargo-nextest is not installed: using cargo test"
run_on=
[ -z "${CI:-}" ] || run_on=--no-fail-fast
# --bins, --lib and --tests: documentation tests are a step of .ci/run.
exec cargo test --workspace --exclude bench --locked --lib --bins --tests ${run_on:+"$run_on"} -- "$@"
