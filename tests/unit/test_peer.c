/* A peer over a socketpair: the test is the web server, and the owner of the requests. */
#include "config.h"

#include "unit.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/peer.h"

enum { BEGIN = 1, ABORT = 2, END = 3, PARAMS = 4, STDIN = 5, STDOUT = 6, GET_VALUES = 9, UNKNOWN_TYPE = 11 };
enum { KEEP = 1, FAILS_AFTER_US = 20000000 };

static const int64_t FOREVER_US = INT64_C(3600000000);

struct bench {
	struct loop *loop;
	struct peer *peer; /* NULL once closed */
	struct peer_owner owner;
	struct peer_options options;
	int fd; /* the web server's end */
	struct response response;
	bool answer_at_once, answer_at_body_end, close_at_once;

	/* what the owner was told */
	struct buf params, body;
	bool params_absent;
	unsigned requests, bodies_ended, aborted, sent, closed;

	/* what the web server got */
	struct buf got, out; /* bytes; STDOUT of the requests */
	unsigned ends, behind, eof; /* END_REQUESTs, records behind the first */
	int last_end; /* protocol status */

	struct task look;
	struct timer fail;
	bool (*until)(struct bench *);
};

/* --- the owner --- */

static void on_request(void *context, struct peer *p, struct view params)
{
	struct bench *b = context;
	b->requests++;
	buf_clear(&b->params);
	b->params_absent = !params.p;
	buf_view_put(&b->params, params);
	if (b->close_at_once)
		peer_close(p);
	else if (b->answer_at_once)
		peer_answer(p, &b->response);
}

static void on_body(void *context, struct peer *p, struct view piece)
{
	(void)p;
	buf_view_put(&((struct bench *)context)->body, piece);
}

static void on_body_end(void *context, struct peer *p)
{
	struct bench *b = context;
	b->bodies_ended++;
	if (b->answer_at_body_end)
		peer_answer(p, &b->response);
}

static void on_aborted(void *context, struct peer *p)
{
	(void)p;
	((struct bench *)context)->aborted++;
}

static void on_sent(void *context, struct peer *p)
{
	(void)p;
	((struct bench *)context)->sent++;
}

static void on_closed(void *context, struct peer *p)
{
	struct bench *b = context;
	assert_ptr_equal(p, b->peer);
	b->closed++;
	b->peer = NULL;
}

/* --- the loop runs until something is true --- */

static void on_look(struct task *t)
{
	struct bench *b = CONTAINER_OF(t, struct bench, look);
	if (b->until(b))
		loop_stop(b->loop);
	else
		loop_defer(b->loop, t);
}

static void on_fail(struct timer *t)
{
	(void)t;
	fail_msg("what the test waits for does not come");
}

static void run_until(struct bench *b, bool (*until)(struct bench *))
{
	b->until = until;
	loop_defer(b->loop, &b->look);
	loop_timer_set(b->loop, &b->fail, clock_us() + FAILS_AFTER_US);
	assert_int_equal(loop_run(b->loop), 0);
	loop_timer_stop(b->loop, &b->fail);
}

static int set_up(void **state)
{
	struct bench *b = calloc(1, sizeof *b);
	int pair[2];
	b->loop = loop_create();
	b->owner = (struct peer_owner){ on_request, on_body, on_body_end, on_aborted, on_sent, on_closed, b };
	b->options = (struct peer_options){ .params_max_bytes = 65536, .idle_us = FOREVER_US, .slowest_bytes_s = 1000000 };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	b->fd = pair[1];
	b->peer = peer_create(b->loop, pair[0], &b->owner, &b->options);
	assert_non_null(b->peer);
	peer_set_user(b->peer, b);
	assert_ptr_equal(peer_user(b->peer), b);
	b->params = b->body = b->got = b->out = BUF((size_t)64 << 20);
	response_init(&b->response, (size_t)64 << 20);
	b->response.http = 200;
	buf_lit(&b->response.body, "hello");
	b->look.run = on_look;
	b->fail.fire = on_fail;
	*state = b;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *b = *state;
	if (b->peer)
		peer_close(b->peer);
	if (b->fd >= 0)
		close(b->fd);
	loop_destroy(b->loop);
	response_free(&b->response);
	buf_free(&b->params);
	buf_free(&b->body);
	buf_free(&b->got);
	buf_free(&b->out);
	free(b);
	return 0;
}

