/* The one hard fact: a record comes in pieces of any size, and a web server sends the records of one request whenever
 * it likes (Apache: the empty STDIN record in a packet of its own). So the state is that of the record under way, and
 * a call goes on wherever the last one stopped.
 *
 *     header: version type id.id len.len padding 0 | content (len bytes) | padding bytes
 *             \______ rests in the caller's ______/  \_ content_left ____/  \ padding_left
 *                      input until whole
 *
 * FCGX_OpenSocket() is not used: whatever goes wrong in it ends the process, it deletes any file at the path, it takes
 * port 80000 for 14464 and leaves the socket to the umask (libfcgi 2.4.2).
 */
#include "config.h"

#include "http/fastcgi.h"

#include <assert.h>
#include <errno.h>
#include <fastcgi.h>
#include <fcgiapp.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* --- records out --- */

enum { STDOUT_MAX = 65528 }; /* the largest content that needs no padding to stay aligned */

static_assert(FASTCGI_WHOLE_BYTES > FCGI_HEADER_LEN + sizeof(FCGI_BeginRequestBody), "a BEGIN_REQUEST must fit");

static void put_header(struct buf *out, unsigned type, unsigned id, size_t n)
{
	const FCGI_Header header = {
		.version = FCGI_VERSION_1,
		.type = (unsigned char)type,
		.requestIdB1 = (unsigned char)(id >> 8),
		.requestIdB0 = (unsigned char)id,
		.contentLengthB1 = (unsigned char)(n >> 8),
		.contentLengthB0 = (unsigned char)n,
	};
	buf_put(out, &header, sizeof header);
}

static void put_end(struct buf *out, unsigned id, unsigned char protocol_status)
{
	const FCGI_EndRequestBody body = { .protocolStatus = protocol_status };
	put_header(out, FCGI_END_REQUEST, id, sizeof body);
	buf_put(out, &body, sizeof body);
}

void fastcgi_stdout(const struct fastcgi *f, struct buf *out, struct view data)
{
	(void)buf_reserve(out, data.n + FCGI_HEADER_LEN); /* one growth, as most answers are one record */
	while (data.n) {
		size_t n = data.n < STDOUT_MAX ? data.n : STDOUT_MAX;
		put_header(out, FCGI_STDOUT, f->id, n);
		buf_put(out, data.p, n);
		data = view_skip(data, n);
	}
}

void fastcgi_end(struct fastcgi *f, struct buf *out)
{
	put_header(out, FCGI_STDOUT, f->id, 0);
	put_end(out, f->id, FCGI_REQUEST_COMPLETE);
	f->id = 0;
	f->params_done = f->stdin_done = false;
	/* keep_conn stays: whether to close is decided after this. A record of the request may be under way. */
	f->skip = true;
}

void fastcgi_trailer(struct buf *out)
{
	put_header(out, FCGI_STDOUT, FCGI_NULL_REQUEST_ID, 0);
}

/* --- name-value pairs --- */

static bool take_length(struct view *rest, size_t *n)
{
	const unsigned char *p = (const unsigned char *)rest->p;
	size_t width = rest->n && p[0] & 0x80 ? 4 : 1;
	if (rest->n < width)
		return false;
	*n = width == 1 ? p[0] : (size_t)(p[0] & 0x7f) << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
	*rest = view_skip(*rest, width);
	return true;
}

static struct view take_bytes(struct view *rest, size_t n)
{
	struct view v = view_make(rest->p, n);
	*rest = view_skip(*rest, n);
	return v;
}

bool fastcgi_pair(struct view *rest, struct view *name, struct view *value, bool *broken)
{
	if (!rest->n)
		return false;
	struct view left = *rest;
	size_t n_name, n_value;
	if (!take_length(&left, &n_name) || !take_length(&left, &n_value) || n_name > left.n ||
		n_value > left.n - n_name) {
		*broken = true;
		return false;
	}
	*name = take_bytes(&left, n_name);
	*value = take_bytes(&left, n_value);
	*rest = left;
	return true;
}

/* --- records in --- */

struct header {
	unsigned version, type;
	uint16_t id;
	uint16_t n_content;
	unsigned char n_padding;
};

static struct header read_header(struct view in)
{
	const unsigned char *p = (const unsigned char *)in.p;
	return (struct header){
		.version = p[0],
		.type = p[1],
		.id = (uint16_t)(p[2] << 8 | p[3]),
		.n_content = (uint16_t)(p[4] << 8 | p[5]),
		.n_padding = p[6],
	};
}

