/* Pages and items: from a routed request to a statement, from rows to the body. */
#include "config.h"

#include "exchange.h"

#include "http/params.h"
#include "partial.h"
#include "query/etag.h"

enum {
	PARAMS_MAX = 64,
	PIECE_BYTES = 65536,
	ESTIMATE_BOUND = 1000, /* rows up to which an estimated count is an exact one */
	HEAD_RESERVE = 512,    /* for the headers that every answer gets at its end */
};

/* --- who asks, and for what --- */

struct bounds exchange_bounds(const struct exchange *ex)
{
	const struct settings *set = ex->service->settings;
	return (struct bounds){
		.filters = (unsigned)set->filters_max,
		.list_items = (unsigned)set->list_items_max,
		.levels = (unsigned)set->embed_levels_max,
		.embeds = (unsigned)set->embeds_max,
		.pattern_bytes = (size_t)set->pattern_max_bytes,
		.cursor_bytes = (size_t)set->cursor_max_bytes,
	};
}

static struct asker asker_of(const struct exchange *ex)
{
	return (struct asker){
		.arena = ex->arena,
		.catalog = ex->catalog,
		.role = ex->principal.role,
		.tenant = ex->principal.tenant,
		.public_only = !ex->principal.has_key && !ex->catalog->anonymous_role.p,
	};
}

/* Prefer: count=exact, ... */
void read_count(struct exchange *ex)
{
	struct view rest = ex->request.header[HEADER_PREFER];
	ex->total = (struct total){ .how = COUNT_NONE };
	for (struct view part; view_split(&rest, ',', &part);) {
		part = view_trim(part);
		if (view_ieq(part, VIEW("count=exact")))
			ex->total.how = COUNT_EXACT;
		else if (view_ieq(part, VIEW("count=planned")))
			ex->total.how = COUNT_PLANNED;
		else if (view_ieq(part, VIEW("count=estimated")))
			ex->total.how = COUNT_ESTIMATED;
	}
}

/* An exact count reads every row that fits; an estimate knows of rows that row-level security hides. */
static enum status check_count(const struct exchange *ex, struct view *detail)
{
	const struct resource *res = ex->resource;
	if (ex->total.how == COUNT_EXACT && !res->exact_count) {
		*detail = VIEW("This resource is not counted exactly.");
		return ERR_QUERY_TOO_COMPLEX;
	}
	if ((ex->total.how == COUNT_PLANNED || ex->total.how == COUNT_ESTIMATED) && res->rls) {
		*detail = VIEW("The rows of this resource depend on who asks: they are not estimated.");
		return ERR_INVALID_HEADER;
	}
	return OK;
}

/* --- pages --- */

static bool ask_count(struct exchange *ex)
{
	struct statement *s = &ex->statement;
	switch (ex->total.how) {
	case COUNT_EXACT: return count_statement(s, &ex->page);
	case COUNT_ESTIMATED:
		if (!ex->total.planning)
			return count_statement_bounded(s, &ex->page, ESTIMATE_BOUND + 1);
		break;
	case COUNT_PLANNED: ex->total.planning = true; break;
	case COUNT_NONE: break;
	}
	return plan_statement(s, &ex->page);
}

bool read_statement(const struct exchange *ex, struct statement *s)
{
	return ex->operation == OP_PAGE ? page_statement(s, &ex->page, &ex->shape)
					: item_statement(s, &ex->page, &ex->shape, ex->key);
}

/* The count first, then the page. */
static enum next ask_next(struct exchange *ex, enum next after)
{
	bool counts = ex->total.how != COUNT_NONE && !ex->total.known;
	if (!counts && partial_begin(ex))
		return after;
	if (!(counts ? ask_count(ex) : read_statement(ex, &ex->statement)))
		return problem(ex, ERR_QUERY_TOO_COMPLEX, VIEW_NONE);
	exchange_query(ex, false);
	return after;
}

