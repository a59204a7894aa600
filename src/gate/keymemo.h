/* keymemo: API keys that were judged lately, so that a key that comes again costs a comparison.
 *
 * To judge a key's text (apikey_parse) takes five blocks of SHA-256: the HMAC of its id and the hash of its secret; 5 %
 * of what a worker spent on a row. Both follow from the text and the installation's secret alone, so they are
 * remembered by the whole text, which is compared in constant time. What the key may do, and whether it still is one,
 * is not remembered: that is the key cache's. It holds secrets, so it lies in the worker's own memory.
 */
#ifndef COMPOSURE_KEYMEMO_H
#define COMPOSURE_KEYMEMO_H

#include "gate/apikey.h"

struct keymemo;

/* NULL: out of memory. */
struct keymemo *keymemo_create(void);
void keymemo_destroy(struct keymemo *);

/* As apikey_parse(). */
bool keymemo_parse(struct keymemo *, struct view text, const unsigned char installation_secret[32], struct apikey *);

#endif
