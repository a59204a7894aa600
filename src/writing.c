/* New rows: from a body to a statement, from what was written to the answer. */
#include "config.h"

#include "exchange.h"

#include "http/params.h"

enum next insert_ask(struct exchange *ex)
{
	const struct resource *res = ex->resource;
	struct view detail = VIEW_NONE;
	if (ex->request.query.n)
		return problem(ex, ERR_UNKNOWN_PARAMETER, VIEW("Creating takes no parameters."));
	if (res->idempotency == IDEMPOTENCY_REQUIRED && !ex->request.header[HEADER_IDEMPOTENCY_KEY].p)
		return problem(ex, ERR_IDEMPOTENCY_KEY_MISSING, VIEW_NONE);
	enum status st = insert_parse(ex->arena, res, buf_view(&ex->body), &ex->insert, &detail);
	if (st != OK)
		return problem(ex, st, detail);
	ex->insert.returning = resource_may(ex->catalog, res, PRIVILEGE_SELECT, ex->principal.role);
	if (!shape_of(ex->arena, res, &ex->shape) ||
	    !insert_statement(&ex->statement, ex->arena, res, &ex->insert, ex->principal.tenant))
		return problem(ex, ERR_QUERY_TOO_COMPLEX, VIEW_NONE);
	exchange_query(ex, true);
	return NEXT;
}

/* Where the one new row is: below the mount, its key in the path. Hidden key columns do not exist, so none is hidden. */
static void location(struct exchange *ex)
{
	const struct resource *res = ex->resource;
	struct order order = { res->order, res->n_order };
	struct buf path = BUF(RESPONSE_HEAD_MAX), part = BUF(RESPONSE_HEAD_MAX);
	buf_view_put(&path, view_of(ex->service->settings->mount));
	buf_putc(&path, '/');
	percent_encode(&path, res->name);
	for (unsigned i = 0; i < res->n_key; i++) {
		unsigned term = 0;
		while (order.term[term].column != res->key[i])
			term++; /* an order is total: the key is in it */
		enum render_kind kind;
		int at = order_column(res, order, term, &kind);
		buf_clear(&part);
		render_text(&part, kind, rows_value(ex->rows, 0, at));
		buf_putc(&path, i ? ',' : '/');
		percent_encode(&path, buf_view(&part));
	}
	if (!buf_failed(&path) && !buf_failed(&part))
		response_header(&ex->response, VIEW("Location"), buf_view(&path));
	buf_free(&path);
	buf_free(&part);
}

enum next insert_answer(struct exchange *ex)
{
	struct response *r = &ex->response;
	r->http = 201;
	response_header(r, VIEW("Cache-Control"), VIEW("no-store"));
	if (!ex->insert.returning)
		return DONE;
	response_header(r, VIEW("Content-Type"), VIEW("application/json"));
	int n = rows_count(ex->rows);
	if (!ex->insert.many) {
		if (n == 1) {
			location(ex);
			row_write(&r->body, &ex->shape, ex->rows, 0);
		} else {
			buf_lit(&r->body, "null"); /* a trigger or a rule of the user's kept the row out */
		}
		return DONE;
	}
	buf_putc(&r->body, '[');
	for (int i = 0; i < n; i++) {
		if (i)
			buf_putc(&r->body, ',');
		row_write(&r->body, &ex->shape, ex->rows, i);
	}
	buf_putc(&r->body, ']');
	return DONE;
}
