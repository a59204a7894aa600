#include "config.h"

#include "db/hosts.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned length(const char *list)
{
	unsigned n = list != NULL;
	for (; list && *list; list++)
		n += *list == ',';
	return n;
}

void hosts_free(struct hosts *h)
{
	free(h->host);
	free(h->hostaddr);
	free(h->port);
	*h = (struct hosts){ .n = 0 };
}

static bool copy(char **to, const char *list)
{
	*to = list ? strdup(list) : NULL;
	return !list || *to;
}

/* One port for all, or one for each (libpq's rule). */
static bool fits(const struct hosts *h)
{
	unsigned ports = length(h->port);
	return (!h->host || !h->hostaddr || length(h->host) == h->n) && (ports <= 1 || ports == h->n);
}

bool hosts_set(struct hosts *h, const char *host, const char *hostaddr, const char *port)
{
	struct hosts made = { .n = length(hostaddr ? hostaddr : host) };
	if (!copy(&made.host, host) || !copy(&made.hostaddr, hostaddr) || !copy(&made.port, port)) {
		hosts_free(&made);
		return false;
	}
	if (!fits(&made))
		made.n = 0;
	hosts_free(h);
	*h = made;
	return true;
}

const char *hosts_option(const PQconninfoOption *all, const char *name)
{
	for (const PQconninfoOption *o = all; o && o->keyword; o++)
		if (strcmp(o->keyword, name) == 0)
			return o->val && *o->val ? o->val : NULL;
	return NULL;
}

bool hosts_read(struct hosts *h, const char *dsn)
{
	PQconninfoOption *given = PQconninfoParse(dsn, NULL), *defaults = PQconndefaults();
	const char *names[] = { "host", "hostaddr", "port" }, *value[ARRAY_LEN(names)];
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		value[i] = hosts_option(given, names[i]);
		if (!value[i])
			value[i] = hosts_option(defaults, names[i]);
	}
	bool good = given ? hosts_set(h, value[0], value[1], value[2]) : (hosts_free(h), true);
	PQconninfoFree(given);
	PQconninfoFree(defaults);
	return good;
}

/* Element `at` of the list; of one with a single element that one. */
static bool element(const char *list, unsigned at, char *room, size_t size)
{
	const char *p = list ? list : "";
	if (length(list) == 1)
		at = 0;
	for (; at && *p; p++)
		at -= *p == ',';
	size_t n = strcspn(p, ",");
	if (n >= size)
		return false;
	memcpy(room, p, n);
	room[n] = '\0';
	return true;
}

bool hosts_at(const struct hosts *h, unsigned at, struct host *out)
{
	return element(h->host, at, out->host, sizeof out->host) &&
	       element(h->hostaddr, at, out->hostaddr, sizeof out->hostaddr) &&
	       element(h->port, at, out->port, sizeof out->port);
}
