#include "config.h"

#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"

static int kept_stderr, reader;

static int catch_stderr(void **state)
{
	(void)state;
	int pipes[2];
	if (pipe(pipes) < 0)
		return -1;
	kept_stderr = dup(STDERR_FILENO);
	reader = pipes[0];
	dup2(pipes[1], STDERR_FILENO);
	close(pipes[1]);
	return 0;
}

static int release_stderr(void **state)
{
	(void)state;
	dup2(kept_stderr, STDERR_FILENO);
	close(kept_stderr);
	close(reader);
	log_init(LOG_LEVEL_INFO);
	return 0;
}

/* What one write brought, without "composure[pid]: ". */
static const char *caught(void)
{
	static char text[4096];
	ssize_t n = read(reader, text, sizeof text - 1);
	assert_true(n > 0);
	text[n] = '\0';
	char head[64];
	size_t n_head = (size_t)snprintf(head, sizeof head, "composure[%ld]: ", (long)getpid());
	assert_memory_equal(text, head, n_head);
	return text + n_head;
}

static void a_message_is_one_line(void **state)
{
	(void)state;
	log_error("no room for %d of %s", 3, "these");
	assert_string_equal(caught(), "error: no room for 3 of these\n");
	log_warn("%s", "");
	assert_string_equal(caught(), "warning: \n");
	log_info("up");
	assert_string_equal(caught(), "info: up\n");
}

static void no_text_can_forge_a_line(void **state)
{
	(void)state;
	log_error("%s", "a\ncomposure[1]: error: b\x1b[2J\r\x7f");
	assert_string_equal(caught(), "error: a?composure[1]: error: b?[2J??\n");
}

static void what_is_above_the_level_is_dropped(void **state)
{
	(void)state;
	log_debug("dropped");
	log_info("taken");
	assert_string_equal(caught(), "info: taken\n");
	log_init(LOG_LEVEL_ERROR);
	log_warn("dropped");
	log_error("taken");
	assert_string_equal(caught(), "error: taken\n");
	log_init(LOG_LEVEL_DEBUG);
	log_debug("taken");
	assert_string_equal(caught(), "debug: taken\n");
}

static void a_long_message_is_cut_and_still_a_line(void **state)
{
	(void)state;
	log_error("%3000d", 1);
	const char *text = caught();
	assert_true(strlen(text) < 1024);
	assert_int_equal(text[strlen(text) - 1], '\n');
}

static void errno_survives(void **state)
{
	(void)state;
	close(STDERR_FILENO);
	errno = ENOENT;
	log_error("nobody reads this");
	assert_int_equal(errno, ENOENT);
}

int main(void)
{
#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, catch_stderr, release_stderr)
	const struct CMUnitTest tests[] = {
		LOG_TEST(a_message_is_one_line),
		LOG_TEST(no_text_can_forge_a_line),
		LOG_TEST(what_is_above_the_level_is_dropped),
		LOG_TEST(a_long_message_is_cut_and_still_a_line),
		LOG_TEST(errno_survives),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
