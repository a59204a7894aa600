#include "config.h"

#include "unit.h"

#include "http/request.h"

static const struct request_limits usual = { .url_bytes = 8192, .body_bytes = 1000 };

struct pair {
	const char *name, *value;
};

/* A request of these parameters, which need not be a good one. */
static struct request feed(void **state, const struct pair *pairs, size_t n)
{
	struct request r = { 0 };
	for (size_t i = 0; i < n; i++)
		request_param(&r, *state, view_of(pairs[i].name), view_of(pairs[i].value));
	return r;
}

#define FEED(...) feed(state, (const struct pair[]){ __VA_ARGS__ }, ARRAY_LEN(((const struct pair[]){ __VA_ARGS__ })))

static enum status finish(struct request *r)
{
	struct view detail = VIEW_NONE;
	enum status s = request_finish(r, &usual, &detail);
	if (s != OK)
		assert_non_null(detail.p);
	else
		assert_absent(detail);
	return s;
}

static struct request get(void **state, const char *uri)
{
	return FEED({ "REQUEST_METHOD", "GET" }, { "REQUEST_URI", uri });
}

static void what_the_web_server_sends_becomes_a_request(void **state)
{
	struct request r = FEED({ "QUERY_STRING", "ignored=1" }, { "REQUEST_METHOD", "POST" },
		{ "CONTENT_TYPE", "application/json" }, { "CONTENT_LENGTH", "12" },
		{ "REQUEST_URI", "/api/users?limit=5" }, { "SCRIPT_NAME", "/elsewhere" },
		{ "REMOTE_ADDR", "192.0.2.1" }, { "HTTP_X_API_KEY", "k" }, { "HTTP_USER_AGENT", "curl" },
		{ "HTTP_ACCEPT", "*/*" }, { "HTTP_IF_NONE_MATCH", "" });
	assert_int_equal(finish(&r), OK);
	assert_int_equal(r.method, METHOD_POST);
	assert_view(r.uri, "/api/users?limit=5");
	assert_view(r.path, "/api/users");
	assert_view(r.query, "limit=5");
	assert_view(r.content_type, "application/json");
	assert_true(r.has_length);
	assert_int_equal(r.content_length, 12);
	assert_view(r.remote_addr, "192.0.2.1");
	assert_view(r.header[HEADER_API_KEY], "k");
	assert_view(r.header[HEADER_ACCEPT], "*/*");
	assert_view(r.header[HEADER_IF_NONE_MATCH], "");
	assert_absent(r.header[HEADER_IF_MATCH]);
}

static void every_header_is_found_by_its_name(void **state)
{
	static const char *const cgi[] = {
#define X(id, name, twice) name,
		HEADER_LIST(X)
#undef X
	};
	for (size_t i = 0; i < HEADER_COUNT; i++) {
		struct request r = FEED({ cgi[i], "value" });
		for (size_t k = 0; k < HEADER_COUNT; k++)
			assert_int_equal(r.header[k].p != NULL, k == i);
	}
}

static void names_that_only_look_like_ours_are_ignored(void **state)
{
	struct request r = FEED({ "HTTP_ACCEPU", "x" }, { "HTTP_ACCEP", "x" }, { "http_accept", "x" },
		{ "ACCEPT", "x" }, { "", "x" }, { "HTTP_CONTENT_TYPE", "x" }, { "HTTP_CONTENT_LENGTH", "x" },
		{ "REDIRECT_REQUEST_URI", "/x" });
	for (size_t k = 0; k < HEADER_COUNT; k++)
		assert_absent(r.header[k]);
	assert_absent(r.content_type);
	assert_absent(r.length_text);
	assert_absent(r.uri);
	char longest[300];
	memset(longest, 'H', sizeof longest);
	request_param(&r, *state, view_make(longest, sizeof longest), VIEW("x"));
	request_param(&r, *state, view_make(longest, 256 + 11), VIEW("x")); /* HTTP_ACCEPT's length, modulo 256 */
}

static void values_are_copied(void **state)
{
	char value[] = "k1";
	struct request r = { 0 };
	request_param(&r, *state, VIEW("HTTP_X_API_KEY"), view_of(value));
	value[1] = '2';
	assert_view(r.header[HEADER_API_KEY], "k1");
}

static void an_identity_sent_twice_is_refused(void **state)
{
	static const char *const names[] = { "HTTP_AUTHORIZATION", "HTTP_X_API_KEY", "HTTP_IDEMPOTENCY_KEY",
		"HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_IF_MATCH", "HTTP_TRACEPARENT", "CONTENT_LENGTH",
		"CONTENT_TYPE", "REQUEST_METHOD", "REQUEST_URI", "REMOTE_ADDR" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct request r =
			FEED({ "REQUEST_METHOD", "GET" }, { "REQUEST_URI", "/" }, { names[i], "1" }, { names[i], "1" });
		assert_int_equal(finish(&r), ERR_INVALID_HEADER);
		assert_same_view(r.repeated_name, view_of(names[i]));
	}
}

