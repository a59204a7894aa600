#include "config.h"

#include "http/problem.h"

#include "base/json.h"
#include "http/params.h"

static bool is_uuid(struct view v)
{
	if (v.n != 36)
		return false;
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
		if (dash ? c != '-' : !hex)
			return false;
	}
	return true;
}

static void member(struct buf *b, struct view name, struct view text)
{
	buf_putc(b, ',');
	json_string(b, name);
	buf_putc(b, ':');
	json_string(b, text);
}

/* Escaped: an id may be what the client sent, and the instance has to be a URI. */
static void instance(struct buf *b, struct view id)
{
	buf_lit(b, ",\"instance\":\"");
	if (is_uuid(id))
		buf_lit(b, "urn:uuid:");
	else
		buf_lit(b, "urn:request:");
	percent_encode(b, id);
	buf_putc(b, '"');
}

void problem_write(struct response *r, enum status s, struct view detail, struct view request_id)
{
	problem_write_as(r, s, status_http(s), detail, request_id);
}

/* more: members in JSON, each behind a comma */
static void put(struct response *r, enum status s, int http, struct view type, struct view detail, struct view request_id,
                  struct view more)
{
	response_restart(r, http);
	(void)response_header(r, VIEW("Content-Type"), VIEW("application/problem+json"));
	(void)response_header(r, VIEW("Cache-Control"), VIEW("no-store"));
	struct buf *b = &r->body;
	buf_lit(b, "{\"type\":\"");
	buf_view_put(b, type);
	buf_putc(b, '"');
	member(b, VIEW("title"), view_of(status_title(s)));
	buf_lit(b, ",\"status\":");
	buf_i64(b, http);
	if (detail.p && utf8_valid(detail)) /* one that is not would break the document */
		member(b, VIEW("detail"), detail);
	if (request_id.n)
		instance(b, request_id);
	member(b, VIEW("code"), view_of(status_code(s)));
	buf_view_put(b, more);
	buf_putc(b, '}');
}

void problem_write_as(struct response *r, enum status s, int http, struct view detail, struct view request_id)
{
	put(r, s, http, VIEW("about:blank"), detail, request_id, VIEW(""));
}

void problem_quota(struct response *r, struct view detail, struct view request_id, struct view violated)
{
	struct buf more = BUF(1024);
	buf_lit(&more, ",\"violated-policies\":[");
	buf_view_put(&more, violated);
	buf_putc(&more, ']');
	put(r, ERR_RATE_LIMITED, 429, VIEW("https://iana.org/assignments/http-problem-types#quota-exceeded"), detail, request_id,
	      buf_view(&more));
	buf_free(&more);
}
