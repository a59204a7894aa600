#include "config.h"

#include "unit.h"

#include "http/address.h"

#include <string.h>

static struct trusted trust(const char *list, bool forwarded)
{
	struct trusted t;
	char why[200];
	assert_true(trusted_parse(&t, view_of(list), forwarded, why, sizeof why));
	return t;
}

static void says(const char *trusted, bool forwarded, const char *peer, const char *list, const char *expected)
{
	struct trusted t = trust(trusted, forwarded);
	struct request r = { .remote_addr = view_of(peer) };
	char text[ADDRESS_TEXT_MAX];
	if (list)
		r.header[forwarded ? HEADER_FORWARDED : HEADER_FORWARDED_FOR] = view_of(list);
	struct address a = address_of(&r, &t);
	unsigned n = address_text(&a, text);
	assert_string_equal(text, expected);
	assert_int_equal(n, strlen(expected));
}

static void nobody_is_believed_unasked(void **state)
{
	(void)state;
	says("", false, "192.0.2.1", "198.51.100.1", "192.0.2.1");
	says("10.0.0.0/8", false, "192.0.2.1", "198.51.100.1", "192.0.2.1");
	says("10.0.0.0/8", false, "11.0.0.1", "198.51.100.1", "11.0.0.1");
}

static void a_list_is_read_from_its_end_while_it_is_trusted(void **state)
{
	(void)state;
	says("10.0.0.0/8", false, "10.1.2.3", "198.51.100.1", "198.51.100.1");
	says("10.0.0.0/8", false, "10.1.2.3", "1.1.1.1, 198.51.100.1", "198.51.100.1");
	says("10.0.0.0/8", false, "10.1.2.3", "1.1.1.1, 198.51.100.1,10.9.9.9", "198.51.100.1");
	says("10.0.0.0/8", false, "10.1.2.3", "10.0.0.1, 10.0.0.2", "10.0.0.1");
	says("10.0.0.0/8", false, "10.1.2.3", NULL, "10.1.2.3");
	says("10.0.0.0/8", false, "10.1.2.3", "", "10.1.2.3");
	says("10.0.0.0/8", false, "10.1.2.3", "1.1.1.1, nonsense", "10.1.2.3");
	says("10.0.0.0/8", false, "10.1.2.3", "1.1.1.1, unknown, 10.0.0.1", "10.0.0.1");
	says("unix", false, "", "198.51.100.1", "198.51.100.1");
	says("10.0.0.1", false, "", "198.51.100.1", "unknown");
}

static void forwarded_is_read_as_rfc_7239_has_it(void **state)
{
	(void)state;
	says("10.0.0.0/8", true, "10.1.2.3", "for=198.51.100.1;proto=http", "198.51.100.1");
	says("10.0.0.0/8", true, "10.1.2.3", "for=1.1.1.1, proto=http; For=\"198.51.100.1:4711\"", "198.51.100.1");
	says("10.0.0.0/8", true, "10.1.2.3", "for=\"[2001:db8:1:2:3::4]:80\"", "2001:db8:1:2::/64");
	says("10.0.0.0/8", true, "10.1.2.3", "for=_hidden", "10.1.2.3");
	says("10.0.0.0/8", true, "10.1.2.3", "by=198.51.100.1", "10.1.2.3");
}

static void ports_brackets_and_zones_are_no_part_of_an_address(void **state)
{
	(void)state;
	says("10.0.0.0/8", false, "10.1.2.3", "198.51.100.1:80", "198.51.100.1");
	says("10.0.0.0/8", false, "10.1.2.3", "[2001:db8::1]:80", "2001:db8::/64");
	says("10.0.0.0/8", false, "10.1.2.3", "2001:db8::1", "2001:db8::/64");
	says("", false, "fe80::1%eth0", NULL, "fe80::/64");
	says("", false, "::ffff:192.0.2.1", NULL, "192.0.2.1");
}

static void an_ipv6_client_is_its_network(void **state)
{
	(void)state;
	says("", false, "2001:db8:1:2:3:4:5:6", NULL, "2001:db8:1:2::/64");
	says("2001:db8::/33", false, "2001:db8:7fff::1", "192.0.2.1", "192.0.2.1");
	says("2001:db8::/33", false, "2001:db8:8000::1", "192.0.2.1", "2001:db8:8000::/64");
	struct address a = { { 0x20, 1, 0xd, 0xb8, 1, 2, 3, 4 } }, site = address_prefix(a, 48);
	assert_int_equal(site.byte[5], 2);
	assert_int_equal(site.byte[6], 0);
	a = (struct address){ { [10] = 0xff, [11] = 0xff, [15] = 1 } };
	site = address_prefix(a, 48);
	assert_memory_equal(&a, &site, sizeof a);
}

static void what_is_no_network_is_refused(void **state)
{
	static const char *const bad[] = { "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "2001:db8::/129", "10.0.0", "/8", "10.0.0.1 10.0.0.2" };
	struct trusted t;
	char why[200];
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_false(trusted_parse(&t, view_of(bad[i]), false, why, sizeof why));
		assert_non_null(strstr(why, "trusted_proxies"));
	}
	assert_true(trusted_parse(&t, VIEW(" 10.0.0.1 , ,unix,2001:db8::/32"), false, why, sizeof why));
	assert_int_equal(t.n, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_is_believed_unasked),
		cmocka_unit_test(a_list_is_read_from_its_end_while_it_is_trusted),
		cmocka_unit_test(forwarded_is_read_as_rfc_7239_has_it),
		cmocka_unit_test(ports_brackets_and_zones_are_no_part_of_an_address),
		cmocka_unit_test(an_ipv6_client_is_its_network),
		cmocka_unit_test(what_is_no_network_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