/* Both sides know these values (specification, section 4.1); what we do not know is left out of the answer. */
static void answer_value(struct buf *pairs, struct view name)
{
	struct buf value = BUF(16);
	if (view_eq(name, VIEW(FCGI_MAX_CONNS)) || view_eq(name, VIEW(FCGI_MAX_REQS)))
		buf_u64(&value, FASTCGI_CONNECTIONS);
	else if (view_eq(name, VIEW(FCGI_MPXS_CONNS)))
		buf_u64(&value, 0);
	if (value.n) {
		buf_putc(pairs, (char)name.n);
		buf_putc(pairs, (char)value.n);
		buf_view_put(pairs, name);
		buf_view_put(pairs, buf_view(&value));
	}
	buf_free(&value);
}

static enum fastcgi_event_kind get_values(struct view content, struct buf *reply)
{
	struct buf pairs = BUF(4096); /* 1024 bytes hold 64 names, each answered in 22 bytes at most */
	bool broken = false;
	for (struct view name, value; fastcgi_pair(&content, &name, &value, &broken);)
		answer_value(&pairs, name);
	if (!broken) {
		put_header(reply, FCGI_GET_VALUES_RESULT, FCGI_NULL_REQUEST_ID, pairs.n);
		buf_view_put(reply, buf_view(&pairs));
	}
	buf_free(&pairs);
	return broken ? FASTCGI_BROKEN : FASTCGI_REPLY;
}

static enum fastcgi_event_kind unknown_type(unsigned type, struct buf *reply)
{
	const FCGI_UnknownTypeBody body = { .type = (unsigned char)type };
	put_header(reply, FCGI_UNKNOWN_TYPE, FCGI_NULL_REQUEST_ID, sizeof body);
	buf_put(reply, &body, sizeof body);
	return FASTCGI_REPLY;
}

static enum fastcgi_event_kind begin(struct fastcgi *f, uint16_t id, struct view content, struct buf *reply)
{
	const unsigned char *body = (const unsigned char *)content.p;
	if (content.n < sizeof(FCGI_BeginRequestBody) || id == f->id)
		return FASTCGI_BROKEN;
	if (f->id) {
		put_end(reply, id, FCGI_CANT_MPX_CONN);
		return FASTCGI_REPLY;
	}
	if ((body[0] << 8 | body[1]) != FCGI_RESPONDER) {
		put_end(reply, id, FCGI_UNKNOWN_ROLE);
		return FASTCGI_REPLY;
	}
	f->id = id;
	f->keep_conn = body[2] & FCGI_KEEP_CONN;
	return FASTCGI_BEGIN;
}

/* A record of a stream of the running request; an empty one is its end. */
static enum fastcgi_event_kind stream(struct fastcgi *f, bool *done, enum fastcgi_event_kind end)
{
	if (*done)
		return f->content_left ? FASTCGI_BROKEN : FASTCGI_MORE;
	if (!f->content_left) {
		*done = true;
		return end;
	}
	f->skip = false; /* the content comes as events of its own */
	return FASTCGI_MORE;
}

/* A record whose content need not be here yet: its header was just taken. */
static enum fastcgi_event_kind open_record(struct fastcgi *f, uint16_t id, struct buf *reply)
{
	f->skip = true;
	if (id == FCGI_NULL_REQUEST_ID)
		return unknown_type(f->type, reply);
	if (id != f->id)
		return FASTCGI_MORE;
	switch (f->type) {
	case FCGI_ABORT_REQUEST: return FASTCGI_ABORT;
	case FCGI_PARAMS: return stream(f, &f->params_done, FASTCGI_PARAMS_END);
	case FCGI_STDIN: return f->params_done ? stream(f, &f->stdin_done, FASTCGI_STDIN_END) : FASTCGI_BROKEN;
	default: return FASTCGI_MORE;
	}
}

static bool is_whole(const struct header *h)
{
	if (h->id == FCGI_NULL_REQUEST_ID)
		return h->type == FCGI_GET_VALUES;
	return h->type == FCGI_BEGIN_REQUEST;
}

static enum fastcgi_event_kind take_record(struct fastcgi *f, struct view *rest, struct buf *reply)
{
	if (rest->n < FCGI_HEADER_LEN)
		return FASTCGI_MORE;
	struct header h = read_header(*rest);
	size_t n_whole = FCGI_HEADER_LEN + (is_whole(&h) ? h.n_content : 0u);
	if (h.version != FCGI_VERSION_1 || n_whole > FASTCGI_WHOLE_BYTES)
		return FASTCGI_BROKEN;
	if (rest->n < n_whole)
		return FASTCGI_MORE;
	struct view whole = take_bytes(rest, n_whole);
	f->type = (uint8_t)h.type;
	f->padding_left = h.n_padding;
	if (is_whole(&h)) {
		struct view content = view_skip(whole, FCGI_HEADER_LEN);
		return h.type == FCGI_GET_VALUES ? get_values(content, reply) : begin(f, h.id, content, reply);
	}
	f->content_left = h.n_content;
	return open_record(f, h.id, reply);
}

