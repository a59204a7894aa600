/* What is taken must be valid UTF-8 without NUL and survive being encoded and parsed again; what percent_encode()
 * writes must decode to what it was given. */
#include "config.h"

#include "fuzz.h"

#include "base/json.h"
#include "http/params.h"

enum { MAX = 16 };

static void write_query(struct buf *b, const struct params *p)
{
	for (size_t i = 0; i < p->n; i++) {
		if (i)
			buf_putc(b, '&');
		percent_encode(b, p->item[i].name);
		buf_putc(b, '=');
		percent_encode(b, p->item[i].value);
	}
}

static bool good(struct view v)
{
	return v.p && utf8_valid(v) && (v.n == 0 || !memchr(v.p, '\0', v.n));
}

static void check_params(struct arena *a, const struct params *p)
{
	must(p->n <= MAX);
	struct buf query = BUF(1 << 20);
	write_query(&query, p);
	struct params again = { 0 };
	struct view detail = VIEW_NONE;
	must(params_parse(a, buf_view(&query), MAX, &again, &detail) == OK);
	must(again.n == p->n);
	for (size_t i = 0; i < p->n; i++) {
		must(good(p->item[i].name) && good(p->item[i].value));
		must(view_eq(again.item[i].name, p->item[i].name));
		must(view_eq(again.item[i].value, p->item[i].value));
	}
	buf_free(&query);
}

static void check_round_trip(struct arena *a, struct view bytes)
{
	struct buf b = BUF(1 << 20);
	percent_encode(&b, bytes);
	struct view back = percent_decode(a, buf_view(&b), true);
	must(back.p && view_eq(back, bytes));
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct arena *a = arena_create(4 << 20);
	struct view query = exact_copy(view_make((const char *)data, n));
	struct params p = { 0 };
	struct view detail = VIEW_NONE;
	enum status s = params_parse(a, query, MAX, &p, &detail);
	must(s == OK || s == ERR_BAD_REQUEST || s == ERR_QUERY_TOO_COMPLEX);
	must((s == OK) == (detail.p == NULL));
	if (s == OK)
		check_params(a, &p);
	check_round_trip(a, query);
	exact_free(query);
	arena_destroy(a);
	return 0;
}
