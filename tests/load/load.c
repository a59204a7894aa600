/* load: requests as fast as told, straight on a worker's FastCGI socket or through a web server, and how long each took.
 *
 *     load --socket PATH --seconds 5
 *          --stream slow --connections 50 --uri /api/slow
 *          --stream page --connections 8 --rate 400 --uri '/api/users/{}' --from 1 --to 1000
 *
 * Streams run beside one another, each on kept connections of its own. Without --rate a connection sends its next request
 * when it has its answer; with it requests fall due at that rate whatever the answers do, and one that found no
 * connection free counts from when it fell due, so that a stall is seen by all whom it would have hit. Writes a line of
 * JSON for each stream. Answers that contain --mark are counted apart; what is still out of a stream with --abandon at
 * the end is not waited for. --headers-of FILE adds one of its lines to each request, in turn. --records FILE gets a
 * line for each request: its stream, when it fell due and how long it took (microseconds of CLOCK_MONOTONIC), its
 * status, 0 without an answer, and its Cache-Status. SIGTERM ends a run before its time, as its time would.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/loop.h"

enum { STREAMS_MAX = 16, ANSWER_MAX = 64 << 20, REQUEST_MAX = 4 << 20, SHOWN_FAILURES = 5, LAST_WAIT_US = 30000000 };

/* --- what is measured --- */

struct times {
	uint32_t *us;
	size_t n, cap;
};

static void times_add(struct times *t, int64_t us)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 4096;
		t->us = realloc(t->us, t->cap * sizeof *t->us);
		if (!t->us)
			abort();
	}
	t->us[t->n++] = (uint32_t)us;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void times_sort(struct times *t)
{
	if (t->n)
		qsort(t->us, t->n, sizeof *t->us, by_size);
}

/* After sorting. `share` of 1000 are at most as large. */
static unsigned times_at(const struct times *t, size_t share)
{
	size_t at = t->n * share / 1000;
	return t->n ? t->us[at < t->n ? at : t->n - 1] : 0;
}

struct stream {
	const char *name, *uri, *method, *body, *mark;
	struct buf headers; /* as HTTP has them, with CRLF */
	char **lines;       /* of these each request has one more, in turn */
	size_t n_lines;
	unsigned connections;
	double rate;
	uint64_t count;   /* 0: no limit but the time */
	int64_t from, to; /* what stands for {} in the URI and in one header */
	int64_t late_us;
	bool abandon;

	struct load *load;
	struct timer due;
	int64_t next_us;
	int64_t *waiting; /* when requests fell due for which no connection was free: a ring */
	size_t n_waiting, first_waiting, cap_waiting;
	struct link *links, *idle;
	uint64_t sent, answered, failed, status[600], late;
	unsigned out;
	struct times times, marked;
};

struct load {
	struct loop *loop;
	const char *socket;
	int port;
	int64_t end_us;
	struct timer end, give_up;
	struct io told_to_end;
	FILE *records;
	struct stream stream[STREAMS_MAX];
	unsigned n_streams;
	bool ending;
};

/* One connection of a stream. */
struct link {
	struct stream *stream;
	struct link *next_idle;
	struct io io;
	int fd; /* -1: not connected */
	bool busy, used;
	int64_t since_us;
	struct buf out, in, answer;
	size_t out_at;
};

static void next_request(struct link *);

static void stop_when_over(struct load *l)
{
	for (unsigned i = 0; i < l->n_streams; i++) {
		struct stream *s = &l->stream[i];
		bool through = l->ending || (s->count && s->sent >= s->count && !s->n_waiting);
		if (!through || (s->out && !(l->ending && s->abandon)))
			return;
	}
	loop_stop(l->loop);
}

/* --- requests out --- */

/* The number of the request where {} stands. */
static void put_filled(struct buf *b, const struct stream *s, struct view text)
{
	const char *hole = memmem(text.p, text.n, "{}", 2);
	if (!hole) {
		buf_view_put(b, text);
		return;
	}
	size_t before = (size_t)(hole - text.p);
	buf_put(b, text.p, before);
	buf_i64(b, s->from + (int64_t)(s->sent % (uint64_t)(s->to - s->from + 1)));
	buf_view_put(b, view_skip(text, before + 2));
}

static void put_headers(struct buf *b, const struct stream *s)
{
	put_filled(b, s, buf_view(&s->headers));
	if (s->n_lines)
		buf_printf(b, "%s\r\n", s->lines[s->sent % s->n_lines]);
}

