#include "config.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "http/fastcgi.h"

/* clang-format off */
enum { BEGIN = 1, ABORT = 2, END = 3, PARAMS = 4, IN = 5, OUT = 6, DATA = 8, GET_VALUES = 9, RESULT = 10, UNKNOWN = 11 };
/* clang-format on */
enum { RESPONDER = 1, AUTHORIZER = 2, KEEP_CONN = 1 };

/* --- the web server's side --- */

static void record(struct buf *b, int type, int id, struct view content, int n_padding)
{
	const char header[8] = { 1, (char)type, (char)(id >> 8), (char)id, (char)(content.n >> 8), (char)content.n,
		(char)n_padding };
	buf_put(b, header, sizeof header);
	buf_view_put(b, content);
	for (int i = 0; i < n_padding; i++)
		buf_putc(b, '\xee');
}

static void begin(struct buf *b, int id, int role, int flags)
{
	const char body[8] = { (char)(role >> 8), (char)role, (char)flags };
	record(b, BEGIN, id, view_make(body, sizeof body), 0);
}

static void put_length(struct buf *b, size_t n)
{
	if (n < 128) {
		buf_putc(b, (char)n);
	} else {
		const char four[4] = { (char)(0x80 | n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n };
		buf_put(b, four, 4);
	}
}

static void pair(struct buf *b, struct view name, struct view value)
{
	put_length(b, name.n);
	put_length(b, value.n);
	buf_view_put(b, name);
	buf_view_put(b, value);
}

/* --- what the codec makes of it --- */

/* The events of a connection as text; neighbouring pieces of a stream are one, as their split says nothing. */
struct log {
	struct fastcgi codec;
	struct buf events; /* one letter an event, data in <> */
	struct buf reply;
	char last;
};

static void log_free(struct log *l)
{
	buf_free(&l->events);
	buf_free(&l->reply);
}

static struct log log_new(void)
{
	return (struct log){ .events = BUF(1 << 20), .reply = BUF(1 << 20) };
}

static void note(struct log *l, struct fastcgi_event e)
{
	static const char letter[] = { [FASTCGI_BEGIN] = 'B',
		[FASTCGI_PARAMS] = 'p',
		[FASTCGI_PARAMS_END] = 'P',
		[FASTCGI_STDIN] = 'i',
		[FASTCGI_STDIN_END] = 'I',
		[FASTCGI_ABORT] = 'A',
		[FASTCGI_REPLY] = 'R',
		[FASTCGI_BROKEN] = '!' };
	char c = letter[e.kind];
	bool data = e.kind == FASTCGI_PARAMS || e.kind == FASTCGI_STDIN;
	if (data)
		assert_true(e.data.n > 0);
	if (!data || c != l->last)
		buf_putc(&l->events, c);
	if (e.kind == FASTCGI_BEGIN)
		buf_putc(&l->events, e.keep_conn ? '+' : '-');
	buf_view_put(&l->events, e.data.p ? e.data : VIEW(""));
	l->last = c;
}

/* Feeds the bytes as they would come in pieces of these sizes; ends each request once its body is there. */
static void feed(struct log *l, struct view in, size_t (*next_piece)(void *), void *piece_state)
{
	struct buf held = BUF(1 << 20);
	while (in.n) {
		size_t n = next_piece(piece_state);
		n = n < in.n ? n : in.n;
		buf_put(&held, in.p, n);
		in = view_skip(in, n);
		for (;;) {
			/* A copy of the exact size, so that a sanitizer sees one byte too far. */
			char *exact = malloc(held.n + !held.n);
			memcpy(exact, held.p, held.n);
			size_t consumed = (size_t)-1;
			struct fastcgi_event e =
				fastcgi_decode(&l->codec, view_make(exact, held.n), &consumed, &l->reply);
			assert_true(consumed <= held.n);
			if (e.kind != FASTCGI_MORE)
				note(l, e);
			free(exact);
			buf_consume(&held, consumed);
			if (e.kind == FASTCGI_STDIN_END || e.kind == FASTCGI_ABORT)
				fastcgi_end(&l->codec, &l->reply);
			if (e.kind == FASTCGI_BROKEN)
				goto out;
			if (e.kind == FASTCGI_MORE)
				break;
		}
		assert_true(held.n < FASTCGI_WHOLE_BYTES); /* what the header promises */
	}
out:
	buf_free(&held);
}

static size_t whole(void *state)
{
	(void)state;
	return SIZE_MAX;
}

static size_t fixed(void *state)
{
	return *(size_t *)state;
}

static size_t drawn(void *state)
{
	return 1 + (size_t)(draw(state) % 40);
}

static void assert_events(struct buf *in, const char *expected)
{
	assert_false(buf_failed(in));
	struct log l = log_new();
	feed(&l, buf_view(in), whole, NULL);
	assert_same_view(buf_view(&l.events), view_of(expected));
	log_free(&l);
}

/* Two requests on a kept connection with all there is in between. */
static void conversation(struct buf *b)
{
	record(b, GET_VALUES, 0, VIEW("\x0f\0FCGI_MPXS_CONNS"), 3);
	begin(b, 1, RESPONDER, KEEP_CONN);
	record(b, PARAMS, 1, VIEW("\x04\x03NAMEval"), 1);
	record(b, PARAMS, 1, VIEW("\x01"), 0);
	record(b, PARAMS, 7, VIEW("of nobody"), 2);
	record(b, PARAMS, 1, VIEW("\x02xyz"), 7);
	record(b, PARAMS, 1, VIEW(""), 0);
	begin(b, 2, RESPONDER, 0);
	record(b, 99, 0, VIEW("unknown"), 5);
	record(b, IN, 1, VIEW("the body,"), 0);
	record(b, IN, 2, VIEW("of the refused one"), 0);
	record(b, DATA, 1, VIEW("of no meaning here"), 0);
	record(b, IN, 1, VIEW(" and more"), 255);
	record(b, IN, 1, VIEW(""), 8);
	record(b, IN, 1, VIEW(""), 0); /* late, of an ended request */
	begin(b, 258, AUTHORIZER, KEEP_CONN);
	begin(b, 259, RESPONDER, 0);
	record(b, PARAMS, 259, VIEW(""), 0);
	record(b, IN, 259, VIEW(""), 0);
}

static const char conversation_events[] = "RB+p\x04\x03NAMEval\x01\x02xyzPRRithe body, and moreIRB-PI";

static void a_request_comes_out_as_its_events(void **state)
{
	(void)state;
	struct buf b = BUF(10000);
	conversation(&b);
	assert_events(&b, conversation_events);
	buf_free(&b);
}

static void any_split_of_the_bytes_gives_the_same_events(void **state)
{
	(void)state;
	struct buf b = BUF(10000);
	conversation(&b);
	struct log all = log_new();
	feed(&all, buf_view(&b), whole, NULL);
	for (size_t n = 1; n < 200; n++) {
		struct log l = log_new();
		feed(&l, buf_view(&b), fixed, &n);
		assert_same_view(buf_view(&l.events), buf_view(&all.events));
		assert_same_view(buf_view(&l.reply), buf_view(&all.reply));
		log_free(&l);
	}
	for (uint64_t seed = 1; seed < 300; seed++) {
		struct log l = log_new();
		uint64_t s = seed * 0x9e3779b97f4a7c15;
		feed(&l, buf_view(&b), drawn, &s);
		assert_same_view(buf_view(&l.events), buf_view(&all.events));
		assert_same_view(buf_view(&l.reply), buf_view(&all.reply));
		log_free(&l);
	}
	log_free(&all);
	buf_free(&b);
}

static void a_cut_stream_gives_a_prefix_of_the_events(void **state)
{
	(void)state;
	struct buf b = BUF(10000);
	conversation(&b);
	for (size_t n = 0; n < b.n; n++) {
		struct log l = log_new();
		feed(&l, view_make(b.p, n), whole, NULL);
		assert_true(view_starts(view_of(conversation_events), buf_view(&l.events)));
		log_free(&l);
	}
	buf_free(&b);
}

static void assert_reply(struct buf *in, struct view expected)
{
	struct log l = log_new();
	feed(&l, buf_view(in), whole, NULL);
	assert_same_view(buf_view(&l.reply), expected);
	log_free(&l);
}

static void known_values_are_told_and_unknown_ones_left_out(void **state)
{
	(void)state;
	struct buf in = BUF(10000), values = BUF(1000), expected = BUF(1000);
	pair(&values, VIEW("FCGI_MAX_CONNS"), VIEW(""));
	pair(&values, VIEW("FCGI_NOTHING"), VIEW(""));
	pair(&values, VIEW("FCGI_MAX_REQS"), VIEW("ignored"));
	pair(&values, VIEW("FCGI_MPXS_CONNS"), VIEW(""));
	record(&in, GET_VALUES, 0, buf_view(&values), 0);
	buf_clear(&values);
	pair(&values, VIEW("FCGI_MAX_CONNS"), VIEW("1024"));
	pair(&values, VIEW("FCGI_MAX_REQS"), VIEW("1024"));
	pair(&values, VIEW("FCGI_MPXS_CONNS"), VIEW("0"));
	record(&expected, RESULT, 0, buf_view(&values), 0);
	assert_reply(&in, buf_view(&expected));
	buf_free(&in);
	buf_free(&values);
	buf_free(&expected);
}

static void unknown_management_types_are_named_back(void **state)
{
	(void)state;
	struct buf in = BUF(10000), expected = BUF(1000);
	record(&in, 200, 0, VIEW("what is this"), 4);
	record(&expected, UNKNOWN, 0, VIEW("\xc8\0\0\0\0\0\0\0"), 0);
	assert_reply(&in, buf_view(&expected));
	buf_free(&in);
	buf_free(&expected);
}

static void a_second_request_and_other_roles_are_refused(void **state)
{
	(void)state;
	struct buf in = BUF(10000), expected = BUF(1000);
	begin(&in, 3, 3, 0);
	begin(&in, 4, RESPONDER, 0);
	begin(&in, 5, RESPONDER, 0);
	record(&expected, END, 3, VIEW("\0\0\0\0\3\0\0\0"), 0);
	record(&expected, END, 5, VIEW("\0\0\0\0\1\0\0\0"), 0);
	assert_reply(&in, buf_view(&expected));
	assert_events(&in, "RB-R");
	buf_free(&in);
	buf_free(&expected);
}

static void an_aborted_request_is_told_once_and_the_next_one_served(void **state)
{
	(void)state;
	struct buf b = BUF(10000);
	begin(&b, 1, RESPONDER, KEEP_CONN);
	record(&b, PARAMS, 1, VIEW("abc"), 0);
	record(&b, ABORT, 2, VIEW(""), 0); /* of nobody */
	record(&b, ABORT, 1, VIEW(""), 0);
	record(&b, PARAMS, 1, VIEW("late"), 0);
	record(&b, IN, 1, VIEW("late"), 0);
	begin(&b, 1, RESPONDER, 0);
	record(&b, PARAMS, 1, VIEW(""), 0);
	assert_events(&b, "B+pabcAB-P");
	buf_free(&b);
}

static void what_is_not_fastcgi_is_broken(void **state)
{
	(void)state;
	struct buf b = BUF(100000);
	buf_lit(&b, "GET / HTTP/1.1\r\n");
	assert_events(&b, "!");
	buf_clear(&b);
	record(&b, BEGIN, 1, VIEW("\0\1\0\0\0\0\0"), 0); /* a byte short */
	assert_events(&b, "!");
	buf_clear(&b);
	begin(&b, 1, RESPONDER, 0);
	begin(&b, 1, RESPONDER, 0);
	assert_events(&b, "B-!");
	buf_clear(&b);
	begin(&b, 1, RESPONDER, 0);
	record(&b, IN, 1, VIEW("before the parameters end"), 0);
	assert_events(&b, "B-!");
	buf_clear(&b);
	begin(&b, 1, RESPONDER, 0);
	record(&b, PARAMS, 1, VIEW(""), 0);
	record(&b, PARAMS, 1, VIEW("after their end"), 0);
	assert_events(&b, "B-P!");
	buf_clear(&b);
	record(&b, GET_VALUES, 0, VIEW("\x7f\x7fshort"), 0);
	assert_events(&b, "!");
	buf_clear(&b);
	char large[2000] = { 0 };
	record(&b, GET_VALUES, 0, view_make(large, sizeof large), 0);
	assert_events(&b, "!");
	buf_free(&b);
}

static void pairs_are_taken_off_one_by_one(void **state)
{
	(void)state;
	struct buf b = BUF(100000);
	char large[70000];
	memset(large, 'v', sizeof large);
	pair(&b, VIEW("SHORT"), VIEW("1"));
	pair(&b, VIEW(""), VIEW(""));
	pair(&b, view_make(large, 127), view_make(large, 128));
	pair(&b, VIEW("LARGE"), view_make(large, sizeof large));
	struct view rest = buf_view(&b), name, value;
	bool broken = false;
	assert_true(fastcgi_pair(&rest, &name, &value, &broken));
	assert_view(name, "SHORT");
	assert_view(value, "1");
	assert_true(fastcgi_pair(&rest, &name, &value, &broken));
	assert_view(name, "");
	assert_view(value, "");
	assert_true(fastcgi_pair(&rest, &name, &value, &broken));
	assert_int_equal(name.n, 127);
	assert_int_equal(value.n, 128);
	assert_true(fastcgi_pair(&rest, &name, &value, &broken));
	assert_int_equal(value.n, 70000);
	assert_false(fastcgi_pair(&rest, &name, &value, &broken));
	assert_false(broken);
	buf_free(&b);
}

static void a_pair_longer_than_what_is_there_is_broken(void **state)
{
	(void)state;
	/* clang-format off */
	static const struct view bad[] = { VIEW_INIT("\x01"), VIEW_INIT("\x80"), VIEW_INIT("\x80\0\0"), VIEW_INIT("\x01\x80\0"),
		VIEW_INIT("\x02\x01""ab"), VIEW_INIT("\x01\x02""ab"), VIEW_INIT("\xff\xff\xff\xff\xff\xff\xff\xff""ab"),
		VIEW_INIT("\x01\xff\xff\xff\xff""a") };
	/* clang-format on */
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct view rest = bad[i], name, value;
		bool broken = false;
		assert_false(fastcgi_pair(&rest, &name, &value, &broken));
		assert_true(broken);
		assert_same_view(rest, bad[i]);
	}
}

