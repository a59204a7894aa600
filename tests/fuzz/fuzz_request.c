/* Lines "NAME=value" are CGI parameters, as a web server may be made to send them. The first byte bounds the arena.
 * What is taken must hold what request.h promises. */
#include "config.h"

#include "fuzz.h"

#include "base/json.h"
#include "http/media.h"
#include "http/request.h"

static const struct request_limits limits = { .url_bytes = 512, .body_bytes = 1 << 20 };

static bool has_control(struct view v)
{
	for (size_t i = 0; i < v.n; i++)
		if (((unsigned char)v.p[i] < 0x20 && v.p[i] != '\t') || v.p[i] == 0x7f)
			return true;
	return false;
}

static void check_request(const struct request *r)
{
	must(!r->repeated && !r->malformed && !r->full);
	must(r->method < METHOD_OTHER && strcmp(method_name(r->method), "OTHER") != 0);
	must(r->uri.n > 0 && r->uri.n <= limits.url_bytes);
	must(r->path.n > 0 && (r->path.p[0] == '/' || (r->method == METHOD_OPTIONS && view_eq(r->path, VIEW("*")))));
	must(!memchr(r->path.p, '?', r->path.n));
	must(r->content_length <= limits.body_bytes);
	must(r->has_length || r->content_length == 0);
	for (size_t i = 0; i < HEADER_COUNT; i++)
		must(!has_control(r->header[i]));
	must(!has_control(r->uri) && !has_control(r->content_type));
}

static void check_route(const struct route_path *p, struct view below)
{
	must(p->n <= REQUEST_SEGMENTS_MAX);
	size_t n_parts = 0, n_bytes = 0;
	for (size_t i = 0; i < p->n; i++) {
		const struct route_segment *s = &p->segment[i];
		must(s->n_parts > 0 && s->n_parts <= REQUEST_PARTS_MAX);
		must(s->n_parts > 1 || (!view_eq(s->part[0], VIEW(".")) && !view_eq(s->part[0], VIEW(".."))));
		for (size_t k = 0; k < s->n_parts; k++) {
			must(s->part[k].n > 0 && !has_control(s->part[k]) && utf8_valid(s->part[k]));
			n_bytes += s->part[k].n;
		}
		n_parts += s->n_parts;
	}
	must(n_bytes + n_parts <= below.n + 1); /* decoding makes nothing longer */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	struct arena *a = arena_create(data[0] ? (size_t)data[0] * 64 : (size_t)1 << 20);
	struct request r = { 0 };
	struct view rest = exact_copy(view_make((const char *)data + 1, n - 1)), all = rest;
	for (struct view line, name; view_split(&rest, '\n', &line);) {
		(void)view_split(&line, '=', &name);
		request_param(&r, a, name, line);
	}
	exact_free(all); /* everything kept is a copy */

	struct view detail = VIEW_NONE;
	enum status s = request_finish(&r, &limits, &detail);
	must((s == OK) == (detail.p == NULL));
	if (s == OK) {
		check_request(&r);
		struct route_path path = { .n = 0 };
		s = request_route(&r, a, VIEW("/api"), &path);
		must(s == OK || s == ERR_NOT_FOUND || s == ERR_HEADERS_TOO_LARGE);
		if (s == OK)
			check_route(&path, view_skip(r.path, 4));
	} else {
		must(status_http(s) >= 400);
	}
	static const struct view offered[] = { VIEW_INIT("application/json"), VIEW_INIT("text/csv") };
	int chosen = media_choose(r.header[HEADER_ACCEPT], offered, ARRAY_LEN(offered));
	must(chosen >= -1 && chosen < (int)ARRAY_LEN(offered));
	must(r.header[HEADER_ACCEPT].n || chosen == 0);
	arena_destroy(a);
	return 0;
}