enum next read_prepare(struct exchange *ex)
{
	struct params all;
	struct view detail = VIEW_NONE;
	struct bounds bounds = exchange_bounds(ex);
	struct asker asker = asker_of(ex);
	bool page = ex->operation == OP_PAGE;
	if (ex->prepared)
		return NEXT;
	ex->total = (struct total){ .how = COUNT_NONE };
	if (page)
		read_count(ex);
	enum status st = params_parse(ex->arena, ex->request.query, PARAMS_MAX, &all, &detail);
	if (st == OK && page)
		st = check_count(ex, &detail);
	if (st == OK)
		st = page ? page_read(&ex->page, &bounds, &asker, ex->resource, &all, &detail)
			  : item_read(&ex->page, &bounds, &asker, ex->resource, &all, &detail);
	if (st == OK && !page_shape(&ex->page, &ex->shape))
		st = ERR_QUERY_TOO_COMPLEX;
	if (st != OK)
		return problem(ex, st, detail);
	ex->runs_code = page_runs_code(&ex->page);
	exchange_read_for_all(ex);
	ex->prepared = true;
	return NEXT;
}

enum next page_ask(struct exchange *ex)
{
	return read_prepare(ex) == NEXT && partial_prepare(ex) == NEXT ? ask_next(ex, NEXT) : DONE;
}

/* --- what caches are told --- */

void exchange_read_for_all(struct exchange *ex)
{
	ex->for_all = page_is_public(&ex->page, ex->catalog->anonymous_role);
}

/* A surrogate's tag: the resource, or a row of it, as it stands in a path. */
static void put_tag(struct buf *b, const struct exchange *ex, bool row)
{
	percent_encode(b, ex->resource->name);
	for (unsigned i = 0; row && i < ex->resource->n_key; i++) {
		buf_putc(b, i ? ',' : '/');
		percent_encode(b, ex->key[i]);
	}
}

static void put_embedded_tags(struct buf *b, const struct node *parent)
{
	for (const struct node *n = parent->child; n; n = n->next) {
		buf_putc(b, ' ');
		percent_encode(b, n->resource->name);
		if (n->link.junction) {
			buf_putc(b, ' ');
			percent_encode(b, n->link.junction->name);
		}
		put_embedded_tags(b, n);
	}
}

/* A tag for each row of a list. False: one cannot be told. */
static bool put_row_tags(struct buf *b, const struct exchange *ex)
{
	const struct resource *r = ex->resource;
	struct buf value = BUF(512);
	bool told = ex->writer.at <= ex->service->settings->surrogate_rows;
	for (int row = 0; told && row < ex->writer.at; row++) {
		buf_putc(b, ' ');
		percent_encode(b, r->name);
		for (unsigned i = 0; told && i < r->n_key; i++) {
			buf_clear(&value);
			told = page_sorted_by(&ex->writer, row, &r->columns[r->key[i]], &value) && !buf_failed(&value);
			buf_putc(b, i ? ',' : '/');
			percent_encode(b, buf_view(&value));
		}
	}
	buf_free(&value);
	return told && !buf_failed(b);
}

/* To be purged by: the resources that are in it, and its rows; a function. Where a list's rows do not fit into the head, three
 * times and with what is still to come, it is purged as a whole. Fastly and Varnish take tags by blanks, Cloudflare and Akamai
 * by comma: a key's own is escaped there. */
static void surrogate_keys(struct exchange *ex)
{
	size_t left = RESPONSE_HEAD_MAX - ex->response.head.n;
	struct buf tags = BUF(512), rows = BUF(left > HEAD_RESERVE ? (left - HEAD_RESERVE) / 3 : 0);
	if (ex->function) {
		buf_lit(&tags, "rpc/");
		percent_encode(&tags, ex->function->name);
	} else {
		put_tag(&tags, ex, false);
		put_embedded_tags(&tags, &ex->page.tree.root);
	}
	if (ex->key) {
		buf_putc(&tags, ' ');
		put_tag(&tags, ex, true);
	}
	buf_view_put(&rows, buf_view(&tags));
	if (ex->operation == OP_PAGE && put_row_tags(&rows, ex)) {
		buf_free(&tags);
		tags = rows;
		rows = BUF(0);
	}
	if (!buf_failed(&tags)) {
		response_header(&ex->response, VIEW("Surrogate-Key"), buf_view(&tags));
		response_header(&ex->response, VIEW("xkey"), buf_view(&tags));
		for (size_t i = 0; i < tags.n; i++)
			tags.p[i] = tags.p[i] == ',' ? ';' : tags.p[i] == ' ' ? ',' : tags.p[i];
		response_header(&ex->response, VIEW("Cache-Tag"), buf_view(&tags));
	}
	buf_free(&tags);
	buf_free(&rows);
}

