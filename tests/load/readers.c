/* readers: reads as fast as they are answered, straight on workers' FastCGI sockets, and what each of them saw.
 *
 *     readers --host A.sock --host B.sock --connections 3 --key KEY --seconds 10 --out FILE --uri /api/things/1 ...
 *
 * What is read are rows {"item":1,"version":7} or {"item":1,"version":7,"pad":"...","sum":"..."}, wherever in a body they
 * stand; sum is the SHA-256 of "1:7:..." in hex, and a row with another one is torn, as is a body of another length than
 * its head says, or one that stands under an ETag which another body has. FILE gets a struct read for each answer with its
 * rows behind it. Connections are kept for --reuse requests, and made anew when they break, as with a worker that was
 * killed. What is not answered within --deadline-ms is counted as hung. Ends with --seconds or SIGTERM; writes a line of JSON.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/sha256.h"

enum { HOSTS_MAX = 4, URIS_MAX = 64, ANSWER_MAX = 64 << 20, ROWS_MAX = 4096, TAGS = 1 << 16, SHOWN = 10, AGAIN_US = 2000 };

enum how { FORWARDED, HIT, COLLAPSED, HOW = 3, BLIND = 4, STALE = 8 };

/* As it stands in the file: little-endian, no gaps. tests/integration/harness/versions.py reads it. */
struct read {
	int64_t begin_us, end_us;
	uint16_t uri, status, n_rows;
	uint8_t host, how;
};

struct row {
	uint32_t item, version;
};

struct readers {
	struct loop *loop;
	const char *host[HOSTS_MAX], *uri[URIS_MAX];
	unsigned n_hosts, n_uris;
	struct view authorization;
	FILE *out;
	unsigned reuse;
	int64_t deadline_us, end_us;
	struct timer round;
	uint64_t reads, hits, broken, refused, hung, torn, of_how[16];
	int64_t longest_us;
	uint64_t random;
	struct { uint64_t tag; uint32_t crc; } body_of[TAGS];
};

struct link {
	struct readers *all;
	struct io io;
	struct timer again;
	int fd;
	unsigned host, uri, used;
	bool busy, late;
	int64_t begin_us;
	struct buf out, in, answer;
	size_t out_at;
};

static volatile sig_atomic_t told_to_end;

static void on_signal(int n)
{
	(void)n;
	told_to_end = 1;
}

static void next_request(struct link *);

static void complain(struct readers *a, const struct link *k, const char *what)
{
	if (a->torn++ < SHOWN)
		(void)fprintf(stderr, "readers: %s: %s: %.*s\n", a->uri[k->uri], what,
		              (int)(k->answer.n < 2000 ? k->answer.n : 2000), k->answer.p);
}

/* --- what an answer says --- */

static bool take_number(struct view *v, const char *name, uint32_t *out)
{
	size_t n = strlen(name);
	if (v->n <= n || memcmp(v->p, name, n) != 0)
		return false;
	*v = view_skip(*v, n);
	for (*out = 0; v->n && v->p[0] >= '0' && v->p[0] <= '9'; *v = view_skip(*v, 1))
		*out = *out * 10 + (uint32_t)(v->p[0] - '0');
	return true;
}

