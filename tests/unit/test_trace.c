#include "config.h"

#include "unit.h"

#include "telemetry/trace.h"

enum { IDS = 2000 };

static void an_id_is_a_uuid_of_version_4(void **state)
{
	(void)state;
	for (int n = 0; n < IDS; n++) {
		char id[REQUEST_ID_CHARS];
		request_id_make(id);
		for (int i = 0; i < REQUEST_ID_CHARS; i++) {
			bool dash = i == 8 || i == 13 || i == 18 || i == 23;
			assert_true(dash ? id[i] == '-' : strchr("0123456789abcdef", id[i]) && id[i]);
		}
		assert_int_equal(id[14], '4');
		assert_true(strchr("89ab", id[19]));
	}
}

static void ids_do_not_repeat(void **state)
{
	(void)state;
	static char id[IDS][REQUEST_ID_CHARS];
	for (int n = 0; n < IDS; n++) {
		request_id_make(id[n]);
		for (int before = 0; before < n; before++)
			assert_memory_not_equal(id[n], id[before], REQUEST_ID_CHARS);
	}
}

static void a_traceparent_gives_its_trace_id(void **state)
{
	(void)state;
	assert_view(trace_id(VIEW("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
		"4bf92f3577b34da6a3ce929d0e0e4736");
}

static void what_is_no_traceparent_gives_none(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",
		"00",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902\"7-01",
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_absent(trace_id(view_of(bad[i])));
	assert_absent(trace_id(VIEW_NONE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_id_is_a_uuid_of_version_4),
		cmocka_unit_test(ids_do_not_repeat),
		cmocka_unit_test(a_traceparent_gives_its_trace_id),
		cmocka_unit_test(what_is_no_traceparent_gives_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
