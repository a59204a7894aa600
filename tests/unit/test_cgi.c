#include "config.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/loop.h"
#include "http/cgi.h"

static const int64_t SECOND_US = 1000000;

static void the_environment_is_the_request(void **state)
{
	char *variables[] = { "PATH=/bin", "REQUEST_METHOD=GET", "REQUEST_URI=/api/users?a=b", "HTTP_X_API_KEY=k=v",
		"NOTHING", "HTTP_ACCEPT", NULL };
	char **before = environ;
	environ = variables;
	struct request r = { 0 };
	cgi_params(&r, *state);
	environ = NULL;
	cgi_params(&r, *state);
	environ = before;
	assert_view(r.method_text, "GET");
	assert_view(r.uri, "/api/users?a=b");
	assert_view(r.header[HEADER_API_KEY], "k=v");
	assert_view(r.header[HEADER_ACCEPT], "");
}

static void a_body_is_read_to_its_length_and_no_further(void **state)
{
	(void)state;
	int fd[2];
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(write(fd[1], "the body and more", 17), 17);
	struct buf body = BUF(100);
	assert_int_equal(cgi_body(fd[0], 8, clock_us() + SECOND_US, &body), OK);
	assert_view(buf_view(&body), "the body");
	char rest[20];
	assert_int_equal(read(fd[0], rest, sizeof rest), 9);
	assert_int_equal(cgi_body(fd[0], 0, 0, &body), OK);
	buf_free(&body);
	close(fd[0]);
	close(fd[1]);
}

static void a_body_in_pieces_through_a_nonblocking_pipe_is_whole(void **state)
{
	(void)state;
	enum { SIZE = 300000 };
	int fd[2];
	assert_int_equal(pipe2(fd, O_NONBLOCK), 0);
	pid_t child = fork();
	if (child == 0) {
		fcntl(fd[1], F_SETFL, 0);
		for (int i = 0; i < SIZE / 10; i++)
			if (write(fd[1], "0123456789", 10) != 10)
				_exit(1);
		_exit(0);
	}
	close(fd[1]);
	struct buf body = BUF(SIZE);
	assert_int_equal(cgi_body(fd[0], SIZE, clock_us() + 60 * SECOND_US, &body), OK);
	assert_int_equal(body.n, SIZE);
	assert_memory_equal(body.p + SIZE - 10, "0123456789", 10);
	int status;
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	buf_free(&body);
	close(fd[0]);
}

static void a_body_in_a_file_is_read(void **state)
{
	(void)state;
	FILE *f = tmpfile();
	fputs("in a file", f);
	rewind(f);
	struct buf body = BUF(100);
	assert_int_equal(cgi_body(fileno(f), 9, clock_us() + SECOND_US, &body), OK);
	assert_view(buf_view(&body), "in a file");
	buf_free(&body);
	fclose(f);
}

static void a_body_that_ends_early_is_invalid(void **state)
{
	(void)state;
	int fd[2];
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(write(fd[1], "short", 5), 5);
	close(fd[1]);
	struct buf body = BUF(100);
	assert_int_equal(cgi_body(fd[0], 6, clock_us() + SECOND_US, &body), ERR_INVALID_BODY);
	buf_free(&body);
	close(fd[0]);
	assert_int_equal(cgi_body(fd[0], 6, clock_us() + SECOND_US, &body), ERR_INVALID_BODY); /* not even a file */
	buf_free(&body);
}

static void a_body_that_does_not_come_is_given_up_at_the_deadline(void **state)
{
	(void)state;
	int fd[2];
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(write(fd[1], "short", 5), 5);
	struct buf body = BUF(100);
	int64_t deadline = clock_us() + 5000;
	assert_int_equal(cgi_body(fd[0], 6, deadline, &body), ERR_REQUEST_TIMEOUT);
	assert_true(clock_us() >= deadline);
	buf_free(&body);
	close(fd[0]);
	close(fd[1]);
}

static void a_body_over_the_limit_is_not_read(void **state)
{
	(void)state;
	struct buf body = BUF(5);
	assert_int_equal(cgi_body(-1, 6, 0, &body), ERR_BODY_TOO_LARGE);
	assert_int_equal(cgi_body(-1, SIZE_MAX, 0, &body), ERR_BODY_TOO_LARGE);
	assert_null(body.p);
	buf_free(&body);
}

static void an_answer_is_written_whole(void **state)
{
	(void)state;
	enum { SIZE = 500000 };
	int fd[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	pid_t child = fork();
	if (child == 0) {
		close(fd[0]);
		fcntl(fd[1], F_SETFL, O_NONBLOCK);
		struct response r;
		response_init(&r, SIZE);
		response_restart(&r, 200);
		buf_printf(&r.body, "%*d", SIZE - 1, 7);
		_exit(cgi_answer(fd[1], &r) == 0 ? 0 : 1);
	}
	close(fd[1]);
	struct buf got = BUF(SIZE + 10000);
	for (ssize_t n; (n = read(fd[0], buf_reserve(&got, 1000), 1000)) > 0;)
		buf_advance(&got, (size_t)n);
	static const struct view head = VIEW_INIT("Status: 200 OK\r\nContent-Length: 499999\r\n\r\n");
	assert_true(view_starts(buf_view(&got), head));
	assert_int_equal(got.n, head.n + SIZE - 1);
	int status;
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	buf_free(&got);
	close(fd[0]);
}

static void an_answer_that_nobody_reads_is_an_error(void **state)
{
	(void)state;
	int fd[2];
	assert_int_equal(pipe(fd), 0);
	close(fd[0]);
	signal(SIGPIPE, SIG_IGN);
	struct response r;
	response_init(&r, 100);
	response_restart(&r, 200);
	assert_int_equal(cgi_answer(fd[1], &r), -1);
	assert_int_equal(errno, EPIPE);
	response_free(&r);
	close(fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(the_environment_is_the_request),
		cmocka_unit_test(a_body_is_read_to_its_length_and_no_further),
		cmocka_unit_test(a_body_in_pieces_through_a_nonblocking_pipe_is_whole),
		cmocka_unit_test(a_body_in_a_file_is_read),
		cmocka_unit_test(a_body_that_ends_early_is_invalid),
		cmocka_unit_test(a_body_that_does_not_come_is_given_up_at_the_deadline),
		cmocka_unit_test(a_body_over_the_limit_is_not_read),
		cmocka_unit_test(an_answer_is_written_whole),
		cmocka_unit_test(an_answer_that_nobody_reads_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