/* True, too, where the row has no sum. */
static bool sum_right(const struct row *r, struct view rest)
{
	static const char pad_name[] = ",\"pad\":\"", sum_name[] = "\",\"sum\":\"";
	if (rest.n < sizeof pad_name || memcmp(rest.p, pad_name, sizeof pad_name - 1) != 0)
		return true;
	struct view pad = view_skip(rest, sizeof pad_name - 1);
	const char *end = memmem(pad.p, pad.n, sum_name, sizeof sum_name - 1);
	if (!end)
		return false;
	struct view sum = view_skip(pad, (size_t)(end - pad.p) + sizeof sum_name - 1);
	pad.n = (size_t)(end - pad.p);
	char front[32], hex[2 * SHA256_BYTES + 1];
	uint8_t is[SHA256_BYTES];
	struct sha256 s;
	sha256_init(&s);
	int n = snprintf(front, sizeof front, "%u:%u:", r->item, r->version);
	sha256_add(&s, view_make(front, (size_t)n));
	sha256_add(&s, pad);
	sha256_end(&s, is);
	for (size_t i = 0; i < sizeof is; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", is[i]);
	return sum.n > 2 * sizeof is && memcmp(sum.p, hex, 2 * sizeof is) == 0 && sum.p[2 * sizeof is] == '"';
}

static unsigned take_rows(struct readers *a, const struct link *k, struct view body, struct row *row)
{
	static const char name[] = "\"item\":";
	unsigned n = 0;
	for (const char *at; n < ROWS_MAX && body.n && (at = memmem(body.p, body.n, name, sizeof name - 1)); ) {
		body = view_skip(body, (size_t)(at - body.p));
		if (!take_number(&body, name, &row[n].item) || !take_number(&body, ",\"version\":", &row[n].version))
			continue;
		if (!sum_right(&row[n], body))
			complain(a, k, "a row's sum is not right");
		n++;
	}
	return n;
}

/* The value of a header, in `head`, which ends with CRLF. */
static struct view header(struct view head, const char *name)
{
	const char *at = memmem(head.p, head.n, name, strlen(name));
	if (!at)
		return VIEW_NONE;
	struct view v = view_skip(head, (size_t)(at - head.p) + strlen(name));
	const char *end = memmem(v.p, v.n, "\r\n", 2);
	return end ? view_make(v.p, (size_t)(end - v.p)) : VIEW_NONE;
}

static bool says(struct view v, const char *what)
{
	return v.n && memmem(v.p, v.n, what, strlen(what));
}

/* One ETag, one body: head and body are of the same answer. */
static void check_tag(struct readers *a, const struct link *k, struct view head, struct view body)
{
	struct view tag = header(head, "\r\nETag: "), length = header(head, "\r\nContent-Length: ");
	if (length.n && strtoull(length.p, NULL, 10) != body.n)
		complain(a, k, "the body is not as long as its head says");
	if (!tag.n)
		return;
	uint64_t hash = 0xcbf29ce484222325u;
	for (size_t i = 0; i < tag.n; i++)
		hash = (hash ^ (unsigned char)tag.p[i]) * 0x100000001b3u;
	uint32_t crc = crc32_of(body);
	unsigned at = (unsigned)(hash >> 20) % TAGS;
	if (a->body_of[at].tag == hash && a->body_of[at].crc != crc)
		complain(a, k, "another body had this ETag");
	a->body_of[at].tag = hash;
	a->body_of[at].crc = crc;
}

static void answered(struct link *k)
{
	static struct row row[ROWS_MAX];
	struct readers *a = k->all;
	struct view all = buf_view(&k->answer);
	const char *end = memmem(all.p, all.n, "\r\n\r\n", 4);
	struct read r = { .begin_us = k->begin_us, .end_us = clock_us(), .uri = (uint16_t)k->uri, .host = (uint8_t)k->host };
	k->busy = false;
	if (!end) {
		complain(a, k, "not an answer");
		return;
	}
	struct view head = view_make(all.p, (size_t)(end - all.p) + 2), body = view_skip(all, (size_t)(end - all.p) + 4);
	struct view cached = header(head, "\r\nCache-Status: ");
	struct view status = header(head, "Status: ");
	r.status = status.n > 2 ? (uint16_t)strtoul(status.p, NULL, 10) : 0;
	r.how = (uint8_t)((says(cached, "; hit") ? HIT : says(cached, "; collapsed") ? COLLAPSED : FORWARDED) |
	                  (says(cached, "detail=blind") ? BLIND : says(cached, "detail=") ? STALE : 0));
	if (r.status == 200) {
		check_tag(a, k, head, body);
		r.n_rows = (uint16_t)take_rows(a, k, body, row);
	}
	a->reads++;
	a->of_how[r.how & 15]++;
	if (r.end_us - r.begin_us > a->longest_us)
		a->longest_us = r.end_us - r.begin_us;
	if (fwrite(&r, sizeof r, 1, a->out) != 1 || fwrite(row, sizeof *row, r.n_rows, a->out) != r.n_rows)
		abort();
}

/* --- requests --- */

static void put_record(struct buf *b, unsigned type, struct view content)
{
	const unsigned char front[8] = { 1, (unsigned char)type, 0, 1, (unsigned char)(content.n >> 8), (unsigned char)content.n };
	buf_put(b, front, sizeof front);
	buf_view_put(b, content);
}

static void put_pair(struct buf *b, struct view name, struct view value)
{
	for (int i = 0; i < 2; i++) {
		size_t n = i ? value.n : name.n;
		const unsigned char wide[4] = { (unsigned char)(n >> 24 | 0x80), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
						(unsigned char)n };
		buf_put(b, wide, sizeof wide);
	}
	buf_view_put(b, name);
	buf_view_put(b, value);
}

static void put_request(struct buf *b, const struct readers *a, const char *uri)
{
	static const char begin[8] = { 0, 1, 1 }; /* responder, keep the connection */
	struct buf params = BUF(65535);
	const char *question = strchr(uri, '?');
	put_pair(&params, VIEW("REQUEST_METHOD"), VIEW("GET"));
	put_pair(&params, VIEW("REQUEST_URI"), view_of(uri));
	put_pair(&params, VIEW("QUERY_STRING"), view_of(question ? question + 1 : ""));
	put_pair(&params, VIEW("REMOTE_ADDR"), VIEW("127.0.0.1"));
	if (a->authorization.n)
		put_pair(&params, VIEW("HTTP_AUTHORIZATION"), a->authorization);
	put_record(b, 1, view_make(begin, sizeof begin));
	put_record(b, 4, buf_view(&params));
	put_record(b, 4, VIEW(""));
	put_record(b, 5, VIEW(""));
	buf_free(&params);
}

static void link_close(struct link *k)
{
	if (k->fd < 0)
		return;
	loop_io_stop(k->all->loop, &k->io);
	close(k->fd);
	k->fd = -1;
}

static void link_broken(struct link *k)
{
	struct readers *a = k->all;
	link_close(k);
	a->broken += k->busy;
	if (k->busy && clock_us() - k->begin_us > a->longest_us)
		a->longest_us = clock_us() - k->begin_us;
	k->busy = false;
	loop_timer_set(a->loop, &k->again, clock_us() + AGAIN_US);
}

static bool link_connect(struct link *k)
{
	struct sockaddr_un path = { .sun_family = AF_UNIX };
	(void)snprintf(path.sun_path, sizeof path.sun_path, "%s", k->all->host[k->host]);
	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	k->used = 0;
	if (k->fd < 0)
		return false;
	if (connect(k->fd, (const struct sockaddr *)&path, sizeof path) < 0 || fcntl(k->fd, F_SETFL, O_NONBLOCK) < 0 ||
	    loop_io_start(k->all->loop, &k->io, k->fd, LOOP_READ, false) < 0) {
		close(k->fd);
		k->fd = -1;
		return false;
	}
	return true;
}

static void link_write(struct link *k)
{
	while (k->out_at < k->out.n) {
		ssize_t n = send(k->fd, k->out.p + k->out_at, k->out.n - k->out_at, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			link_broken(k);
			return;
		}
		k->out_at += (size_t)n;
	}
	(void)loop_io_change(k->all->loop, &k->io, LOOP_READ | (k->out_at < k->out.n ? LOOP_WRITE : 0u));
}

static void next_request(struct link *k)
{
	struct readers *a = k->all;
	if (clock_us() >= a->end_us || told_to_end)
		return;
	if (k->fd >= 0 && k->used >= a->reuse)
		link_close(k);
	if (k->fd < 0 && !link_connect(k)) {
		a->refused++;
		loop_timer_set(a->loop, &k->again, clock_us() + AGAIN_US);
		return;
	}
	a->random ^= a->random << 13;
	a->random ^= a->random >> 7;
	a->random ^= a->random << 17;
	k->uri = (unsigned)(a->random >> 33) % a->n_uris;
	k->used++;
	k->busy = true;
	k->late = false;
	k->out_at = 0;
	buf_clear(&k->out);
	buf_clear(&k->in);
	buf_clear(&k->answer);
	put_request(&k->out, a, a->uri[k->uri]);
	k->begin_us = clock_us();
	link_write(k);
}

static void on_again(struct timer *t)
{
	next_request(CONTAINER_OF(t, struct link, again));
}

/* True: the answer is whole. */
static bool take_records(struct link *k)
{
	size_t at = 0;
	bool whole = false;
	while (!whole && k->in.n - at >= 8) {
		const unsigned char *h = (const unsigned char *)k->in.p + at;
		size_t n = (size_t)h[4] << 8 | h[5], record = 8 + n + h[6];
		if (k->in.n - at < record)
			break;
		if (h[1] == 6)
			buf_put(&k->answer, h + 8, n);
		whole = h[1] == 3;
		at += record;
	}
	buf_consume(&k->in, at);
	return whole;
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
		link_broken(k);
		return;
	}
	buf_advance(&k->in, (size_t)n);
	if (k->busy && take_records(k)) {
		answered(k);
		next_request(k);
	}
}

