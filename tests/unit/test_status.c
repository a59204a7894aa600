#include "config.h"

#include "unit.h"

#include <ctype.h>
#include <stdio.h>

#include "base/attributes.h"
#include "base/status.h"
#include "db/pool.h"

static void every_status_has_an_http_status_with_a_reason(void **state)
{
	(void)state;
	for (int s = 0; s < STATUS_COUNT; s++) {
		int http = status_http((enum status)s);
		assert_true(s == OK ? http == 200 : http >= 400 && http < 600);
		assert_true(status_reason(http)[0]);
		assert_true(isupper((unsigned char)status_title((enum status)s)[0]));
	}
}

static void codes_are_distinct_words(void **state)
{
	(void)state;
	for (int s = 0; s < STATUS_COUNT; s++) {
		const char *code = status_code((enum status)s);
		assert_true(code[0]);
		for (const char *c = code; *c; c++)
			assert_true(islower((unsigned char)*c) || *c == '_');
		for (int before = 0; before < s; before++)
			assert_string_not_equal(status_code((enum status)before), code);
	}
}

static void every_code_is_documented(void **state)
{
	const char *srcdir = getenv("srcdir");
	struct view name = arena_printf(*state, "%s/doc/errors.md", srcdir ? srcdir : ".");
	FILE *f = fopen(name.p, "r");
	if (!f)
		skip();
	static char text[65536];
	text[fread(text, 1, sizeof text - 1, f)] = '\0';
	(void)fclose(f);
	for (int s = OK + 1; s < STATUS_COUNT; s++) {
		struct view line = arena_printf(*state, "| `%s` | %d |", status_code((enum status)s), status_http((enum status)s));
		if (!strstr(text, line.p))
			fail_msg("doc/errors.md has no line that begins with %s", line.p);
	}
}

static void what_we_send_has_a_reason_and_nothing_else(void **state)
{
	(void)state;
	assert_string_equal(status_reason(200), "OK");
	assert_string_equal(status_reason(201), "Created");
	assert_string_equal(status_reason(304), "Not Modified");
	assert_string_equal(status_reason(504), "Gateway Timeout");
	assert_string_equal(status_reason(299), "");
	assert_string_equal(status_reason(0), "");
	assert_string_equal(status_reason(-1), "");
}

/* The public contract: a client that looks for these must find them in every version. */
static void codes_stay_what_they_are(void **state)
{
	(void)state;
	assert_string_equal(status_code(ERR_INVALID_CURSOR), "invalid_cursor");
	assert_string_equal(status_code(ERR_NOT_FOUND), "not_found");
	assert_string_equal(status_code(ERR_CONFLICT), "conflict");
	assert_string_equal(status_code(ERR_RATE_LIMITED), "rate_limited");
	assert_string_equal(status_code(ERR_UNAVAILABLE), "database_unavailable");
	assert_int_equal(status_http(ERR_CHECK_VIOLATION), 422);
	assert_int_equal(status_http(ERR_OUTCOME_UNKNOWN), 504);
}

static void sqlstates_become_what_the_client_can_do_about_them(void **state)
{
	(void)state;
	static const struct {
		const char *sqlstate;
		enum status status;
	} table[] = {
		{ "23505", ERR_CONFLICT },
		{ "23P01", ERR_CONFLICT },
		{ "23503", ERR_FOREIGN_KEY },
		{ "23502", ERR_CHECK_VIOLATION },
		{ "23514", ERR_CHECK_VIOLATION },
		{ "44000", ERR_CHECK_VIOLATION },
		{ "22P02", ERR_INVALID_VALUE },
		{ "22003", ERR_INVALID_VALUE },
		{ "42501", ERR_FORBIDDEN },
		{ "40001", ERR_OVERLOADED },
		{ "40P01", ERR_OVERLOADED },
		{ "55P03", ERR_OVERLOADED },
		{ "53300", ERR_OVERLOADED },
		{ "57014", ERR_DEADLINE },
		{ "57P01", ERR_UNAVAILABLE },
		{ "08006", ERR_UNAVAILABLE },
		{ "P0001", ERR_RAISED },
		{ "42601", ERR_DATABASE },
		{ "XX000", ERR_DATABASE },
		{ "", ERR_DATABASE },
	};
	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		assert_int_equal(sqlstate_status(table[i].sqlstate), table[i].status);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_status_has_an_http_status_with_a_reason),
		cmocka_unit_test(codes_are_distinct_words),
		arena_test(every_code_is_documented),
		cmocka_unit_test(what_we_send_has_a_reason_and_nothing_else),
		cmocka_unit_test(codes_stay_what_they_are),
		cmocka_unit_test(sqlstates_become_what_the_client_can_do_about_them),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
