#include "config.h"

#include "unit.h"

#include <stdio.h>

#include "db/statement.h"

static void text_and_parameters_grow_together(void **state)
{
	struct statement s;
	statement_init(&s, *state);
	statement_lit(&s, "SELECT ");
	statement_param(&s, VIEW("128"), 20);
	statement_lit(&s, ", ");
	statement_param(&s, VIEW_NONE, 25);
	statement_lit(&s, " LIMIT ");
	statement_number(&s, -9223372036854775807 - 1);
	assert_true(statement_finish(&s));
	assert_string_equal(s.text, "SELECT $1, $2 LIMIT -9223372036854775808");
	assert_int_equal(s.n_params, 2);
	assert_string_equal(s.values[0], "128");
	assert_int_equal(s.types[0], 20);
	assert_null(s.values[1]);
	assert_int_equal(s.types[1], 25);
}

static void an_empty_value_is_not_null(void **state)
{
	struct statement s;
	statement_init(&s, *state);
	statement_param(&s, VIEW(""), 25);
	assert_true(statement_finish(&s));
	assert_string_equal(s.values[0], "");
}

static void a_value_is_copied_and_never_in_the_text(void **state)
{
	char value[] = "'; DROP TABLE users; --";
	struct statement s;
	statement_init(&s, *state);
	statement_lit(&s, "SELECT ");
	statement_param(&s, view_of(value), 25);
	memset(value, 'x', sizeof value - 1);
	assert_true(statement_finish(&s));
	assert_string_equal(s.text, "SELECT $1");
	assert_string_equal(s.values[0], "'; DROP TABLE users; --");
}

static void a_long_statement_keeps_all_of_its_parts(void **state)
{
	struct statement s;
	struct buf expected = BUF(1 << 20);
	statement_init(&s, *state);
	for (int i = 1; i <= STATEMENT_PARAMS_MAX; i++) {
		char value[16];
		int n = snprintf(value, sizeof value, "v%d", i);
		statement_param(&s, view_make(value, (size_t)n), (uint32_t)i);
		statement_lit(&s, " ");
		buf_printf(&expected, "$%d ", i);
	}
	assert_true(statement_finish(&s));
	assert_same_view(view_of(s.text), buf_view(&expected));
	assert_string_equal(s.values[0], "v1");
	assert_string_equal(s.values[STATEMENT_PARAMS_MAX - 1], "v1024");
	assert_int_equal(s.types[777], 778);
	buf_free(&expected);
}

static void more_parameters_than_the_bound_fail_it(void **state)
{
	struct statement s;
	statement_init(&s, *state);
	for (int i = 0; i <= STATEMENT_PARAMS_MAX; i++)
		statement_param(&s, VIEW("1"), 20);
	assert_int_equal(s.n_params, STATEMENT_PARAMS_MAX);
	assert_false(statement_finish(&s));
}

static void a_full_arena_fails_it(void **state)
{
	(void)state;
	struct arena *a = arena_create(2048);
	struct statement s;
	statement_init(&s, a);
	for (int i = 0; i < 100; i++) {
		statement_lit(&s, "a piece of text that is fifty bytes long, or so ...");
		statement_param(&s, VIEW("1"), 20);
	}
	assert_false(statement_finish(&s));
	arena_destroy(a);
}

static uint64_t hash_of(struct arena *a, struct view text, struct view value)
{
	struct statement s;
	statement_init(&s, a);
	statement_text(&s, text);
	statement_param(&s, value, 20);
	assert_true(statement_finish(&s));
	assert_int_not_equal(s.hash, 0);
	return s.hash;
}

static void a_class_is_the_text_not_the_values(void **state)
{
	assert_int_equal(hash_of(*state, VIEW("SELECT "), VIEW("1")), hash_of(*state, VIEW("SELECT "), VIEW("2")));
	assert_int_not_equal(hash_of(*state, VIEW("SELECT "), VIEW("1")), hash_of(*state, VIEW("SELECT -"), VIEW("1")));
}

static void an_identifier_cannot_end_its_quotes(void **state)
{
	assert_view(quote_identifier(*state, VIEW("users")), "\"users\"");
	assert_view(quote_identifier(*state, VIEW("Mixed Case.x")), "\"Mixed Case.x\"");
	assert_view(quote_identifier(*state, VIEW("a\"; DROP TABLE b; --")), "\"a\"\"; DROP TABLE b; --\"");
	assert_view(quote_identifier(*state, VIEW("\"\"")), "\"\"\"\"\"\"");
	assert_view(quote_identifier(*state, VIEW("größe")), "\"größe\"");
	struct arena *full = arena_create(16);
	assert_absent(quote_identifier(full, VIEW("a name that is longer than the arena is")));
	arena_destroy(full);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(text_and_parameters_grow_together),
		arena_test(an_empty_value_is_not_null),
		arena_test(a_value_is_copied_and_never_in_the_text),
		arena_test(a_long_statement_keeps_all_of_its_parts),
		arena_test(more_parameters_than_the_bound_fail_it),
		cmocka_unit_test(a_full_arena_fails_it),
		arena_test(a_class_is_the_text_not_the_values),
		arena_test(an_identifier_cannot_end_its_quotes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
