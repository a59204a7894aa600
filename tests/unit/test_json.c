#include "config.h"

#include "unit.h"

#include "base/json.h"

static const struct json_limits usual = { .depth = 16, .values = 100000 };

static struct json *parse(void **state, struct view doc)
{
	struct view detail = VIEW_NONE;
	struct json *v = json_parse(*state, doc, &usual, &detail);
	if (!v)
		print_message("%.*s: %.*s\n", VIEW_ARG(doc), VIEW_ARG(detail));
	return v;
}

static void assert_refused(void **state, struct view doc, const char *why)
{
	struct view detail = VIEW_NONE;
	if (json_parse(*state, doc, &usual, &detail))
		fail_msg("taken: %.*s", VIEW_ARG(doc));
	assert_non_null(detail.p);
	if (!strstr(arena_copy(*state, detail).p, why))
		fail_msg("%.*s: \"%.*s\" does not say \"%s\"", VIEW_ARG(doc), VIEW_ARG(detail), why);
}

#define REFUSED(doc, why) assert_refused(state, VIEW(doc), why)

static void every_kind_is_read(void **state)
{
	struct json *v = parse(state, VIEW(" {\"a\" : [1, \"x\", true,false , null, {}], \"b\":-0.5e+3}\r\n\t"));
	assert_non_null(v);
	assert_int_equal(v->kind, JSON_OBJECT);
	assert_int_equal(v->n_children, 2);
	assert_absent(v->name);
	struct json *a = json_member(v, VIEW("a"));
	assert_int_equal(a->kind, JSON_ARRAY);
	assert_int_equal(a->n_children, 6);
	assert_view(a->text, "[1, \"x\", true,false , null, {}]");
	static const enum json_kind kinds[] = { JSON_NUMBER, JSON_STRING, JSON_TRUE, JSON_FALSE, JSON_NULL,
		JSON_OBJECT };
	struct json *child = a->child;
	for (size_t i = 0; i < 6; i++, child = child->next)
		assert_int_equal(child->kind, kinds[i]);
	assert_null(child);
	assert_view(a->child->string, "1");
	assert_view(a->child->next->text, "\"x\"");
	assert_view(a->child->next->string, "x");
	struct json *b = json_member(v, VIEW("b"));
	assert_view(b->string, "-0.5e+3");
	assert_view(b->name, "b");
	assert_null(json_member(v, VIEW("c")));
}

static void numbers_keep_every_digit(void **state)
{
	static const char *const numbers[] = { "0", "-0", "0.1", "1e5", "1E-5", "1e+05",
		"123456789012345678901234567890", "0.10000000000000000000000000000000001", "-9223372036854775809" };
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		assert_same_view(parse(state, view_of(numbers[i]))->string, view_of(numbers[i]));
}

static void what_is_no_number_is_refused(void **state)
{
	REFUSED("01", "behind the end");
	REFUSED("-", "number");
	REFUSED("1.", "number");
	REFUSED(".5", "a value is expected");
	REFUSED("1e", "number");
	REFUSED("1e+", "number");
	REFUSED("+1", "a value is expected");
	REFUSED("0x10", "behind the end");
	REFUSED("NaN", "a value is expected");
	REFUSED("-Infinity", "number");
	REFUSED("--1", "number");
	REFUSED("1_000", "behind the end");
}