/* --- the web server --- */

static void put_record(struct buf *b, int type, int id, struct view content, int padding)
{
	const unsigned char head[8] = { 1, (unsigned char)type, (unsigned char)(id >> 8), (unsigned char)id,
					(unsigned char)(content.n >> 8), (unsigned char)content.n, (unsigned char)padding };
	buf_put(b, head, sizeof head);
	buf_view_put(b, content);
	for (int i = 0; i < padding; i++)
		buf_putc(b, 'x');
}

static void put_begin(struct buf *b, int id, int flags)
{
	const char body[8] = { 0, 1, (char)flags };
	put_record(b, BEGIN, id, view_make(body, sizeof body), 0);
}

/* "a" is "b", and a body of two records; the last record is left out where the body is not to end. */
static void put_request(struct buf *b, int id, int flags, bool whole)
{
	put_begin(b, id, flags);
	put_record(b, PARAMS, id, VIEW("\1\1ab"), 4);
	put_record(b, PARAMS, id, VIEW(""), 0);
	put_record(b, STDIN, id, VIEW("some"), 3);
	put_record(b, STDIN, id, VIEW("thing"), 0);
	if (whole)
		put_record(b, STDIN, id, VIEW(""), 0);
}

static void send_all(struct bench *b, struct view v)
{
	while (v.n) {
		ssize_t n = send(b->fd, v.p, v.n, MSG_NOSIGNAL);
		assert_true(n > 0);
		v = view_skip(v, (size_t)n);
	}
}

static void send_buf(struct bench *b, struct buf *bytes)
{
	send_all(b, buf_view(bytes));
	buf_free(bytes);
}

static void send_request(struct bench *b, int flags, bool whole)
{
	struct buf bytes = BUF(4096);
	put_request(&bytes, 1, flags, whole);
	send_buf(b, &bytes);
}

static void send_record(struct bench *b, int type, int id, struct view content)
{
	struct buf bytes = BUF(70000);
	put_record(&bytes, type, id, content, 0);
	send_buf(b, &bytes);
}

/* Takes what is there, at most n bytes of it, and the whole records in it. */
static void receive(struct bench *b, size_t n)
{
	char *room = buf_reserve(&b->got, n);
	ssize_t got = recv(b->fd, room, n, MSG_DONTWAIT);
	if (got == 0 || (got < 0 && errno == ECONNRESET))
		b->eof = 1;
	if (got <= 0)
		return;
	buf_advance(&b->got, (size_t)got);
	size_t at = 0;
	while (b->got.n - at >= 8) {
		const unsigned char *h = (const unsigned char *)b->got.p + at;
		size_t content = (size_t)h[4] << 8 | h[5];
		if (b->got.n - at < 8 + content + h[6])
			break;
		b->behind += b->ends > 0;
		if (h[1] == STDOUT)
			buf_put(&b->out, h + 8, content);
		if (h[1] == END) {
			b->ends++;
			b->last_end = h[8 + 4];
		}
		if (h[1] == END || h[1] == STDOUT)
			at += 8 + content + h[6];
		else
			break; /* left for the test to look at */
	}
	buf_consume(&b->got, at);
}

static bool has_request(struct bench *b)
{
	return b->requests > 0;
}

static bool has_body(struct bench *b)
{
	return b->bodies_ended > 0;
}

static bool is_closed(struct bench *b)
{
	return b->closed > 0;
}

static bool has_end(struct bench *b)
{
	receive(b, 65536);
	return b->ends > 0;
}

static bool has_two_ends(struct bench *b)
{
	receive(b, 65536);
	return b->ends > 1;
}