static enum fastcgi_event_kind take_content(struct fastcgi *f, struct view *rest, struct view *data)
{
	size_t n = rest->n < f->content_left ? rest->n : f->content_left;
	struct view piece = take_bytes(rest, n);
	f->content_left -= (uint32_t)n;
	if (!n || f->skip)
		return FASTCGI_MORE;
	*data = piece;
	return f->type == FCGI_PARAMS ? FASTCGI_PARAMS : FASTCGI_STDIN;
}

static enum fastcgi_event_kind skip_padding(struct fastcgi *f, struct view *rest)
{
	size_t n = rest->n < f->padding_left ? rest->n : f->padding_left;
	*rest = view_skip(*rest, n);
	f->padding_left -= (uint32_t)n;
	return FASTCGI_MORE;
}

struct fastcgi_event fastcgi_decode(struct fastcgi *f, struct view in, size_t *consumed, struct buf *reply)
{
	struct view rest = in;
	struct fastcgi_event e = { .kind = FASTCGI_MORE };
	size_t before;
	do {
		before = rest.n;
		if (f->content_left)
			e.kind = take_content(f, &rest, &e.data);
		else if (f->padding_left)
			e.kind = skip_padding(f, &rest);
		else
			e.kind = take_record(f, &rest, reply);
	} while (e.kind == FASTCGI_MORE && rest.n < before);
	*consumed = in.n - rest.n;
	e.keep_conn = f->keep_conn;
	return e;
}

/* --- the listening socket --- */

bool fastcgi_is_listening(void)
{
	return !FCGX_IsCGI();
}

/* Closes fd and keeps errno. */
static int give_up(int fd)
{
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static int open_socket(int family)
{
	return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* Removes a socket that nobody listens on. 0 when the path is free then, or -1 and errno. */
static int clear_stale(const struct sockaddr_un *at)
{
	struct stat st;
	if (lstat(at->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISSOCK(st.st_mode))
		return errno = EEXIST, -1;
	int fd = open_socket(AF_UNIX);
	if (fd < 0)
		return -1;
	bool alive = connect(fd, (const struct sockaddr *)at, sizeof *at) == 0 || errno == EAGAIN;
	if (alive)
		errno = EADDRINUSE;
	else if (errno == ECONNREFUSED)
		return close(fd), unlink(at->sun_path);
	return give_up(fd);
}

static int listen_on_path(const char *path, int backlog)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	size_t n = strlen(path);
	if (n == 0 || n >= sizeof at.sun_path)
		return errno = n ? ENAMETOOLONG : EINVAL, -1;
	memcpy(at.sun_path, path, n);
	if (clear_stale(&at) < 0)
		return -1;
	int fd = open_socket(AF_UNIX);
	if (fd < 0)
		return -1;
	mode_t before = umask(0117); /* not chmod afterwards: somebody could connect in between */
	int bound = bind(fd, (const struct sockaddr *)&at, sizeof at);
	umask(before);
	return bound < 0 || listen(fd, backlog) < 0 ? give_up(fd) : fd;
}

static int listen_on(const struct addrinfo *at, int backlog)
{
	int fd = open_socket(at->ai_family);
	if (fd < 0)
		return -1;
	const int on = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 || bind(fd, at->ai_addr, at->ai_addrlen) < 0 ||
		listen(fd, backlog) < 0)
		return give_up(fd);
	return fd;
}

static bool is_port(const char *text)
{
	size_t n = strspn(text, "0123456789");
	return n > 0 && n <= 5 && !text[n] && atoi(text) > 0 && atoi(text) <= 65535;
}

/* "host:port" in a buffer of its own, taken apart in place. */
static int listen_on_port(char *address, int backlog)
{
	char *port = strrchr(address, ':');
	*port++ = '\0';
	char *host = address;
	size_t n = strlen(host);
	if (n > 1 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		host++;
	}
	if (!is_port(port))
		return errno = EINVAL, -1;
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
	const char *node = strcmp(host, "*") == 0 ? NULL : *host ? host : "127.0.0.1";
	struct addrinfo *found;
	if (getaddrinfo(node, port, &hints, &found) != 0)
		return errno = EADDRNOTAVAIL, -1;
	int fd = listen_on(found, backlog);
	freeaddrinfo(found);
	return fd;
}

int fastcgi_listen(const char *address, int backlog)
{
	if (strchr(address, '/') || !strchr(address, ':'))
		return listen_on_path(address, backlog);
	char *copy = strdup(address);
	int fd = copy ? listen_on_port(copy, backlog) : -1;
	free(copy);
	return fd;
}