static void strings_are_decoded(void **state)
{
	assert_view(parse(state, VIEW("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""))->string, "\"\\/\b\f\n\r\t");
	assert_view(parse(state, VIEW("\"a\\u0041\\u00e4\\u20AC\\ud83d\\ude00z\""))->string,
		"aA\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z");
	assert_view(parse(state, VIEW("\"\\uffff\\udbff\\udfff\""))->string, "\xef\xbf\xbf\xf4\x8f\xbf\xbf");
	assert_view(parse(state, VIEW("\"\""))->string, "");
	assert_view(parse(state, VIEW("\"\x7f \xf0\x9f\x98\x80\""))->string, "\x7f \xf0\x9f\x98\x80");
	assert_view(parse(state, VIEW("{\"\\u0061\":1}"))->child->name, "a");
}

static void broken_strings_are_refused(void **state)
{
	REFUSED("\"abc", "not closed");
	REFUSED("\"abc\\", "not closed");
	REFUSED("\"abc\\\"", "not closed");
	REFUSED("\"a\nb\"", "control character");
	REFUSED("\"a\0b\"", "control character");
	REFUSED("\"\\x\"", "escape");
	REFUSED("\"\\u12\"", "four hexadecimal");
	REFUSED("\"\\u12g4\"", "four hexadecimal");
	REFUSED("\"\\u", "not closed");
	REFUSED("\"\\u0000\"", "\\u0000");
	REFUSED("'a'", "a value is expected");
}

static void lone_surrogates_are_refused(void **state)
{
	REFUSED("\"\\ud83d\"", "surrogate");
	REFUSED("\"\\ud83dx\"", "surrogate");
	REFUSED("\"\\ud83d\\n\"", "surrogate");
	REFUSED("\"\\ud83d\\ud83d\"", "surrogate");
	REFUSED("\"\\ude00\"", "surrogate");
	REFUSED("\"\\ude00\\ud83d\"", "surrogate");
}

static void broken_structure_is_refused(void **state)
{
	REFUSED("", "ends where a value");
	REFUSED("  ", "ends where a value");
	REFUSED("[", "ends where a value");
	REFUSED("[1", "a comma or ] is expected (byte 2)");
	REFUSED("[1,]", "a value is expected (byte 3)");
	REFUSED("[1 2]", "a comma or ]");
	REFUSED("[,1]", "a value");
	REFUSED("{", "a member name");
	REFUSED("{\"a\"", "a colon");
	REFUSED("{\"a\":}", "a value");
	REFUSED("{\"a\":1,}", "a member name");
	REFUSED("{\"a\":1 \"b\":2}", "a comma or }");
	REFUSED("{a:1}", "a member name");
	REFUSED("{1:1}", "a member name");
	REFUSED("[1}", "a comma or ]");
	REFUSED("]", "a value");
	REFUSED("1 1", "behind the end of the document (byte 2)");
	REFUSED("[] []", "behind the end");
	REFUSED("[]\0", "behind the end");
	REFUSED("nul", "a value");
	REFUSED("nulll", "behind the end");
	REFUSED("True", "a value");
	REFUSED("// c\n1", "a value");
	REFUSED("\xef\xbb\xbf{}", "a value"); /* a byte order mark is not JSON's */
}

static void bytes_that_are_not_utf8_are_refused(void **state)
{
	REFUSED("\"\xff\"", "not UTF-8 (byte 1)");
	REFUSED("\"0123456789\xc3\"", "not UTF-8 (byte 11)");
	REFUSED("\"\xed\xa0\x80\"", "not UTF-8");
}

static void a_member_that_is_there_twice_is_refused(void **state)
{
	REFUSED("{\"a\":1,\"b\":2,\"a\":3}", "of this name");
	REFUSED("{\"a\":1,\"\\u0061\":2}", "of this name");
	REFUSED("[{\"x\":{\"a\":1,\"a\":1}}]", "of this name");
	assert_non_null(parse(state, VIEW("[{\"a\":1},{\"a\":1}]")));
	assert_non_null(parse(state, VIEW("{\"a\":{\"a\":1}}")));
	assert_non_null(parse(state, VIEW("{\"a\":1,\"A\":1}")));
}

/* An object of n members "m<i>", the last of which repeats member `again` (n: none does). */
static void many_members(struct buf *b, size_t n, size_t again)
{
	buf_lit(b, "{");
	for (size_t i = 0; i < n; i++)
		buf_printf(b, "%s\"m%zu\":%zu", i ? "," : "", i == n - 1 && again < n ? again : i, i);
	buf_lit(b, "}");
}

static void duplicates_are_found_among_any_number_of_members(void **state)
{
	struct buf b = BUF(1 << 20);
	static const size_t sizes[] = { 2, 15, 16, 17, 18, 31, 32, 33, 64, 65, 1000, 20000 };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		size_t n = sizes[i];
		const size_t again[] = { 0, (n - 1) / 2, n - 2 };
		for (size_t k = 0; k < ARRAY_LEN(again); k++) {
			arena_reset(*state);
			buf_clear(&b);
			many_members(&b, n, again[k]);
			assert_refused(state, buf_view(&b), "of this name");
		}
		arena_reset(*state);
		buf_clear(&b);
		many_members(&b, n, n);
		struct json *v = parse(state, buf_view(&b));
		assert_non_null(v);
		assert_int_equal(v->n_children, n);
		assert_view(json_member(v, VIEW("m1"))->string, "1");
	}
	buf_free(&b);
}

static void depth_is_bounded(void **state)
{
	const struct json_limits two = { .depth = 2, .values = 100 };
	struct view detail;
	assert_non_null(json_parse(*state, VIEW("[[1],{}]"), &two, &detail));
	assert_null(json_parse(*state, VIEW("[[{}]]"), &two, &detail));
	assert_non_null(strstr(arena_copy(*state, detail).p, "nested too deep (byte 2)"));
	const struct json_limits none = { .depth = 0, .values = 1 };
	assert_non_null(json_parse(*state, VIEW("1"), &none, &detail));
	assert_null(json_parse(*state, VIEW("[]"), &none, &detail));
}

static void the_number_of_values_is_bounded(void **state)
{
	const struct json_limits four = { .depth = 2, .values = 4 };
	struct view detail;
	assert_non_null(json_parse(*state, VIEW("[1,2,3]"), &four, &detail));
	assert_null(json_parse(*state, VIEW("[1,2,3,4]"), &four, &detail));
	assert_non_null(strstr(arena_copy(*state, detail).p, "too many values"));
}

static void a_full_arena_is_said_in_words(void **state)
{
	(void)state;
	struct arena *a = arena_create(300);
	struct view detail = VIEW_NONE;
	assert_null(json_parse(a, VIEW("[1,2,3,4,5,6,7,8]"), &usual, &detail));
	assert_view(detail, "the document is too large");
	arena_destroy(a);
}

static void an_absent_document_is_an_empty_one(void **state)
{
	struct view detail;
	assert_null(json_parse(*state, VIEW_NONE, &usual, &detail));
}

static void every_prefix_of_a_document_is_refused(void **state)
{
	static const char doc[] = "{\"a\":[1.5e-3,\"x\\u00e4\\n\",true,null],\"b\":{\"c\":\"\\ud83d\\ude00\"}}";
	for (size_t n = 0; n < sizeof doc - 1; n++) {
		char *exact = malloc(n + !n); /* so that a sanitizer sees one byte too far */
		memcpy(exact, doc, n);
		struct view detail = VIEW_NONE;
		assert_null(json_parse(*state, view_make(exact, n), &usual, &detail));
		assert_non_null(detail.p);
		free(exact);
	}
	assert_non_null(
		parse(state, VIEW("{\"a\":[1.5e-3,\"x\\u00e4\\n\",true,null],\"b\":{\"c\":\"\\ud83d\\ude00\"}}")));
}

static struct view written(struct buf *b, struct view v)
{
	buf_clear(b);
	json_string(b, v);
	return buf_view(b);
}

static void strings_are_written_as_postgresql_writes_them(void **state)
{
	(void)state;
	struct buf b = BUF(1000);
	assert_view(written(&b, VIEW("")), "\"\"");
	assert_view(written(&b, VIEW_NONE), "\"\"");
	assert_view(written(&b, VIEW("plain / \x7f \xc3\xa4")), "\"plain / \x7f \xc3\xa4\"");
	assert_view(written(&b, VIEW("\b\f\n\r\t\"\\")), "\"\\b\\f\\n\\r\\t\\\"\\\\\"");
	assert_view(written(&b, VIEW("\x01\x0b\x1f")), "\"\\u0001\\u000b\\u001f\"");
	assert_view(written(&b, VIEW("01234567\"0123456\n8\\")), "\"01234567\\\"0123456\\n8\\\\\"");
	buf_free(&b);
}

static void a_special_byte_is_found_at_every_place(void **state)
{
	(void)state;
	struct buf b = BUF(1000);
	for (int c = 1; c < 128; c++) {
		bool special = c < 0x20 || c == '"' || c == '\\';
		for (size_t n = 1; n < 20; n++)
			for (size_t at = 0; at < n; at++) {
				char text[20];
				memset(text, 'a', n);
				text[at] = (char)c;
				assert_int_equal(written(&b, view_make(text, n)).n > n + 2, special);
			}
	}
	buf_free(&b);
}

static void what_is_written_reads_back_the_same(void **state)
{
	uint64_t seed = 3;
	struct buf b = BUF(10000);
	for (int round = 0; round < 2000; round++) {
		char text[64];
		size_t n = 0;
		for (size_t want = (size_t)(draw(&seed) % 50); n < want;) {
			uint64_t r = draw(&seed);
			if (r % 8 == 0)
				memcpy(text + n, "\xf0\x9f\x98\x80", 4), n += 4;
			else
				text[n++] = (char)(1 + (r >> 8) % 127);
		}
		arena_reset(*state);
		struct json *v = parse(state, written(&b, view_make(text, n)));
		assert_non_null(v);
		assert_same_view(v->string, view_make(text, n));
	}
	buf_free(&b);
}

static void a_string_that_does_not_fit_marks_the_buf(void **state)
{
	(void)state;
	struct buf b = BUF(8);
	json_string(&b, VIEW("0123456"));
	assert_true(buf_failed(&b));
	buf_free(&b);
}

static void utf8_is_told_from_what_is_not(void **state)
{
	(void)state;
	static const char *const good[] = { "", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
		"\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf",
		"0123456\xc3\xa4 01234567\xc3\xa4" };
	static const char *const bad[] = { "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xe2\x82", "\xe2\x28\xa1", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98",
		"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xfe", "0123456789\x80", "0123456\xc3" };
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(utf8_valid(view_of(good[i])));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(utf8_valid(view_of(bad[i])));
	assert_true(utf8_valid(VIEW_NONE));
	assert_true(utf8_valid(VIEW("\0")));
}

/* Every code point, and every number that is none. */
static void utf8_agrees_with_its_definition(void **state)
{
	(void)state;
	for (uint32_t c = 0x80; c < 0x120000; c++) {
		char text[4];
		size_t n = 0;
		if (c >= 0x10000) {
			text[n++] = (char)(0xf0 | c >> 18);
			text[n++] = (char)(0x80 | (c >> 12 & 0x3f));
		} else if (c >= 0x800) {
			text[n++] = (char)(0xe0 | c >> 12);
		}
		if (c >= 0x800)
			text[n++] = (char)(0x80 | (c >> 6 & 0x3f));
		else
			text[n++] = (char)(0xc0 | c >> 6);
		text[n++] = (char)(0x80 | (c & 0x3f));
		bool valid = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
		if (utf8_valid(view_make(text, n)) != valid)
			fail_msg("U+%04X", c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		arena_test(every_kind_is_read),
		arena_test(numbers_keep_every_digit),
		arena_test(what_is_no_number_is_refused),
		arena_test(strings_are_decoded),
		arena_test(broken_strings_are_refused),
		arena_test(lone_surrogates_are_refused),
		arena_test(broken_structure_is_refused),
		arena_test(bytes_that_are_not_utf8_are_refused),
		arena_test(a_member_that_is_there_twice_is_refused),
		arena_test(duplicates_are_found_among_any_number_of_members),
		arena_test(depth_is_bounded),
		arena_test(the_number_of_values_is_bounded),
		arena_test(a_full_arena_is_said_in_words),
		arena_test(an_absent_document_is_an_empty_one),
		arena_test(every_prefix_of_a_document_is_refused),
		cmocka_unit_test(strings_are_written_as_postgresql_writes_them),
		cmocka_unit_test(a_special_byte_is_found_at_every_place),
		arena_test(what_is_written_reads_back_the_same),
		cmocka_unit_test(a_string_that_does_not_fit_marks_the_buf),
		cmocka_unit_test(utf8_is_told_from_what_is_not),
		cmocka_unit_test(utf8_agrees_with_its_definition),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
