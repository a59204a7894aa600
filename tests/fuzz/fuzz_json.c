/* What is taken is written again by json_string() and must then parse to the same tree; every part lies where the
 * header says; names are distinct. What is refused says why. */
#include "config.h"

#include "fuzz.h"

#include "base/json.h"

static const struct json_limits limits = { .depth = 20, .values = 2000 };

static void write_value(struct buf *b, const struct json *v)
{
	bool object = v->kind == JSON_OBJECT;
	switch (v->kind) {
	case JSON_STRING: json_string(b, v->string); return;
	case JSON_NUMBER: buf_view_put(b, v->string); return;
	case JSON_NULL:
	case JSON_TRUE:
	case JSON_FALSE: buf_view_put(b, v->text); return;
	case JSON_ARRAY:
	case JSON_OBJECT: break;
	}
	buf_putc(b, object ? '{' : '[');
	for (const struct json *c = v->child; c; c = c->next) {
		if (c != v->child)
			buf_putc(b, ',');
		if (object) {
			json_string(b, c->name);
			buf_putc(b, ':');
		}
		write_value(b, c);
	}
	buf_putc(b, object ? '}' : ']');
}

static void check_value(const struct json *v, struct view doc, bool member, unsigned depth)
{
	must(v->text.n > 0 && v->text.p >= doc.p && v->text.p + v->text.n <= doc.p + doc.n);
	must((v->name.p != NULL) == member);
	must(!member || utf8_valid(v->name));
	bool scalar = v->kind == JSON_STRING || v->kind == JSON_NUMBER;
	must((v->string.p != NULL) == scalar);
	if (v->kind == JSON_STRING)
		must(utf8_valid(v->string) && (v->string.n == 0 || !memchr(v->string.p, '\0', v->string.n)));
	bool container = v->kind == JSON_ARRAY || v->kind == JSON_OBJECT;
	must(!container || depth < limits.depth);
	must(container || !v->child);
	size_t n = 0;
	for (const struct json *c = v->child; c; c = c->next, n++) {
		check_value(c, v->text, v->kind == JSON_OBJECT, depth + 1);
		/* The first of its name is the only one. */
		must(v->kind != JSON_OBJECT || json_member(v, c->name) == c);
	}
	must(n == v->n_children);
}

static void must_be_same(const struct json *a, const struct json *b)
{
	must(a->kind == b->kind && a->n_children == b->n_children);
	must(view_eq(a->string, b->string) && view_eq(a->name, b->name));
	for (a = a->child, b = b->child; a; a = a->next, b = b->next)
		must_be_same(a, b);
}

static void check_again(struct arena *a, const struct json *v)
{
	struct buf b = BUF(16 << 20);
	struct view detail;
	write_value(&b, v);
	must(!buf_failed(&b));
	struct json *again = json_parse(a, buf_view(&b), &limits, &detail);
	must(again);
	must_be_same(v, again);
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct arena *a = arena_create(16 << 20);
	struct view doc = exact_copy(view_make((const char *)data, n));
	struct view detail = VIEW_NONE;
	struct json *v = json_parse(a, doc, &limits, &detail);
	if (v) {
		must(utf8_valid(doc));
		check_value(v, doc, false, 0);
		check_again(a, v);
	} else {
		must(detail.n > 0 && utf8_valid(detail));
	}
	exact_free(doc);
	arena_destroy(a);
	return 0;
}
