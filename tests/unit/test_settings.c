#include "config.h"

#include "unit.h"

#include <stdio.h>
#include <unistd.h>

#include "base/settings.h"

static char file[] = "/tmp/composure-settings-XXXXXX";
static struct settings set;
static char why[1024];

static bool unset_one(void)
{
	char name[128];
	for (char **e = environ; *e; e++) {
		if (strncmp(*e, "COMPOSURE_", 10) != 0)
			continue;
		(void)snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
		return unsetenv(name) == 0;
	}
	return false;
}

/* An environment without any setting, and a file of our own. */
static int set_up(void **state)
{
	(void)state;
	(void)snprintf(file, sizeof file, "/tmp/composure-settings-XXXXXX");
	while (unset_one())
		;
	why[0] = '\0';
	int fd = mkstemp(file);
	return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
	(void)state;
	while (unset_one())
		;
	return unlink(file);
}

static void write_file(const char *text)
{
	FILE *f = fopen(file, "we");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static bool load(const char *from)
{
	return settings_load(&set, from, why, sizeof why);
}

static void without_any_word_all_is_default(void **state)
{
	(void)state;
	assert_true(load(NULL));
	assert_string_equal(set.dsn, "");
	assert_string_equal(set.mount, "/api");
	assert_int_equal(set.connections, 4);
	assert_int_equal(set.deadline_ms, 10000);
}

static void a_file_is_lines_of_key_and_value(void **state)
{
	(void)state;
	write_file(
		"# a comment\n\n  dsn =  host=/run/pg dbname='a = b'  \nconnections=8\n\tmount =\n log_level = debug");
	assert_true(load(file));
	assert_string_equal(set.dsn, "host=/run/pg dbname='a = b'");
	assert_int_equal(set.connections, 8);
	assert_string_equal(set.mount, "");
	assert_string_equal(set.log_level, "debug");
}

static void the_environment_wins_over_the_file(void **state)
{
	(void)state;
	write_file("connections = 8\nmount = /v1\n");
	setenv("COMPOSURE_CONNECTIONS", "2", 1);
	setenv("COMPOSURE_DSN", "dbname=x", 1);
	assert_true(load(file));
	assert_int_equal(set.connections, 2);
	assert_string_equal(set.mount, "/v1");
	assert_string_equal(set.dsn, "dbname=x");
}

static void the_environment_can_name_the_file(void **state)
{
	(void)state;
	write_file("connections = 3\n");
	setenv("COMPOSURE_CONFIG", file, 1);
	assert_true(load(NULL));
	assert_int_equal(set.connections, 3);
	setenv("COMPOSURE_CONFIG", "", 1);
	assert_true(load(NULL));
	assert_int_equal(set.connections, 4);
}

/* A web server sets variables of a request's headers with this prefix: none of them is a setting. */
static void a_request_header_is_no_setting(void **state)
{
	(void)state;
	setenv("HTTP_COMPOSURE_DSN", "dbname=evil", 1);
	setenv("composure_dsn", "dbname=evil", 1);
	assert_true(load(NULL));
	assert_string_equal(set.dsn, "");
}

/* A reason that begins with a colon begins with the file's name. */
static void refused(const char *text, const char *because)
{
	write_file(text);
	assert_false(load(file));
	char expected[1024];
	(void)snprintf(expected, sizeof expected, "%s%s", because[0] == ':' ? file : "", because);
	assert_string_equal(why, expected);
}

static void a_mistake_is_named_with_its_place(void **state)
{
	(void)state;
	refused("connections = 4\nconection = 5\n", ":2: there is no setting \"conection\"");
	refused("connections\n", ":1: not of the form key = value");
	refused("connections = 0\n", ":1: connections has to be a whole number from 1 to 64, not \"0\"");
	refused("connections = 65\n", ":1: connections has to be a whole number from 1 to 64, not \"65\"");
	refused("connections = 4x\n", ":1: connections has to be a whole number from 1 to 64, not \"4x\"");
	refused("connections =\n", ":1: connections has to be a whole number from 1 to 64, not \"\"");
	refused("connections = 99999999999999999999\n",
		":1: connections has to be a whole number from 1 to 64, not \"99999999999999999999\"");
	refused("CONNECTIONS = 4\n", ":1: there is no setting \"CONNECTIONS\"");
	setenv("COMPOSURE_DEADLINE_MS", "soon", 1);
	refused("", "COMPOSURE_DEADLINE_MS: deadline_ms has to be a whole number from 10 to 600000, not \"soon\"");
}

static void a_word_out_of_a_few_is_checked(void **state)
{
	(void)state;
	refused("pooler = session\n", "pooler cannot be \"session\"; it is one of: none transaction");
	refused("peer = iis\n", "peer cannot be \"iis\"; it is one of: (empty) nginx lighttpd apache");
	refused("log_level = loud\n", "log_level cannot be \"loud\"; it is one of: error warn info debug");
	refused("mount = api\n", "mount has to begin with a slash and not end with one, or be empty");
	refused("mount = /api/\n", "mount has to begin with a slash and not end with one, or be empty");
	refused("mount = /\n", "mount has to begin with a slash and not end with one, or be empty");
}

/* It goes out with each statement, in a place of fixed size. */
static void a_search_path_has_a_bound(void **state)
{
	(void)state;
	char text[1024];
	memset(text, 'a', sizeof text);
	text[600] = '\0';
	setenv("COMPOSURE_SEARCH_PATH", text, 1);
	assert_false(load(NULL));
	assert_string_equal(why, "search_path is longer than 500 bytes");
	text[500] = '\0';
	setenv("COMPOSURE_SEARCH_PATH", text, 1);
	assert_true(load(NULL));
}

static void a_file_that_is_not_there_is_said(void **state)
{
	(void)state;
	assert_false(load("/nonexistent/composure.conf"));
	assert_string_equal(why, "/nonexistent/composure.conf: No such file or directory");
}

static void a_long_reason_is_cut(void **state)
{
	(void)state;
	char small[20];
	write_file("this_is_a_setting_that_nobody_knows = 1\n");
	assert_false(settings_load(&set, file, small, sizeof small));
	assert_int_equal(strlen(small), sizeof small - 1);
}

#define file_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		file_test(without_any_word_all_is_default),
		file_test(a_file_is_lines_of_key_and_value),
		file_test(the_environment_wins_over_the_file),
		file_test(the_environment_can_name_the_file),
		file_test(a_request_header_is_no_setting),
		file_test(a_mistake_is_named_with_its_place),
		file_test(a_word_out_of_a_few_is_checked),
		file_test(a_search_path_has_a_bound),
		file_test(a_file_that_is_not_there_is_said),
		file_test(a_long_reason_is_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
