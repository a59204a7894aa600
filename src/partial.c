/* The one hard fact: what is missing is never kept and never has an ETag. So whoever gets a partial answer gets it once, and
 * nobody gets it in place of a whole one. */
#include "config.h"

#include "partial.h"

#include "base/json.h"
#include "base/log.h"
#include "guard.h"
#include "query/parts.h"
#include "recall.h"
#include "replicas.h"

enum {
	NAMES_MAX = 1024, /* bytes of the header that names what is missing */
};

enum stage {
	THE_BEGINNING, /* nothing of it has been sent */
	THE_WHOLE,
	EACH_PART,
	WHAT_CAME,
	THE_PAGE,
};

struct trial {
	struct part part;
	enum status status; /* OK: not known to fail */
	struct exchange *ex;
	struct statement statement;
	struct query query;
	struct pool *pool;        /* that it is asked of */
	struct rows *rows;
	bool out, tried;
	struct breaker_call call; /* past the breaker of what it reads */
	bool passed;
};

struct partial {
	struct exchange *ex;
	enum stage stage;
	struct trial *trial;
	unsigned n, n_out;
	bool late, preferred;
	bool tried;               /* the whole was sent */
	struct timer budget;
};

static void on_budget(struct timer *);

/* --- who asks for it --- */

/* RFC 7240 section 2: a token, perhaps a value, perhaps parameters. An empty value is none. */
static bool prefers(struct view all)
{
	for (struct view one; view_split(&all, ',', &one);) {
		struct view value, name;
		(void)view_split(&one, ';', &value);
		(void)view_split(&value, '=', &name);
		value = view_trim(value);
		if (view_ieq(view_trim(name), VIEW("partial")) && (!value.n || view_eq(value, VIEW("\"\""))))
			return true;
	}
	return false;
}

static bool is_wanted(const struct exchange *ex)
{
	bool reads = ex->operation == OP_PAGE || ex->operation == OP_ITEM;
	return reads && !ex->renews && (ex->resource->partial || prefers(ex->request.header[HEADER_PREFER]));
}

static struct partial *make(struct exchange *ex)
{
	struct part *part = NULL;
	unsigned n = parts_find(ex->arena, &ex->page, &part);
	struct partial *p = n ? ARENA_NEW(ex->arena, struct partial) : NULL;
	struct trial *trial = n ? ARENA_ARRAY(ex->arena, struct trial, n) : NULL;
	if (!p || !trial)
		return NULL;
	for (unsigned i = 0; i < n; i++)
		trial[i] = (struct trial){ .part = part[i], .ex = ex };
	*p = (struct partial){ .ex = ex, .trial = trial, .n = n, .preferred = prefers(ex->request.header[HEADER_PREFER]) };
	p->budget.fire = on_budget;
	return p;
}

/* Half of what is left. Returns when that is. */
static int64_t budget_begin(struct exchange *ex)
{
	int64_t now = loop_now_us(ex->service->loop), until = now + (ex->deadline_us - now) / 2;
	loop_timer_set(ex->service->loop, &ex->partial->budget, until);
	return until;
}

static void budget_end(struct exchange *ex)
{
	loop_timer_stop(ex->service->loop, &ex->partial->budget);
	ex->query_until_us = 0;
}

enum next partial_prepare(struct exchange *ex)
{
	if (ex->partial || !is_wanted(ex))
		return NEXT;
	bool for_all = ex->for_all; /* as recall found it, which has looked at more */
	if (read_prepare(ex) == DONE)
		return DONE;
	if (ex->recall)
		ex->for_all = for_all;
	ex->partial = make(ex);
	if (ex->partial)
		(void)budget_begin(ex);
	return NEXT;
}

/* --- asking --- */

/* Not where what it reads is known to be failing now. */
static void pass_breakers(struct exchange *ex)
{
	struct partial *p = ex->partial;
	for (unsigned i = 0; i < p->n; i++) {
		struct trial *t = &p->trial[i];
		if (!t->part.node || t->passed || t->status != OK)
			continue;
		t->passed = guard_part(ex, t->part.node->resource, &t->call);
		if (!t->passed)
			t->status = ERR_CIRCUIT_OPEN;
	}
}

