# shellcheck shell=bash disable=SC2034
# What script/bootstrap, server and test share. Sourced by them, after `set -euo pipefail`.

umask 022
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Debian's packages: to build, to run script/server, and what the tests need besides.
build_packages=(gcc make autoconf automake pkg-config libc6-dev libfcgi-dev libpq-dev libjson-c-dev)
server_packages=(postgresql lighttpd spawn-fcgi multiwatch iso-codes curl)
test_packages=(libcmocka-dev python3-pytest python3-psycopg2 nginx-light apache2 pgbouncer valgrind clang iproute2)
developer_packages=(libclang-rt-14-dev clang-format clang-tidy cppcheck wrk mandoc shellcheck strace)

say() { printf '==> %s\n' "$*"; }

# One line that says what is wrong and what to do, and the end.
fail() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# Runs a step so that a signal is acted on at once: bash waits for a command in the foreground before it looks at one.
step_pid=
step() {
	"$@" &
	step_pid=$!
	local status=0
	wait "$step_pid" || status=$?
	step_pid=
	return "$status"
}

# aside COMMAND...: beside what follows, with what that leaves of the processors. Its pid is aside_pid until it was waited for.
aside_pid=
aside() {
	(
		renice -n 19 "$BASHPID" >/dev/null
		"$@"
	) &
	aside_pid=$!
}

