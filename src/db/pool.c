/* The one hard fact: a query can be out on several connections at a time (sent once more behind a stall), or on none.
 * So what is out is a flight, and a query and its flights point at each other; whichever ends first cuts the ties. */
#include "config.h"

#include "db/pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

enum {
	STALL_US = 5000,      /* a segment out for longer holds others up */
	FAST_US = 10000,      /* a statement within this counts as fast */
	PROVEN_RUNS = 8,      /* so many fast ones in a row prove a class */
	NAMED_RUNS = 2,       /* a class that succeeded so often is worth a prepared statement */
	SENT_MAX = 3,         /* a read is out on so many connections at most */
	DEPTH_MAX = 8,        /* statements that queue on a connection */
	GRACE_US = 1000000,   /* silence past the deadline before a connection is given up */
	BACKOFF_FIRST_US = 50000,
	BACKOFF_MAX_US = 1000000,
	CLASSES = 1024,
};

/* One answer in 64 moves the share of slow ones by 1/64; above 1/16 the class runs alone. */
static const unsigned SLOW_ONE = 1024, SLOW_LIMIT = 4096, SLOW_SHIFT = 6; /* in 1/65536 */

struct class {
	uint64_t hash;
	uint32_t slow;       /* share of slow answers lately, in 1/65536 */
	uint16_t fast_runs;  /* saturating; back to 0 by a slow answer while unproven */
	uint16_t successes;  /* saturating */
	int64_t stalled_us;  /* when it last held others up: not merged for a while after */
};

struct flight {
	struct query *query;      /* NULL: nobody wants it any more */
	struct flight *next;      /* of the same query */
	uint64_t hash;
};

struct batch {
	struct segment segment;
	struct slot *slot;
	struct batch *next;       /* in slot, oldest first; or free */
	struct flight flight[SEGMENT_STATEMENTS_MAX];
	unsigned n;
	bool exclusive;           /* nothing may queue behind it */
	bool write;
	bool hedged;              /* those behind the stall were sent once more */
	int64_t give_up_us;       /* no answer by then: close */
};

struct slot {
	struct pool *pool;
	struct conn *conn;
	struct batch *head, **tail;
	unsigned n_out;           /* statements out */
	int64_t retry_us;         /* not opened again before */
	int64_t backoff_us;
};

struct list {
	struct query *head, **tail;
};

struct pool {
	struct loop *loop;
	struct pool_options options;
	struct slot *slots;
	unsigned n_slots;

	struct list fast, alone; /* waiting to be sent */
	unsigned n_waiting, n_out;
	struct task flush;
	struct timer tick;
	struct batch *free_batches;

	struct class classes[CLASSES];
	unsigned hedge_credit;    /* so that re-sending stays a small share of the work */
	bool down;                /* the last attempt failed and nothing stands */
	char why[200];
};

static void flush(struct task *);
static void tick(struct timer *);

/* --- lists of waiting queries --- */

static void list_add(struct list *l, struct query *q)
{
	q->next = NULL;
	q->link = l->tail;
	*l->tail = q;
	l->tail = &q->next;
}

static void list_push(struct list *l, struct query *q)
{
	q->next = l->head;
	q->link = &l->head;
	if (l->head)
		l->head->link = &q->next;
	else
		l->tail = &q->next;
	l->head = q;
}

static void list_remove(struct list *l, struct query *q)
{
	*q->link = q->next;
	if (q->next)
		q->next->link = q->link;
	else
		l->tail = q->link;
	q->link = NULL;
}

/* --- classes --- */

static struct class *class_of(struct pool *p, uint64_t hash)
{
	struct class *c = &p->classes[hash % CLASSES];
	if (c->hash != hash)
		*c = (struct class){ .hash = hash };
	return c;
}

static bool class_is_fast(const struct class *c)
{
	return c->fast_runs >= PROVEN_RUNS && c->slow < SLOW_LIMIT;
}

static void class_learn(struct class *c, int64_t took_us, bool good)
{
	bool fast = took_us <= FAST_US;
	c->slow -= c->slow >> SLOW_SHIFT;
	if (!fast)
		c->slow += SLOW_ONE;
	if (!fast && c->fast_runs < PROVEN_RUNS)
		c->fast_runs = 0;
	else if (fast && c->fast_runs < UINT16_MAX)
		c->fast_runs++;
	if (good && c->successes < UINT16_MAX)
		c->successes++;
}

/* --- the life of a query --- */

static void wake(struct pool *p)
{
	loop_defer(p->loop, &p->flush);
}