static void an_answer_is_records_of_any_length_and_an_end(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 7, 8, 65527, 65528, 65529, 65535, 65536, 131056, 131057, 300000 };
	char *body = malloc(300000);
	memset(body, 'b', 300000);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct fastcgi f = { .id = 513, .keep_conn = true, .params_done = true, .stdin_done = true };
		struct buf out = BUF(1 << 20);
		fastcgi_stdout(&f, &out, view_make(body, sizes[i]));
		fastcgi_end(&f, &out);
		size_t total = 0;
		const unsigned char *p = (const unsigned char *)out.p, *end = p + out.n;
		while (p[1] == OUT) {
			size_t n = (size_t)p[4] << 8 | p[5];
			assert_memory_equal(p, "\1\6\2\1", 4);
			assert_int_equal(p[6], 0);
			total += n;
			p += 8 + n;
			if (n == 0)
				break;
		}
		assert_int_equal(total, sizes[i]);
		assert_int_equal(end - p, 16);
		assert_memory_equal(p, "\1\3\2\1\0\x08\0\0\0\0\0\0\0\0\0\0", 16);
		assert_int_equal(f.id, 0);
		buf_free(&out);
	}
	free(body);
}

static void a_request_that_ends_early_leaves_the_rest_of_its_body_unheard(void **state)
{
	(void)state;
	struct buf in = BUF(10000), reply = BUF(1000);
	begin(&in, 1, RESPONDER, KEEP_CONN);
	record(&in, PARAMS, 1, VIEW(""), 0);
	record(&in, IN, 1, VIEW("0123456789"), 6);
	record(&in, IN, 1, VIEW("more"), 0);
	record(&in, IN, 1, VIEW(""), 0);
	begin(&in, 1, RESPONDER, 0);
	struct fastcgi f = { 0 };
	struct view rest = view_make(in.p, 16 + 8 + 8 + 4); /* four bytes into the body */
	size_t consumed;
	static const enum fastcgi_event_kind expected[] = { FASTCGI_BEGIN, FASTCGI_PARAMS_END, FASTCGI_STDIN,
		FASTCGI_MORE };
	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		assert_int_equal(fastcgi_decode(&f, rest, &consumed, &reply).kind, expected[i]);
		rest = view_skip(rest, consumed);
	}
	assert_int_equal(rest.n, 0);
	fastcgi_end(&f, &reply);
	rest = view_make(in.p + 36, in.n - 36);
	assert_int_equal(fastcgi_decode(&f, rest, &consumed, &reply).kind, FASTCGI_BEGIN);
	assert_int_equal(consumed, rest.n);
	buf_free(&in);
	buf_free(&reply);
}

