#!/bin/sh
# Runs the router on this machine against a Redis of its own, with two demo backends, and
# marathon-sync with a Marathon that only pretends.
#
#   ./try.sh          build, start, show a few requests; asks before installing packages, if it
#                     runs in a terminal (without one it installs what is missing)
#   ./try.sh -y       the same without asking
#   ./try.sh stop     stop everything that ./try.sh started and remove .try/; installed packages and
#                     target/ (the build) stay
#
# Everything lives in .try/ and listens on 127.0.0.1 only. A Redis or a web server that already
# runs here is not touched. TRY_PROFILE=release builds the programs as they go into production (four times as
# long), TRY_BIN=DIR uses those in a directory and builds nothing; TRY_PORT=8080 is the first port tried for
# the router.
set -eu

cd "$(dirname "$0")"
dir=$PWD/.try
profile=${TRY_PROFILE:-try}
given_bin=${TRY_BIN:-}
first_port=${TRY_PORT:-8080}
host=demo.localhost
assume_yes=no
failed_hint=

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
fail() { printf 'try.sh: %s\n' "$*" >&2; exit 1; }

# Prints a command so that a shell reads the same arguments from it.
quoted() {
    quoted_between=
    for quoted_word in "$@"; do
        printf '%s' "$quoted_between"
        case $quoted_word in
            '' | *[!A-Za-z0-9_./:=@%+,-]*)
                printf "'%s'" "$(printf '%s\n' "$quoted_word" | sed "s/'/'\\\\''/g")" ;;
            *) printf '%s' "$quoted_word" ;;
        esac
        quoted_between=' '
    done
}

# Shows a command in a form that can be copied into a shell, then runs it.
show() { printf '$ %s\n' "$(quoted "$@")"; "$@"; }

usage() { sed -n '2,/^set -eu/{/^set -eu/d;s/^# \{0,1\}//;p;}' "$0"; }

# --- processes -----------------------------------------------------------------------------------

# The program that runs under a pid, or nothing. A pid file may outlive its process, and the number
# may then belong to somebody else's.
program_of() {
    if [ -r "/proc/$1/comm" ]; then cat "/proc/$1/comm"; else ps -o comm= -p "$1" 2>/dev/null; fi
}

# running PIDFILE PROGRAM: is it alive, and still what we started?
running() {
    [ -s "$1" ] || return 1
    running_pid=$(cat "$1")
    kill -0 "$running_pid" 2>/dev/null || return 1
    # A process that ended but that its parent has not noticed yet can still be signalled.
    ! grep -q '^State:.Z' "/proc/$running_pid/status" 2>/dev/null || return 1
    case $(program_of "$running_pid") in *"$2"*) return 0 ;; *) return 1 ;; esac
}

# launch NAME PROGRAM ARGUMENT...: runs it in the background; output in NAME.out and NAME.log, pid
# in NAME.pid. Returns when the pid has become the program (or has ended), not a shell about to.
launch() {
    launch_name=$1
    shift
    (cd "$dir" && exec nohup "$@" >"$launch_name.out" 2>"$launch_name.log" </dev/null) &
    printf '%s\n' "$!" >"$dir/$launch_name.pid"
    wait_for 10 launched "$!" "${1##*/}" || fail "$1 does not start"
}

launched() {
    case $(program_of "$1") in '' | *"$2"*) return 0 ;; *) return 1 ;; esac
}

# end PIDFILE PROGRAM: SIGTERM, ten seconds to finish, then SIGKILL.
end() {
    if running "$1" "$2"; then
        end_pid=$(cat "$1")
        kill "$end_pid" 2>/dev/null || true
        end_tries=100
        while [ "$end_tries" -gt 0 ] && running "$1" "$2"; do
            sleep 0.1
            end_tries=$((end_tries - 1))
        done
        if running "$1" "$2"; then kill -9 "$end_pid" 2>/dev/null || true; fi
    fi
    rm -f "$1"
}