# However the script ends: the running step ends, and stop_all() of the script, if it has one, stops what was started.
finish() {
	local status=$?
	set +e
	trap '' INT TERM HUP PIPE
	[ -z "$step_pid" ] || end_tree "$step_pid" 2>/dev/null
	[ -z "$aside_pid" ] || end_tree "$aside_pid" 2>/dev/null
	remove_guard
	[ "$(type -t stop_all)" != function ] || stop_all
	exit "$status"
}
end_tree() {
	local children child
	read -ra children <"/proc/$1/task/$1/children"
	for child in "${children[@]}"; do end_tree "$child"; done
	kill -s TERM "$1"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# --- packages ---

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# packages NAME...: installs those that are missing. What they bring keeps its own services off: neither started now
# nor at the next boot.
packages() {
	command -v dpkg-query >/dev/null || fail "this needs Debian's packages (dpkg-query is missing); install by hand: $*"
	local missing=() name
	for name in "$@"; do
		installed "$name" || missing+=("$name")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
		fail "missing packages; as root: apt-get install --no-install-recommends ${missing[*]}"
	fi
	say "installing ${missing[*]}"

	local services=() log status=0
	for name in postgresql lighttpd nginx-light apache2 pgbouncer; do
		installed "$name" || services+=("$name")
	done
	log=$(mktemp)
	add_guard
	{
		step as_root apt-get update -q &&
			step as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
	} >"$log" 2>&1 || status=$?
	remove_guard
	if [ "$status" != 0 ]; then
		tail -n 15 "$log" >&2
		rm -f "$log"
		fail "apt-get could not install: ${missing[*]}"
	fi
	rm -f "$log"
	command -v systemctl >/dev/null || return 0
	for name in "${services[@]}"; do
		! installed "$name" || as_root systemctl disable -q "${name%-light}" >/dev/null 2>&1 || true
	done
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# While it is there, packages that are being installed start no service (Debian's policy for invoke-rc.d).
guard=/usr/sbin/policy-rc.d
guarded=
add_guard() {
	[ ! -e "$guard" ] || return 0
	guarded=yes
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
	as_root chmod 755 "$guard"
}
remove_guard() {
	[ -z "$guarded" ] || as_root rm -f "$guard"
	guarded=
}

# --- building ---

# autotools: makes ./configure where it is missing or older than what it is made of.
autotools() {
	local source stale=
	[ ! -e "$top/config.status" ] || fail "the checkout itself is configured: run 'make distclean' in $top first"
	for source in configure.ac Makefile.am m4/composure.m4; do
		if [ ! -e "$top/configure" ] || [ "$top/$source" -nt "$top/configure" ] || [ "$top/$source" -nt "$top/Makefile.in" ]; then
			stale=yes
		fi
	done
	[ -n "$stale" ] || return 0
	say 'making ./configure'
	local log
	log=$(mktemp)
	step env -C "$top" autoreconf -fi >"$log" 2>&1 || {
		cat "$log" >&2
		rm -f "$log"
		fail 'autoreconf failed'
	}
	rm -f "$log"
}

# build FOLDER OPTION...: the program in FOLDER, configured with the options. The log is FOLDER/build.log.
build() {
	local folder=$1
	shift
	autotools
	mkdir -p "$folder"
	local log=$folder/build.log wanted="$*"
	say "building in ${folder#"$top"/}${wanted:+ ($wanted)}"
	: >"$log"
	if [ ! -e "$folder/Makefile" ] || [ "$top/configure" -nt "$folder/config.status" ] ||
		[ "$(cat "$folder/.options" 2>/dev/null)" != "$wanted" ]; then
		step env -C "$folder" "$top/configure" "$@" >>"$log" 2>&1 || {
			grep -E '^configure: (error|WARNING)' "$log" >&2 || tail -n 15 "$log" >&2
			fail "configure failed: $log has all of it"
		}
		printf '%s\n' "$wanted" >"$folder/.options"
	fi
	step make -s -j"$(nproc)" -C "$folder" all >>"$log" 2>&1 || {
		grep -E 'error|undefined reference|\*\*\*' "$log" | head -n 15 >&2
		fail "the build failed: $log has all of it"
	}
}

# --- who runs it, and where its state lies ---

# PostgreSQL refuses root, so all that root starts runs as the user that Debian's package made.
if [ "$(id -u)" = 0 ]; then
	run_user=postgres
else
	run_user=$(id -un)
fi

# Runs a command as run_user, in place of this process when exec'd.
as_user() {
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid="$run_user" --regid="$run_user" --init-groups -- "$@"
	else
		"$@"
	fi
}

# start VARIABLE SIGNAL LOG COMMAND...: a process of run_user's in a session of its own (a Ctrl-C is ours to pass on,
# in order), sent the signal when we die, however we die. Its pid goes into VARIABLE.
start() {
	local -n pid_variable=$1
	local signal=$2 log=$3
	shift 3
	local user=()
	[ "$(id -u)" != 0 ] || user=("--reuid=$run_user" "--regid=$run_user" --init-groups)
	(cd / && exec setsid setpriv --pdeathsig "$signal" "${user[@]}" -- "$@") </dev/null >>"$log" 2>&1 9>&- &
	pid_variable=$!
}

# stop PID SIGNAL SECONDS: sends the signal and waits; SIGKILL past the time.
stop() {
	local pid=$1 signal=$2 tenths=$(($3 * 10))
	kill -s "$signal" "$pid" 2>/dev/null || return 0
	while [ -d "/proc/$pid" ] && [ "$(ps_state "$pid")" != Z ]; do
		if [ "$tenths" -le 0 ]; then
			kill -s KILL "$pid" 2>/dev/null || true
			break
		fi
		tenths=$((tenths - 1))
		sleep 0.1
	done
	wait "$pid" 2>/dev/null || true
}

ps_state() { sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null || true; }

# --- PostgreSQL ---

# The newest installed initdb's folder.
postgres_bin() {
	local found
	found=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
	[ -n "$found" ] || fail 'PostgreSQL is missing: apt-get install postgresql'
	dirname "$found"
}

# owner_psql DSN ARGUMENT...: psql that stops at the first error.
owner_psql() {
	local dsn=$1
	shift
	PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-10} psql -X -w -q -A -t -v ON_ERROR_STOP=1 -d "$dsn" "$@"
}

# with_user DSN USER: the DSN for another user; in both forms the last word on a keyword counts.
with_user() {
	case $1 in
	postgres://*\?* | postgresql://*\?*) printf '%s&user=%s' "$1" "$2" ;;
	postgres://* | postgresql://*) printf '%s?user=%s' "$1" "$2" ;;
	*) printf '%s user=%s' "$1" "$2" ;;
	esac
}

# The first line of an error of psql's or PostgreSQL's, without its preamble.
plain_error() { sed -n 's/^psql:[^ ]* *//; s/^psql: error: //; s/^\(ERROR\|FATAL\|error\): *//; /./{p;q}'; }