/* --- the listening socket --- */

static char folder[] = "/tmp/test_fastcgi.XXXXXX";
static char path[sizeof folder + 10];

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/socket", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder);
}

static int connect_to(const char *to)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	memcpy(at.sun_path, to, strlen(to));
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int rc = connect(fd, (struct sockaddr *)&at, sizeof at);
	close(fd);
	return rc;
}

static void a_path_is_for_owner_and_group_alone(void **state)
{
	(void)state;
	mode_t before = umask(022);
	int fd = fastcgi_listen(path, 16);
	assert_true(fd >= 0);
	assert_int_equal(umask(before), 022);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(connect_to(path), 0);
	close(fd);
	unlink(path);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	(void)state;
	int fd = fastcgi_listen(path, 16);
	assert_true(fd >= 0);
	assert_int_equal(fastcgi_listen(path, 16), -1);
	assert_int_equal(errno, EADDRINUSE);
	assert_int_equal(connect_to(path), 0);
	close(fd);
	assert_int_equal(connect_to(path), -1);
	fd = fastcgi_listen(path, 16);
	assert_true(fd >= 0);
	assert_int_equal(connect_to(path), 0);
	close(fd);
	unlink(path);
}

static void a_file_that_is_no_socket_stays(void **state)
{
	(void)state;
	int file = open(path, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(write(file, "precious", 8), 8);
	close(file);
	assert_int_equal(fastcgi_listen(path, 16), -1);
	assert_int_equal(errno, EEXIST);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 8);
	unlink(path);
	assert_int_equal(symlink("/nonexistent", path), 0);
	assert_int_equal(fastcgi_listen(path, 16), -1);
	assert_int_equal(errno, EEXIST);
	unlink(path);
}