static void put_uri(struct buf *b, const struct stream *s)
{
	put_filled(b, s, view_of(s->uri));
}

static void put_http(struct buf *b, const struct stream *s)
{
	buf_printf(b, "%s ", s->method);
	put_uri(b, s);
	buf_lit(b, " HTTP/1.1\r\nHost: load\r\n");
	put_headers(b, s);
	if (s->body)
		buf_printf(b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(s->body));
	buf_lit(b, "\r\n");
	if (s->body)
		buf_put(b, s->body, strlen(s->body));
}

static void put_record(struct buf *b, unsigned type, struct view content)
{
	const unsigned char header[8] = { 1, (unsigned char)type, 0, 1, (unsigned char)(content.n >> 8),
					  (unsigned char)content.n };
	buf_put(b, header, sizeof header);
	buf_view_put(b, content);
}

static void put_length(struct buf *b, size_t n)
{
	if (n < 128) {
		buf_putc(b, (char)n);
		return;
	}
	const unsigned char wide[4] = { (unsigned char)(n >> 24 | 0x80), (unsigned char)(n >> 16),
					(unsigned char)(n >> 8), (unsigned char)n };
	buf_put(b, wide, sizeof wide);
}

static void put_pair(struct buf *b, struct view name, struct view value)
{
	put_length(b, name.n);
	put_length(b, value.n);
	buf_view_put(b, name);
	buf_view_put(b, value);
}

/* Without blanks, tabs and the CR that ends a line. */
static struct view trimmed(struct view v)
{
	if (v.n && v.p[v.n - 1] == '\r')
		v.n--;
	return view_trim(v);
}

/* "Name: value\r\n" as HTTP_NAME. */
static void put_header_pairs(struct buf *b, struct view rest)
{
	for (struct view line; view_split(&rest, '\n', &line);) {
		struct view name;
		if (!view_split(&line, ':', &name) || !name.n)
			continue;
		char upper[128] = "HTTP_";
		size_t n = 5;
		for (size_t i = 0; i < name.n && n < sizeof upper - 1; i++) {
			char c = name.p[i];
			upper[n++] = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
		}
		put_pair(b, view_make(upper, n), trimmed(line));
	}
}

static void put_fastcgi(struct buf *b, const struct stream *s)
{
	static const char begin[8] = { 0, 1, 1 }; /* responder, keep the connection */
	struct buf uri = BUF(65536), params = BUF(65535), digits = BUF(32);
	put_uri(&uri, s);
	put_pair(&params, VIEW("REQUEST_METHOD"), view_of(s->method));
	put_pair(&params, VIEW("REQUEST_URI"), buf_view(&uri));
	const char *question = memchr(uri.p, '?', uri.n);
	struct view query = question ? view_skip(buf_view(&uri), (size_t)(question - uri.p) + 1) : VIEW("");
	put_pair(&params, VIEW("QUERY_STRING"), query);
	put_pair(&params, VIEW("REMOTE_ADDR"), VIEW("127.0.0.1"));
	struct buf headers = BUF(65536);
	put_headers(&headers, s);
	put_header_pairs(&params, buf_view(&headers));
	buf_free(&headers);
	if (s->body) {
		buf_u64(&digits, strlen(s->body));
		put_pair(&params, VIEW("CONTENT_LENGTH"), buf_view(&digits));
		put_pair(&params, VIEW("CONTENT_TYPE"), VIEW("application/json"));
	}
	put_record(b, 1, view_make(begin, sizeof begin));
	put_record(b, 4, buf_view(&params));
	put_record(b, 4, VIEW(""));
	struct view body = view_of(s->body ? s->body : "");
	for (size_t n; body.n; body = view_skip(body, n)) {
		n = body.n < 65535 ? body.n : 65535;
		put_record(b, 5, view_make(body.p, n));
	}
	put_record(b, 5, VIEW(""));
	buf_free(&uri);
	buf_free(&params);
	buf_free(&digits);
}

/* --- the life of a connection --- */

static void link_close(struct link *k)
{
	if (k->fd < 0)
		return;
	loop_io_stop(k->stream->load->loop, &k->io);
	close(k->fd);
	k->fd = -1;
}