stop_all() {
    [ -d "$dir" ] || return 0
    end "$dir/sync.pid" marathon-sync
    end "$dir/marathon.pid" fake-marathon
    end "$dir/router.pid" router
    end "$dir/one.pid" demo-backend
    end "$dir/three.pid" demo-backend
    end "$dir/two.pid" demo-backend
    end "$dir/redis.pid" redis-server
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    wait_tries=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        wait_tries=$((wait_tries - 1))
        [ "$wait_tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# At the end of a run that failed: what the programs said, then nothing of ours left running.
on_exit() {
    status=$?
    trap - EXIT INT TERM
    [ "$status" -ne 0 ] || exit 0
    for log in "$dir"/*.log "$dir"/*.out; do
        [ -s "$log" ] || continue
        printf '\n--- last lines of %s\n' "$log" >&2
        tail -n 20 "$log" >&2
    done
    stop_all
    printf '\ntry.sh failed%s. Everything it started is stopped; its logs are in %s\n' \
        "${failed_hint:+ ($failed_hint)}" "$dir" >&2
    exit "$status"
}

# --- what has to be installed ---------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else fail "neither root nor sudo here; please run as root: $*"
    fi
}

# Prints the name under which this system packages a program.
package_for() {
    case $1:$2 in
        redis-server:apt-get) echo redis-server ;;
        redis-server:*) echo redis ;;
        cc:apt-get) echo gcc libc6-dev ;;
        cc:apk) echo gcc musl-dev ;;
        cc:*) echo gcc ;;
        *) echo "$1" ;;
    esac
}

install_missing() {
    missing=
    needed="redis-server curl"
    [ -n "$given_bin" ] || needed="$needed cc"
    for program in $needed; do
        command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
    done
    [ -n "$missing" ] || return 0

    manager=
    for candidate in apt-get dnf apk brew; do
        if command -v "$candidate" >/dev/null 2>&1; then manager=$candidate; break; fi
    done
    [ -n "$manager" ] || fail "please install:$missing (no apt-get, dnf, apk or brew found here)"

    packages=
    step "Needed and not on this machine:"
    for program in $missing; do
        packages="$packages $(package_for "$program" "$manager")"
        case $program in
            redis-server) say "  redis-server  the routes live in Redis; a Redis of its own is started in .try/"
                [ "$manager" != apt-get ] ||
                    say "                (the package may also start Redis as a service on port 6379; it is not used)" ;;
            curl) say "  curl          sends the demo requests" ;;
            cc) say "  cc            the linker that Rust programs are built with" ;;
        esac
    done
    say "Install with $manager:$packages"
    if [ "$assume_yes" = no ] && [ -t 0 ] && [ -t 1 ]; then
        printf 'Go ahead? [Y/n] '
        read -r answer
        case $answer in '' | [Yy]*) ;; *) fail "nothing installed, nothing started" ;; esac
    fi
    # The names are to be split into words.
    # shellcheck disable=SC2086
    case $manager in
        apt-get)
            as_root apt-get update -qq
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends $packages >/dev/null ;;
        dnf) as_root dnf install -y -q $packages ;;
        apk) as_root apk add --quiet $packages ;;
        brew) brew install --quiet $packages ;;
    esac
    for program in $missing; do
        command -v "$program" >/dev/null 2>&1 || fail "$program is still missing after the installation"
    done
}

# --- the parts ------------------------------------------------------------------------------------

build() {
    if [ -n "$given_bin" ]; then
        step "Using the programs in $given_bin"
        bin=$(cd "$given_bin" 2>/dev/null && pwd) || fail "TRY_BIN is '$given_bin', which is no directory"
        for program in router marathon-sync demo-backend fake-marathon; do
            [ -x "$bin/$program" ] || fail "there is no program $program in $bin (TRY_BIN)"
        done
        return 0
    fi
    case $profile in
        dev) built=debug ;;
        try | release) built=$profile ;;
        *) fail "TRY_PROFILE is '$profile'; expected try, dev or release" ;;
    esac
    command -v cargo >/dev/null 2>&1 || fail "cargo not found: install Rust from https://rustup.rs and start again"
    step "Building router, marathon-sync and what the demo needs ($profile profile)"
    [ "$profile" != try ] ||
        say "The first build takes about two and a half minutes on two cores and 600 MB below target/."
    cargo build --bins -p router -p marathon-sync -p demo --locked --profile "$profile"
    bin=${CARGO_TARGET_DIR:-target}/$built
    case $bin in /*) ;; *) bin=$PWD/$bin ;; esac
}

# PING is only believed from the process that we started.
redis_is_ours() {
    redis-cli -p "$1" info server | tr -d '\r' | grep -qx "process_id:$(cat "$dir/redis.pid")"
}

redis_settled() { ! running "$dir/redis.pid" redis || redis_is_ours "$1"; }

start_redis() {
    step "Starting a Redis of its own"
    redis_port=6390
    while [ "$redis_port" -lt 6490 ]; do
        # Redis refuses a port that is in use, so trying is the way to find a free one.
        launch redis redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$dir" \
            --save '' --appendonly no --daemonize no
        failed_hint="Redis does not answer"
        wait_for 10 redis_settled "$redis_port" || fail "Redis does not answer on port $redis_port"
        if running "$dir/redis.pid" redis; then
            failed_hint=
            say "$(redis-server --version | cut -d' ' -f1-3) on 127.0.0.1:$redis_port, nothing is saved to disk"
            return 0
        fi
        grep -q 'ddress already in use' "$dir/redis.out" "$dir/redis.log" || fail "Redis does not start"
        redis_port=$((redis_port + 1))
    done
    fail "no free port for Redis between 6390 and 6489"
}

start_backend() {
    launch "$1" "$bin/demo-backend" --listen 127.0.0.1:0 --name "$1"
    wait_for 10 test -s "$dir/$1.out" || fail "demo backend $1 does not start"
    say "demo backend $1 on $(head -n 1 "$dir/$1.out"), pid $(cat "$dir/$1.pid")"
}

# 7 is curl's "connection refused": nobody listens there.
port_free() {
    port_status=0
    curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$1/" || port_status=$?
    [ "$port_status" -eq 7 ]
}

router_answers() {
    [ "$(curl -s --max-time 2 -H 'Host: __ping__' "http://127.0.0.1:$1/")" = ok ]
}

router_settled() { ! running "$dir/router.pid" router || router_answers "$1"; }

start_router() {
    step "Starting the router"
    # Settings of the surrounding shell must not change what is shown here.
    for variable in $(env | sed -n 's/^\(\(ROUTER\|MARATHON_SYNC\)_[A-Z0-9_]*\)=.*/\1/p') SETTINGS_FLAVOR; do
        unset "$variable"
    done
    # As root the router insists on a user to become; everywhere there is a nobody.
    user=
    [ "$(id -u)" -ne 0 ] || user="--user nobody --group $(id -gn nobody)"
    router_port=$first_port
    until port_free "$router_port"; do
        router_port=$((router_port + 1))
        [ "$router_port" -lt $((first_port + 100)) ] || fail "no free port from $first_port on"
    done
    # shellcheck disable=SC2086
    launch router "$bin/router" --listen "127.0.0.1:$router_port" \
        --redis "redis://127.0.0.1:$redis_port" --access-log stdout $user
    failed_hint="the router does not answer"
    wait_for 10 router_settled "$router_port" || fail "the router does not answer"
    running "$dir/router.pid" router || fail "the router ended"
    failed_hint=
    say "router on 127.0.0.1:$router_port, pid $(cat "$dir/router.pid")"
}

# ask N: N requests; prints who answered how often, fails unless every one was answered with 200.
ask() {
    asked=0
    one=0
    two=0
    while [ "$asked" -lt "$1" ]; do
        answer=$(curl -sS --max-time 10 -f -H "Host: $host" "http://127.0.0.1:$router_port/") ||
            fail "request $((asked + 1)) of $1 got no 200"
        case $answer in
            'backend one'*) one=$((one + 1)) ;;
            'backend two'*) two=$((two + 1)) ;;
            *) fail "unexpected answer: $answer" ;;
        esac
        asked=$((asked + 1))
    done
    say "$1 requests, $1 answered with 200: $one by backend one, $two by backend two"
}

