#include "config.h"

#include "query/said.h"

#include "base/json.h"
#include "base/log.h"

static const struct view usual[] = {
	VIEW_INIT("Cache-Control"),    VIEW_INIT("Content-Disposition"), VIEW_INIT("Content-Language"),
	VIEW_INIT("Deprecation"),      VIEW_INIT("Last-Modified"),       VIEW_INIT("Link"),
	VIEW_INIT("Location"),         VIEW_INIT("Retry-After"),         VIEW_INIT("Sunset"),
	VIEW_INIT("WWW-Authenticate"),
};

/* Not even by the operator's word: the web server acts upon them, or they are ours. */
static const struct view never[] = {
	VIEW_INIT("X-Accel-"),         VIEW_INIT("X-Sendfile"),     VIEW_INIT("X-LIGHTTPD-"), VIEW_INIT("Status"),
	VIEW_INIT("Content-Length"),   VIEW_INIT("Content-Type"),   VIEW_INIT("Connection"),  VIEW_INIT("Transfer-Encoding"),
	VIEW_INIT("Content-Encoding"), VIEW_INIT("ETag"),           VIEW_INIT("Upgrade"),     VIEW_INIT("X-Request-Id"),
	VIEW_INIT("Idempotency-"),     VIEW_INIT("Content-Security-Policy"), VIEW_INIT("X-Content-Type-Options"),
	VIEW_INIT("Access-Control-"),
};

static bool begins(struct view v, struct view prefix)
{
	return v.n >= prefix.n && view_ieq(view_make(v.p, prefix.n), prefix);
}

static bool is_token(struct view v)
{
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!letter && c != '-' && c != '_')
			return false;
	}
	return v.n;
}

static bool is_allowed(struct view name, struct view allowed)
{
	if (!is_token(name) || memchr(name.p, '_', name.n)) /* some servers take "_" for "-" */
		return false;
	for (size_t i = 0; i < ARRAY_LEN(never); i++)
		if (begins(name, never[i]))
			return false;
	for (size_t i = 0; i < ARRAY_LEN(usual); i++)
		if (view_ieq(name, usual[i]))
			return true;
	for (struct view one; view_split(&allowed, ',', &one);)
		if (view_ieq(name, view_trim(one)))
			return true;
	return false;
}

int said_status(const char *state)
{
	if (state[0] != 'P' || state[1] != 'T' || (state[2] != '4' && state[2] != '5'))
		return 0;
	for (int i = 3; i < 5; i++)
		if (state[i] < '0' || state[i] > '9')
			return 0;
	return (state[2] - '0') * 100 + (state[3] - '0') * 10 + (state[4] - '0');
}

/* Cache-Control and the like stand there already: what is said takes its place. */
static void drop_header(struct response *r, struct view name)
{
	struct buf *h = &r->head;
	for (size_t at = 0; at < h->n;) {
		const char *end = memchr(h->p + at, '\n', h->n - at);
		size_t n = end ? (size_t)(end - (h->p + at)) + 1 : h->n - at;
		if (n > name.n && h->p[at + name.n] == ':' && view_ieq(view_make(h->p + at, name.n), name)) {
			memmove(h->p + at, h->p + at + n, h->n - at - n);
			h->n -= n;
		} else {
			at += n;
		}
	}
}

static bool plain(struct view v)
{
	for (size_t i = 0; i < v.n; i++)
		if ((unsigned char)v.p[i] < 0x20 || (unsigned char)v.p[i] >= 0x7f)
			return false;
	return true;
}

static void take_object(struct response *r, const struct json *o, struct view allowed)
{
	for (const struct json *m = o->child; m; m = m->next) {
		if (m->kind != JSON_STRING || !is_allowed(m->name, allowed) || !plain(m->string)) {
			log_warn("response.headers: \"%.*s\" is not sent", VIEW_ARG(m->name));
			continue;
		}
		if (!view_ieq(m->name, VIEW("Link")))
			drop_header(r, m->name);
		if (!response_header(r, m->name, m->string))
			log_warn("response.headers: \"%.*s\" does not fit", VIEW_ARG(m->name));
	}
}

void said_take(struct response *r, struct arena *a, struct view status, struct view headers, struct view allowed)
{
	if (status.n) {
		int n = 0;
		bool good = status.n == 3;
		for (size_t i = 0; good && i < 3; i++) {
			good = status.p[i] >= '0' && status.p[i] <= '9';
			n = n * 10 + (status.p[i] - '0');
		}
		if (good && n >= 200 && n <= 599)
			r->http = n;
		else
			log_warn("response.status: \"%.*s\" is not a status from 200 to 599", VIEW_ARG(status));
	}
	if (!headers.n)
		return;
	struct json_limits limits = { .depth = 3, .values = 200 };
	struct view detail = VIEW_NONE;
	const struct json *doc = json_parse(a, headers, &limits, &detail);
	if (!doc || (doc->kind != JSON_ARRAY && doc->kind != JSON_OBJECT)) {
		log_warn("response.headers is not a JSON array of objects");
		return;
	}
	if (doc->kind == JSON_OBJECT)
		take_object(r, doc, allowed);
	for (const struct json *o = doc->kind == JSON_ARRAY ? doc->child : NULL; o; o = o->next)
		if (o->kind == JSON_OBJECT)
			take_object(r, o, allowed);
}