static struct list *list_for(struct pool *p, const struct query *q)
{
	bool shares = !q->write && !q->alone && class_is_fast(class_of(p, q->statement->hash));
	return shares ? &p->fast : &p->alone;
}

/* Waiting is told from the link; which of the two lists it is in matters only for the last one of it. */
static void unwait(struct pool *p, struct query *q)
{
	if (!q->link)
		return;
	list_remove(p->fast.tail == &q->next ? &p->fast : &p->alone, q);
	p->n_waiting--;
}

static void cut_flights(struct pool *p, struct query *q)
{
	for (struct flight *f = q->flights; f; f = f->next)
		f->query = NULL;
	if (q->flights)
		p->n_out--;
	q->flights = NULL;
}

static void finish(struct pool *p, struct query *q, enum status status, const struct db_error *error)
{
	unwait(p, q);
	cut_flights(p, q);
	q->done(q, status, error);
}

static void wait_again(struct pool *p, struct query *q)
{
	if (q->link)
		return;
	list_add(list_for(p, q), q);
	p->n_waiting++;
	wake(p);
}

static void unlink_flight(struct pool *p, struct flight *f)
{
	struct query *q = f->query;
	f->query = NULL;
	for (struct flight **at = &q->flights; *at; at = &(*at)->next) {
		if (*at == f) {
			*at = f->next;
			break;
		}
	}
	if (!q->flights)
		p->n_out--;
}

/* Once more, by itself, for a reason that was not its own. `harmless`: it is known that nothing of it took effect.
 * False when it had its second chance. */
static bool again(struct pool *p, struct query *q, bool harmless)
{
	if (q->retried || (q->write && !harmless) || loop_now_us(p->loop) >= q->deadline_us)
		return false;
	q->retried = q->alone = true;
	wait_again(p, q);
	return true;
}

/* --- batches --- */

static struct batch *batch_take(struct pool *p)
{
	struct batch *b = p->free_batches;
	if (b)
		p->free_batches = b->next;
	else
		b = malloc(sizeof *b);
	return b;
}

static void batch_free(struct pool *p, struct batch *b)
{
	b->next = p->free_batches;
	p->free_batches = b;
}

static struct batch *batch_of(struct segment *s)
{
	return CONTAINER_OF(s, struct batch, segment);
}

static bool on_rows(struct segment *s, unsigned statement, struct rows *rows)
{
	struct batch *b = batch_of(s);
	struct pool *p = b->slot->pool;
	struct flight *f = &b->flight[statement];
	struct query *q = f->query;
	if (!q)
		return false;
	q->rows(q, rows);
	if (q->write)
		return true; /* done() waits for the commit */
	class_learn(class_of(p, f->hash), loop_now_us(p->loop) - s->head_since_us, true);
	if (p->hedge_credit < 4096)
		p->hedge_credit++;
	finish(p, q, OK, NULL);
	return true;
}

/* What each flight of a segment comes to that did not end well. */
static void flight_failed(struct batch *b, unsigned i, enum segment_end end, const struct db_error *error)
{
	struct pool *p = b->slot->pool;
	struct flight *f = &b->flight[i];
	struct query *q = f->query;
	if (!q)
		return;
	unlink_flight(p, f);
	if (q->flights || q->link)
		return; /* another one of it is still out, or about to be */
	bool has_state = error && error->sqlstate[0];
	if (end == SEGMENT_LOST) {
		if (again(p, q, false))
			return;
		/* An error that came before the end says that the transaction was rolled back. */
		enum status st = q->write && !has_state ? ERR_OUTCOME_UNKNOWN : ERR_UNAVAILABLE;
		finish(p, q, st, error);
		return;
	}
	bool stale = has_state && (strcmp(error->sqlstate, "26000") == 0 || strcmp(error->sqlstate, "0A000") == 0);
	if ((b->n > 1 || stale) && again(p, q, true))
		return;
	if (has_state && strcmp(error->sqlstate, "57014") == 0)
		class_learn(class_of(p, f->hash), FAST_US + 1, false);
	finish(p, q, has_state ? sqlstate_status(error->sqlstate) : ERR_DATABASE, error);
}

