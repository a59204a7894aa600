/* keycache: what a worker knows of keys, good ones and unknown ones, for key_ttl.
 *
 * Unknown ids have entries of their own kind and their own room, so that asking for many of them cannot push good
 * keys out.
 */
#ifndef COMPOSURE_KEYCACHE_H
#define COMPOSURE_KEYCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/view.h"
#include "gate/apikey.h"

enum { KEY_SECRETS_MAX = 8, KEY_TEXT_MAX = 256 };

/* An identity as the database knows it; fixed size, so that it can be copied anywhere. */
struct key_record {
	char id[APIKEY_ID_CHARS];
	bool known;          /* false: there is no such key */
	bool has_role;       /* false: requests run as the worker itself */
	char role[64];       /* NUL-terminated, as the following */
	char name[KEY_TEXT_MAX], tenant[KEY_TEXT_MAX];
	bool has_tenant;
	int64_t expires_us;  /* Unix epoch; 0: never */
	unsigned n_secrets;
	unsigned char hash[KEY_SECRETS_MAX][SHA256_BYTES];
	int64_t secret_until_us[KEY_SECRETS_MAX]; /* Unix epoch; 0: no end */
};

struct keycache;

struct keycache *keycache_create(int64_t ttl_us);
void keycache_destroy(struct keycache *);

/* The record of that id, or NULL when it is not known or too old: ask PostgreSQL. Valid until the next put. */
const struct key_record *keycache_get(struct keycache *, struct view id, int64_t now_us);

/* Copies the record in. */
void keycache_put(struct keycache *, const struct key_record *, int64_t now_us);

/* Everything is to be asked for again. */
void keycache_forget(struct keycache *);

#endif
