#include "config.h"

#include "query/idempotency.h"

#include <stdio.h>

enum { INT4_OID = 23, BYTEA_OID = 17, TEXT_OID = 25, KEY_BYTES_MAX = 255 };

/* --- the key --- */

static bool printable(char c)
{
	return c >= 0x20 && c < 0x7f;
}

/* RFC 8941 section 3.3.3: a backslash takes a quote or a backslash. Nothing may follow: parameters have no meaning here. */
static bool unquote(struct view v, char *out, size_t *n)
{
	*n = 0;
	for (size_t i = 1; i < v.n; i++) {
		char c = v.p[i];
		if (c == '"')
			return i + 1 == v.n;
		if (c == '\\') {
			if (++i == v.n || (v.p[i] != '"' && v.p[i] != '\\'))
				return false;
			c = v.p[i];
		}
		if (!printable(c))
			return false;
		out[(*n)++] = c;
	}
	return false;
}

/* A comma would be a list, which is what becomes of a header that was sent twice. */
static bool bare(struct view v)
{
	for (size_t i = 0; i < v.n; i++)
		if (!printable(v.p[i]) || memchr(" \",;\\", v.p[i], 5))
			return false;
	return true;
}

enum status idempotency_key(struct arena *a, struct view header, struct view *key, struct view *detail)
{
	struct view v = view_trim(header);
	bool good;
	if (v.n && v.p[0] == '"') {
		char *out = arena_alloc(a, v.n);
		size_t n = 0;
		good = out && unquote(v, out, &n);
		v = view_make(out, n);
	} else {
		good = bare(v);
	}
	if (!good || v.n == 0 || v.n > KEY_BYTES_MAX) {
		*detail = VIEW("An Idempotency-Key is 1 to 255 printable characters, in double quotes or without blanks and commas.");
		return ERR_IDEMPOTENCY_KEY_INVALID;
	}
	*key = v;
	return OK;
}

/* --- the fingerprint --- */

static void part(struct sha256 *h, struct view v)
{
	char length[24];
	/* Absent is not the same as empty. */
	int n = v.p ? snprintf(length, sizeof length, "%zu:", v.n) : snprintf(length, sizeof length, "-:");
	sha256_add(h, view_make(length, (size_t)n));
	sha256_add(h, v);
}

struct view idempotency_fingerprint(struct arena *a, const struct request *r, const struct params *params, struct view body)
{
	uint8_t hash[SHA256_BYTES];
	struct sha256 h;
	sha256_init(&h);
	part(&h, view_of(method_name(r->method)));
	part(&h, r->path);
	for (size_t i = 0; i < params->n; i++) {
		part(&h, params->item[i].name);
		part(&h, params->item[i].value);
	}
	part(&h, VIEW_NONE);
	part(&h, r->content_type);
	part(&h, r->header[HEADER_PREFER]);
	part(&h, r->header[HEADER_IF_MATCH]);
	part(&h, r->header[HEADER_IF_NONE_MATCH]);
	part(&h, body);
	sha256_end(&h, hash);
	static const char digit[] = "0123456789abcdef";
	char *out = arena_alloc(a, 2 + 2 * SHA256_BYTES);
	if (!out)
		return VIEW_NONE;
	out[0] = '\\';
	out[1] = 'x';
	for (size_t i = 0; i < SHA256_BYTES; i++) {
		out[2 + 2 * i] = digit[hash[i] >> 4];
		out[3 + 2 * i] = digit[hash[i] & 15];
	}
	return view_make(out, 2 + 2 * SHA256_BYTES);
}

/* --- statements --- */

static void comma_param(struct statement *s, struct view v, uint32_t oid)
{
	statement_lit(s, ", ");
	statement_param(s, v, oid);
}

static void who_and_what(struct statement *s, const struct once *i)
{
	statement_param(s, i->identity, TEXT_OID);
	comma_param(s, i->key, TEXT_OID);
	comma_param(s, i->fingerprint, BYTEA_OID);
	comma_param(s, i->role, TEXT_OID);
	comma_param(s, i->tenant, TEXT_OID);
}

bool idempotency_begin(struct statement *s, struct arena *a, const struct once *i)
{
	statement_init(s, a);
	statement_lit(s, "SELECT composure.idem_begin(");
	who_and_what(s, i);
	statement_lit(s, ")");
	return statement_finish(s);
}

static const struct view TAG_LATER = VIEW_INIT("ETag: *\r\n");

static void record_begin(struct statement *s, struct arena *a, const struct once *i, int http)
{
	char status[16];
	int n = snprintf(status, sizeof status, "%d", http);
	statement_init(s, a);
	statement_lit(s, "SELECT composure.idem_record(");
	who_and_what(s, i);
	comma_param(s, view_make(status, (size_t)n), INT4_OID);
}

bool idempotency_record(struct statement *s, struct arena *a, const struct once *i, int http, struct view headers,
                        struct view body)
{
	record_begin(s, a, i, http);
	comma_param(s, headers, TEXT_OID);
	comma_param(s, body, TEXT_OID);
	statement_lit(s, ")");
	return statement_finish(s);
}

bool idempotency_record_made(struct statement *s, struct arena *a, const struct once *i, int http, struct view headers,
                             bool with_tag, int64_t bytes_max)
{
	char most[24];
	int n = snprintf(most, sizeof most, "%lld", (long long)bytes_max);
	record_begin(s, a, i, http);
	statement_lit(s, ", pg_catalog.concat(");
	statement_param(s, headers, TEXT_OID);
	statement_lit(s, ", 'Location: ', pg_catalog.current_setting('composure.location'), E'\\r\\n'");
	if (with_tag)
		comma_param(s, TAG_LATER, TEXT_OID);
	statement_lit(s, "), pg_catalog.current_setting('composure.body')");
	comma_param(s, view_make(most, (size_t)n), INT4_OID);
	statement_lit(s, ")");
	return statement_finish(s);
}

struct view idempotency_headers(struct view recorded, bool *with_tag)
{
	size_t n = TAG_LATER.n;
	*with_tag = recorded.n >= n && view_eq(view_skip(recorded, recorded.n - n), TAG_LATER);
	return *with_tag ? view_make(recorded.p, recorded.n - n) : recorded;
}

bool idempotency_answer(struct statement *s, struct arena *a, const struct once *i)
{
	statement_init(s, a);
	statement_lit(s, "SELECT a.status, a.headers, a.body FROM composure.idem_answer(");
	statement_param(s, i->identity, TEXT_OID);
	comma_param(s, i->key, TEXT_OID);
	statement_lit(s, ") a");
	return statement_finish(s);
}