static void an_empty_first_one_hides_no_second_one(void **state)
{
	struct request r = FEED({ "REQUEST_METHOD", "GET" }, { "REQUEST_URI", "/" }, { "HTTP_X_API_KEY", "" },
		{ "HTTP_X_API_KEY", "k" });
	assert_int_equal(finish(&r), ERR_INVALID_HEADER);
}

static void lists_that_come_twice_are_joined(void **state)
{
	struct request r = FEED({ "REQUEST_METHOD", "GET" }, { "REQUEST_URI", "/" }, { "HTTP_PREFER", "a" },
		{ "HTTP_PREFER", "b=1" }, { "HTTP_PREFER", "" });
	assert_int_equal(finish(&r), OK);
	assert_view(r.header[HEADER_PREFER], "a, b=1, ");
}

static void control_characters_are_refused_and_kept_out(void **state)
{
	static const char *const bad[] = { "a\nb", "a\r", "\x01", "\x7f", "a\x1f" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct request r = FEED({ "REQUEST_METHOD", "GET" }, { "REQUEST_URI", "/" }, { "HTTP_ORIGIN", bad[i] });
		assert_absent(r.header[HEADER_ORIGIN]);
		assert_view(r.malformed_name, "HTTP_ORIGIN");
		assert_int_equal(finish(&r), ERR_INVALID_HEADER);
	}
	struct request r = get(state, "/");
	request_param(&r, *state, VIEW("HTTP_ORIGIN"), VIEW("a\0b"));
	assert_int_equal(finish(&r), ERR_INVALID_HEADER);
	r = get(state, "/");
	request_param(&r, *state, VIEW("HTTP_PREFER"), VIEW("a\tb \xe4"));
	assert_int_equal(finish(&r), OK);
	assert_view(r.header[HEADER_PREFER], "a\tb \xe4");
}

static void a_request_without_method_or_uri_is_refused(void **state)
{
	struct request r = FEED({ "REQUEST_URI", "/" });
	assert_int_equal(finish(&r), ERR_BAD_REQUEST);
	r = FEED({ "REQUEST_METHOD", "GET" });
	assert_int_equal(finish(&r), ERR_BAD_REQUEST);
	r = FEED({ "REQUEST_METHOD", "" }, { "REQUEST_URI", "/" });
	assert_int_equal(finish(&r), ERR_BAD_REQUEST);
	r = FEED({ "REQUEST_METHOD", "GET" }, { "REQUEST_URI", "" });
	assert_int_equal(finish(&r), ERR_BAD_REQUEST);
}

