#include "config.h"

#include "http/cgi.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/loop.h"

void cgi_params(struct request *r, struct arena *a)
{
	for (char **variable = environ; variable && *variable; variable++) {
		struct view value = view_of(*variable), name;
		(void)view_split(&value, '=', &name);
		request_param(r, a, name, value);
	}
}

/* Whole milliseconds until then, rounded up; 0 when it is past. */
static int wait_ms(int64_t deadline_us)
{
	int64_t left = deadline_us - clock_us();
	if (left <= 0)
		return 0;
	return left > (int64_t)60 * 1000000 ? 60000 : (int)((left + 999) / 1000);
}

/* Waits until fd has something or has ended. False at the deadline. */
static bool readable(int fd, int64_t deadline_us)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	for (;;) {
		int ms = wait_ms(deadline_us);
		int n = poll(&p, 1, ms);
		if (n > 0)
			return true;
		if (n < 0 && errno != EINTR)
			return true; /* read() will say what is wrong */
		if (n == 0 && ms == 0)
			return false;
	}
}

enum status cgi_body(int fd, size_t content_length, int64_t deadline_us, struct buf *body)
{
	enum { PIECE = 65536 };
	if (content_length > body->limit || body->n > body->limit - content_length)
		return ERR_BODY_TOO_LARGE;
	for (size_t left = content_length; left;) {
		size_t want = left < PIECE ? left : PIECE;
		char *at = buf_reserve(body, want);
		if (!at)
			return ERR_BODY_TOO_LARGE;
		if (!readable(fd, deadline_us))
			return ERR_REQUEST_TIMEOUT;
		ssize_t n = read(fd, at, want);
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			return ERR_INVALID_BODY;
		if (n > 0) {
			buf_advance(body, (size_t)n);
			left -= (size_t)n;
		}
	}
	return OK;
}

static int write_all(int fd, struct view v)
{
	while (v.n) {
		ssize_t n = write(fd, v.p, v.n);
		if (n >= 0) {
			v = view_skip(v, (size_t)n);
		} else if (errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };
			(void)poll(&p, 1, -1);
		} else if (errno != EINTR) {
			return -1;
		}
	}
	return 0;
}

int cgi_answer(int fd, const struct response *r)
{
	struct view payload = response_payload(r);
	struct buf out = BUF(RESPONSE_HEAD_MAX + 512 + payload.n);
	response_head(r, &out);
	buf_view_put(&out, payload);
	int result = -1;
	if (buf_failed(&out))
		errno = ENOMEM;
	else
		result = write_all(fd, buf_view(&out));
	buf_free(&out);
	return result;
}