static bool has_answer(struct bench *b)
{
	receive(b, 65536);
	return b->out.n >= 5 && memcmp(b->out.p + b->out.n - 5, "hello", 5) == 0;
}

static bool has_other_record(struct bench *b)
{
	receive(b, 65536);
	return b->got.n >= 16;
}

static bool is_end_of_stream(struct bench *b)
{
	receive(b, 65536);
	return b->eof;
}

#define ANSWER "Status: 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* --- one request --- */

/* So many bytes a wake-up: the peer has read them before the next ones are there. */
static struct {
	struct buf bytes;
	size_t at, piece;
} drip;

static bool drip_until_end(struct bench *b)
{
	receive(b, 65536);
	size_t left = drip.bytes.n - drip.at, n = left < drip.piece ? left : drip.piece;
	send_all(b, view_make(drip.bytes.p + drip.at, n));
	drip.at += n;
	return b->ends > 0;
}

static void request_comes_whole_however_its_bytes_are_split(void **state)
{
	struct bench *b = *state;
	drip.bytes = BUF(4096);
	put_request(&drip.bytes, 1, KEEP, true);
	b->answer_at_body_end = true;
	for (drip.piece = 1; drip.piece <= drip.bytes.n; drip.piece++) {
		b->ends = 0;
		drip.at = 0;
		buf_clear(&b->body);
		buf_clear(&b->out);
		run_until(b, drip_until_end);
		assert_int_equal(drip.at, drip.bytes.n);
		assert_int_equal(b->requests, drip.piece);
		assert_int_equal(b->bodies_ended, drip.piece);
		assert_view(buf_view(&b->params), "\1\1ab");
		assert_view(buf_view(&b->body), "something");
		assert_view(buf_view(&b->out), ANSWER);
	}
	assert_int_equal(b->sent, drip.bytes.n);
	assert_int_equal(b->aborted, 0);
	buf_free(&drip.bytes);
}

static void kept_connection_takes_the_next_request(void **state)
{
	struct bench *b = *state;
	b->answer_at_once = true;
	for (unsigned i = 1; i <= 100; i++) {
		b->ends = 0;
		send_request(b, KEEP, true);
		run_until(b, has_end);
		assert_int_equal(b->requests, i);
		assert_int_equal(b->sent, i);
	}
	assert_int_equal(b->closed, 0);
}

static void connection_that_is_not_kept_ends_behind_the_answer(void **state)
{
	struct bench *b = *state;
	b->answer_at_once = true;
	send_request(b, 0, true);
	run_until(b, is_end_of_stream);
	assert_int_equal(b->closed, 1);
	assert_int_equal(b->ends, 1);
	assert_view(buf_view(&b->out), ANSWER);
}

static void parameters_that_do_not_fit_are_absent(void **state)
{
	struct bench *b = *state;
	struct buf bytes = BUF(200000);
	char much[40000] = { 0 };
	put_begin(&bytes, 1, KEEP);
	put_record(&bytes, PARAMS, 1, view_make(much, sizeof much), 0);
	put_record(&bytes, PARAMS, 1, view_make(much, sizeof much), 0);
	put_record(&bytes, PARAMS, 1, VIEW(""), 0);
	put_record(&bytes, STDIN, 1, VIEW(""), 0);
	send_buf(b, &bytes);
	run_until(b, has_request);
	assert_true(b->params_absent);
	peer_answer(b->peer, &b->response);
	run_until(b, has_end);
	b->ends = 0;
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_end);
	assert_false(b->params_absent);
	assert_view(buf_view(&b->params), "\1\1ab");
}

/* --- answers and bodies --- */

static void end_waits_for_the_end_of_the_body(void **state)
{
	struct bench *b = *state;
	b->answer_at_once = true;
	send_request(b, KEEP, false);
	run_until(b, has_answer);
	assert_int_equal(b->ends, 0);
	assert_int_equal(b->sent, 0);
	send_record(b, STDIN, 1, VIEW(" more"));
	send_record(b, STDIN, 1, VIEW(""));
	run_until(b, has_end);
	assert_int_equal(b->sent, 1);
	assert_int_equal(b->body.n, 0); /* nobody was to have it */
}

