#include "config.h"

#include "unit.h"

#include "http/response.h"

static int set_up(void **state)
{
	struct response *r = malloc(sizeof *r);
	response_init(r, 100000);
	*state = r;
	return 0;
}

static int tear_down(void **state)
{
	response_free(*state);
	free(*state);
	return 0;
}

static void assert_head(const struct response *r, const char *expected)
{
	struct buf out = BUF(8192);
	response_head(r, &out);
	assert_same_view(buf_view(&out), view_of(expected));
	buf_free(&out);
}

static void a_head_has_status_headers_and_length(void **state)
{
	struct response *r = *state;
	response_restart(r, 200);
	assert_true(response_header(r, VIEW("Content-Type"), VIEW("application/json")));
	assert_true(response_header(r, VIEW("ETag"), VIEW("\"abc\"")));
	buf_lit(&r->body, "{}");
	assert_head(
		r, "Status: 200 OK\r\nContent-Type: application/json\r\nETag: \"abc\"\r\nContent-Length: 2\r\n\r\n");
	assert_view(response_payload(r), "{}");
}

static void a_head_request_gets_the_length_without_the_body(void **state)
{
	struct response *r = *state;
	response_restart(r, 200);
	r->head_only = true;
	buf_lit(&r->body, "{}");
	assert_head(r, "Status: 200 OK\r\nContent-Length: 2\r\n\r\n");
	assert_view(response_payload(r), "");
}

static void answers_without_content_tell_no_length(void **state)
{
	struct response *r = *state;
	static const int codes[] = { 204, 304 };
	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		response_restart(r, codes[i]);
		buf_lit(&r->body, "forgotten");
		assert_head(r, codes[i] == 204 ? "Status: 204 No Content\r\n\r\n" : "Status: 304 Not Modified\r\n\r\n");
		assert_view(response_payload(r), "");
	}
}

static void an_empty_body_has_length_zero(void **state)
{
	struct response *r = *state;
	response_restart(r, 404);
	assert_head(r, "Status: 404 Not Found\r\nContent-Length: 0\r\n\r\n");
	assert_view(response_payload(r), "");
}

static void a_value_that_would_break_the_line_is_dropped(void **state)
{
	struct response *r = *state;
	response_restart(r, 200);
	assert_false(response_header(r, VIEW("X"), VIEW("a\r\nSet-Cookie: b")));
	assert_false(response_header(r, VIEW("X"), VIEW("a\n")));
	assert_false(response_header(r, VIEW("X"), VIEW("a\0b")));
	assert_false(response_header(r, VIEW("X\r"), VIEW("a")));
	assert_true(response_header(r, VIEW("X"), VIEW("")));
	assert_head(r, "Status: 200 OK\r\nX: \r\nContent-Length: 0\r\n\r\n");
}

static void a_header_that_does_not_fit_is_left_out_whole(void **state)
{
	struct response *r = *state;
	response_restart(r, 200);
	char value[RESPONSE_HEAD_MAX];
	memset(value, 'v', sizeof value);
	assert_false(response_header(r, VIEW("Link"), view_make(value, sizeof value)));
	assert_int_equal(r->head.n, 0);
	assert_true(response_header(r, VIEW("Link"), view_make(value, RESPONSE_HEAD_MAX - 8)));
	assert_int_equal(r->head.n, RESPONSE_HEAD_MAX);
	assert_false(response_header(r, VIEW("A"), VIEW("")));
	assert_int_equal(r->head.n, RESPONSE_HEAD_MAX);
	assert_false(buf_failed(&r->head));
}

static void a_restarted_answer_forgets_the_other_one(void **state)
{
	struct response *r = *state;
	response_restart(r, 200);
	r->head_only = true;
	assert_true(response_header(r, VIEW("ETag"), VIEW("x")));
	buf_lit(&r->body, "half an answ");
	response_restart(r, 503);
	assert_true(r->head_only); /* what was asked for stays asked for */
	assert_head(r, "Status: 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
}

static void a_body_over_its_limit_is_marked_until_restart(void **state)
{
	struct response *r = *state;
	response_restart(r, 200);
	buf_printf(&r->body, "%100001d", 1);
	assert_true(buf_failed(&r->body));
	response_restart(r, 500);
	assert_false(buf_failed(&r->body));
}

static void reset_keeps_small_memory_and_gives_large_back(void **state)
{
	struct response *r = *state;
	buf_printf(&r->body, "%1000d", 1);
	r->head_only = true;
	response_reset(r, 4096);
	assert_int_equal(r->http, 0);
	assert_false(r->head_only);
	assert_non_null(r->body.p);
	buf_printf(&r->body, "%50000d", 1);
	response_reset(r, 4096);
	assert_null(r->body.p);
	buf_lit(&r->body, "usable");
	assert_view(buf_view(&r->body), "usable");
}

int main(void)
{
#define RESPONSE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		RESPONSE_TEST(a_head_has_status_headers_and_length),
		RESPONSE_TEST(a_head_request_gets_the_length_without_the_body),
		RESPONSE_TEST(answers_without_content_tell_no_length),
		RESPONSE_TEST(an_empty_body_has_length_zero),
		RESPONSE_TEST(a_value_that_would_break_the_line_is_dropped),
		RESPONSE_TEST(a_header_that_does_not_fit_is_left_out_whole),
		RESPONSE_TEST(a_restarted_answer_forgets_the_other_one),
		RESPONSE_TEST(a_body_over_its_limit_is_marked_until_restart),
		RESPONSE_TEST(reset_keeps_small_memory_and_gives_large_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
