/* Pages and items: from a routed request to a statement, from rows to the body. */
#include "config.h"

#include "exchange.h"

#include "http/params.h"

enum { PARAMS_MAX = 64, PIECE_BYTES = 65536 };

/* --- parameters --- */

static enum status take_limit(struct exchange *ex, struct view v)
{
	int64_t n = 0;
	for (size_t i = 0; i < v.n; i++) {
		if (v.p[i] < '0' || v.p[i] > '9')
			return ERR_INVALID_LIMIT;
		if (n <= ex->resource->page_max)
			n = n * 10 + (v.p[i] - '0');
	}
	if (n == 0)
		return ERR_INVALID_LIMIT;
	ex->page.limit = n > ex->resource->page_max ? ex->resource->page_max : (int)n;
	return OK;
}

static enum status take_param(struct exchange *ex, const struct param *p, unsigned *seen, struct view *detail)
{
	enum { LIMIT = 1, CURSOR = 2 };
	unsigned which = view_eq(p->name, VIEW("limit")) ? LIMIT : view_eq(p->name, VIEW("cursor")) ? CURSOR : 0;
	if (!which) {
		*detail = view_eq(p->name, VIEW("offset"))
			? VIEW("Pages are asked for by cursor, not by offset: follow next_cursor.")
			: arena_printf(ex->arena, "There is no parameter \"%.*s\" here.", VIEW_ARG(p->name));
		return ERR_UNKNOWN_PARAMETER;
	}
	if (*seen & which) {
		*detail = arena_printf(ex->arena, "The parameter \"%.*s\" comes twice.", VIEW_ARG(p->name));
		return ERR_INVALID_PARAMETER;
	}
	*seen |= which;
	if (which == LIMIT)
		return take_limit(ex, p->value);
	return cursor_parse(ex->arena, ex->resource, ex->page.order, p->value, &ex->page.cursor, detail);
}

static enum status page_params(struct exchange *ex, struct view *detail)
{
	struct params all;
	enum status st = params_parse(ex->arena, ex->request.query, PARAMS_MAX, &all, detail);
	unsigned seen = 0;
	for (size_t i = 0; st == OK && i < all.n; i++)
		st = take_param(ex, &all.item[i], &seen, detail);
	return st;
}

/* --- pages --- */

static enum next ask(struct exchange *ex)
{
	exchange_query(ex, false);
	return NEXT;
}

enum next page_ask(struct exchange *ex)
{
	const struct resource *res = ex->resource;
	struct view detail = VIEW_NONE;
	ex->page = (struct page){
		.limit = res->page_default,
		.order = { res->order, res->n_order },
		.owner = ex->principal.tenant,
	};
	enum status st = page_params(ex, &detail);
	if (st != OK)
		return problem(ex, st, detail);
	if (!shape_of(ex->arena, res, &ex->shape) || !page_statement(&ex->statement, ex->arena, res, &ex->page))
		return problem(ex, ERR_QUERY_TOO_COMPLEX, VIEW_NONE);
	return ask(ex);
}

/* Answers are private to whoever asked, and current only as long as they are asked for again. */
static void read_headers(struct exchange *ex, int http)
{
	struct response *r = &ex->response;
	r->http = http;
	response_header(r, VIEW("Content-Type"), VIEW("application/json"));
	response_header(r, VIEW("Cache-Control"), VIEW("private, no-cache"));
	response_header(r, VIEW("Vary"), VIEW("Authorization, X-API-Key"));
}

enum next page_answer(struct exchange *ex)
{
	if (!ex->writing) {
		ex->writing = true;
		ex->writer = (struct page_writer){
			.resource = ex->resource,
			.page = &ex->page,
			.shape = &ex->shape,
			.rows = ex->rows,
			.max_bytes = (size_t)ex->service->settings->page_max_bytes,
		};
		read_headers(ex, 200);
		page_begin(&ex->writer, &ex->response.body);
	}
	if (!page_write(&ex->writer, &ex->response.body, PIECE_BYTES))
		return YIELD;
	if (ex->writer.cursor_too_long)
		return problem(ex, ERR_QUERY_TOO_COMPLEX, VIEW("The values that this list is sorted by are too long for a cursor."));
	return DONE;
}

/* --- items --- */

enum next item_ask(struct exchange *ex)
{
	if (ex->request.query.n)
		return problem(ex, ERR_UNKNOWN_PARAMETER, VIEW("An item takes no parameters."));
	if (!shape_of(ex->arena, ex->resource, &ex->shape))
		return problem(ex, ERR_OVERLOADED, VIEW_NONE);
	if (!item_statement(&ex->statement, ex->arena, ex->resource, ex->key, ex->principal.tenant))
		return problem(ex, arena_full(ex->arena) ? ERR_QUERY_TOO_COMPLEX : ERR_NOT_FOUND, VIEW_NONE);
	return ask(ex);
}

enum next item_answer(struct exchange *ex)
{
	if (rows_count(ex->rows) == 0)
		return problem(ex, ERR_NOT_FOUND, VIEW_NONE);
	read_headers(ex, 200);
	row_write(&ex->response.body, &ex->shape, ex->rows, 0);
	return DONE;
}