static void body_that_timed_out_is_not_waited_for(void **state)
{
	struct bench *b = *state;
	send_request(b, KEEP, false);
	run_until(b, has_request);
	b->response.http = 408;
	peer_answer(b->peer, &b->response);
	run_until(b, has_end);
	assert_int_equal(b->sent, 1);
	/* What still comes of it is nothing, and the connection is good for the next. */
	send_record(b, STDIN, 1, VIEW(" more"));
	b->ends = 0;
	b->response.http = 200;
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_end);
	assert_int_equal(b->requests, 2);
	assert_int_equal(b->closed, 0);
}

static void end_of_a_body_that_does_not_come_is_given_up(void **state)
{
	struct bench *b = *state;
	b->options.idle_us = 30000;
	b->answer_at_once = true;
	send_request(b, KEEP, false);
	run_until(b, has_end);
	assert_view(buf_view(&b->out), ANSWER);
	run_until(b, is_closed);
	assert_int_equal(b->sent, 1);
	assert_int_equal(b->aborted, 0);
}

static bool trickle_body(struct bench *b)
{
	if (b->closed)
		return true;
	char bytes[9] = { 1, STDIN, 0, 1, 0, 1, 0, 0, 'x' };
	(void)send(b->fd, bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	return false;
}

static void body_that_trickles_for_ever_holds_an_answered_connection_for_a_bounded_time(void **state)
{
	struct bench *b = *state;
	b->options.idle_us = 50000;
	b->answer_at_once = true;
	send_request(b, KEEP, false);
	run_until(b, has_answer);
	run_until(b, trickle_body);
	assert_int_equal(b->sent, 1);
	receive(b, 65536);
	assert_int_equal(b->ends, 1);
}

static bool trickle_params(struct bench *b)
{
	if (b->closed)
		return true;
	char bytes[9] = { 1, PARAMS, 0, 1, 0, 1, 0, 0, 'x' };
	(void)send(b->fd, bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	return false;
}

static void parameters_that_trickle_end_the_connection(void **state)
{
	struct bench *b = *state;
	struct buf bytes = BUF(64);
	b->options.idle_us = 50000;
	b->options.params_max_bytes = 0;
	put_begin(&bytes, 1, KEEP);
	send_buf(b, &bytes);
	run_until(b, trickle_params);
	assert_int_equal(b->requests, 0);
	assert_int_equal(b->aborted, 0);
}

static int64_t later_us;

static bool is_later(struct bench *b)
{
	(void)b;
	return clock_us() > later_us;
}

static void silent_connection_is_closed_but_not_while_its_request_runs(void **state)
{
	struct bench *b = *state;
	b->options.idle_us = 20000;
	send_request(b, KEEP, true);
	run_until(b, has_body);
	later_us = clock_us() + 3 * b->options.idle_us;
	run_until(b, is_later);
	assert_int_equal(b->closed, 0);
	peer_answer(b->peer, &b->response);
	run_until(b, has_end);
	run_until(b, is_closed);
	assert_int_equal(b->aborted, 0);
}

/* --- large answers --- */

static void fill_body(struct bench *b, size_t n)
{
	buf_clear(&b->response.body);
	for (size_t i = 0; i < n; i++)
		buf_putc(&b->response.body, (char)('a' + i % 23));
}

static void check_body(struct bench *b, size_t n)
{
	const char *body = memmem(b->out.p, b->out.n, "\r\n\r\n", 4);
	assert_non_null(body);
	struct view rest = view_make(body + 4, b->out.n - (size_t)(body + 4 - b->out.p));
	assert_int_equal(rest.n, n);
	assert_memory_equal(rest.p, b->response.body.p, n);
}

static void large_answer_arrives_whole(void **state)
{
	struct bench *b = *state;
	fill_body(b, 4 << 20);
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_end);
	check_body(b, 4 << 20);
}

static bool sip(struct bench *b)
{
	receive(b, 1000);
	return b->ends > 0 || b->closed;
}

static void large_answer_arrives_whole_in_sips(void **state)
{
	struct bench *b = *state;
	fill_body(b, 1 << 20);
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, sip);
	assert_int_equal(b->ends, 1);
	check_body(b, 1 << 20);
}

