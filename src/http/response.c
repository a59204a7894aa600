#include "config.h"

#include "http/response.h"

void response_init(struct response *r, size_t body_max_bytes)
{
	*r = (struct response){ .head = BUF(RESPONSE_HEAD_MAX), .body = BUF(body_max_bytes) };
}

void response_free(struct response *r)
{
	buf_free(&r->head);
	buf_free(&r->body);
}

void response_restart(struct response *r, int http)
{
	buf_clear(&r->head);
	buf_clear(&r->body);
	r->http = http;
}

void response_reset(struct response *r, size_t keep_bytes)
{
	response_restart(r, 0);
	r->head_only = false;
	if (r->body.cap > keep_bytes)
		buf_free(&r->body);
}

static bool breaks_line(struct view v)
{
	return v.n && (memchr(v.p, '\r', v.n) || memchr(v.p, '\n', v.n) || memchr(v.p, '\0', v.n));
}

bool response_header(struct response *r, struct view name, struct view value)
{
	size_t n = name.n + 2 + value.n + 2;
	if (r->head.n + n > RESPONSE_HEAD_MAX || breaks_line(name) || breaks_line(value))
		return false;
	if (!buf_reserve(&r->head, n))
		return false;
	buf_view_put(&r->head, name);
	buf_lit(&r->head, ": ");
	buf_view_put(&r->head, value);
	buf_lit(&r->head, "\r\n");
	return true;
}

/* RFC 9110 sections 6.4.1 and 8.6. */
static bool has_content(int http)
{
	return http != 204 && http != 304;
}

void response_head(const struct response *r, struct buf *out)
{
	buf_lit(out, "Status: ");
	buf_i64(out, r->http);
	buf_putc(out, ' ');
	buf_view_put(out, view_of(status_reason(r->http)));
	buf_lit(out, "\r\n");
	buf_view_put(out, buf_view(&r->head));
	if (has_content(r->http)) {
		buf_lit(out, "Content-Length: ");
		buf_u64(out, r->body.n);
		buf_lit(out, "\r\n");
	}
	buf_lit(out, "\r\n");
}

struct view response_payload(const struct response *r)
{
	return has_content(r->http) && !r->head_only ? buf_view(&r->body) : VIEW("");
}