demonstrate() {
    url_one=http://$(head -n 1 "$dir/one.out")
    url_two=http://$(head -n 1 "$dir/two.out")

    step "A route is a Redis list: a name, then the backends"
    show redis-cli -p "$redis_port" rpush "frontend:$host" demo
    show redis-cli -p "$redis_port" rpush "frontend:$host" "$url_one"
    show redis-cli -p "$redis_port" rpush "frontend:$host" "$url_two"

    step "It takes effect within a millisecond or two"
    show curl -sS --max-time 10 -f -H "Host: $host" "http://127.0.0.1:$router_port/"
    say
    ask 10

    step "One backend dies; requests go on"
    show kill "$(cat "$dir/two.pid")"
    wait_for 10 not_running two || fail "demo backend two does not end"
    rm -f "$dir/two.pid"
    ask 20
    [ "$two" -eq 0 ] || fail "a backend that was killed cannot have answered"
    say "The router found it dead and marked its position in Redis for 30 seconds:"
    show redis-cli -p "$redis_port" smembers "dead:$host"
}

# The backends of the demo app as they stand in Redis, in one line.
shop_is() {
    [ "$(redis-cli -p "$redis_port" lrange frontend:shop.localhost 1 -1)" = "http://$1" ]
}

demonstrate_marathon() {
    shop=shop.localhost
    address_one=$(head -n 1 "$dir/one.out")
    step "marathon-sync keeps such lists equal to the live tasks of a Marathon cluster"
    launch marathon "$bin/fake-marathon" --listen 127.0.0.1:0
    wait_for 10 test -s "$dir/marathon.out" || fail "the fake Marathon does not start"
    marathon=$(head -n 1 "$dir/marathon.out")
    say "a Marathon that only pretends on $marathon, pid $(cat "$dir/marathon.pid")"
    launch sync "$bin/marathon-sync" --marathon "http://$marathon" \
        --redis "redis://127.0.0.1:$redis_port"
    say "marathon-sync, pid $(cat "$dir/sync.pid")"
    say "An app is deployed, with the label hipacheFrontend:"
    show curl -sS -f -X PUT "http://$marathon/_fake/apps" -d \
        '{"id": "/shop", "labels": {"hipacheFrontend": "'$shop'"}, "tasks": ["'"$address_one"'"]}'
    wait_for 20 shop_is "$address_one" || fail "the deployment did not arrive in Redis"
    show redis-cli -p "$redis_port" lrange "frontend:$shop" 0 -1
    show curl -sS --max-time 10 -f -H "Host: $shop" "http://127.0.0.1:$router_port/"
    say
    say "A new version replaces it:"
    start_backend three
    address_three=$(head -n 1 "$dir/three.out")
    show curl -sS -f -X POST "http://$marathon/_fake/rollout" -d \
        '{"id": "/shop", "tasks": ["'"$address_three"'"]}'
    wait_for 20 shop_is "$address_three" || fail "the new version did not arrive in Redis"
    show redis-cli -p "$redis_port" lrange "frontend:$shop" 0 -1
    curl -sS --max-time 10 -f -H "Host: $shop" "http://127.0.0.1:$router_port/" |
        grep '^backend three' || fail "the new version does not answer"
}

