#!/bin/sh
# Workers without systemd: one socket, a process for each core, started again when one ends. SIGTERM ends all.
# spawn-fcgi makes the socket; multiwatch looks after the workers.

export COMPOSURE_CONFIG=/etc/composure.conf
exec spawn-fcgi -n -s /run/composure/composure.sock -M 0660 -U composure -G www-data -u composure -g composure -- \
	/usr/bin/multiwatch -f "$(nproc)" -s TERM -- /usr/local/bin/composure