static void on_done(struct segment *s, enum segment_end end, int failed, const struct db_error *error)
{
	struct batch *b = batch_of(s);
	struct slot *slot = b->slot;
	struct pool *p = slot->pool;
	(void)failed;
	slot->head = b->next;
	if (!slot->head)
		slot->tail = &slot->head;
	slot->n_out -= b->n;
	for (unsigned i = 0; i < b->n; i++) {
		struct flight *f = &b->flight[i];
		if (end != SEGMENT_DONE) {
			flight_failed(b, i, end, error);
		} else if (f->query) {
			/* A write whose commit is through, or a statement that returns nothing at all. */
			class_learn(class_of(p, f->hash), loop_now_us(p->loop) - s->head_since_us, true);
			finish(p, f->query, OK, NULL);
		} else if (b->n == 1) {
			/* Nobody waited for it any more: that it was slow is worth knowing all the same. */
			class_learn(class_of(p, f->hash), loop_now_us(p->loop) - s->head_since_us, true);
		}
	}
	batch_free(p, b);
}

/* --- connections --- */

static void on_ready(void *context, struct conn *c)
{
	(void)c;
	struct slot *slot = context;
	slot->backoff_us = 0;
	slot->pool->down = false;
	slot->pool->why[0] = '\0';
	wake(slot->pool);
}

static void on_progress(void *context, struct conn *c)
{
	(void)c;
	struct pool *p = ((struct slot *)context)->pool;
	if (p->n_waiting)
		wake(p);
}

static bool any_alive(const struct pool *p)
{
	for (unsigned i = 0; i < p->n_slots; i++)
		if (!conn_is_closed(p->slots[i].conn))
			return true;
	return false;
}

static void fail_all(struct pool *p, struct list *l)
{
	/* Each done() may submit anew; that is answered by the next flush. */
	for (unsigned n = p->n_waiting; n && l->head; n--)
		finish(p, l->head, ERR_UNAVAILABLE, NULL);
}

static void on_closed(void *context, struct conn *c, struct view why)
{
	(void)c;
	struct slot *slot = context;
	struct pool *p = slot->pool;
	(void)snprintf(p->why, sizeof p->why, "%.*s", VIEW_ARG(why));
	log_warn("postgresql: %s", p->why);
	/* A connection that had stood is worth an attempt at once; one that could not be made backs off, with jitter. */
	int64_t wait = slot->backoff_us;
	slot->backoff_us = wait ? wait * 2 : BACKOFF_FIRST_US;
	if (slot->backoff_us > BACKOFF_MAX_US)
		slot->backoff_us = BACKOFF_MAX_US;
	slot->retry_us = loop_now_us(p->loop) + wait / 2 + (wait ? random() % wait : 0);
	if (wait && !any_alive(p)) {
		p->down = true;
		fail_all(p, &p->fast);
		fail_all(p, &p->alone);
	}
	wake(p);
}

static bool conn_stuck(const struct slot *s, int64_t now)
{
	const struct segment *head = conn_head(s->conn);
	return head && now - head->head_since_us > STALL_US;
}

static bool slot_is_idle(const struct slot *s)
{
	return conn_is_ready(s->conn) && !s->head;
}

static struct slot *idle_slot(struct pool *p)
{
	for (unsigned i = 0; i < p->n_slots; i++)
		if (slot_is_idle(&p->slots[i]))
			return &p->slots[i];
	return NULL;
}

/* The connection with the least on it that may take one more read; NULL when none may. */
static struct slot *shared_slot(struct pool *p, int64_t now)
{
	struct slot *best = NULL;
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		if (!conn_is_ready(s->conn) || s->n_out >= DEPTH_MAX || conn_stuck(s, now))
			continue;
		bool exclusive = false;
		for (const struct batch *b = s->head; b; b = b->next)
			exclusive |= b->exclusive;
		if (!exclusive && (!best || s->n_out < best->n_out))
			best = s;
	}
	return best;
}

static void open_one(struct pool *p, int64_t now)
{
	struct slot *closed = NULL;
	int64_t soonest = INT64_MAX;
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		if (!conn_is_closed(s->conn)) {
			if (!conn_is_ready(s->conn) && !s->head)
				return; /* one is on its way already */
			continue;
		}
		if (s->retry_us <= now) {
			closed = s;
			break;
		}
		if (s->retry_us < soonest)
			soonest = s->retry_us;
	}
	if (closed)
		conn_open(closed->conn);
	else if (soonest != INT64_MAX && (!p->tick.place || p->tick.due_us > soonest))
		loop_timer_set(p->loop, &p->tick, soonest);
}

/* --- sending --- */

static int64_t left_ms(int64_t deadline_us, int64_t now)
{
	return deadline_us > now ? (deadline_us - now + 999) / 1000 : 1;
}

