#include "config.h"

#include "base/settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Texts live as long as the process: all of them in one list, so that a leak checker reaches them. */
struct kept {
	struct kept *next;
	char text[];
};

static struct kept *kept;

static const char *keep(const char *text)
{
	size_t n = strlen(text) + 1;
	struct kept *k = malloc(sizeof *k + n);
	if (!k)
		return NULL;
	memcpy(k->text, text, n);
	k->next = kept;
	kept = k;
	return k->text;
}

static bool set_number(int64_t *at, const char *text, int64_t least, int64_t most)
{
	char *end;
	errno = 0;
	long long n = strtoll(text, &end, 10);
	if (errno || end == text || *end || n < least || n > most)
		return false;
	*at = n;
	return true;
}

enum outcome { SET, UNKNOWN_KEY, BAD_NUMBER, NO_MEMORY };

static enum outcome set_one(struct settings *s, const char *key, const char *value, int64_t *least, int64_t *most)
{
#define TEXT(name, otherwise, help)                        \
	if (strcmp(key, #name) == 0) {                     \
		s->name = keep(value);                     \
		return s->name ? SET : NO_MEMORY;          \
	}
#define NUMBER(name, otherwise, low, high, help)                             \
	if (strcmp(key, #name) == 0) {                                       \
		*least = low;                                                \
		*most = high;                                                \
		return set_number(&s->name, value, low, high) ? SET : BAD_NUMBER; \
	}
	SETTINGS_LIST(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
	return UNKNOWN_KEY;
}

static bool set_checked(struct settings *s, const char *where, const char *key, const char *value, char *why, int size)
{
	int64_t least = 0, most = 0;
	switch (set_one(s, key, value, &least, &most)) {
	case SET:
		return true;
	case UNKNOWN_KEY:
		(void)snprintf(why, (size_t)size, "%s: there is no setting \"%s\"", where, key);
		return false;
	case BAD_NUMBER:
		(void)snprintf(why, (size_t)size, "%s: %s has to be a whole number from %lld to %lld, not \"%s\"", where, key,
		               (long long)least, (long long)most, value);
		return false;
	case NO_MEMORY:
		break;
	}
	(void)snprintf(why, (size_t)size, "out of memory");
	return false;
}

static char *trim(char *p)
{
	while (isspace((unsigned char)*p))
		p++;
	char *end = p + strlen(p);
	while (end > p && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return p;
}

static bool read_line(struct settings *s, const char *where, char *line, char *why, int size)
{
	char *key = trim(line);
	if (*key == '\0' || *key == '#')
		return true;
	char *equals = strchr(key, '=');
	if (!equals) {
		(void)snprintf(why, (size_t)size, "%s: not of the form key = value", where);
		return false;
	}
	*equals = '\0';
	return set_checked(s, where, trim(key), trim(equals + 1), why, size);
}

static bool read_file(struct settings *s, const char *file, char *why, int size)
{
	FILE *f = fopen(file, "re");
	if (!f) {
		(void)snprintf(why, (size_t)size, "%s: %s", file, strerror(errno));
		return false;
	}
	char *line = NULL;
	size_t cap = 0;
	bool good = true;
	for (unsigned n = 1; good && getline(&line, &cap, f) >= 0; n++) {
		char where[512];
		(void)snprintf(where, sizeof where, "%s:%u", file, n);
		good = read_line(s, where, line, why, size);
	}
	free(line);
	(void)fclose(f);
	return good;
}

static bool read_environment(struct settings *s, char *why, int size)
{
	static const char *const keys[] = {
#define TEXT(name, otherwise, help) #name,
#define NUMBER(name, otherwise, least, most, help) #name,
		SETTINGS_LIST(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
	};
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		char name[64];
		int n = snprintf(name, sizeof name, "COMPOSURE_%s", keys[i]);
		for (int k = 0; k < n; k++)
			name[k] = (char)toupper((unsigned char)name[k]);
		const char *value = getenv(name);
		if (value && !set_checked(s, name, keys[i], value, why, size))
			return false;
	}
	return true;
}

static bool one_of(const char *key, const char *value, const char *const *choices, char *why, int size)
{
	for (const char *const *c = choices; *c; c++)
		if (strcmp(value, *c) == 0)
			return true;
	int n = snprintf(why, (size_t)size, "%s cannot be \"%s\"; it is one of:", key, value);
	for (const char *const *c = choices; *c && n > 0 && n < size; c++)
		n += snprintf(why + n, (size_t)(size - n), " %s", **c ? *c : "(empty)");
	return false;
}

enum { SEARCH_PATH_MAX = 500 }; /* SESSION_VALUE_MAX of db/conn.h */

static bool judge(const struct settings *s, char *why, int size)
{
	static const char *const poolers[] = { "none", "transaction", NULL };
	static const char *const peers[] = { "", "nginx", "lighttpd", "apache", NULL };
	static const char *const levels[] = { "error", "warn", "info", "debug", NULL };
	static const char *const headers[] = { "X-Forwarded-For", "Forwarded", NULL };
	if (!one_of("pooler", s->pooler, poolers, why, size) || !one_of("peer", s->peer, peers, why, size) ||
	    !one_of("log_level", s->log_level, levels, why, size) ||
	    !one_of("forwarded_header", s->forwarded_header, headers, why, size))
		return false;
	if (strlen(s->search_path) > SEARCH_PATH_MAX) {
		(void)snprintf(why, (size_t)size, "search_path is longer than %d bytes", SEARCH_PATH_MAX);
		return false;
	}
	size_t n = strlen(s->mount);
	if (n && (s->mount[0] != '/' || s->mount[n - 1] == '/')) {
		(void)snprintf(why, (size_t)size, "mount has to begin with a slash and not end with one, or be empty");
		return false;
	}
	return true;
}

bool settings_load(struct settings *s, const char *file, char *why, int size)
{
	*s = (struct settings){
#define TEXT(name, otherwise, help) .name = otherwise,
#define NUMBER(name, otherwise, least, most, help) .name = otherwise,
		SETTINGS_LIST(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
	};
	if (!file)
		file = getenv("COMPOSURE_CONFIG");
	if (file && *file && !read_file(s, file, why, size))
		return false;
	return read_environment(s, why, size) && judge(s, why, size);
}

void settings_help(void)
{
#define TEXT(name, otherwise, help) printf("  %-20s %s\n  %20s (default: %s)\n", #name, help, "", *otherwise ? otherwise : "empty");
#define NUMBER(name, otherwise, least, most, help) \
	printf("  %-20s %s\n  %20s (default: %lld, from %lld to %lld)\n", #name, help, "", (long long)otherwise, \
	       (long long)least, (long long)most);
	SETTINGS_LIST(TEXT, NUMBER)
#undef TEXT
#undef NUMBER
}
