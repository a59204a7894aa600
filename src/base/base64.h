/* base64: base64url without padding (RFC 4648 section 5), as cursors are written. */
#ifndef COMPOSURE_BASE64_H
#define COMPOSURE_BASE64_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/view.h"

void base64url_put(struct buf *, struct view bytes);

/* Decoded bytes in the arena; absent when v is not base64url: other characters, padding, an impossible length, or
 * bits set that no byte would carry (so that each value has one spelling). */
struct view base64url_decode(struct arena *, struct view v) MUST_CHECK;

#endif
