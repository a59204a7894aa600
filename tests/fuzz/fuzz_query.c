/* Any query string over a small catalog: it is refused with a place, or becomes a statement in which nothing of the
 * client's stands. Proof: what the string says is spelt with letters that no name of the catalog and no word of our SQL
 * has, where the grammar does not ask for others; none of them may be in the text, whatever was parsed. */
#include "config.h"

#include "fuzz.h"

#include "base/base64.h"
#include "http/params.h"
#include "query/page.h"
#include "query/read.h"

/* --- a catalog --- */

#define COLUMN(text, oid, array, cat, nn)                                                                   \
	{ .name = VIEW_INIT(text), .quoted = VIEW_INIT("\"" text "\""), .type = VIEW_INIT("pg_catalog.t"), .type_oid = oid, \
	  .base_oid = oid, .array_oid = array, .type_kind = 'b', .category = cat, .sortable = true, .not_null = nn }

static struct column columns[] = {
	COLUMN("id", 20, 1016, 'N', true),
	COLUMN("b", 25, 1009, 'S', false),
	COLUMN("c", 1009, 0, 'A', false),
	COLUMN("d", 3802, 3807, 'U', false),
	COLUMN("e", 16, 1000, 'B', false),
	COLUMN("f", 3904, 3905, 'R', false),
	COLUMN("g", 20, 1016, 'N', false),
	{ .name = VIEW_INIT("h"), .quoted = VIEW_INIT("\"h\""), .base_oid = 25, .hidden = true },
};
static unsigned key[] = { 0 };
static struct order_term order[] = { { 0, false, false } };

static struct resource resources[] = {
#define RESOURCE(text, number)                                                                                    \
	{ .name = VIEW_INIT(text), .oid = number, .relation = VIEW_INIT("\"" text "\""), .methods = CATALOG_GET,           \
	  .columns = columns, .n_columns = ARRAY_LEN(columns), .key = key, .n_key = 1, .order = order, .n_order = 1,        \
	  .page_default = 5, .page_max = 9, .owner = -1, .regular_expressions = true }
	RESOURCE("p", 1), RESOURCE("r", 2), RESOURCE("s", 3),
};

static struct view id[] = { VIEW_INIT("id") }, g[] = { VIEW_INIT("g") };
static struct view quoted_id[] = { VIEW_INIT("\"id\"") }, quoted_g[] = { VIEW_INIT("\"g\"") };
static struct relationship relationships[] = {
	{ VIEW_INIT("u"), 2, 1, 1, g, id, quoted_g, quoted_id, false },  /* r.g -> p.id */
	{ VIEW_INIT("v"), 3, 2, 1, g, id, quoted_g, quoted_id, false },  /* s.g -> r.id */
	{ VIEW_INIT("w"), 1, 1, 1, g, id, quoted_g, quoted_id, false },  /* p.g -> p.id */
};
static struct text_search text_searches[] = { { VIEW_INIT("y"), VIEW_INIT("'pg_catalog.y'::pg_catalog.regconfig") } };

static struct catalog catalog = {
	.resources = resources, .n_resources = ARRAY_LEN(resources), .relationships = relationships,
	.n_relationships = ARRAY_LEN(relationships), .text_searches = text_searches, .n_text_searches = ARRAY_LEN(text_searches),
};

/* --- what must hold --- */

/* Of the bytes in which a client's text can be told from ours: ours has none of these. */
static bool is_foreign(unsigned char c)
{
	return c < ' ' || c >= 0x7f || strchr("ZXQK;\\`!^?~", c);
}

static void check_text(const struct statement *s)
{
	bool quoted = false;
	for (size_t i = 0; i < s->n_text; i++) {
		unsigned char c = (unsigned char)s->text[i];
		quoted ^= c == '"';
		/* ~ is an operator, and capitals are in our words: never in a name. */
		bool ours = !quoted && (c == '~' || c == 'X' || c == 'K' || c == 'Q' || c == 'Z');
		must(!is_foreign(c) || ours);
	}
	must(!quoted);
	must(!memmem(s->text, s->n_text, "ZZ", 2) && !memmem(s->text, s->n_text, "--", 2) && !memmem(s->text, s->n_text, "/*", 2));
}

/* Parameters are numbered from 1 on, each written once. */
static void check_parameters(const struct statement *s)
{
	int n = 0;
	for (size_t i = 0; i + 1 < s->n_text; i++) {
		if (s->text[i] != '$')
			continue;
		must(atoi(s->text + i + 1) == ++n);
	}
	must(n == s->n_params);
}

static void check(const struct statement *s, bool good, struct arena *a)
{
	if (!good) {
		must(s->failed || arena_full(a));
		return;
	}
	check_text(s);
	check_parameters(s);
}

static void fuzz_page(struct arena *a, const struct params *all)
{
	static struct page page;
	const struct bounds bounds = { 32, 200, 3, 8, 256, 1024 };
	const struct asker asker = { .arena = a, .catalog = &catalog };
	struct view detail = VIEW_NONE;
	struct shape shape;
	struct statement s;
	enum status st = page_read(&page, &bounds, &asker, &resources[0], all, &detail);
	if (st != OK) {
		must(status_http(st) == 400);
		must(detail.p || arena_full(a));
		return;
	}
	if (!page_shape(&page, &shape))
		return;
	check(&s, page_statement(&s, &page, &shape), a);
	check(&s, count_statement(&s, &page), a);
	check(&s, count_statement_bounded(&s, &page, 10), a);
	check(&s, plan_statement(&s, &page), a);
}

/* A cursor is base64url, which no fuzzer guesses: "cursor=" in front of JSON stands for it. */
static void encode_cursors(struct arena *a, struct params *all)
{
	for (size_t i = 0; i < all->n; i++) {
		struct param *p = &all->item[i];
		if (!view_eq(p->name, VIEW("cursor")) || !view_starts(p->value, VIEW("{")))
			continue;
		struct buf text = BUF(1 << 16);
		base64url_put(&text, p->value);
		struct view kept = arena_copy(a, buf_view(&text));
		if (kept.p)
			p->value = kept;
		buf_free(&text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct arena *a = arena_create(4 << 20);
	must(a);
	struct view query = exact_copy(view_make((const char *)data, n));
	struct params all;
	struct view detail = VIEW_NONE;
	if (params_parse(a, query, 64, &all, &detail) == OK) {
		encode_cursors(a, &all);
		fuzz_page(a, &all);
	}
	exact_free(query);
	arena_destroy(a);
	return 0;
}
