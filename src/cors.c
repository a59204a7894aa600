#include "config.h"

#include "cors.h"

static bool any_origin(const struct settings *set)
{
	return view_eq(view_trim(view_of(set->cors_origins)), VIEW("*"));
}

/* An origin is a scheme, a host and perhaps a port; the first two are the same in capitals. */
static bool allowed(const struct settings *set, struct view origin)
{
	struct view rest = view_of(set->cors_origins);
	for (struct view one; view_split(&rest, ',', &one);)
		if (view_ieq(view_trim(one), origin))
			return true;
	return any_origin(set);
}

void cors_headers(struct exchange *ex)
{
	const struct settings *set = ex->service->settings;
	struct response *r = &ex->response;
	struct view origin = ex->request.header[HEADER_ORIGIN];
	if (!*set->cors_origins)
		return;
	if (!any_origin(set))
		response_header(r, VIEW("Vary"), VIEW("Origin"));
	/* The star is said to all: whoever keeps the answer of one that named no origin gives it to those who do. */
	if (!any_origin(set) && (!origin.n || !allowed(set, origin)))
		return;
	response_header(r, VIEW("Access-Control-Allow-Origin"), any_origin(set) ? VIEW("*") : origin);
	response_header(r, VIEW("Access-Control-Expose-Headers"),
	                VIEW("Composure-LSN, Composure-Partial, Content-Range, ETag, Idempotency-Replayed, Link, Location, Preference-Applied, RateLimit, "
	                     "RateLimit-Policy, Retry-After, X-Request-Id"));
}

void cors_preflight(struct exchange *ex, struct view methods)
{
	const struct settings *set = ex->service->settings;
	struct response *r = &ex->response;
	struct view origin = ex->request.header[HEADER_ORIGIN];
	if (!*set->cors_origins || !origin.n || !ex->request.header[HEADER_CORS_METHOD].p || !allowed(set, origin))
		return;
	response_header(r, VIEW("Access-Control-Allow-Methods"), methods);
	response_header(r, VIEW("Access-Control-Allow-Headers"),
	                VIEW("Accept, Authorization, Composure-LSN, Content-Type, Idempotency-Key, If-Match, If-None-Match, Prefer, X-API-Key, "
	                     "X-Request-Id, X-Request-Timeout"));
	response_header(r, VIEW("Access-Control-Max-Age"), VIEW("86400"));
}
