#include "config.h"

#include "unit.h"

#include "base/json.h"
#include "http/problem.h"

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

static void a_problem_has_its_members_in_order(void **state)
{
	struct response *r = *state;
	problem_write(r, ERR_NOT_FOUND, VIEW("No such \"user\"."), VIEW("0190b2c4-aaaa-7bbb-8ccc-1234567890ab"));
	assert_view(response_payload(r),
		"{\"type\":\"about:blank\",\"title\":\"There is nothing here\",\"status\":404,\"detail\":\"No such "
		"\\\"user\\\".\","
		"\"instance\":\"urn:uuid:0190b2c4-aaaa-7bbb-8ccc-1234567890ab\",\"code\":\"not_found\"}");
	struct buf out = BUF(4096);
	response_head(r, &out);
	assert_view(buf_view(&out),
		"Status: 404 Not Found\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"
		"Content-Length: 174\r\n\r\n");
	buf_free(&out);
}

static void what_is_absent_is_left_out(void **state)
{
	struct response *r = *state;
	problem_write(r, ERR_OVERLOADED, VIEW_NONE, VIEW_NONE);
	assert_view(response_payload(r),
		"{\"type\":\"about:blank\",\"title\":\"The server has more work than it can take\","
		"\"status\":503,\"code\":\"overloaded\"}");
}

static void an_id_that_is_no_uuid_is_escaped_into_a_urn(void **state)
{
	struct response *r = *state;
	static const struct {
		const char *id, *urn;
	} form[] = {
		{ "req-42", "\"urn:request:req-42\"" },
		{ "a\"b/\xff", "\"urn:request:a%22b%2F%FF\"" },
		{ "0190b2c4-aaaa-7bbb-8ccc-1234567890ag", "\"urn:request:0190b2c4-aaaa-7bbb-8ccc-1234567890ag\"" },
		{ "0190b2c4aaaaa-7bbb-8ccc-1234567890ab", "\"urn:request:0190b2c4aaaaa-7bbb-8ccc-1234567890ab\"" },
		{ "0190B2C4-AAAA-7BBB-8CCC-1234567890AB", "\"urn:uuid:0190B2C4-AAAA-7BBB-8CCC-1234567890AB\"" },
	};
	for (size_t i = 0; i < ARRAY_LEN(form); i++) {
		problem_write(r, ERR_INTERNAL, VIEW_NONE, view_of(form[i].id));
		buf_putc(&r->body, '\0');
		assert_non_null(strstr(r->body.p, form[i].urn));
	}
}

static void a_half_made_answer_is_forgotten(void **state)
{
	struct response *r = *state;
	response_restart(r, 200);
	(void)response_header(r, VIEW("ETag"), VIEW("\"x\""));
	buf_lit(&r->body, "{\"data\":[");
	problem_write(r, ERR_DEADLINE, VIEW_NONE, VIEW("r"));
	assert_int_equal(r->http, 504);
	assert_null(memmem(r->head.p, r->head.n, "ETag", 4));
	assert_int_equal(r->body.p[0], '{');
	assert_memory_equal(r->body.p, "{\"type\"", 7);
}

static void a_detail_that_is_not_utf8_does_not_break_the_document(void **state)
{
	struct response *r = *state;
	problem_write(r, ERR_RAISED, VIEW("a\xff"), VIEW("r"));
	assert_null(memmem(r->body.p, r->body.n, "detail", 6));
}

static void every_status_makes_a_json_document(void **state)
{
	struct response *r = *state;
	struct arena *a = arena_create(1 << 20);
	const struct json_limits limits = { .depth = 1, .values = 10 };
	for (int s = OK; s < STATUS_COUNT; s++) {
		problem_write(r, (enum status)s, VIEW("line one\nline two"), VIEW("r"));
		struct view detail;
		struct json *v = json_parse(a, response_payload(r), &limits, &detail);
		assert_non_null(v);
		assert_int_equal(v->n_children, 6);
		assert_view(json_member(v, VIEW("detail"))->string, "line one\nline two");
		assert_same_view(json_member(v, VIEW("code"))->string, view_of(status_code((enum status)s)));
		assert_true(*status_reason(status_http((enum status)s)) != '\0');
		arena_reset(a);
	}
	arena_destroy(a);
}

int main(void)
{
#define PROBLEM_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		PROBLEM_TEST(a_problem_has_its_members_in_order),
		PROBLEM_TEST(what_is_absent_is_left_out),
		PROBLEM_TEST(an_id_that_is_no_uuid_is_escaped_into_a_urn),
		PROBLEM_TEST(a_half_made_answer_is_forgotten),
		PROBLEM_TEST(a_detail_that_is_not_utf8_does_not_break_the_document),
		PROBLEM_TEST(every_status_makes_a_json_document),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