/* What became of each, where the rest is there: else it is not known whose fault it was. Nor is it where nothing of it was sent,
 * since another request's answer was waited for. */
static void tell_breakers(struct exchange *ex, bool answered)
{
	struct partial *p = ex->partial;
	bool known = answered && ex->failed == OK && ex->query_done && p->stage != THE_BEGINNING;
	for (unsigned i = 0; i < p->n; i++) {
		struct trial *t = &p->trial[i];
		if (t->passed)
			guard_part_end(ex, t->part.node->resource, &t->call, known && (p->tried || t->tried) ? t->status : ERR_UNAVAILABLE);
		t->passed = false;
	}
}

static unsigned count_left(const struct partial *p)
{
	unsigned n = 0;
	for (unsigned i = 0; i < p->n; i++)
		n += p->trial[i].status == OK;
	return n;
}

static void fail_left(struct partial *p, enum status why)
{
	for (unsigned i = 0; i < p->n; i++)
		if (p->trial[i].status == OK)
			p->trial[i].status = why;
}

static void skip_what_failed(struct exchange *ex)
{
	struct partial *p = ex->partial;
	for (unsigned i = 0; i < p->n; i++)
		part_skip(&ex->page, &p->trial[i].part, p->trial[i].status != OK);
}

static void set_stage(struct exchange *ex, enum stage stage)
{
	ex->partial->stage = stage;
	skip_what_failed(ex);
	if (stage == THE_PAGE)
		budget_end(ex);
	else
		ex->query_until_us = budget_begin(ex);
}

static void ask(struct exchange *ex, enum stage stage)
{
	set_stage(ex, stage);
	bool fits = read_statement(ex, &ex->statement);
	ex->statement.failed |= !fits; /* which is found out when it is sent */
	exchange_query(ex, false);
}

static void on_done(struct query *, enum status, const struct db_error *);

static void on_rows(struct query *q, struct rows *rows)
{
	CONTAINER_OF(q, struct trial, query)->rows = rows;
}

static void try_at(struct trial *t, struct pool *pool)
{
	t->query = (struct query){ .statement = &t->statement, .rows = on_rows, .done = on_done };
	t->pool = pool;
	t->out = t->tried = true;
	t->ex->partial->n_out++;
	exchange_query_beside(t->ex, &t->query, pool);
}

static bool make_statement(struct exchange *ex, struct trial *t)
{
	part_skip(&ex->page, &t->part, false);
	bool fits = read_statement(ex, &t->statement);
	part_skip(&ex->page, &t->part, true);
	return fits;
}

static void abandon(struct partial *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		struct trial *t = &p->trial[i];
		if (t->out) {
			pool_abandon(t->pool, &t->query);
			t->status = ERR_DEADLINE;
		}
		t->out = false;
	}
	p->n_out = 0;
}

static void free_rows(struct partial *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		rows_free(p->trial[i].rows);
		p->trial[i].rows = NULL;
	}
}

/* As if the exchange had asked for no more. */
static void take_rows(struct exchange *ex, struct trial *t)
{
	ex->rows = t->rows;
	t->rows = NULL;
	ex->statement = t->statement;
	if (t->pool == ex->service->pool)
		ex->replica = NULL;
}

/* The rows of the only part that came are the answer; of several, they are asked for together. */
static void settle(struct exchange *ex)
{
	struct partial *p = ex->partial;
	unsigned came = count_left(p);
	if (came != 1) {
		free_rows(p);
		ask(ex, came ? WHAT_CAME : THE_PAGE);
		return;
	}
	for (unsigned i = 0; i < p->n; i++) {
		struct trial *t = &p->trial[i];
		if (t->status == OK)
			take_rows(ex, t);
	}
	free_rows(p);
	set_stage(ex, THE_PAGE);
	ex->query_status = OK;
	ex->sqlstate[0] = '\0';
	ex->query_done = true;
	exchange_resume(ex);
}

