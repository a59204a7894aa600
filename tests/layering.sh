#!/bin/sh
# The walls of src/ stand where doc/design.md says. TAP; reads the sources only.
set -u
cd "${srcdir:-.}" || exit 1

rooms='base shm http telemetry db cache catalog gate query'
tests=0

# verdict NAME OFFENDERS: without offenders the rule holds.
verdict() {
	tests=$((tests + 1))
	if [ -z "$2" ]; then
		echo "ok $tests - $1"
	else
		echo "not ok $tests - $1"
		echo "$2" | sed 's/^/#   /'
	fi
}

sources() { find src -name '*.[ch]' | LC_ALL=C sort; }

verdict 'a_room_includes_itself_and_rooms_to_its_left' "$(
	sources | xargs awk -v rooms="$rooms" '
		BEGIN { n = split(rooms, name, " "); for (i = 1; i <= n; i++) rank[name[i]] = i }
		!/^[ \t]*#[ \t]*include[ \t]*"/ { next }
		{
			split($0, part, "\""); header = part[2]
			split(FILENAME, at, "/"); from = (at[2] in rank) ? rank[at[2]] : n + 1
			split(header, to, "/")
			if (header == "config.h" || (header !~ /\// && from > n)) next
			if (!(to[1] in rank)) print FILENAME " includes \"" header "\", which names no room"
			else if (rank[to[1]] > from) print FILENAME " includes \"" header "\""
		}')"

verdict 'every_folder_of_src_is_a_room' "$(
	find src -mindepth 1 -maxdepth 1 -type d ! -name '.*' | while read -r dir; do
		case " $rooms " in *" ${dir#src/} "*) ;; *) echo "$dir" ;; esac
	done)"

# A comment may name them.
verdict 'libpq_does_not_leave_db' "$(
	sources | grep -v '^src/db/' | xargs grep -HnwE 'libpq-fe\.h|PGresult|PGconn|PQ[a-z][A-Za-z]+' |
		grep -vE '^[^:]+:[0-9]+:[[:space:]]*(/?\*|//)')"

verdict 'libfcgi_does_not_leave_http_fastcgi' "$(
	sources | grep -v '^src/http/fastcgi\.c$' |
		xargs grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*<fcgi|^[[:space:]]*#[[:space:]]*include[[:space:]]*<fastcgi')"

verdict 'base_names_are_unique' "$(sources | sed 's,.*/,,' | sort | uniq -d)"

verdict 'every_c_file_includes_config_h_first' "$(
	sources | grep '\.c$' | while read -r file; do
		first=$(awk '/^[ \t]*#[ \t]*include/ { print $2; exit }' "$file")
		[ "$first" = '"config.h"' ] || echo "$file: ${first:-no include}"
	done)"

verdict 'no_header_includes_config_h' "$(sources | grep '\.h$' | xargs grep -l '"config\.h"')"

verdict 'nothing_calls_what_blocks_or_overflows' "$(
	grep -rnwE '(strcpy|strcat|sprintf|gets|PQexec|PQexecParams|PQexecPrepared|PQprepare|PQconnectdb|PQconnectdbParams|PQcancel|PQreset)[[:space:]]*\(' \
		--include='*.[ch]' src)"

echo "1..$tests"
