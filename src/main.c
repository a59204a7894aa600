/* Options and settings, then the form of the process: a worker on a listening socket, or plain CGI. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/settings.h"
#include "http/fastcgi.h"
#include "worker.h"

enum { BACKLOG = 1024 };

static void help(void)
{
	printf("Usage: composure [--config FILE] [--listen PATH|HOST:PORT]\n"
	       "Serves tables and views of a PostgreSQL database as a REST API, behind a web server.\n\n"
	       "Started by a web server, spawn-fcgi or with --listen it is a FastCGI worker; as a CGI\n"
	       "program it answers the one request of its environment.\n\n"
	       "  --config FILE      settings, lines of key = value (also COMPOSURE_CONFIG)\n"
	       "  --listen ADDRESS   make this socket: a path, or host:port\n"
	       "  --check            connect, read the catalog, say how it went, and exit\n"
	       "  --region           print what is in the memory that the workers of this host share, and exit\n"
	       "  --version          print the version and exit\n"
	       "  --help             print this and exit\n\n"
	       "Settings, each also from the environment as COMPOSURE_<KEY>, which wins over the file:\n\n");
	settings_help();
}

static enum log_level level_of(const char *name)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			return (enum log_level)i;
	return LOG_LEVEL_INFO;
}

static int serve(const struct settings *set)
{
	if (*set->listen) {
		int fd = fastcgi_listen(set->listen, BACKLOG);
		if (fd < 0) {
			log_error("cannot listen on %s: %s", set->listen, strerror(errno));
			return EXIT_FAILURE;
		}
		return worker_run(set, fd);
	}
	if (fastcgi_is_listening())
		return worker_run(set, STDIN_FILENO);
	if (getenv("REQUEST_METHOD"))
		return worker_cgi(set);
	log_error("fd 0 is not a listening socket and there is no CGI request: use --listen, or see --help");
	return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "listen", required_argument, NULL, 'l' },
		{ "check", no_argument, NULL, 'k' },        { "region", no_argument, NULL, 'r' },
		{ "version", no_argument, NULL, 'V' },      { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *file = NULL, *listen_on = NULL;
	bool check = false, region = false;
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (o) {
		case 'c': file = optarg; break;
		case 'l': listen_on = optarg; break;
		case 'k': check = true; break;
		case 'r': region = true; break;
		case 'V': printf("%s\n", PACKAGE_STRING); return EXIT_SUCCESS;
		case 'h': help(); return EXIT_SUCCESS;
		default: return 2;
		}
	}
	if (optind < argc) {
		(void)fprintf(stderr, "composure: there is no argument \"%s\": see --help\n", argv[optind]);
		return 2;
	}
	static struct settings set; /* its texts live as long as the process: reachable to the end for LeakSanitizer */
	char why[1024];
	if (!settings_load(&set, file, why, sizeof why)) {
		(void)fprintf(stderr, "composure: %s\n", why);
		return 2;
	}
	if (listen_on)
		set.listen = listen_on;
	log_init(level_of(set.log_level));
	if (region)
		return worker_region(&set);
	return check ? worker_check(&set) : serve(&set);
}