static void link_rest(struct link *k)
{
	k->busy = false;
	k->next_idle = k->stream->idle;
	k->stream->idle = k;
}

static struct view cache_status(struct view answer)
{
	static const char name[] = "Cache-Status: ";
	const char *at = answer.n ? memmem(answer.p, answer.n, name, sizeof name - 1) : NULL;
	struct view line = VIEW(""), rest = at ? view_skip(answer, (size_t)(at - answer.p) + sizeof name - 1) : line;
	(void)view_split(&rest, '\r', &line);
	return line;
}

static void record(const struct stream *s, int64_t since_us, int64_t took_us, int status, struct view answer)
{
	if (s->load->records)
		(void)fprintf(s->load->records, "%s %lld %lld %d %.*s\n", s->name, (long long)since_us, (long long)took_us, status,
		              VIEW_ARG(cache_status(answer)));
}

/* What came of the request that is out. */
static void link_done(struct link *k, int status, const char *failure)
{
	struct stream *s = k->stream;
	struct load *l = s->load;
	int64_t took = clock_us() - k->since_us;
	s->out--;
	record(s, k->since_us, took, failure ? 0 : status, buf_view(&k->answer));
	if (failure) {
		if (s->failed++ < SHOWN_FAILURES)
			(void)fprintf(stderr, "load: %s: %s after %lld us\n", s->name, failure, (long long)took);
	} else {
		s->answered++;
		s->status[status]++;
		bool marked = s->mark && k->answer.n && memmem(k->answer.p, k->answer.n, s->mark, strlen(s->mark));
		times_add(marked ? &s->marked : &s->times, took);
		s->late += !marked && s->late_us && took > s->late_us;
	}
	link_rest(k);
	if (l->ending || s->count)
		stop_when_over(l);
	if (s->n_waiting || s->rate <= 0) {
		struct link *first = s->idle;
		if (first)
			next_request(first);
	}
}

static void link_failed(struct link *k, const char *why)
{
	link_close(k);
	if (k->busy)
		link_done(k, 0, why);
}

