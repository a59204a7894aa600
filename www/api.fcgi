#!/bin/sh
# For a web server that starts its FastCGI or CGI programs itself (Apache on a shared host: see .htaccess).
# Two lines to change: where the program lies, and where its settings do. Keep the settings outside the docroot.

COMPOSURE_CONFIG="$HOME/composure.conf"
program="$HOME/bin/composure"

export COMPOSURE_CONFIG
exec "$program"
