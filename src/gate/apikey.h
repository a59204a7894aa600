/* apikey: the text of an API key, judged without a look-up.
 *
 *     cmps_<id>_<secret><crc32>
 *
 * id: 8 random base62 characters and 6 that are an HMAC of them under the installation's secret, so that a forged id
 * is refused in memory. secret: 160 random bits in 27 base62 characters, stored as their SHA-256. crc32: of all before
 * it, 6 base62 characters, so that a mistyped key is told from a wrong one and secret scanners can check their find.
 */
#ifndef COMPOSURE_APIKEY_H
#define COMPOSURE_APIKEY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/sha256.h"
#include "base/view.h"

enum {
	APIKEY_ID_CHARS = 14,
	APIKEY_SECRET_CHARS = 27,
	APIKEY_CRC_CHARS = 6,
	APIKEY_CHARS = 5 + APIKEY_ID_CHARS + 1 + APIKEY_SECRET_CHARS + APIKEY_CRC_CHARS,
};

struct apikey {
	struct view id;     /* views into the text */
	struct view secret;
	uint8_t hash[SHA256_BYTES]; /* of the secret */
};

/* True when the text is as long as a key and has its marks where they belong: id and secret are set, the hash is not. */
bool apikey_split(struct view text, struct apikey *);

/* True when the text has the form, its checksum fits and its id was made by this installation. */
bool apikey_parse(struct view text, const unsigned char installation_secret[32], struct apikey *);

/* The same, for who has hmac_key(installation_secret) at hand. */
bool apikey_parse_with(struct view text, const struct hmac_key *, struct apikey *);

/* True when the secret is one of n stored hashes, each 32 bytes, of which those with a time in valid_until_us (Unix
 * epoch; 0: no end) have not ended at now_us. Looks at all of them, whichever fits. */
bool apikey_verify(const struct apikey *, const unsigned char (*hashes)[SHA256_BYTES], const int64_t *valid_until_us,
                   unsigned n, int64_t now_us);

#endif