static void reader_that_stops_is_given_up(void **state)
{
	struct bench *b = *state;
	b->options.idle_us = 30000;
	fill_body(b, 4 << 20);
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_request);
	run_until(b, is_closed);
	assert_int_equal(b->aborted, 1);
	assert_int_equal(b->sent, 0);
}

static int64_t next_sip_us;

/* 8 KB each 5 ms: something moves all the time, too slowly. */
static bool sip_slowly(struct bench *b)
{
	if (clock_us() >= next_sip_us) {
		next_sip_us = clock_us() + 5000;
		receive(b, 8192);
	}
	return b->closed || b->ends;
}

static void reader_below_the_slowest_rate_is_given_up(void **state)
{
	struct bench *b = *state;
	b->options.idle_us = 100000;
	b->options.slowest_bytes_s = 100000000;
	next_sip_us = 0;
	fill_body(b, 8 << 20);
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, sip_slowly);
	assert_int_equal(b->aborted, 1);
	assert_int_equal(b->ends, 0);
}

/* --- the web server changes its mind --- */

static void aborted_request_ends_and_the_connection_goes_on(void **state)
{
	struct bench *b = *state;
	send_request(b, KEEP, false);
	run_until(b, has_request);
	send_record(b, ABORT, 1, VIEW(""));
	run_until(b, has_end);
	assert_int_equal(b->aborted, 1);
	assert_int_equal(b->out.n, 0);
	b->ends = 0;
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_end);
	assert_view(buf_view(&b->out), ANSWER);
	assert_int_equal(b->aborted, 1);
	assert_int_equal(b->sent, 1);
}

static void abort_before_the_request_is_there_is_no_request(void **state)
{
	struct bench *b = *state;
	struct buf bytes = BUF(64);
	put_begin(&bytes, 1, KEEP);
	put_record(&bytes, ABORT, 1, VIEW(""), 0);
	send_buf(b, &bytes);
	run_until(b, has_end);
	assert_int_equal(b->aborted, 0);
	assert_int_equal(b->requests, 0);
}

static void abort_in_the_midst_of_an_answer_keeps_the_records_whole(void **state)
{
	struct bench *b = *state;
	fill_body(b, 4 << 20);
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_request);
	send_record(b, ABORT, 1, VIEW(""));
	run_until(b, has_end);
	assert_int_equal(b->aborted, 1);
	assert_int_equal(b->sent, 0);
	assert_true(b->out.n < 4 << 20);
	b->ends = 0;
	fill_body(b, 5);
	send_request(b, KEEP, true);
	run_until(b, has_end);
	assert_int_equal(b->sent, 1);
}

static void connection_that_ends_aborts_its_request(void **state)
{
	struct bench *b = *state;
	send_request(b, KEEP, true);
	run_until(b, has_body);
	close(b->fd);
	b->fd = -1;
	run_until(b, is_closed);
	assert_int_equal(b->aborted, 1);
}

static void connection_that_ends_within_an_answer_aborts_it(void **state)
{
	struct bench *b = *state;
	fill_body(b, 4 << 20);
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_request);
	close(b->fd);
	b->fd = -1;
	run_until(b, is_closed);
	assert_int_equal(b->aborted, 1);
	assert_int_equal(b->sent, 0);
}

static void owner_may_close_from_within_a_request(void **state)
{
	struct bench *b = *state;
	b->close_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, is_closed);
	assert_int_equal(b->aborted, 1);
	assert_int_equal(b->bodies_ended, 0);
}