void cache_headers(struct exchange *ex, const struct cache_policy *policy)
{
	struct response *r = &ex->response;
	response_header(r, VIEW("Cache-Control"), ex->for_all ? policy->control : policy->narrow);
	response_header(r, VIEW("Vary"), ex->for_all ? VIEW("Accept, Prefer") : VIEW("Accept, Prefer, Authorization, X-API-Key"));
	if (!ex->for_all)
		return;
	if (policy->cdn.p)
		response_header(r, VIEW("CDN-Cache-Control"), policy->cdn);
	if (ex->operation != OP_PAGE)
		surrogate_keys(ex);
}

void entity_tag(struct exchange *ex)
{
	etag_of(ex->catalog->tag_key, buf_view(&ex->response.body), ex->etag);
	ex->n_etag = sizeof ex->etag;
	struct view etag = view_make(ex->etag, ex->n_etag), known = ex->request.header[HEADER_IF_NONE_MATCH];
	response_header(&ex->response, VIEW("ETag"), etag);
	if (known.p && etag_matches(known, etag, false))
		ex->response.http = 304;
}

static void read_headers(struct exchange *ex)
{
	struct response *r = &ex->response;
	r->http = 200;
	response_header(r, VIEW("Content-Type"), format_type[ex->format]);
	if (partial_lacks(ex))
		partial_headers(ex);
	else
		cache_headers(ex, &ex->resource->policy);
}

static void preference_header(struct exchange *ex, struct view applied)
{
	bool partial = partial_preferred(ex);
	if (!partial && !applied.n)
		return;
	struct view text = arena_printf(ex->arena, "%.*s%s%s", VIEW_ARG(applied), partial && applied.n ? ", " : "",
	                                partial ? "partial" : "");
	response_header(&ex->response, VIEW("Preference-Applied"), text);
}

static void count_headers(struct exchange *ex)
{
	static const struct view applied[] = {
		[COUNT_EXACT] = VIEW_INIT("count=exact"), [COUNT_PLANNED] = VIEW_INIT("count=planned"),
		[COUNT_ESTIMATED] = VIEW_INIT("count=estimated"),
	};
	if (ex->total.how == COUNT_NONE) {
		preference_header(ex, VIEW(""));
		return;
	}
	struct buf range = BUF(64);
	buf_lit(&range, "*/");
	buf_i64(&range, ex->total.n);
	response_header(&ex->response, VIEW("Content-Range"), buf_view(&range));
	preference_header(ex, applied[ex->total.how]);
	buf_free(&range);
}

/* Our own path as it was asked for; what would end the link is escaped. */
static void put_uri(struct buf *b, struct view uri)
{
	for (size_t i = 0; i < uri.n; i++) {
		unsigned char c = (unsigned char)uri.p[i];
		if (c <= ' ' || c >= 0x7f || strchr("<>\"\\^`{|}", c))
			percent_encode(b, view_make(uri.p + i, 1));
		else
			buf_putc(b, (char)c);
	}
}

/* As it is read, and not as it is written: "%63ursor=" is one, too. */
static bool is_cursor(struct exchange *ex, struct view piece)
{
	struct view name;
	(void)view_split(&piece, '=', &name);
	return view_eq(percent_decode(ex->arena, name, true), VIEW("cursor"));
}

static void put_link(struct exchange *ex, struct buf *links, struct view rel, struct view cursor)
{
	struct buf link = BUF(RESPONSE_HEAD_MAX);
	struct view query = ex->request.query;
	char between = '?';
	if (links->n)
		buf_lit(&link, ", ");
	buf_putc(&link, '<');
	put_uri(&link, ex->request.path);
	for (struct view piece; view_split(&query, '&', &piece);) {
		if (!piece.n || is_cursor(ex, piece))
			continue;
		buf_putc(&link, between);
		put_uri(&link, piece);
		between = '&';
	}
	if (cursor.n) {
		buf_putc(&link, between);
		buf_lit(&link, "cursor=");
		buf_view_put(&link, cursor);
	}
	buf_lit(&link, ">; rel=\"");
	buf_view_put(&link, rel);
	buf_putc(&link, '"');
	/* What does not fit is left out: the body has the next cursor, too. */
	if (!buf_failed(&link) && links->n + link.n < RESPONSE_HEAD_MAX / 2)
		buf_view_put(links, buf_view(&link));
	buf_free(&link);
}

