#include "config.h"

#include "unit.h"

#include <stdlib.h>

#include "db/hosts.h"

static void is(const struct hosts *h, unsigned at, const char *host, const char *hostaddr, const char *port)
{
	struct host one;
	assert_true(hosts_at(h, at, &one));
	assert_string_equal(one.host, host);
	assert_string_equal(one.hostaddr, hostaddr);
	assert_string_equal(one.port, port);
}

static void each_server_has_its_own_port_or_all_have_one(void **state)
{
	(void)state;
	struct hosts h = { .n = 0 };
	assert_true(hosts_read(&h, "host=db1,/run/pg,db3 port=1,2,3"));
	assert_int_equal(h.n, 3);
	is(&h, 0, "db1", "", "1");
	is(&h, 1, "/run/pg", "", "2");
	is(&h, 2, "db3", "", "3");
	assert_true(hosts_read(&h, "host=db1,db2 port=6432"));
	is(&h, 0, "db1", "", "6432");
	is(&h, 1, "db2", "", "6432");
	hosts_free(&h);
}

static void addresses_count_where_they_are_given(void **state)
{
	(void)state;
	struct hosts h = { .n = 0 };
	assert_true(hosts_read(&h, "hostaddr=192.0.2.1,192.0.2.2 host=a,b"));
	assert_int_equal(h.n, 2);
	is(&h, 1, "b", "192.0.2.2", "5432");
	assert_true(hosts_read(&h, "hostaddr=192.0.2.1,192.0.2.2"));
	assert_int_equal(h.n, 2);
	is(&h, 0, "", "192.0.2.1", "5432");
	hosts_free(&h);
}

static void an_empty_element_is_the_default_socket(void **state)
{
	(void)state;
	struct hosts h = { .n = 0 };
	assert_true(hosts_read(&h, "host=,db2 port=,5433"));
	assert_int_equal(h.n, 2);
	is(&h, 0, "", "", "");
	is(&h, 1, "db2", "", "5433");
	hosts_free(&h);
}

static void what_libpq_would_refuse_is_left_to_it(void **state)
{
	(void)state;
	struct hosts h = { .n = 0 };
	const char *const strings[] = { "host=a,b port=1,2,3", "host=a,b hostaddr=192.0.2.1", "nonsense", "dbname=x" };
	for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
		assert_true(hosts_read(&h, strings[i]));
		assert_int_equal(h.n, 0);
	}
	hosts_free(&h);
}

static void variables_of_libpq_count_where_the_string_is_silent(void **state)
{
	(void)state;
	struct hosts h = { .n = 0 };
	assert_int_equal(setenv("PGHOST", "one,two", 1), 0);
	assert_true(hosts_read(&h, "port=5"));
	assert_int_equal(h.n, 2);
	is(&h, 1, "two", "", "5");
	assert_int_equal(unsetenv("PGHOST"), 0);
	hosts_free(&h);
}

static void a_name_that_is_too_long_is_told(void **state)
{
	(void)state;
	struct hosts h = { .n = 0 };
	struct host one;
	char name[HOST_MAX + 3];
	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	assert_true(hosts_set(&h, name, NULL, NULL));
	assert_false(hosts_at(&h, 0, &one));
	hosts_free(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_server_has_its_own_port_or_all_have_one),
		cmocka_unit_test(addresses_count_where_they_are_given),
		cmocka_unit_test(an_empty_element_is_the_default_socket),
		cmocka_unit_test(what_libpq_would_refuse_is_left_to_it),
		cmocka_unit_test(variables_of_libpq_count_where_the_string_is_silent),
		cmocka_unit_test(a_name_that_is_too_long_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