static void addresses_that_cannot_be_are_refused_with_a_reason(void **state)
{
	(void)state;
	static const struct {
		const char *address;
		int error;
	} bad[] = {
		{ "/nonexistent/socket", ENOENT },
		{ "", EINVAL },
		{ ":", EINVAL },
		{ ":0", EINVAL },
		{ ":65536", EINVAL },
		{ ":80000", EINVAL },
		{ ":80x", EINVAL },
		{ ":-1", EINVAL },
		{ "[::1]", EINVAL },
		{ ":000000001", EINVAL },
		{ "192.0.2.1:9", EADDRNOTAVAIL },
		{ "not an address:9", EADDRNOTAVAIL },
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		errno = 0;
		assert_int_equal(fastcgi_listen(bad[i].address, 16), -1);
		if (errno != bad[i].error)
			fail_msg("%s: %s", bad[i].address, strerror(errno));
	}
	char longest[200];
	memset(longest, 'x', sizeof longest);
	longest[0] = '/';
	longest[199] = '\0';
	assert_int_equal(fastcgi_listen(longest, 16), -1);
	assert_int_equal(errno, ENAMETOOLONG);
}

static void a_port_is_opened_on_this_host_and_a_used_one_refused(void **state)
{
	(void)state;
	int fd = -1;
	char address[32];
	for (int port = 20000 + getpid() % 20000; fd < 0 && port < 65536; port++) {
		snprintf(address, sizeof address, ":%d", port);
		fd = fastcgi_listen(address, 16);
	}
	assert_true(fd >= 0);
	struct sockaddr_storage at;
	socklen_t n = sizeof at;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
	assert_int_equal(at.ss_family, AF_INET);
	assert_memory_equal((char *)&at + 4, "\x7f\0\0\1", 4);
	assert_int_equal(fastcgi_listen(address, 16), -1);
	assert_int_equal(errno, EADDRINUSE);
	close(fd);
}

