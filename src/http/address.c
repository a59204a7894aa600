#include "config.h"

#include "http/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t MAPPED[12] = { [10] = 0xff, [11] = 0xff };

static bool is_v4(const struct address *a)
{
	return memcmp(a->byte, MAPPED, sizeof MAPPED) == 0;
}

/* With a zone ("%eth0") it is one of this machine's neighbours; the zone tells nothing more. */
static bool read_address(struct view v, struct address *a)
{
	char text[INET6_ADDRSTRLEN];
	for (size_t i = 0; i < v.n; i++)
		if (v.p[i] == '%')
			v.n = i;
	if (v.n == 0 || v.n >= sizeof text)
		return false;
	memcpy(text, v.p, v.n);
	text[v.n] = '\0';
	if (inet_pton(AF_INET6, text, a->byte) == 1)
		return true;
	memcpy(a->byte, MAPPED, sizeof MAPPED);
	return inet_pton(AF_INET, text, a->byte + 12) == 1;
}

/* As a proxy writes it: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80, any of them in quotes. */
static bool read_node(struct view v, struct address *a)
{
	v = view_trim(v);
	if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"')
		v = view_make(v.p + 1, v.n - 2);
	if (v.n && v.p[0] == '[') {
		const char *end = memchr(v.p, ']', v.n);
		return end && read_address(view_make(v.p + 1, (size_t)(end - v.p) - 1), a);
	}
	const char *colon = v.n ? memchr(v.p, ':', v.n) : NULL;
	if (colon && !memchr(colon + 1, ':', (size_t)(v.p + v.n - colon) - 1))
		v.n = (size_t)(colon - v.p);
	return read_address(v, a);
}

/* --- networks --- */

static bool number(struct view v, unsigned most, unsigned *out)
{
	*out = 0;
	if (!v.n || v.n > 3)
		return false;
	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] < '0' || v.p[i] > '9')
			return false;
		*out = *out * 10 + (unsigned)(v.p[i] - '0');
	}
	return *out <= most;
}

static bool read_network(struct view v, struct network *n)
{
	struct view head;
	bool has_bits = v.n && memchr(v.p, '/', v.n);
	*n = (struct network){ .bits = 128 };
	if (view_eq(v, VIEW("unix")))
		return true;
	(void)view_split(&v, '/', &head);
	if (!read_address(head, &n->address))
		return false;
	unsigned most = is_v4(&n->address) ? 32 : 128, bits = most;
	if (has_bits && !number(v, most, &bits))
		return false;
	n->bits = 128 - most + bits;
	return true;
}

bool trusted_parse(struct trusted *t, struct view list, bool forwarded, char *why, int size)
{
	*t = (struct trusted){ .forwarded = forwarded };
	for (struct view one; view_split(&list, ',', &one);) {
		one = view_trim(one);
		if (!one.n)
			continue;
		if (t->n == ADDRESS_NETWORKS_MAX) {
			(void)snprintf(why, (size_t)size, "trusted_proxies has more than %d networks", ADDRESS_NETWORKS_MAX);
			return false;
		}
		if (!read_network(one, &t->network[t->n++])) {
			(void)snprintf(why, (size_t)size, "trusted_proxies: \"%.*s\" is not an address, a network or unix", VIEW_ARG(one));
			return false;
		}
	}
	return true;
}

struct address address_prefix(struct address a, unsigned bits)
{
	if (is_v4(&a))
		return a;
	for (unsigned i = 0; i < sizeof a.byte; i++) {
		unsigned keep = bits >= 8 * (i + 1) ? 8 : bits <= 8 * i ? 0 : bits - 8 * i;
		a.byte[i] &= (uint8_t)(0xff00u >> keep);
	}
	return a;
}

static bool in_network(const struct address *a, const struct network *n)
{
	unsigned whole = n->bits / 8, rest = n->bits % 8;
	if (memcmp(a->byte, n->address.byte, whole) != 0)
		return false;
	return !rest || (uint8_t)((a->byte[whole] ^ n->address.byte[whole]) >> (8 - rest)) == 0;
}

static bool is_trusted(const struct trusted *t, const struct address *a)
{
	for (unsigned i = 0; i < t->n; i++)
		if (in_network(a, &t->network[i]))
			return true;
	return false;
}

/* --- who has sent it --- */

/* Takes the last item off a list by comma. */
static bool last_item(struct view *list, struct view *item)
{
	if (!list->p)
		return false;
	size_t at = list->n;
	while (at && list->p[at - 1] != ',')
		at--;
	*item = view_skip(*list, at);
	*list = at ? view_make(list->p, at - 1) : VIEW_NONE;
	return true;
}

/* The "for" of an element of Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43 */
static struct view forwarded_for(struct view element)
{
	for (struct view pair; view_split(&element, ';', &pair);) {
		pair = view_trim(pair);
		if (pair.n > 4 && view_ieq(view_make(pair.p, 4), VIEW("for=")))
			return view_skip(pair, 4);
	}
	return VIEW_NONE;
}

struct address address_of(const struct request *r, const struct trusted *t)
{
	struct address a = { { 0 } }, next;
	if (!r->remote_addr.n || !read_address(r->remote_addr, &a))
		a = (struct address){ { 0 } };
	struct view list = r->header[t->forwarded ? HEADER_FORWARDED : HEADER_FORWARDED_FOR], item;
	while (is_trusted(t, &a) && last_item(&list, &item)) {
		if (!read_node(t->forwarded ? forwarded_for(item) : item, &next))
			break; /* "unknown", or hidden by purpose: whoever said so is all that is known */
		a = next;
	}
	return a;
}

unsigned address_text(const struct address *a, char out[ADDRESS_TEXT_MAX])
{
	static const struct address none;
	char text[INET6_ADDRSTRLEN];
	if (memcmp(a, &none, sizeof none) == 0)
		return (unsigned)snprintf(out, ADDRESS_TEXT_MAX, "unknown");
	if (is_v4(a))
		return (unsigned)snprintf(out, ADDRESS_TEXT_MAX, "%s", inet_ntop(AF_INET, a->byte + 12, text, sizeof text));
	struct address p = address_prefix(*a, 64);
	return (unsigned)snprintf(out, ADDRESS_TEXT_MAX, "%s/64", inet_ntop(AF_INET6, p.byte, text, sizeof text));
}
