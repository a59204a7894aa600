/* keycache: what the workers of a host know of keys, good ones and unknown ones, in the shared region.
 *
 * An entry counts as long as the generation of its key's tag is the one it was read under: the watcher adds one when
 * the feed says that the key changed. What may have changed unseen (PostgreSQL was restarted) adds to the soft half, and
 * makes it old. Besides, it is asked for again after key_ttl, and serves for key_grace while
 * PostgreSQL cannot be asked. Unknown ids have entries of their own kind and their own room, so that asking for many of
 * them cannot push good keys out.
 *
 * A set of eight entries has a lock for its writers, which is tried, and a version for its readers, who take no lock.
 */
#ifndef COMPOSURE_KEYCACHE_H
#define COMPOSURE_KEYCACHE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/view.h"
#include "gate/apikey.h"
#include "shm/region.h"
#include "shm/watch.h"

enum { KEY_SECRETS_MAX = 8, KEY_ROLE_MAX = 64, KEY_TENANT_MAX = 256 };

/* An identity as the database knows it; of fixed size, so that it can be copied anywhere. Times are Unix epoch. */
struct key_record {
	char id[APIKEY_ID_CHARS];
	uint8_t n_secrets;
	uint8_t has_role;    /* 0: requests run as the worker itself */
	uint8_t has_tenant;  /* not bool: whatever byte lies in shared memory has to be one */
	char role[KEY_ROLE_MAX];     /* NUL-terminated, as tenant */
	char tenant[KEY_TENANT_MAX];
	int64_t expires_us;  /* 0: never */
	int64_t secret_until_us[KEY_SECRETS_MAX]; /* 0: no end */
	unsigned char hash[KEY_SECRETS_MAX][SHA256_BYTES];
};

enum key_state {
	KEY_MISSING, /* ask PostgreSQL */
	KEY_KNOWN,   /* *record is filled in */
	KEY_UNKNOWN, /* there is no such key */
	KEY_OLD,     /* *record is filled in and past its time: ask, and use it when PostgreSQL cannot answer */
};

struct keycache;

/* The key cache of the region. NULL: out of memory. Region and watch outlive it. */
struct keycache *keycache_open(struct region *, struct watch *, int64_t ttl_us, int64_t grace_us);
void keycache_close(struct keycache *);

enum key_state keycache_get(struct keycache *, struct view id, int64_t now_us, struct key_record *record) MUST_CHECK;

/* The generations of an id's tag: to be read before PostgreSQL is asked, and handed to the put. */
uint64_t keycache_generation(const struct keycache *, struct view id);

/* Copies the record in, or that there is none by that id. Dropped when the set's lock is not got. */
void keycache_put(struct keycache *, const struct key_record *, uint64_t generation, int64_t now_us);
void keycache_put_unknown(struct keycache *, struct view id, uint64_t generation, int64_t now_us);

/* Every worker of the host forgets this key, or (absent) every key. */
void keycache_invalidate(struct keycache *, struct view id);

/* Frees and empties sets whose writer is dead. Returns how many there were. */
unsigned keycache_repair(struct keycache *);

/* For people: sets, and how many locks are held. */
void keycache_describe(const struct keycache *, FILE *);

#endif