static void link_header(struct exchange *ex)
{
	const struct page_writer *w = &ex->writer;
	struct buf links = BUF(RESPONSE_HEAD_MAX), next = BUF(RESPONSE_HEAD_MAX), prev = BUF(RESPONSE_HEAD_MAX);
	put_link(ex, &links, VIEW("first"), VIEW_NONE);
	if (page_has_prev(w) && page_cursor(w, true, &prev) && !buf_failed(&prev))
		put_link(ex, &links, VIEW("prev"), buf_view(&prev));
	if (page_has_next(w) && page_cursor(w, false, &next) && !buf_failed(&next))
		put_link(ex, &links, VIEW("next"), buf_view(&next));
	if (links.n)
		response_header(&ex->response, VIEW("Link"), buf_view(&links));
	buf_free(&links);
	buf_free(&next);
	buf_free(&prev);
}

static enum next take_total(struct exchange *ex)
{
	struct total *t = &ex->total;
	struct view v = rows_count(ex->rows) == 1 ? rows_value(ex->rows, 0, 0) : VIEW_NONE;
	if (t->planning) {
		int64_t n = planned_rows(ex->arena, v);
		if (n < 0)
			return problem(ex, ERR_DATABASE, VIEW_NONE);
		/* More were counted than the bound: the estimate cannot say fewer. */
		t->n = t->how == COUNT_ESTIMATED && n <= ESTIMATE_BOUND ? ESTIMATE_BOUND + 1 : n;
		t->known = true;
	} else {
		t->n = rows_int(v);
		t->known = t->how == COUNT_EXACT || t->n <= ESTIMATE_BOUND;
		t->planning = !t->known;
	}
	return ask_next(ex, WAIT);
}

static enum next begin_page(struct exchange *ex)
{
	ex->writing = true;
	ex->writer = (struct page_writer){
		.page = &ex->page,
		.shape = &ex->shape,
		.rows = ex->rows,
		.format = ex->format,
		.behind = partial_lacks(ex) ? partial_members(ex) : VIEW_NONE,
		.max_bytes = (size_t)ex->service->settings->page_max_bytes,
	};
	read_headers(ex);
	count_headers(ex);
	page_begin(&ex->writer, &ex->response.body);
	if (arena_full(ex->arena))
		return problem(ex, ERR_QUERY_TOO_COMPLEX, VIEW_NONE);
	if (ex->format == FORMAT_OBJECT && ex->writer.n != 1)
		return problem(ex, ERR_NOT_ONE_ROW, VIEW_NONE);
	return NEXT;
}

enum next page_answer(struct exchange *ex)
{
	if (ex->total.how != COUNT_NONE && !ex->total.known)
		return take_total(ex);
	if (!ex->writing && !shape_fits(&ex->shape, ex->rows))
		return exchange_anew(ex);
	if (!ex->writing && begin_page(ex) == DONE)
		return DONE;
	if (!page_write(&ex->writer, &ex->response.body, PIECE_BYTES))
		return YIELD;
	if (ex->writer.cursor_too_long)
		return problem(ex, ERR_QUERY_TOO_COMPLEX, VIEW("The values that this list is sorted by are too long for a cursor."));
	link_header(ex);
	if (!partial_lacks(ex)) {
		entity_tag(ex);
		if (ex->for_all)
			surrogate_keys(ex); /* the last: rows are named as far as there is room */
	}
	return DONE;
}

/* --- items --- */

enum next item_ask(struct exchange *ex)
{
	if (read_prepare(ex) != NEXT || partial_prepare(ex) != NEXT)
		return DONE;
	if (partial_begin(ex))
		return NEXT;
	if (!read_statement(ex, &ex->statement))
		return problem(ex, arena_full(ex->arena) || ex->statement.failed ? ERR_QUERY_TOO_COMPLEX : ERR_NOT_FOUND, VIEW_NONE);
	exchange_query(ex, false);
	return NEXT;
}

enum next item_answer(struct exchange *ex)
{
	if (!shape_fits(&ex->shape, ex->rows))
		return exchange_anew(ex);
	if (rows_count(ex->rows) == 0)
		return problem(ex, ERR_NOT_FOUND, VIEW_NONE);
	read_headers(ex);
	preference_header(ex, VIEW(""));
	row_write(&ex->response.body, &ex->shape, ex->rows, 0);
	if (!partial_lacks(ex))
		entity_tag(ex); /* what If-Match of a write is compared with, where the item comes as it is without parameters */
	return DONE;
}