static bool link_connect(struct link *k)
{
	const struct load *l = k->stream->load;
	struct sockaddr_un path = { .sun_family = AF_UNIX };
	struct sockaddr_in port = { .sin_family = AF_INET, .sin_port = htons((uint16_t)l->port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	k->fd = socket(l->socket ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (k->fd < 0)
		return false;
	(void)snprintf(path.sun_path, sizeof path.sun_path, "%s", l->socket ? l->socket : "");
	const struct sockaddr *to = l->socket ? (const struct sockaddr *)&path : (const struct sockaddr *)&port;
	const int on = 1;
	if (connect(k->fd, to, l->socket ? sizeof path : sizeof port) < 0 ||
	    (!l->socket && setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) ||
	    fcntl(k->fd, F_SETFL, O_NONBLOCK) < 0 || loop_io_start(l->loop, &k->io, k->fd, LOOP_READ, false) < 0) {
		close(k->fd);
		k->fd = -1;
		return false;
	}
	k->used = false;
	return true;
}

static void link_write(struct link *k)
{
	while (k->out_at < k->out.n) {
		ssize_t n = send(k->fd, k->out.p + k->out_at, k->out.n - k->out_at, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			link_failed(k, strerror(errno));
			return;
		}
		k->out_at += (size_t)n;
	}
	(void)loop_io_change(k->stream->load->loop, &k->io, LOOP_READ | (k->out_at < k->out.n ? LOOP_WRITE : 0u));
}

static void send_request(struct link *k, int64_t since_us)
{
	struct stream *s = k->stream;
	s->idle = k->next_idle;
	k->busy = true;
	k->since_us = since_us;
	s->out++;
	if (k->fd < 0 && !link_connect(k)) {
		s->sent++;
		/* Not from within: a server that is gone would make this a recursion. */
		s->out--;
		s->failed++;
		record(s, since_us, 0, 0, VIEW(""));
		link_rest(k);
		return;
	}
	buf_clear(&k->out);
	buf_clear(&k->in);
	buf_clear(&k->answer);
	k->out_at = 0;
	if (s->load->socket)
		put_fastcgi(&k->out, s);
	else
		put_http(&k->out, s);
	s->sent++;
	link_write(k);
}

/* The next one of the stream on a connection that is free. */
static void next_request(struct link *k)
{
	struct stream *s = k->stream;
	if (s->n_waiting) {
		int64_t since = s->waiting[s->first_waiting];
		s->first_waiting = (s->first_waiting + 1) % s->cap_waiting;
		s->n_waiting--;
		send_request(k, since);
		return;
	}
	if (s->rate > 0 || s->load->ending || (s->count && s->sent >= s->count))
		return;
	send_request(k, clock_us());
}

/* --- answers in --- */

static int status_of(struct view head, const char *before)
{
	const char *at = head.n ? memmem(head.p, head.n, before, strlen(before)) : NULL;
	if (!at || (size_t)(head.p + head.n - at) < strlen(before) + 4)
		return 0;
	int status = atoi(at + strlen(before));
	return status > 99 && status < 600 ? status : 0;
}

/* 0: more is to come; -1: not an answer; else its status, all of it in k->answer. */
static int take_fastcgi(struct link *k)
{
	size_t at = 0;
	int status = 0;
	while (k->in.n - at >= 8) {
		const unsigned char *h = (const unsigned char *)k->in.p + at;
		size_t n = (size_t)h[4] << 8 | h[5], whole = 8 + n + h[6];
		if (k->in.n - at < whole)
			break;
		if (h[1] == 6)
			buf_put(&k->answer, h + 8, n);
		at += whole;
		if (h[1] == 3) {
			status = status_of(buf_view(&k->answer), "Status: ");
			status = status ? status : -1;
			break;
		}
	}
	buf_consume(&k->in, at);
	return status;
}

/* The bytes of a chunked body with its frame; 0: more is to come. Trailer fields are not expected. */
static size_t chunked_bytes(struct view in)
{
	for (size_t at = 0;;) {
		struct view rest = view_skip(in, at < in.n ? at : in.n);
		const char *line = rest.n ? memmem(rest.p, rest.n, "\r\n", 2) : NULL;
		if (!line)
			return 0;
		size_t n = strtoull(rest.p, NULL, 16);
		at += (size_t)(line - rest.p) + 2 + n + 2;
		if (n == 0)
			return at <= in.n ? at : 0;
	}
}

static int take_http(struct link *k)
{
	struct view in = buf_view(&k->in);
	const char *end = in.n ? memmem(in.p, in.n, "\r\n\r\n", 4) : NULL;
	if (!end)
		return 0;
	struct view head = view_make(in.p, (size_t)(end - in.p) + 2);
	int status = status_of(head, "HTTP/1.1 ");
	bool close_it = false, chunked = false, has_length = status == 204 || status == 304;
	size_t length = 0;
	for (struct view rest = head, line, name; view_split(&rest, '\n', &line);) {
		if (!view_split(&line, ':', &name))
			continue;
		struct view value = trimmed(line);
		if (view_ieq(name, VIEW("Content-Length"))) {
			length = value.n ? strtoull(value.p, NULL, 10) : 0;
			has_length = true;
		} else if (view_ieq(name, VIEW("Connection")) && view_ieq(value, VIEW("close"))) {
			close_it = true;
		} else if (view_ieq(name, VIEW("Transfer-Encoding")) && view_ieq(value, VIEW("chunked"))) {
			chunked = true;
		}
	}
	if (!status || (!has_length && !chunked))
		return -1;
	if (chunked)
		length = chunked_bytes(view_skip(in, head.n + 2));
	if (chunked && !length)
		return 0;
	size_t whole = head.n + 2 + length;
	if (in.n < whole)
		return 0;
	buf_put(&k->answer, in.p, whole);
	buf_consume(&k->in, whole);
	if (close_it)
		link_close(k);
	return status;
}

static void on_link(struct io *io, unsigned events)
{
	struct link *k = CONTAINER_OF(io, struct link, io);
	if ((events & LOOP_WRITE) && k->out_at < k->out.n)
		link_write(k);
	if (k->fd < 0 || !(events & LOOP_READ))
		return;
	char *room = buf_reserve(&k->in, 65536);
	ssize_t n = room ? recv(k->fd, room, 65536, 0) : -1;
	if (n < 0 && room && errno == EAGAIN)
		return;
	if (n <= 0) {
		link_failed(k, !room ? "the answer is too large" : n ? strerror(errno) : "closed without an answer");
		return;
	}
	buf_advance(&k->in, (size_t)n);
	if (!k->busy)
		return;
	int status = k->stream->load->socket ? take_fastcgi(k) : take_http(k);
	if (status < 0)
		link_failed(k, "not an answer");
	else if (status)
		link_done(k, status, NULL);
}

/* --- time --- */

static void wait_for_link(struct stream *s, int64_t since)
{
	if (s->n_waiting == s->cap_waiting) {
		size_t cap = s->cap_waiting ? s->cap_waiting * 2 : 1024;
		int64_t *grown = malloc(cap * sizeof *grown);
		if (!grown)
			abort();
		for (size_t i = 0; i < s->n_waiting; i++)
			grown[i] = s->waiting[(s->first_waiting + i) % s->cap_waiting];
		free(s->waiting);
		s->waiting = grown;
		s->first_waiting = 0;
		s->cap_waiting = cap;
	}
	s->waiting[(s->first_waiting + s->n_waiting++) % s->cap_waiting] = since;
}

static void on_due(struct timer *t)
{
	struct stream *s = CONTAINER_OF(t, struct stream, due);
	int64_t now = clock_us();
	for (; s->next_us <= now && !s->load->ending; s->next_us += (int64_t)(1e6 / s->rate)) {
		if (s->count && s->sent + s->n_waiting >= s->count)
			return;
		wait_for_link(s, now);
		if (s->idle)
			next_request(s->idle);
	}
	if (!s->load->ending)
		loop_timer_set(s->load->loop, t, s->next_us);
}

static _Noreturn void fail(const char *why)
{
	(void)fprintf(stderr, "load: %s\n", why);
	exit(2);
}

static void begin_to_end(struct load *l)
{
	l->ending = true;
	loop_timer_set(l->loop, &l->give_up, loop_now_us(l->loop) + LAST_WAIT_US);
	stop_when_over(l);
}

static void on_end(struct timer *t)
{
	begin_to_end(CONTAINER_OF(t, struct load, end));
}

static void on_told_to_end(struct io *io, unsigned events)
{
	(void)events;
	struct load *l = CONTAINER_OF(io, struct load, told_to_end);
	loop_io_stop(l->loop, io);
	loop_timer_stop(l->loop, &l->end);
	begin_to_end(l);
}

static void take_sigterm(struct load *l)
{
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	l->told_to_end.ready = on_told_to_end;
	if (fd < 0 || loop_io_start(l->loop, &l->told_to_end, fd, LOOP_READ, false) < 0)
		fail("no signalfd");
}

static void on_give_up(struct timer *t)
{
	loop_stop(CONTAINER_OF(t, struct load, give_up)->loop);
}

/* --- the whole --- */

static void stream_open(struct load *l, struct stream *s)
{
	s->load = l;
	s->due.fire = on_due;
	s->links = calloc(s->connections, sizeof *s->links);
	if (!s->links)
		abort();
	for (unsigned i = 0; i < s->connections; i++) {
		struct link *k = &s->links[i];
		*k = (struct link){ .stream = s, .fd = -1, .io.ready = on_link, .next_idle = s->idle };
		k->out = BUF(REQUEST_MAX);
		k->in = BUF(ANSWER_MAX);
		k->answer = BUF(ANSWER_MAX);
		s->idle = k;
	}
	if (s->rate > 0) {
		s->next_us = clock_us();
		loop_timer_set(l->loop, &s->due, s->next_us);
		return;
	}
	for (unsigned i = 0; i < s->connections && s->idle; i++)
		next_request(s->idle);
}

static void report(struct stream *s, double seconds)
{
	times_sort(&s->times);
	times_sort(&s->marked);
	printf("{\"stream\":\"%s\",\"seconds\":%.3f,\"sent\":%llu,\"answered\":%llu,\"failed\":%llu,\"rate\":%.1f,"
	       "\"status\":{", s->name, seconds, (unsigned long long)s->sent, (unsigned long long)s->answered,
	       (unsigned long long)(s->failed + (s->abandon ? 0 : s->out)), (double)s->answered / seconds);
	const char *comma = "";
	for (unsigned i = 0; i < ARRAY_LEN(s->status); i++) {
		if (!s->status[i])
			continue;
		printf("%s\"%u\":%llu", comma, i, (unsigned long long)s->status[i]);
		comma = ",";
	}
	printf("},\"p50_us\":%u,\"p90_us\":%u,\"p99_us\":%u,\"p999_us\":%u,\"max_us\":%u,\"late\":%llu,\"marked\":%zu,"
	       "\"marked_p50_us\":%u,\"marked_max_us\":%u}\n",
	       times_at(&s->times, 500), times_at(&s->times, 900), times_at(&s->times, 990), times_at(&s->times, 999),
	       times_at(&s->times, 1000), (unsigned long long)s->late, s->marked.n, times_at(&s->marked, 500),
	       times_at(&s->marked, 1000));
}

static struct stream *stream_add(struct load *l, const char *name)
{
	if (l->n_streams == STREAMS_MAX)
		fail("too many streams");
	struct stream *s = &l->stream[l->n_streams++];
	*s = (struct stream){ .name = name, .uri = "/healthz", .method = "GET", .connections = 1, .to = 1,
			      .headers = BUF(16384) };
	return s;
}

static void read_lines(struct stream *s, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;
	if (!f)
		fail("the file of --headers-of cannot be read");
	for (ssize_t n; (n = getline(&line, &cap, f)) > 1;) {
		line[n - 1] = '\0';
		s->lines = realloc(s->lines, (s->n_lines + 1) * sizeof *s->lines);
		if (!s->lines || !(s->lines[s->n_lines++] = strdup(line)))
			fail("out of memory");
	}
	free(line);
	(void)fclose(f);
}

static void open_records(struct load *l, const char *path)
{
	l->records = fopen(path, "we");
	if (!l->records)
		fail("the file of --records cannot be written");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", 1, NULL, 's' }, { "http", 1, NULL, 'p' },  { "seconds", 1, NULL, 't' },
		{ "stream", 1, NULL, 'n' }, { "uri", 1, NULL, 'u' },   { "method", 1, NULL, 'm' },
		{ "body", 1, NULL, 'b' },   { "header", 1, NULL, 'h' }, { "connections", 1, NULL, 'c' },
		{ "rate", 1, NULL, 'r' },   { "count", 1, NULL, 'k' }, { "from", 1, NULL, 'f' },
		{ "to", 1, NULL, 'o' },     { "mark", 1, NULL, 'a' },  { "late-us", 1, NULL, 'l' },
		{ "abandon", 0, NULL, 'd' }, { "headers-of", 1, NULL, 'H' }, { "records", 1, NULL, 'R' },
		{ NULL, 0, NULL, 0 },
	};
	static struct load l;
	double seconds = 5;
	struct stream *s = NULL;
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (o == '?')
			return 2;
		if (!strchr("sptnR", o) && !s)
			fail("--stream NAME comes first");
		switch (o) {
		case 's': l.socket = optarg; break;
		case 'p': l.port = atoi(optarg); break;
		case 't': seconds = strtod(optarg, NULL); break;
		case 'R': open_records(&l, optarg); break;
		case 'n': s = stream_add(&l, optarg); break;
		case 'u': s->uri = optarg; break;
		case 'm': s->method = optarg; break;
		case 'b': s->body = optarg; break;
		case 'h': buf_printf(&s->headers, "%s\r\n", optarg); break;
		case 'c': s->connections = (unsigned)atoi(optarg); break;
		case 'r': s->rate = strtod(optarg, NULL); break;
		case 'k': s->count = strtoull(optarg, NULL, 10); break;
		case 'f': s->from = atoll(optarg); break;
		case 'o': s->to = atoll(optarg); break;
		case 'a': s->mark = optarg; break;
		case 'l': s->late_us = atoll(optarg); break;
		case 'd': s->abandon = true; break;
		case 'H': read_lines(s, optarg); break;
		default: return 2;
		}
	}
	if (!s || (!l.socket && !l.port))
		fail("--socket PATH or --http PORT, and a --stream");
	l.loop = loop_create();
	if (!l.loop)
		fail("no event loop");
	l.end.fire = on_end;
	l.give_up.fire = on_give_up;
	take_sigterm(&l);
	int64_t begin = clock_us();
	loop_timer_set(l.loop, &l.end, begin + (int64_t)(seconds * 1e6));
	for (unsigned i = 0; i < l.n_streams; i++)
		stream_open(&l, &l.stream[i]);
	(void)loop_run(l.loop);
	double took = (double)(clock_us() - begin) / 1e6;
	for (unsigned i = 0; i < l.n_streams; i++)
		report(&l.stream[i], took);
	if (l.records && fclose(l.records) != 0)
		fail("the file of --records cannot be written");
	return 0;
}
