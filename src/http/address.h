/* address: where a request comes from: the web server's peer, or what proxies in front of it that are trusted say.
 *
 * A proxy appends the address that it was called from (RFC 7239 section 5.2, and X-Forwarded-For alike), so the list is
 * read from its end, for as long as who has said it is trusted; what a client wrote in front of that means nothing.
 */
#ifndef COMPOSURE_ADDRESS_H
#define COMPOSURE_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/view.h"
#include "http/request.h"

/* IPv4 as ::ffff:a.b.c.d; all zeros: not known (a unix socket). */
struct address {
	uint8_t byte[16];
};

enum { ADDRESS_TEXT_MAX = 64, ADDRESS_NETWORKS_MAX = 64 };

struct network {
	struct address address;
	unsigned bits; /* of the 128 */
};

struct trusted {
	struct network network[ADDRESS_NETWORKS_MAX];
	unsigned n;
	bool forwarded; /* they send Forwarded (RFC 7239), not X-Forwarded-For */
};

/* Addresses and networks (10.0.0.0/8, 2001:db8::/32, "unix" for a peer without an address) by comma. False, and a line
 * in why: one of them is none, or there are too many. */
bool trusted_parse(struct trusted *, struct view list, bool forwarded, char *why, int why_size) MUST_CHECK;

/* Who has sent it. */
struct address address_of(const struct request *, const struct trusted *);

/* The first `bits` of it, the rest zeros: an IPv6 client has a /64 at least. IPv4 stays whole. */
struct address address_prefix(struct address, unsigned bits);

/* "192.0.2.1", or "2001:db8:1:2::/64" for the prefix of an IPv6 address, "unknown" for none; its length. */
unsigned address_text(const struct address *, char out[ADDRESS_TEXT_MAX]);

#endif
