/* The one hard fact: this runs for each of some 25 parameters of each request, and most of them are not ours. So a
 * name is looked up by its length first (one memchr over the lengths), and only names of that length are compared. */
#include "config.h"

#include "http/request.h"

#include <stdint.h>

#include "base/json.h"
#include "http/params.h"

/* --- parameters --- */

/*   field        CGI name */
#define VARIABLE_LIST(X)                                                                                               \
	X(method_text, "REQUEST_METHOD")                                                                               \
	X(uri, "REQUEST_URI")                                                                                          \
	X(content_type, "CONTENT_TYPE")                                                                                \
	X(length_text, "CONTENT_LENGTH")                                                                               \
	X(remote_addr, "REMOTE_ADDR")

static const struct known {
	struct view name;
	size_t field; /* offset of its view in struct request */
	bool twice;
} known[] = {
#define X(member, cgi) { VIEW_INIT(cgi), offsetof(struct request, member), false },
	VARIABLE_LIST(X)
#undef X
#define X(id, cgi, may) { VIEW_INIT(cgi), offsetof(struct request, header[HEADER_##id]), may },
		HEADER_LIST(X)
#undef X
};

static const uint8_t known_length[] = {
#define X(member, cgi) sizeof(cgi) - 1,
	VARIABLE_LIST(X)
#undef X
#define X(id, cgi, may) sizeof(cgi) - 1,
		HEADER_LIST(X)
#undef X
};

static const struct known *find_known(struct view name)
{
	if (name.n > UINT8_MAX)
		return NULL;
	const uint8_t *at = known_length, *end = known_length + sizeof known_length;
	while ((at = memchr(at, (int)name.n, (size_t)(end - at)))) {
		const struct known *k = &known[at - known_length];
		if (memcmp(k->name.p, name.p, name.n) == 0)
			return k;
		if (++at == end)
			break;
	}
	return NULL;
}