/* --- the whole --- */

static struct link *links;
static unsigned n_links;

/* Each 20 ms: who is late, and whether it is over. */
static void on_round(struct timer *t)
{
	struct readers *a = CONTAINER_OF(t, struct readers, round);
	int64_t now = clock_us();
	unsigned busy = 0;
	for (unsigned i = 0; i < n_links; i++) {
		struct link *k = &links[i];
		if (k->busy && !k->late && now - k->begin_us > a->deadline_us) {
			k->late = true;
			a->hung++;
			(void)fprintf(stderr, "readers: no answer for %lld ms of %s\n", (long long)(now - k->begin_us) / 1000, a->uri[k->uri]);
		}
		busy += k->busy && !k->late;
	}
	if ((now >= a->end_us || told_to_end) && !busy)
		loop_stop(a->loop);
	else
		loop_timer_set(a->loop, t, now + 20000);
}

static _Noreturn void fail(const char *why)
{
	(void)fprintf(stderr, "readers: %s\n", why);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "host", 1, NULL, 'h' }, { "connections", 1, NULL, 'c' }, { "key", 1, NULL, 'k' },   { "seconds", 1, NULL, 's' },
		{ "out", 1, NULL, 'o' },  { "uri", 1, NULL, 'u' },         { "reuse", 1, NULL, 'r' }, { "deadline-ms", 1, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	static struct readers a = { .reuse = 64, .deadline_us = 2000000, .random = 0x2545f4914f6cdd1du };
	double seconds = 5;
	unsigned connections = 2;
	struct buf authorization = BUF(1024);
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (o) {
		case 'h':
			if (a.n_hosts == HOSTS_MAX)
				fail("too many hosts");
			a.host[a.n_hosts++] = optarg;
			break;
		case 'u':
			if (a.n_uris == URIS_MAX)
				fail("too many URIs");
			a.uri[a.n_uris++] = optarg;
			break;
		case 'c': connections = (unsigned)atoi(optarg); break;
		case 'k': buf_printf(&authorization, "Bearer %s", optarg); break;
		case 's': seconds = strtod(optarg, NULL); break;
		case 'r': a.reuse = (unsigned)atoi(optarg); break;
		case 'd': a.deadline_us = atoll(optarg) * 1000; break;
		case 'o': a.out = fopen(optarg, "we"); break;
		default: return 2;
		}
	}
	a.loop = loop_create();
	if (!a.n_hosts || !a.n_uris || !a.out || !a.loop)
		fail("--host SOCKET, --uri URI and --out FILE");
	(void)signal(SIGTERM, on_signal);
	a.authorization = buf_view(&authorization);
	n_links = a.n_hosts * connections;
	links = calloc(n_links, sizeof *links);
	if (!links)
		fail("out of memory");
	int64_t begin = clock_us();
	a.end_us = begin + (int64_t)(seconds * 1e6);
	a.round.fire = on_round;
	loop_timer_set(a.loop, &a.round, begin);
	for (unsigned i = 0; i < n_links; i++) {
		struct link *k = &links[i];
		*k = (struct link){ .all = &a, .fd = -1, .host = i % a.n_hosts, .io.ready = on_link, .again.fire = on_again };
		k->out = BUF(65536);
		k->in = k->answer = BUF(ANSWER_MAX);
		loop_timer_set(a.loop, &k->again, begin);
	}
	(void)loop_run(a.loop);
	if (fclose(a.out) != 0)
		fail("the file cannot be written");
	printf("{\"reads\":%llu,\"hits\":%llu,\"collapsed\":%llu,\"blind\":%llu,\"broken\":%llu,\"refused\":%llu,\"hung\":%llu,"
	       "\"torn\":%llu,\"longest_ms\":%.1f,\"seconds\":%.2f}\n",
	       (unsigned long long)a.reads, (unsigned long long)a.of_how[HIT], (unsigned long long)a.of_how[COLLAPSED],
	       (unsigned long long)(a.of_how[HIT | BLIND] + a.of_how[COLLAPSED | BLIND]), (unsigned long long)a.broken,
	       (unsigned long long)a.refused, (unsigned long long)a.hung, (unsigned long long)a.torn,
	       (double)a.longest_us / 1000, (double)(clock_us() - begin) / 1e6);
	return 0;
}