static void methods_are_known_by_their_exact_name(void **state)
{
#define X(name)                                                                                                        \
	{                                                                                                              \
		struct request r = FEED({ "REQUEST_METHOD", #name }, { "REQUEST_URI", "/" });                          \
		assert_int_equal(finish(&r), OK);                                                                      \
		assert_int_equal(r.method, METHOD_##name);                                                             \
		assert_string_equal(method_name(r.method), #name);                                                     \
	}
	METHOD_LIST(X)
#undef X
	static const char *const unknown[] = { "get", "GETS", "GE", "TRACE", "CONNECT", "PROPFIND", "G T" };
	for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
		struct request r = FEED({ "REQUEST_METHOD", unknown[i] }, { "REQUEST_URI", "/" });
		assert_int_equal(finish(&r), ERR_NOT_IMPLEMENTED);
	}
	assert_string_equal(method_name(METHOD_OTHER), "OTHER");
}

static void the_absolute_form_is_stripped(void **state)
{
	static const struct {
		const char *uri, *path, *query;
	} form[] = {
		{ "/a?b", "/a", "b" },
		{ "/a", "/a", NULL },
		{ "/a?", "/a", "" },
		{ "/a?b?c", "/a", "b?c" },
		{ "//a//b", "//a//b", NULL },
		{ "http://host/a?b", "/a", "b" },
		{ "HTTPS://user@host:8443/a/b", "/a/b", NULL },
		{ "http://host", "/", NULL },
		{ "http://host?q", "/", "q" },
		{ "http://", "/", NULL },
		{ "/http://host/x", "/http://host/x", NULL },
	};
	for (size_t i = 0; i < ARRAY_LEN(form); i++) {
		struct request r = get(state, form[i].uri);
		assert_int_equal(finish(&r), OK);
		assert_same_view(r.path, view_of(form[i].path));
		if (form[i].query)
			assert_same_view(r.query, view_of(form[i].query));
		else
			assert_absent(r.query);
	}
}

static void other_forms_and_fragments_are_refused(void **state)
{
	static const char *const bad[] = { "users", "*", "?a", "ftp://host/", "http:/host", "host:443", "/a#b",
		"/a?b#c", "#", "http", "https:/" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct request r = get(state, bad[i]);
		assert_int_equal(finish(&r), ERR_BAD_REQUEST);
	}
}

static void options_may_ask_about_the_whole_server(void **state)
{
	struct request r = FEED({ "REQUEST_METHOD", "OPTIONS" }, { "REQUEST_URI", "*" });
	assert_int_equal(finish(&r), OK);
	assert_view(r.path, "*");
	struct route_path path;
	assert_int_equal(request_route(&r, *state, VIEW("/api"), &path), ERR_NOT_FOUND);
	r = FEED({ "REQUEST_METHOD", "OPTIONS" }, { "REQUEST_URI", "*x" });
	assert_int_equal(finish(&r), ERR_BAD_REQUEST);
}

static void a_url_over_the_limit_is_too_long(void **state)
{
	char uri[8194];
	memset(uri, 'a', sizeof uri);
	uri[0] = '/';
	uri[8193] = '\0';
	struct request r = get(state, uri);
	assert_int_equal(finish(&r), ERR_URI_TOO_LONG);
	uri[8192] = '\0';
	r = get(state, uri);
	assert_int_equal(finish(&r), OK);
}

static void content_length_is_digits_within_the_limit(void **state)
{
	static const struct {
		const char *text;
		enum status status;
		size_t n;
	} length[] = {
		{ "0", OK, 0 },
		{ "1000", OK, 1000 },
		{ "0001000", OK, 1000 },
		{ "1001", ERR_BODY_TOO_LARGE, 0 },
		{ "18446744073709551616", ERR_BODY_TOO_LARGE, 0 },
		{ "18446744073709551620", ERR_BODY_TOO_LARGE, 0 },
		{ "99999999999999999999999999999999999", ERR_BODY_TOO_LARGE, 0 },
		{ "-1", ERR_INVALID_HEADER, 0 },
		{ "+1", ERR_INVALID_HEADER, 0 },
		{ " 1", ERR_INVALID_HEADER, 0 },
		{ "1 ", ERR_INVALID_HEADER, 0 },
		{ "1,1", ERR_INVALID_HEADER, 0 },
		{ "0x1", ERR_INVALID_HEADER, 0 },
		{ "1e2", ERR_INVALID_HEADER, 0 },
		{ "99999999999999999999999999999999999x", ERR_INVALID_HEADER, 0 },
	};
	for (size_t i = 0; i < ARRAY_LEN(length); i++) {
		struct request r = FEED(
			{ "REQUEST_METHOD", "POST" }, { "REQUEST_URI", "/" }, { "CONTENT_LENGTH", length[i].text });
		assert_int_equal(finish(&r), length[i].status);
		assert_int_equal(r.content_length, length[i].n);
		assert_int_equal(r.has_length, length[i].status == OK);
	}
	struct request r = FEED({ "REQUEST_METHOD", "POST" }, { "REQUEST_URI", "/" }, { "CONTENT_LENGTH", "" });
	assert_int_equal(finish(&r), OK);
	assert_false(r.has_length);
}

static void headers_that_do_not_fit_are_too_large(void **state)
{
	(void)state;
	struct arena *a = arena_create(64);
	struct request r = { 0 };
	request_param(&r, a, VIEW("REQUEST_METHOD"), VIEW("GET"));
	request_param(&r, a, VIEW("REQUEST_URI"), VIEW("/"));
	request_param(
		&r, a, VIEW("HTTP_ACCEPT"), VIEW("this is more than sixty-four bytes can hold, with all the others"));
	assert_int_equal(finish(&r), ERR_HEADERS_TOO_LARGE);
	arena_destroy(a);
}

/* --- the path --- */

static enum status route(void **state, const char *mount, const char *uri, struct route_path *path)
{
	struct request r = get(state, uri);
	assert_int_equal(finish(&r), OK);
	return request_route(&r, *state, view_of(mount), path);
}

static void a_path_is_split_before_it_is_decoded(void **state)
{
	struct route_path p;
	assert_int_equal(route(state, "/api", "/api/payments/1,EUR?x", &p), OK);
	assert_int_equal(p.n, 2);
	assert_int_equal(p.segment[0].n_parts, 1);
	assert_view(p.segment[0].part[0], "payments");
	assert_int_equal(p.segment[1].n_parts, 2);
	assert_view(p.segment[1].part[0], "1");
	assert_view(p.segment[1].part[1], "EUR");
	assert_int_equal(route(state, "/api", "/api/a%2Fb/c%2cd,%2525+", &p), OK);
	assert_int_equal(p.n, 2);
	assert_view(p.segment[0].part[0], "a/b");
	assert_int_equal(p.segment[1].n_parts, 2);
	assert_view(p.segment[1].part[0], "c,d");
	assert_view(p.segment[1].part[1], "%25+");
}

static void the_mount_itself_has_no_segments(void **state)
{
	struct route_path p;
	static const struct {
		const char *mount, *uri;
	} form[] = { { "/api", "/api" }, { "/api", "/api/" }, { "/api", "/api?x=1" }, { "", "/" }, { "", "/?x" },
		{ "/a/b", "/a/b/" } };
	for (size_t i = 0; i < ARRAY_LEN(form); i++) {
		p.n = 99;
		assert_int_equal(route(state, form[i].mount, form[i].uri, &p), OK);
		assert_int_equal(p.n, 0);
	}
	assert_int_equal(route(state, "", "/users", &p), OK);
	assert_view(p.segment[0].part[0], "users");
}

static void what_is_not_a_clean_path_below_the_mount_is_not_found(void **state)
{
	static const char *const bad[] = { "/", "/apix", "/ap", "/API/users", "/%61pi/users", "//api/users", "/api//",
		"/api//users", "/api/users/", "/api/users//1", "/api/.", "/api/..", "/api/../x", "/api/%2e%2e",
		"/api/.%2E/x", "/api/users/%00", "/api/users/a%00b", "/api/users/%0a", "/api/users/%7f", "/api/%",
		"/api/%4", "/api/%zz", "/api/%ff", "/api/%c3", "/api/\xff", "/api/,", "/api/users/1,", "/api/users/,1",
		"/api/users/1,,2", "/api/1/2/3/4/5/6/7/8/9" };
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct route_path p = { .n = 99 };
		if (route(state, "/api", bad[i], &p) != ERR_NOT_FOUND)
			fail_msg("%s", bad[i]);
		assert_int_equal(p.n, 99);
	}
}

static void as_many_segments_and_parts_as_allowed_are_taken(void **state)
{
	struct route_path p;
	assert_int_equal(route(state, "/api", "/api/1/2/3/4/5/6/7/8", &p), OK);
	assert_int_equal(p.n, REQUEST_SEGMENTS_MAX);
	char uri[200] = "/api/k";
	for (int i = 1; i < REQUEST_PARTS_MAX; i++)
		strcat(uri, ",k");
	assert_int_equal(route(state, "/api", uri, &p), OK);
	assert_int_equal(p.segment[0].n_parts, REQUEST_PARTS_MAX);
	strcat(uri, ",k");
	assert_int_equal(route(state, "/api", uri, &p), ERR_NOT_FOUND);
}

static void dots_inside_a_name_are_only_dots(void **state)
{
	struct route_path p;
	assert_int_equal(route(state, "", "/.a/a..b/.../..,x", &p), OK);
	assert_view(p.segment[0].part[0], ".a");
	assert_view(p.segment[3].part[0], "..");
}

static void a_full_arena_is_not_not_found(void **state)
{
	struct request r = get(state, "/api/users/12345678901234567890");
	assert_int_equal(finish(&r), OK);
	struct arena *a = arena_create(40);
	struct route_path p;
	assert_int_equal(request_route(&r, a, VIEW("/api"), &p), ERR_HEADERS_TOO_LARGE);
	arena_destroy(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(what_the_web_server_sends_becomes_a_request),
		arena_test(every_header_is_found_by_its_name),
		arena_test(names_that_only_look_like_ours_are_ignored),
		arena_test(values_are_copied),
		arena_test(an_identity_sent_twice_is_refused),
		arena_test(an_empty_first_one_hides_no_second_one),
		arena_test(lists_that_come_twice_are_joined),
		arena_test(control_characters_are_refused_and_kept_out),
		arena_test(a_request_without_method_or_uri_is_refused),
		arena_test(methods_are_known_by_their_exact_name),
		arena_test(the_absolute_form_is_stripped),
		arena_test(other_forms_and_fragments_are_refused),
		arena_test(options_may_ask_about_the_whole_server),
		arena_test(a_url_over_the_limit_is_too_long),
		arena_test(content_length_is_digits_within_the_limit),
		cmocka_unit_test(headers_that_do_not_fit_are_too_large),
		arena_test(a_path_is_split_before_it_is_decoded),
		arena_test(the_mount_itself_has_no_segments),
		arena_test(what_is_not_a_clean_path_below_the_mount_is_not_found),
		arena_test(as_many_segments_and_parts_as_allowed_are_taken),
		arena_test(dots_inside_a_name_are_only_dots),
		arena_test(a_full_arena_is_not_not_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