static void this_program_is_not_fastcgi(void **state)
{
	(void)state;
	assert_false(fastcgi_is_listening());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_comes_out_as_its_events),
		cmocka_unit_test(any_split_of_the_bytes_gives_the_same_events),
		cmocka_unit_test(a_cut_stream_gives_a_prefix_of_the_events),
		cmocka_unit_test(known_values_are_told_and_unknown_ones_left_out),
		cmocka_unit_test(unknown_management_types_are_named_back),
		cmocka_unit_test(a_second_request_and_other_roles_are_refused),
		cmocka_unit_test(an_aborted_request_is_told_once_and_the_next_one_served),
		cmocka_unit_test(what_is_not_fastcgi_is_broken),
		cmocka_unit_test(pairs_are_taken_off_one_by_one),
		cmocka_unit_test(a_pair_longer_than_what_is_there_is_broken),
		cmocka_unit_test(an_answer_is_records_of_any_length_and_an_end),
		cmocka_unit_test(a_request_that_ends_early_leaves_the_rest_of_its_body_unheard),
		cmocka_unit_test(a_path_is_for_owner_and_group_alone),
		cmocka_unit_test(a_stale_socket_is_replaced_and_a_live_one_is_not),
		cmocka_unit_test(a_file_that_is_no_socket_stays),
		cmocka_unit_test(addresses_that_cannot_be_are_refused_with_a_reason),
		cmocka_unit_test(a_port_is_opened_on_this_host_and_a_used_one_refused),
		cmocka_unit_test(this_program_is_not_fastcgi),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