not_running() { ! running "$dir/$1.pid" demo-backend; }

farewell() {
    cat <<END

== Running
  http://$host:$router_port/    open it in a browser, or:

  curl -H 'Host: $host' http://127.0.0.1:$router_port/any/path
  redis-cli -p $redis_port rpush 'frontend:*.localhost' anything $url_one
  redis-cli -p $redis_port lrange frontend:$host 0 -1
  curl -X POST http://$marathon/_fake/delete -d '{"id": "/shop"}'    # the app goes, and its route

  Logs: .try/router.log, access log: .try/router.out
  Stop everything and remove .try/:  ./try.sh stop    (installed packages and target/ stay)
END
}

# --- main -----------------------------------------------------------------------------------------

for argument in "$@"; do
    case $argument in
        -y | --yes) assume_yes=yes ;;
        -h | --help) usage; exit 0 ;;
        stop)
            if [ -d "$dir" ]; then
                stop_all
                rm -rf "$dir"
                say "Stopped; .try/ is removed."
            else
                say "Nothing to stop: there is no .try/ here."
            fi
            exit 0 ;;
        *) usage >&2; printf '\ntry.sh: unknown argument: %s\n' "$argument" >&2; exit 2 ;;
    esac
done

PATH=$PATH:$HOME/.cargo/bin
install_missing
build
if [ -d "$dir" ]; then
    say "An earlier run is stopped first."
    stop_all
    rm -rf "$dir"
fi
mkdir "$dir"
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
start_redis
step "Starting two demo backends"
start_backend one
start_backend two
start_router
demonstrate
demonstrate_marathon
farewell
