#include "config.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "telemetry/accesslog.h"

static char folder[] = "/tmp/composure-accesslog-XXXXXX";
static char path[64];
static struct loop *loop;

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/composure-accesslog-XXXXXX");
	loop = loop_create();
	if (!loop || !mkdtemp(folder))
		return -1;
	(void)snprintf(path, sizeof path, "%s/log", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	(void)unlink(path);
	loop_destroy(loop);
	return rmdir(folder);
}

/* What stands in the file, without the time that each line begins with. */
static struct view logged(struct arena *a)
{
	char text[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	ssize_t n = read(fd, text, sizeof text);
	close(fd);
	assert_true(n >= 0);
	struct buf out = BUF(sizeof text);
	struct view rest = view_make(text, (size_t)n), line;
	while (view_split(&rest, '\n', &line) && line.n) {
		struct json_limits limits = { .depth = 2, .values = 100 };
		struct view why = VIEW_NONE;
		const struct json *o = json_parse(a, line, &limits, &why);
		assert_non_null(o);
		assert_int_equal(json_member(o, VIEW("time_ms"))->kind, JSON_NUMBER);
		assert_true(view_starts(line, VIEW("{\"time_ms\":1")));
		struct view first;
		assert_true(view_split(&line, ',', &first));
		buf_view_put(&out, line);
		buf_putc(&out, '\n');
	}
	struct view v = arena_copy(a, buf_view(&out));
	buf_free(&out);
	return v;
}

static void a_request_is_one_line_of_json(void **state)
{
	struct arena *a = arena_create(1 << 20);
	(void)state;
	struct accesslog *l = accesslog_open(loop, path);
	assert_non_null(l);
	struct access all = {
		.request_id = VIEW("r"),
		.trace_id = VIEW("t"),
		.method = VIEW("GET"),
		.path = VIEW("/api/\"users\"\n"),
		.resource = VIEW("users"),
		.key_id = VIEW("k"),
		.remote_addr = VIEW("192.0.2.1"),
		.code = VIEW("not_found"),
		.status = 404,
		.body_bytes = 12345678901,
		.took_us = 17,
	};
	struct access least = { .status = 200, .took_us = -1 };
	accesslog_write(l, &all);
	accesslog_write(l, &least);
	accesslog_close(l);
	assert_view(logged(a),
		"\"request_id\":\"r\",\"trace_id\":\"t\",\"method\":\"GET\",\"path\":\"/api/"
		"\\\"users\\\"\\n\",\"resource\":\"users\","
		"\"key_id\":\"k\",\"remote_addr\":\"192.0.2.1\",\"status\":404,\"code\":\"not_found\",\"bytes\":"
		"12345678901,"
		"\"took_us\":17}\n\"status\":200,\"bytes\":0,\"took_us\":0}\n");
	arena_destroy(a);
}

/* A client may send any bytes: a reader of the log must find JSON in every line. */
static void what_is_not_utf8_is_left_out(void **state)
{
	struct arena *a = arena_create(1 << 20);
	(void)state;
	struct accesslog *l = accesslog_open(loop, path);
	assert_non_null(l);
	struct access bad = {
		.method = VIEW("G\xc9T"),
		.path = VIEW("/\xff"),
		.remote_addr = VIEW("\x80"),
		.status = 501,
	};
	accesslog_write(l, &bad);
	accesslog_close(l);
	assert_view(logged(a), "\"status\":501,\"bytes\":0,\"took_us\":0}\n");
	arena_destroy(a);
}

static void a_file_is_appended_to(void **state)
{
	struct arena *a = arena_create(1 << 20);
	(void)state;
	struct access one = { .status = 200 };
	for (int i = 0; i < 2; i++) {
		struct accesslog *l = accesslog_open(loop, path);
		assert_non_null(l);
		accesslog_write(l, &one);
		accesslog_close(l);
	}
	assert_view(
		logged(a), "\"status\":200,\"bytes\":0,\"took_us\":0}\n\"status\":200,\"bytes\":0,\"took_us\":0}\n");
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0137, 0);
	arena_destroy(a);
}

static void on_stop(struct task *t)
{
	(void)t;
	loop_stop(loop);
}

static void lines_go_out_at_the_end_of_a_wake_up(void **state)
{
	struct arena *a = arena_create(1 << 20);
	(void)state;
	struct accesslog *l = accesslog_open(loop, path);
	assert_non_null(l);
	struct access one = { .status = 200 };
	struct task stop = { .run = on_stop };
	accesslog_write(l, &one);
	assert_int_equal(logged(a).n, 0);
	loop_defer(loop, &stop);
	assert_int_equal(loop_run(loop), 0);
	assert_view(logged(a), "\"status\":200,\"bytes\":0,\"took_us\":0}\n");
	accesslog_close(l);
	arena_destroy(a);
}

/* Nobody reads the pipe: without the lines that do not fit, and without waiting. */
static void a_full_pipe_does_not_stop_us(void **state)
{
	(void)state;
	int pipes[2], kept = dup(STDERR_FILENO);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(dup2(pipes[1], STDERR_FILENO), STDERR_FILENO);
	struct accesslog *l = accesslog_open(loop, "-");
	char text[3000];
	memset(text, 'x', sizeof text);
	struct access big = { .path = view_make(text, sizeof text), .status = 200 };
	for (int i = 0; i < 200; i++)
		accesslog_write(l, &big);
	accesslog_close(l);
	dup2(kept, STDERR_FILENO);
	close(kept);
	close(pipes[1]);
	/* What did go through are whole lines. */
	static char got[1 << 20];
	size_t n = 0;
	for (ssize_t r; (r = read(pipes[0], got + n, sizeof got - n)) > 0;)
		n += (size_t)r;
	close(pipes[0]);
	assert_true(n > 3000 && n < sizeof got);
	assert_int_equal(got[n - 1], '\n');
	struct view rest = view_make(got, n), line;
	while (view_split(&rest, '\n', &line) && line.n)
		assert_true(view_starts(line, VIEW("{\"time_ms\":")) && line.p[line.n - 1] == '}');
}

static void none_is_none_and_a_bad_place_is_said(void **state)
{
	(void)state;
	struct accesslog *l = accesslog_open(loop, "none");
	assert_non_null(l);
	accesslog_write(l, &(struct access){ .status = 200 });
	accesslog_close(l);
	assert_null(accesslog_open(loop, "/nonexistent/log"));
	assert_int_equal(errno, ENOENT);
	accesslog_close(NULL);
}

#define folder_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		folder_test(a_request_is_one_line_of_json),
		folder_test(what_is_not_utf8_is_left_out),
		folder_test(a_file_is_appended_to),
		folder_test(lines_go_out_at_the_end_of_a_wake_up),
		folder_test(a_full_pipe_does_not_stop_us),
		folder_test(none_is_none_and_a_bad_place_is_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