static bool is_control(char c)
{
	return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static bool has_control(struct view v)
{
	bool found = false;
	for (size_t i = 0; i < v.n; i++)
		found |= is_control(v.p[i]);
	return found;
}

static struct view join(struct arena *a, struct view first, struct view second)
{
	char *p = arena_alloc(a, first.n + 2 + second.n);
	if (!p)
		return VIEW_NONE;
	memcpy(p, first.p, first.n);
	p[first.n] = ',';
	p[first.n + 1] = ' ';
	memcpy(p + first.n + 2, second.p, second.n);
	return view_make(p, first.n + 2 + second.n);
}

void request_param(struct request *r, struct arena *a, struct view name, struct view value)
{
	const struct known *k = find_known(name);
	if (!k)
		return;
	if (!value.p)
		value = VIEW("");
	if (has_control(value)) {
		r->malformed = true;
		r->malformed_name = k->name;
		return;
	}
	struct view *field = (struct view *)(void *)((char *)r + k->field);
	if (field->p && !k->twice) {
		r->repeated = true;
		r->repeated_name = k->name;
		return;
	}
	struct view kept = field->p ? join(a, *field, value) : arena_copy(a, value);
	if (kept.p)
		*field = kept;
	else
		r->full = true;
}

/* --- the whole --- */

static const struct view method_text[] = {
#define X(name) VIEW_INIT(#name),
	METHOD_LIST(X)
#undef X
};

const char *method_name(enum method m)
{
	return m < METHOD_OTHER ? method_text[m].p : "OTHER";
}

static enum method method_of(struct view text)
{
	unsigned m = 0;
	while (m < METHOD_OTHER && !view_eq(method_text[m], text))
		m++;
	return (enum method)m;
}

static enum status refuse(struct view *detail, struct view why, enum status s)
{
	*detail = why;
	return s;
}

static enum status check_params(const struct request *r, struct view *detail)
{
	if (r->full)
		return refuse(detail, VIEW("The headers are too large."), ERR_HEADERS_TOO_LARGE);
	if (r->malformed)
		return refuse(detail, VIEW("A header has a control character in it."), ERR_INVALID_HEADER);
	if (r->repeated)
		return refuse(detail, VIEW("A header was sent twice that may be sent once."), ERR_INVALID_HEADER);
	if (!r->method_text.n || !r->uri.n)
		return refuse(detail, VIEW("The web server sent no request method or URI."), ERR_BAD_REQUEST);
	return OK;
}

static size_t scheme_length(struct view uri)
{
	if (uri.n >= 7 && view_ieq(view_make(uri.p, 7), VIEW("http://")))
		return 7;
	return uri.n >= 8 && view_ieq(view_make(uri.p, 8), VIEW("https://")) ? 8 : 0;
}

/* "http://host/path?query" becomes "/path?query" (RFC 9112 section 3.2.2). There may be a query without a path. */
static struct view strip_authority(struct view uri, size_t n_scheme)
{
	uri = view_skip(uri, n_scheme);
	while (uri.n && uri.p[0] != '/' && uri.p[0] != '?')
		uri = view_skip(uri, 1);
	return uri.n ? uri : VIEW("/");
}

static enum status split_uri(struct request *r, struct view *detail)
{
	if (memchr(r->uri.p, '#', r->uri.n))
		return refuse(detail, VIEW("The URL has a fragment in it."), ERR_BAD_REQUEST);
	size_t n_scheme = scheme_length(r->uri);
	bool server_wide = r->method == METHOD_OPTIONS && view_eq(r->uri, VIEW("*"));
	if (n_scheme)
		r->uri = strip_authority(r->uri, n_scheme);
	else if (r->uri.p[0] != '/' && !server_wide)
		return refuse(detail, VIEW("The URL is neither a path nor an http URL."), ERR_BAD_REQUEST);
	struct view rest = r->uri;
	(void)view_split(&rest, '?', &r->path);
	r->query = rest;
	if (!r->path.n)
		r->path = VIEW("/");
	return OK;
}

/* Digits only (RFC 9110 section 8.6). More of them than a size can hold is simply more than is taken. */
static enum status read_length(struct request *r, size_t max, struct view *detail)
{
	size_t n = 0;
	bool over = false;
	for (size_t i = 0; i < r->length_text.n; i++) {
		char c = r->length_text.p[i];
		if (c < '0' || c > '9')
			return refuse(detail, VIEW("The Content-Length is not a number."), ERR_INVALID_HEADER);
		over |= __builtin_mul_overflow(n, (size_t)10, &n);
		over |= __builtin_add_overflow(n, (size_t)(c - '0'), &n);
	}
	if (over || n > max)
		return refuse(detail, VIEW("The body is too large."), ERR_BODY_TOO_LARGE);
	r->has_length = r->length_text.n > 0; /* web servers send an empty one for none */
	r->content_length = n;
	return OK;
}

enum status request_finish(struct request *r, const struct request_limits *limits, struct view *detail)
{
	enum status s = check_params(r, detail);
	if (s != OK)
		return s;
	r->method = method_of(r->method_text);
	if (r->method == METHOD_OTHER)
		return refuse(detail, VIEW("The method is not known."), ERR_NOT_IMPLEMENTED);
	s = split_uri(r, detail);
	if (s != OK)
		return s;
	if (r->uri.n > limits->url_bytes)
		return refuse(detail, VIEW("The URL is too long."), ERR_URI_TOO_LONG);
	return read_length(r, limits->body_bytes, detail);
}

/* --- the path --- */

static bool is_dots(struct view v)
{
	return view_eq(v, VIEW(".")) || view_eq(v, VIEW(".."));
}

static bool good_part(struct view v)
{
	bool control = false;
	for (size_t i = 0; i < v.n; i++)
		control |= (unsigned char)v.p[i] < 0x20 || v.p[i] == 0x7f;
	return v.n && !control && utf8_valid(v);
}

static size_t count_parts(struct view segment)
{
	size_t n = 1;
	for (size_t i = 0; i < segment.n; i++)
		n += segment.p[i] == ',';
	return n;
}

/* A full arena looks like a bad escape here; request_route() tells them apart. */
static bool take_segment(struct arena *a, struct view raw, struct route_segment *segment)
{
	size_t n = count_parts(raw);
	struct view *part = n <= REQUEST_PARTS_MAX ? ARENA_ARRAY(a, struct view, n) : NULL;
	if (!part)
		return false;
	size_t at = 0;
	for (struct view piece; view_split(&raw, ',', &piece); at++) {
		part[at] = percent_decode(a, piece, false);
		if (!good_part(part[at]))
			return false;
	}
	*segment = (struct route_segment){ .part = part, .n_parts = n };
	return n > 1 || !is_dots(part[0]);
}

enum status request_route(const struct request *r, struct arena *a, struct view mount, struct route_path *path)
{
	if (!view_starts(r->path, mount))
		return ERR_NOT_FOUND;
	struct route_path found = { .n = 0 };
	struct view rest = view_skip(r->path, mount.n);
	if (rest.n && rest.p[0] != '/')
		return ERR_NOT_FOUND;
	rest = rest.n > 1 ? view_skip(rest, 1) : VIEW_NONE;
	for (struct view segment; view_split(&rest, '/', &segment); found.n++)
		if (found.n == REQUEST_SEGMENTS_MAX || !take_segment(a, segment, &found.segment[found.n]))
			return arena_full(a) ? ERR_HEADERS_TOO_LARGE : ERR_NOT_FOUND;
	*path = found;
	return OK;
}