static struct batch *batch_begin(struct pool *p, struct slot *slot, const struct query *first, int64_t deadline_us)
{
	struct batch *b = batch_take(p);
	if (!b)
		return NULL;
	b->slot = slot;
	b->next = NULL;
	b->n = 0;
	b->hedged = b->exclusive = false;
	b->write = first->write;
	b->give_up_us = deadline_us + GRACE_US;
	b->segment.rows = on_rows;
	b->segment.done = on_done;
	*slot->tail = b;
	slot->tail = &b->next;
	conn_begin(slot->conn, &b->segment);
	int64_t now = loop_now_us(p->loop);
	conn_settings(slot->conn, &b->segment, &first->session, left_ms(deadline_us, now), !first->write);
	return b;
}

static void batch_add(struct pool *p, struct batch *b, struct query *q)
{
	struct flight *f = &b->flight[b->n++];
	*f = (struct flight){ .query = q, .next = q->flights, .hash = q->statement->hash };
	if (!q->flights)
		p->n_out++;
	q->flights = f;
	q->n_sent++;
	b->slot->n_out++;
	bool named = !q->alone && class_of(p, f->hash)->successes >= NAMED_RUNS;
	conn_statement(b->slot->conn, &b->segment, q->statement, named);
}

static bool send_alone(struct pool *p, struct slot *slot, struct query *q)
{
	struct batch *b = batch_begin(p, slot, q, q->deadline_us);
	if (!b)
		return false;
	b->exclusive = true;
	batch_add(p, b, q);
	conn_sync(slot->conn, &b->segment);
	return true;
}

/* Writes and reads that are not proven fast: a connection each, within their shares. */
static void flush_alone(struct pool *p)
{
	unsigned reads = 0, all = 0;
	for (unsigned i = 0; i < p->n_slots; i++) {
		const struct batch *b = p->slots[i].head;
		if (b && b->exclusive) {
			all++;
			reads += !b->write;
		}
	}
	unsigned reads_max = p->n_slots > 1 ? p->n_slots / 2 : 1;
	unsigned all_max = p->n_slots > 1 ? p->n_slots - 1 : 1;
	for (struct query *q = p->alone.head, *next; q && all < all_max; q = next) {
		next = q->next;
		/* Its class may have proven itself fast while it waited. */
		if (list_for(p, q) == &p->fast) {
			list_remove(&p->alone, q);
			list_add(&p->fast, q);
			continue;
		}
		if (!q->write && reads >= reads_max)
			continue;
		struct slot *slot = idle_slot(p);
		if (!slot)
			return;
		list_remove(&p->alone, q);
		p->n_waiting--;
		if (!send_alone(p, slot, q)) {
			finish(p, q, ERR_OVERLOADED, NULL);
			wake(p); /* its done() may have changed the list */
			return;
		}
		all++;
		reads += !q->write;
	}
}

static bool same_session(const struct session *a, const struct session *b)
{
	return view_eq(a->role, b->role) && view_eq(a->key_id, b->key_id) && view_eq(a->tenant, b->tenant) &&
	       view_eq(a->search_path, b->search_path);
}

static bool may_merge(struct pool *p, const struct query *q, int64_t now)
{
	return p->options.share_segments && q->n_sent == 0 &&
	       now - class_of(p, q->statement->hash)->stalled_us > 10 * 1000000;
}

/* Takes the first waiting read and, of those behind it, the ones that may share its segment. */
static bool flush_fast_one(struct pool *p, int64_t now)
{
	struct slot *slot = shared_slot(p, now);
	if (!slot)
		return false;
	struct query *group[SEGMENT_STATEMENTS_MAX];
	unsigned n = 0, room = DEPTH_MAX - slot->n_out;
	struct query *first = p->fast.head;
	bool merge = may_merge(p, first, now);
	int64_t deadline = first->deadline_us;
	for (struct query *q = first, *next; q && n < room && n < ARRAY_LEN(group); q = next) {
		next = q->next;
		if (q != first && !(merge && may_merge(p, q, now) && same_session(&q->session, &first->session)))
			continue;
		list_remove(&p->fast, q);
		p->n_waiting--;
		group[n++] = q;
		if (q->deadline_us > deadline)
			deadline = q->deadline_us;
	}
	/* A setting that is true of one request only is left empty where several share it. */
	struct view request_id = first->session.request_id;
	if (n > 1)
		first->session.request_id = VIEW_NONE;
	struct batch *b = batch_begin(p, slot, first, deadline);
	first->session.request_id = request_id;
	for (unsigned i = 0; i < n; i++) {
		if (b)
			batch_add(p, b, group[i]);
		else
			finish(p, group[i], ERR_OVERLOADED, NULL);
	}
	if (b)
		conn_sync(slot->conn, &b->segment);
	return true;
}

