/* The one hard fact: where a text is kept follows from its id, which is no secret, and a text with a wrong secret takes
 * the same place: how long an answer takes tells nothing but that the whole key was right, which the answer says. */
#include "config.h"

#include "gate/keymemo.h"

#include <stdlib.h>
#include <string.h>

/* 350 KB, of which only what is used is ever touched. */
enum { PLACES_BITS = 12, PLACES = 1 << PLACES_BITS };

struct remembered {
	bool used;
	char text[APIKEY_CHARS];
	uint8_t hash[SHA256_BYTES];
};

struct keymemo {
	unsigned char installation_secret[32]; /* that all of it was judged under */
	struct hmac_key hmac; /* of it */
	bool any;             /* something is remembered */
	struct remembered place[PLACES];
};

struct keymemo *keymemo_create(void)
{
	struct keymemo *m = calloc(1, sizeof *m);
	if (m)
		hmac_key(&m->hmac, view_make((const char *)m->installation_secret, sizeof m->installation_secret));
	return m;
}

void keymemo_destroy(struct keymemo *m)
{
	if (m)
		explicit_bzero(m, sizeof *m);
	free(m);
}

/* The first characters of the id are random. */
static struct remembered *place_of(struct keymemo *m, struct view id)
{
	uint64_t x;
	memcpy(&x, id.p, sizeof x);
	return &m->place[x * 0x9e3779b97f4a7c15u >> (64 - PLACES_BITS)];
}

static void forget_others(struct keymemo *m, const unsigned char installation_secret[32])
{
	if (memcmp(m->installation_secret, installation_secret, sizeof m->installation_secret) == 0)
		return;
	if (m->any)
		explicit_bzero(m, sizeof *m);
	memcpy(m->installation_secret, installation_secret, sizeof m->installation_secret);
	hmac_key(&m->hmac, view_make((const char *)installation_secret, sizeof m->installation_secret));
}

bool keymemo_parse(struct keymemo *m, struct view text, const unsigned char installation_secret[32], struct apikey *key)
{
	struct apikey k;
	if (!apikey_split(text, &k))
		return false;
	forget_others(m, installation_secret);
	struct remembered *r = place_of(m, k.id);
	if (r->used && bytes_equal_const_time(r->text, text.p, sizeof r->text)) {
		memcpy(k.hash, r->hash, sizeof k.hash);
		*key = k;
		return true;
	}
	if (!apikey_parse_with(text, &m->hmac, key))
		return false;
	r->used = m->any = true;
	memcpy(r->text, text.p, sizeof r->text);
	memcpy(r->hash, key->hash, sizeof r->hash);
	return true;
}