static void what_is_not_fastcgi_closes_the_connection(void **state)
{
	struct bench *b = *state;
	send_all(b, VIEW("GET / HTTP/1.0\r\n\r\n"));
	run_until(b, is_end_of_stream);
	assert_int_equal(b->requests, 0);
	assert_int_equal(b->aborted, 0);
}

/* --- the rest of the protocol --- */

static void second_request_at_a_time_is_refused_and_the_first_goes_on(void **state)
{
	struct bench *b = *state;
	struct buf bytes = BUF(64);
	send_request(b, KEEP, true);
	run_until(b, has_body);
	put_begin(&bytes, 2, KEEP);
	send_buf(b, &bytes);
	run_until(b, has_end);
	assert_int_equal(b->last_end, 1); /* FCGI_CANT_MPX_CONN */
	peer_answer(b->peer, &b->response);
	run_until(b, has_two_ends);
	assert_int_equal(b->last_end, 0);
	assert_view(buf_view(&b->out), ANSWER);
}

static void values_are_told_and_unknown_types_refused(void **state)
{
	struct bench *b = *state;
	send_record(b, GET_VALUES, 0, VIEW("\17\0FCGI_MPXS_CONNS"));
	run_until(b, has_other_record);
	assert_memory_equal(b->got.p, "\1\12\0\0\0\22\0\0\17\1FCGI_MPXS_CONNS0", 26);
	buf_clear(&b->got);
	send_record(b, 77, 0, VIEW("whatever"));
	run_until(b, has_other_record);
	assert_memory_equal(b->got.p, "\1\13\0\0\0\10\0\0\115\0\0\0\0\0\0\0", 16);
}

static bool always(void *context)
{
	(void)context;
	return true;
}

static void last_answer_to_nginx_ends_with_the_trailer(void **state)
{
	struct bench *b = *state;
	b->options.trailer = true;
	b->options.last = always;
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, has_end);
	assert_int_equal(b->behind, 1);
}

static void last_answer_to_others_is_followed_by_the_end_of_the_connection(void **state)
{
	struct bench *b = *state;
	b->options.last = always;
	b->answer_at_once = true;
	send_request(b, KEEP, true);
	run_until(b, is_end_of_stream);
	assert_int_equal(b->closed, 1);
	assert_view(buf_view(&b->out), ANSWER);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(request_comes_whole_however_its_bytes_are_split),
		TEST(kept_connection_takes_the_next_request),
		TEST(connection_that_is_not_kept_ends_behind_the_answer),
		TEST(parameters_that_do_not_fit_are_absent),
		TEST(end_waits_for_the_end_of_the_body),
		TEST(body_that_timed_out_is_not_waited_for),
		TEST(end_of_a_body_that_does_not_come_is_given_up),
		TEST(body_that_trickles_for_ever_holds_an_answered_connection_for_a_bounded_time),
		TEST(parameters_that_trickle_end_the_connection),
		TEST(silent_connection_is_closed_but_not_while_its_request_runs),
		TEST(large_answer_arrives_whole),
		TEST(large_answer_arrives_whole_in_sips),
		TEST(reader_that_stops_is_given_up),
		TEST(reader_below_the_slowest_rate_is_given_up),
		TEST(aborted_request_ends_and_the_connection_goes_on),
		TEST(abort_before_the_request_is_there_is_no_request),
		TEST(abort_in_the_midst_of_an_answer_keeps_the_records_whole),
		TEST(connection_that_ends_aborts_its_request),
		TEST(connection_that_ends_within_an_answer_aborts_it),
		TEST(owner_may_close_from_within_a_request),
		TEST(what_is_not_fastcgi_closes_the_connection),
		TEST(second_request_at_a_time_is_refused_and_the_first_goes_on),
		TEST(values_are_told_and_unknown_types_refused),
		TEST(last_answer_to_nginx_ends_with_the_trailer),
		TEST(last_answer_to_others_is_followed_by_the_end_of_the_connection),
	};
	return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