/* What a part may be to blame for. Not: that PostgreSQL cannot be reached, has no room, or was sent a wrong value. */
static bool may_be_a_parts(enum status st)
{
	return st == ERR_DATABASE || st == ERR_DEADLINE || st == ERR_FORBIDDEN || st == ERR_RAISED;
}

/* The exchange's query has failed so, as it is: no part has to do with it. */
static void fail(struct exchange *ex)
{
	abandon(ex->partial);
	free_rows(ex->partial);
	set_stage(ex, THE_PAGE);
	ex->query_done = true;
	loop_defer(ex->service->loop, &ex->resume);
}

static void on_done(struct query *q, enum status status, const struct db_error *error)
{
	struct trial *t = CONTAINER_OF(q, struct trial, query);
	struct exchange *ex = t->ex;
	struct pool *primary = ex->service->pool;
	t->out = false;
	ex->partial->n_out--;
	enum status why = status == OK ? OK : exchange_failed_beside(ex, q, status, error);
	/* Others may still be out at the replica, so this one goes where nobody has to ask how far it is. */
	if (t->pool != primary && replicas_again(ex, q, status != OK)) {
		rows_free(t->rows);
		t->rows = NULL;
		try_at(t, primary);
		return;
	}
	t->status = why;
	if (error && status != OK)
		log_warn("%.*s: a part fails: SQLSTATE %s: %.*s", VIEW_ARG(ex->resource->name), error->sqlstate,
		         VIEW_ARG(error->message));
	if (why != OK && !may_be_a_parts(why))
		fail(ex);
	else if (ex->partial->n_out == 0)
		settle(ex);
}

static void try_each(struct exchange *ex)
{
	struct partial *p = ex->partial;
	struct pool *pool = replicas_pool(ex);
	bool fits = true;
	p->stage = EACH_PART;
	ex->query_until_us = budget_begin(ex);
	for (unsigned i = 0; i < p->n; i++)
		part_skip(&ex->page, &p->trial[i].part, true);
	for (unsigned i = 0; i < p->n && fits; i++) {
		if (p->trial[i].status != OK)
			continue;
		fits = make_statement(ex, &p->trial[i]);
		if (fits)
			try_at(&p->trial[i], pool);
	}
	if (!fits) {
		ex->query_status = ERR_QUERY_TOO_COMPLEX;
		ex->sqlstate[0] = '\0';
		fail(ex);
	} else if (p->n_out == 0) {
		settle(ex);
	}
}

bool partial_begin(struct exchange *ex)
{
	struct partial *p = ex->partial;
	if (!p)
		return false;
	pass_breakers(ex);
	unsigned left = count_left(p);
	if (p->late && left > 1) {
		try_each(ex);
		return true;
	}
	if (p->late)
		fail_left(p, ERR_DEADLINE);
	p->tried = left && !p->late;
	set_stage(ex, p->tried ? THE_WHOLE : THE_PAGE);
	return false;
}

bool partial_goes_on(struct exchange *ex, enum status st)
{
	struct partial *p = ex->partial;
	if (!p || p->stage == THE_BEGINNING || p->stage == THE_PAGE || !may_be_a_parts(st))
		return false;
	/* What was never sent says nothing of its parts, and whoever has no time for one statement has none for many. */
	bool tells = p->stage == THE_WHOLE && ex->query.n_sent > 0;
	p->tried &= tells || p->stage != THE_WHOLE;
	recall_give_way(ex, st == ERR_DEADLINE);
	if (tells && count_left(p) > 1) {
		try_each(ex);
		return true;
	}
	fail_left(p, st);
	ask(ex, THE_PAGE);
	return true;
}

/* The time of the stage is over. */
static void on_budget(struct timer *timer)
{
	struct partial *p = CONTAINER_OF(timer, struct partial, budget);
	struct exchange *ex = p->ex;
	if (p->stage == EACH_PART) {
		abandon(p);
		settle(ex);
	} else if (p->stage != THE_BEGINNING) {
		exchange_give_up(ex);
	} else if (recall_leave(ex)) {
		p->late = true;
		exchange_resume(ex);
	}
}