static void flush(struct task *t)
{
	struct pool *p = CONTAINER_OF(t, struct pool, flush);
	int64_t now = loop_now_us(p->loop);
	if (p->down && p->n_waiting) {
		bool may_try = false;
		for (unsigned i = 0; i < p->n_slots; i++)
			may_try |= !conn_is_closed(p->slots[i].conn) || p->slots[i].retry_us <= now;
		if (!may_try) {
			fail_all(p, &p->fast);
			fail_all(p, &p->alone);
			return;
		}
	}
	flush_alone(p);
	while (p->fast.head && flush_fast_one(p, now))
		;
	if (p->n_waiting)
		open_one(p, now);
	if ((p->n_out || p->n_waiting) && (!p->tick.place || p->tick.due_us > now + STALL_US))
		loop_timer_set(p->loop, &p->tick, now + STALL_US);
}

/* --- stalls --- */

static bool may_hedge(struct pool *p, const struct query *q)
{
	return q && !q->write && !q->link && q->n_sent < SENT_MAX && p->hedge_credit >= 16;
}

static void hedge(struct pool *p, struct query *q)
{
	p->hedge_credit -= 16;
	list_push(&p->fast, q);
	p->n_waiting++;
	wake(p);
}

/* The oldest segment is late. Who is at fault inside a shared one cannot be told, since the server may still hold the
 * answers of the statements before: all of it goes once more, each by itself. Of the segments behind it, everything. */
static void slot_stalled(struct pool *p, struct slot *slot, int64_t now)
{
	struct batch *head = slot->head;
	for (unsigned i = 0; i < head->n; i++)
		class_of(p, head->flight[i].hash)->stalled_us = now;
	for (struct batch *b = head; b; b = b->next) {
		if (b->hedged || (b == head && b->n == 1))
			continue;
		b->hedged = true;
		for (unsigned i = 0; i < b->n; i++)
			if (may_hedge(p, b->flight[i].query))
				hedge(p, b->flight[i].query);
	}
}

static void tick(struct timer *t)
{
	struct pool *p = CONTAINER_OF(t, struct pool, tick);
	int64_t now = loop_now_us(p->loop);
	bool busy = false;
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		if (!s->head)
			continue;
		busy = true;
		if (now > s->head->give_up_us)
			conn_close(s->conn, VIEW("no answer for a second past the deadline"));
		else if (conn_stuck(s, now))
			slot_stalled(p, s, now);
	}
	if (p->n_waiting)
		wake(p);
	if (busy)
		loop_timer_set(p->loop, &p->tick, now + STALL_US);
}

/* --- the pool --- */

struct pool *pool_create(struct loop *loop, const struct pool_options *options)
{
	struct pool *p = calloc(1, sizeof *p);
	struct slot *slots = calloc(options->connections, sizeof *slots);
	if (!p || !slots) {
		free(p);
		free(slots);
		return NULL;
	}
	p->loop = loop;
	p->options = *options;
	p->slots = slots;
	p->flush.run = flush;
	p->tick.fire = tick;
	p->fast.tail = &p->fast.head;
	p->alone.tail = &p->alone.head;
	p->hedge_credit = 1024;
	for (unsigned i = 0; i < options->connections; i++) {
		struct slot *s = &slots[i];
		struct conn_owner owner = { on_ready, on_progress, on_closed, s };
		s->pool = p;
		s->tail = &s->head;
		s->conn = conn_create(loop, &options->conn, &owner);
		if (!s->conn) {
			pool_destroy(p);
			return NULL;
		}
		p->n_slots++;
	}
	return p;
}

void pool_destroy(struct pool *p)
{
	if (!p)
		return;
	loop_undefer(p->loop, &p->flush);
	loop_timer_stop(p->loop, &p->tick);
	for (unsigned i = 0; i < p->n_slots; i++) {
		conn_destroy(p->slots[i].conn);
		for (struct batch *b = p->slots[i].head, *next; b; b = next) {
			next = b->next;
			free(b);
		}
	}
	for (struct batch *b = p->free_batches, *next; b; b = next) {
		next = b->next;
		free(b);
	}
	free(p->slots);
	free(p);
}

void pool_submit(struct pool *p, struct query *q)
{
	q->flights = NULL;
	q->link = NULL;
	q->n_sent = 0;
	q->alone = q->retried = false;
	wait_again(p, q);
}

void pool_abandon(struct pool *p, struct query *q)
{
	unwait(p, q);
	cut_flights(p, q);
}

bool pool_reachable(const struct pool *p, struct view *why)
{
	if (why)
		*why = view_of(p->why);
	return !p->down;
}

unsigned pool_in_use(const struct pool *p)
{
	return p->n_waiting + p->n_out;
}