bool partial_is_late(const struct exchange *ex)
{
	return ex->partial && ex->partial->late;
}

void partial_answered(struct exchange *ex)
{
	if (ex->partial)
		tell_breakers(ex, true);
}

void partial_end(struct exchange *ex)
{
	struct partial *p = ex->partial;
	if (!p)
		return;
	budget_end(ex);
	tell_breakers(ex, false);
	abandon(p);
	free_rows(p);
	ex->partial = NULL;
}

/* --- what it says --- */

bool partial_lacks(const struct exchange *ex)
{
	return ex->partial && count_left(ex->partial) < ex->partial->n;
}

bool partial_preferred(const struct exchange *ex)
{
	return partial_lacks(ex) && ex->partial->preferred;
}

/* Goes over the members that are missing. */
struct missing {
	struct member member;
	enum status why;
};

static bool missing_next(const struct exchange *ex, struct missing *m)
{
	const struct partial *p = ex->partial;
	while (member_next(&ex->page.tree.root, &m->member)) {
		for (unsigned i = 0; i < p->n; i++) {
			m->why = p->trial[i].status;
			if (m->why != OK && part_has(&p->trial[i].part, &m->member))
				return true;
		}
	}
	return false;
}

static bool is_token(struct view v)
{
	static const char marks[] = "!#$%&'*+-.^_`|~:/";
	for (size_t i = 0; i < v.n; i++) {
		char c = v.p[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*';
		bool other = (c >= '0' && c <= '9') || (c && strchr(marks, c));
		if (!letter && (i == 0 || !other))
			return false;
	}
	return v.n > 0;
}

/* A name as an item of a structured field: a token, else a string, else a display string (RFC 9651 section 3.3). */
static void put_name(struct buf *b, struct view name)
{
	bool ascii = true;
	for (size_t i = 0; i < name.n; i++)
		ascii &= name.p[i] >= ' ' && name.p[i] <= '~';
	if (is_token(name)) {
		buf_view_put(b, name);
		return;
	}
	buf_view_put(b, ascii ? VIEW("\"") : VIEW("%\""));
	for (size_t i = 0; i < name.n; i++) {
		unsigned char c = (unsigned char)name.p[i];
		bool escaped = ascii ? c == '"' || c == '\\' : c == '%' || c == '"' || c < ' ' || c > '~';
		if (escaped && ascii)
			buf_putc(b, '\\');
		if (escaped && !ascii)
			buf_printf(b, "%%%02x", c);
		else
			buf_putc(b, (char)c);
	}
	buf_putc(b, '"');
}

static void put_missing(struct buf *b, struct view name, enum status why)
{
	if (b->n)
		buf_lit(b, ", ");
	put_name(b, name);
	buf_lit(b, ";code=");
	buf_view_put(b, view_of(status_code(why)));
}

void partial_headers(struct exchange *ex)
{
	struct buf names = BUF(NAMES_MAX);
	enum status why = OK;
	for (struct missing m = { .why = OK }; missing_next(ex, &m);) {
		put_missing(&names, m.member.item->name, m.why);
		why = m.why;
	}
	/* Names that do not fit are not cut. */
	if (buf_failed(&names)) {
		buf_clear(&names);
		put_missing(&names, VIEW("*"), why);
	}
	response_header(&ex->response, VIEW("Composure-Partial"), buf_view(&names));
	response_header(&ex->response, VIEW("Cache-Control"), VIEW("no-store"));
	buf_free(&names);
}

struct view partial_members(struct exchange *ex)
{
	struct buf text = BUF(1 << 20);
	for (struct missing m = { .why = OK }; missing_next(ex, &m);) {
		buf_view_put(&text, text.n ? VIEW(",{\"member\":") : VIEW(",\"partial\":true,\"missing\":[{\"member\":"));
		json_string(&text, m.member.item->name);
		buf_lit(&text, ",\"code\":\"");
		buf_view_put(&text, view_of(status_code(m.why)));
		buf_lit(&text, "\"}");
	}
	buf_putc(&text, ']');
	struct view members = arena_copy(ex->arena, buf_view(&text));
	buf_free(&text);
	return members;
}
