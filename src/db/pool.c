/* The one hard fact: a query can be out on several connections at a time (sent once more behind a stall), or on none.
 * So what is out is a flight, and a query and its flights point at each other; whichever ends first cuts the ties.
 *
 *     submitted --> fast ----------------> shared connection, up to 8 deep      classes that are proven fast
 *               \-> class's own queue ---> a connection to itself               writes, and classes that are not (yet)
 *
 * Classes with a queue of their own take turns, so that fifty slow statements of one do not stand before the first
 * statement of another.
 */
#include "config.h"

#include "db/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"

enum {
	STALL_MIN_US = 5000,  /* a segment out for longer holds others up: between these two, 4 times what is usual, */
	STALL_MAX_US = 12000, /* so that a machine that is slow as a whole does not send its work twice */
	FAST_US = 10000,      /* a class that takes no longer on average is fast; up to FAST_MAX_US where even light */
	FAST_MAX_US = 40000,  /* statements take an eighth of it, because the machine has much else to do */
	SLOW_US = 50000,      /* a class of which one takes longer now, or SLOW_RUNS in a row did, is slow: */
	SLOW_RUNS = 5,        /* the first on each of a few cold connections may take long without meaning it */
	ERRATIC_US = 50000,   /* a statement of a fast class that took so long ... */
	ERRATIC_USUAL = 16,   /* ... and so many times of what is usual was slow without warning */
	LOST_DRAIN = 2,       /* half a connection lost to such ones is borne, */
	LOST_LIMIT_US = 300000, LOST_MAX_US = 3000000, /* above that a class is not merged */
	TOOK_MAX_US = 500000, /* counted of one statement: a single one, however long, does not make a class slow */
	PROVEN_RUNS = 8,      /* so many fast ones in a row prove a class */
	NAMED_RUNS = 2,       /* a class that succeeded so often is worth a prepared statement */
	SENT_MAX = 3,         /* a read is out on so many connections at most */
	DEPTH_MAX = 8,        /* statements that queue on a connection */
	HEDGE_COST = 16,      /* answers that pay for one sending again: it stays a sixteenth of the work, */
	HEDGE_FIRST = 64 * HEDGE_COST, /* but for so many at once */
	HEDGE_MAX = 256 * HEDGE_COST,
	GRACE_US = 1000000,   /* silence past the deadline before a connection is given up */
	BACKOFF_FIRST_US = 50000,
	BACKOFF_MAX_US = 250000,
	SETTLED_US = 1000000, /* a connection that is lost sooner counts as one that could not be made */
	VITAL_US = 20000,     /* that a vital query waits before it gets a connection of its own */
	LOOK_US = 50000,      /* between two looks whether the breaker lets an attempt through */
	DEAD_US = 600000,     /* no answer for so long after somebody has heard of the server again: TCP repeats itself sooner */
	NOT_RUN_US = 50000,   /* after a gap like that nothing is known of the silence of others */
	DOWN_WAITING = 64,    /* queries that may wait for the next attempt while PostgreSQL is down */
	CLASSES_KEPT = 1024,
	CLASS_SLOTS = 1024,
	GROUPS = 512,
	GROUP_TRIES = 8,
};

struct list {
	struct query *head, **tail;
};

/* Statements of one text. Kept while a query or a flight is one of it, and after that until room is needed. */
struct class {
	struct class *chain;      /* in its slot of the table */
	uint64_t hash;
	unsigned holders;         /* queries and flights */
	bool used;                /* since the sweep came by */

	uint32_t mean_us;         /* of its statements lately, each for its share of a segment */
	uint16_t fast_runs;       /* saturating; back to 0 by a slow one while unproven */
	uint16_t successes;       /* saturating */
	uint8_t slow_runs;        /* saturating; in a row */
	int64_t slow_at_us;       /* when one that has its connection to itself was last seen to take that long */
	int64_t hangs_us;         /* when one was last seen to hang alone on a connection that others may share */
	int64_t lost_us, drained_us; /* time that those took that were slow without warning, as it was then */

	struct list waiting;      /* for a connection to itself */
	struct class *next, *prev; /* in the ring, while any is waiting */
	unsigned n_alone;         /* connections that its reads have to themselves */
};

/* What hangs together. There while a query or a flight is of it. */
struct group {
	uint64_t hash;
	unsigned holders;
	unsigned n_slots;         /* connections on which something of it is out */
	unsigned n_alone;         /* of these: writes, and connections that are somebody's own */
};

struct flight {
	struct query *query;      /* NULL: nobody wants it any more */
	struct flight *next;      /* of the same query */
	struct class *class;
	struct group *group;      /* NULL: none */
	bool learned;             /* what it took */
};

struct batch {
	struct segment segment;
	struct slot *slot;
	struct batch *next;       /* in slot, oldest first; or free */
	struct flight flight[SEGMENT_STATEMENTS_MAX];
	unsigned n;               /* 0: it cleans the session behind the one before */
	bool exclusive;           /* nothing may queue behind it */
	bool write;
	bool hedged;              /* those behind the stall were sent once more */
	bool rescued;             /* also without credit: the one before them hangs */
	int64_t give_up_us;       /* no answer by then: close */
};

struct slot {
	struct pool *pool;
	struct conn *conn;
	struct batch *head, **tail;
	unsigned n_out;           /* statements out */
	int64_t ready_us;         /* since when it stands; 0: it does not */
	struct group *group[DEPTH_MAX]; /* of the statements that are out, each with their number */
	unsigned n_of_group[DEPTH_MAX];
	struct query *held;       /* who has the connection to itself */
	struct breaker_call attempt; /* to connect */
	bool attempting;
	int64_t held_since_us, give_up_us; /* of `held`: silence after that closes it */
	bool dirty;               /* could not be cleaned: to be closed */
};

struct pool {
	struct loop *loop;
	struct pool_options options;
	struct slot *slots;
	unsigned n_slots;         /* those of the options; behind them is */
	unsigned n_all;           /* one more, for what is vital when all of these hang: opened when that happens first */

	struct list fast;         /* waiting for a place behind others */
	struct class *ring;       /* classes with waiting ones; this one's turn is next */
	unsigned n_ring;
	struct slot *reserved;    /* gets nothing more until it is idle, for one that waits for a connection to itself */
	bool alone_last;          /* whose turn was last, where there is but one connection */
	struct list refused;      /* get ERR_UNAVAILABLE or ERR_OVERLOADED at the end of the wake-up */
	unsigned n_waiting, n_out; /* queries */
	struct task flush;
	struct timer tick;
	struct batch *free_batches;

	struct class *classes[CLASS_SLOTS];
	unsigned n_classes, sweep_at;
	struct class nameless;    /* for statements when malloc fails: never proven */
	struct group groups[GROUPS];
	int64_t lost_us;          /* when the last connection was lost */
	unsigned n_ready;         /* connections that stand */
	int64_t answered_us;      /* when something came from PostgreSQL last */
	uint64_t openings;        /* of the breaker, that were seen */
	int64_t doubted_us;       /* what stood then may be dead; 0: nothing is in doubt */
	int64_t well_us;          /* since when the breaker is closed again; 0: it is open */

	int64_t light_us;         /* that a quarter of all statements stay below, lately */
	int64_t usual_us;         /* that the oldest segment of a shared connection is out */
	unsigned hedge_credit;
	int64_t retry_us, backoff_us; /* no attempt to connect before */
	bool down;                /* the last attempt failed and nothing stands */
	uint64_t dice;
	uint64_t n_sent, n_hedged; /* statements, for the log */
	char why[400];
	unsigned first_host;      /* of those in the DSN */
};

static void flush(struct task *);
static void tick(struct timer *);

static bool is_open(const struct pool *p)
{
	return breaker_state(p->options.breaker, 0, NULL) != BREAKER_CLOSED;
}

/* --- lists of waiting queries --- */

static void list_init(struct list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_add(struct list *l, struct query *q)
{
	q->in = l;
	q->next = NULL;
	q->link = l->tail;
	*l->tail = q;
	l->tail = &q->next;
}

static void list_push(struct list *l, struct query *q)
{
	q->in = l;
	q->next = l->head;
	q->link = &l->head;
	if (l->head)
		l->head->link = &q->next;
	else
		l->tail = &q->next;
	l->head = q;
}

static void list_remove(struct query *q)
{
	*q->link = q->next;
	if (q->next)
		q->next->link = q->link;
	else
		q->in->tail = q->link;
	q->link = NULL;
	q->in = NULL;
}

/* --- classes --- */

/* Looks at some that nobody holds and forgets those that were not used since it looked last. */
static void classes_sweep(struct pool *p)
{
	unsigned before = p->n_classes;
	for (unsigned i = 0; i < 2 * CLASS_SLOTS && p->n_classes == before; i++) {
		struct class **at = &p->classes[p->sweep_at++ % CLASS_SLOTS];
		while (*at) {
			struct class *c = *at;
			if (c->holders || c->used) {
				c->used = false;
				at = &c->chain;
				continue;
			}
			*at = c->chain;
			free(c);
			p->n_classes--;
		}
	}
}

static struct class *class_hold(struct pool *p, uint64_t hash)
{
	struct class **slot = &p->classes[hash % CLASS_SLOTS];
	struct class *c = *slot;
	while (c && c->hash != hash)
		c = c->chain;
	if (!c) {
		if (p->n_classes >= CLASSES_KEPT)
			classes_sweep(p);
		c = calloc(1, sizeof *c);
		if (c) {
			c->hash = hash;
			c->chain = *slot;
			*slot = c;
			list_init(&c->waiting);
			p->n_classes++;
		} else {
			c = &p->nameless;
		}
	}
	c->used = true;
	c->holders++;
	return c;
}

static void class_let_go(struct class *c)
{
	c->holders--;
}

/* --- groups --- */

/* NULL where there is no room: it is of none then. */
static struct group *group_hold(struct pool *p, uint64_t hash)
{
	struct group *free_one = NULL;
	for (unsigned i = 0; hash && i < GROUP_TRIES; i++) {
		struct group *g = &p->groups[(hash + i) % GROUPS];
		if (g->holders && g->hash == hash) {
			g->holders++;
			return g;
		}
		if (!g->holders && !free_one)
			free_one = g;
	}
	if (free_one)
		*free_one = (struct group){ .hash = hash, .holders = 1 };
	return free_one;
}

static void group_let_go(struct group *g)
{
	if (g)
		g->holders--;
}

/* Its place in the slot; DEPTH_MAX: nothing of it is out there. */
static unsigned group_at(const struct slot *s, const struct group *g)
{
	unsigned i = 0;
	while (i < DEPTH_MAX && s->group[i] != g)
		i++;
	return i;
}

static void group_out(struct slot *s, struct group *g)
{
	if (!g)
		return;
	g->holders++;
	unsigned i = group_at(s, g);
	if (i == DEPTH_MAX) {
		g->n_slots++;
		i = group_at(s, NULL); /* no more statements are out than there are places */
		s->group[i] = g;
		s->n_of_group[i] = 0;
	}
	s->n_of_group[i]++;
}

static void group_back(struct slot *s, struct group *g)
{
	if (!g)
		return;
	unsigned i = group_at(s, g);
	if (--s->n_of_group[i] == 0) {
		s->group[i] = NULL;
		g->n_slots--;
	}
	group_let_go(g);
}

/* Whatever hangs in it leaves a connection to the others. */
static bool group_fits(const struct pool *p, const struct slot *s, const struct group *g)
{
	return !g || p->n_slots == 1 || g->n_slots + 1 < p->n_slots || group_at(s, g) < DEPTH_MAX;
}

static bool group_fits_alone(const struct pool *p, const struct query *q)
{
	const struct group *g = q->in_group;
	if (!g || p->n_slots == 1)
		return true;
	if (g->n_slots + 1 >= p->n_slots)
		return false;
	/* One for the writes of others, and the last one, which is nobody's own. */
	return !(q->write || q->granted) || g->n_alone == 0 || g->n_alone + 2 < p->n_slots;
}

static int64_t fast_us(const struct pool *p)
{
	int64_t us = 8 * p->light_us;
	return us < FAST_US ? FAST_US : us > FAST_MAX_US ? FAST_MAX_US : us;
}

static bool class_is_fast(const struct pool *p, const struct class *c)
{
	return c->fast_runs >= PROVEN_RUNS && c->mean_us <= fast_us(p);
}

static bool class_is_slow(const struct class *c, int64_t now)
{
	return c->slow_runs >= SLOW_RUNS || c->slow_at_us == now;
}

/* Looks at what is stuck are less than that apart. */
static bool class_hangs(const struct class *c, int64_t now)
{
	return c->hangs_us && now - c->hangs_us < ERRATIC_US;
}

static int64_t class_lost_us(struct class *c, int64_t now)
{
	int64_t left = c->lost_us - (now - c->drained_us) / LOST_DRAIN;
	c->lost_us = left > 0 ? left : 0;
	c->drained_us = now;
	return c->lost_us;
}

/* Merged, one that is slow without warning blocks a second connection: all of its segment is sent once more, itself
 * too. That is dear where it happens often, but a machine that is slow as a whole makes outliers, too, and not to merge
 * makes it slower. So what counts is the time that is lost. */
static void class_lose(struct class *c, int64_t now, int64_t us)
{
	int64_t lost = class_lost_us(c, now) + us;
	c->lost_us = lost < LOST_MAX_US ? lost : LOST_MAX_US;
}

/* `n` statements shared the segment that took so long: which of them it was cannot be told, so each gets its share. */
static void class_learn(struct pool *p, struct class *c, int64_t took_us, unsigned n, bool good)
{
	if (c == &p->nameless)
		return;
	int64_t took = took_us / n;
	bool fast = took <= fast_us(p);
	if (took <= SLOW_US)
		c->slow_runs = 0;
	else if (c->slow_runs < UINT8_MAX)
		c->slow_runs++;
	/* Three times as far down as up keeps it where one in four is below. */
	p->light_us += took < p->light_us ? -p->light_us / 16 : p->light_us / 48 + 1;
	if (took > TOOK_MAX_US)
		took = TOOK_MAX_US;
	/* An average over 64 once it is proven, sooner to learn before. */
	int64_t weight = c->successes == 0 ? 1 : c->fast_runs < PROVEN_RUNS ? 2 : 64;
	c->mean_us = (uint32_t)(c->mean_us + (took - c->mean_us) / weight);
	if (!fast && c->fast_runs < PROVEN_RUNS)
		c->fast_runs = 0;
	else if (fast && c->fast_runs < UINT16_MAX)
		c->fast_runs++;
	if (good && c->successes < UINT16_MAX)
		c->successes++;
}

/* --- classes that wait take turns --- */

static void ring_add(struct pool *p, struct class *c)
{
	if (!p->ring) {
		p->ring = c->next = c->prev = c;
	} else {
		c->next = p->ring;
		c->prev = p->ring->prev;
		c->prev->next = c->next->prev = c;
	}
	p->n_ring++;
}

static void ring_remove(struct pool *p, struct class *c)
{
	c->prev->next = c->next;
	c->next->prev = c->prev;
	if (p->ring == c)
		p->ring = c->next == c ? NULL : c->next;
	c->next = c->prev = NULL;
	p->n_ring--;
}

static void wait_alone(struct pool *p, struct query *q)
{
	if (!q->class->waiting.head)
		ring_add(p, q->class);
	list_add(&q->class->waiting, q);
	p->n_waiting++;
}

static void unwait(struct pool *p, struct query *q)
{
	if (!q->link)
		return;
	bool alone = q->in == &q->class->waiting;
	list_remove(q);
	p->n_waiting--;
	if (alone && !q->class->waiting.head)
		ring_remove(p, q->class);
}

/* --- the life of a query --- */

static void wake(struct pool *p)
{
	loop_defer(p->loop, &p->flush);
}

static void cut_flights(struct pool *p, struct query *q)
{
	for (struct flight *f = q->flights; f; f = f->next)
		f->query = NULL;
	if (q->flights)
		p->n_out--;
	q->flights = NULL;
}

static void forget(struct pool *p, struct query *q)
{
	unwait(p, q);
	cut_flights(p, q);
	if (q->class)
		class_let_go(q->class);
	q->class = NULL;
	group_let_go(q->in_group);
	q->in_group = NULL;
}

static void finish(struct pool *p, struct query *q, enum status status, const struct db_error *error)
{
	forget(p, q);
	q->done(q, status, error);
}

/* Ends it at the end of this wake-up: its done() may do anything, so never from within a walk. */
static void refuse(struct pool *p, struct query *q)
{
	unwait(p, q);
	list_add(&p->refused, q);
	p->n_waiting++;
	wake(p);
}

static bool may_queue(const struct pool *p, const struct query *q)
{
	return !q->write && !q->scrub && !q->alone && class_is_fast(p, q->class) && !class_hangs(q->class, loop_now_us(p->loop));
}

static void wait_again(struct pool *p, struct query *q)
{
	if (q->link)
		return;
	if (may_queue(p, q)) {
		list_add(&p->fast, q);
		p->n_waiting++;
	} else {
		wait_alone(p, q);
	}
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

static bool is_erratic(const struct pool *p, int64_t took)
{
	return took > ERRATIC_US && took > ERRATIC_USUAL * p->usual_us;
}

static int64_t head_for_us(const struct pool *p, const struct segment *s)
{
	return loop_now_us(p->loop) - s->head_since_us;
}

static bool on_rows(struct segment *s, unsigned statement, struct rows *rows)
{
	struct batch *b = batch_of(s);
	struct pool *p = b->slot->pool;
	if (statement >= b->n)
		return false; /* of what cleans the session */
	struct flight *f = &b->flight[statement];
	struct query *q = f->query;
	if (!q)
		return false;
	q->lsn = s->lsn;
	q->rows(q, rows);
	if (q->write)
		return true; /* done() waits for the commit */
	class_learn(p, f->class, head_for_us(p, s), b->n, true);
	f->learned = true;
	if (p->hedge_credit < HEDGE_MAX)
		p->hedge_credit++;
	finish(p, q, OK, NULL);
	return true;
}

/* What each flight of a segment comes to that did not end well. `failed` is the statement at fault, -1: none. */
static void flight_failed(struct batch *b, unsigned i, enum segment_end end, int failed, const struct db_error *error)
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
		/* An error while the statement ran says that it was rolled back; behind it the commit may be through. */
		enum status st = q->write && !(has_state && failed >= 0) ? ERR_OUTCOME_UNKNOWN : ERR_UNAVAILABLE;
		finish(p, q, st, error);
		return;
	}
	bool stale = has_state && (strcmp(error->sqlstate, "26000") == 0 || strcmp(error->sqlstate, "0A000") == 0);
	if ((b->n > 1 || stale) && again(p, q, true))
		return;
	/* Its statement was being prepared by one that ran out of time. */
	if (stale && !q->retried && loop_now_us(p->loop) >= q->deadline_us) {
		finish(p, q, ERR_DEADLINE, NULL);
		return;
	}
	if (has_state && strcmp(error->sqlstate, "57014") == 0)
		class_learn(p, f->class, head_for_us(p, &b->segment), 1, false);
	finish(p, q, error ? db_error_status(error) : ERR_DATABASE, error);
}

static void on_done(struct segment *s, enum segment_end end, int failed, const struct db_error *error)
{
	struct batch *b = batch_of(s);
	struct slot *slot = b->slot;
	struct pool *p = slot->pool;
	int64_t took = head_for_us(p, s);
	slot->head = b->next;
	if (!slot->head)
		slot->tail = &slot->head;
	slot->n_out -= b->n;
	if (!b->exclusive && end == SEGMENT_DONE) {
		p->usual_us += ((took < STALL_MAX_US ? took : STALL_MAX_US) - p->usual_us) / 64;
		if (is_erratic(p, took))
			for (unsigned i = 0; i < b->n; i++)
				class_lose(b->flight[i].class, loop_now_us(p->loop), took / b->n);
	}
	if (b->exclusive && !b->write && b->n)
		b->flight[0].class->n_alone--;
	if (b->write && b->n && b->flight[0].group)
		b->flight[0].group->n_alone--;
	if (b->n == 0 && end == SEGMENT_FAILED) {
		slot->dirty = true;
		wake(p);
	}
	for (unsigned i = 0; i < b->n; i++) {
		struct flight *f = &b->flight[i];
		if (end != SEGMENT_DONE) {
			flight_failed(b, i, end, failed, error);
		} else if (f->query) {
			/* A write whose commit is through, or a statement that returns nothing at all. */
			class_learn(p, f->class, took, b->n, true);
			finish(p, f->query, OK, NULL);
		} else if (b->n == 1 && !f->learned) {
			/* Nobody waited for it any more: that it was slow is worth knowing all the same. */
			class_learn(p, f->class, took, 1, true);
		}
		class_let_go(f->class);
		group_back(slot, f->group);
	}
	batch_free(p, b);
}

/* --- connections that are somebody's own for a while --- */

static void hold_begin(struct slot *slot, struct query *q)
{
	slot->held = q;
	slot->held_since_us = loop_now_us(slot->pool->loop);
	slot->give_up_us = q->deadline_us + GRACE_US;
	q->held = slot;
	slot->pool->n_out++;
	if (q->in_group)
		q->in_group->n_alone++;
	group_out(slot, q->in_group);
	q->granted(q, slot->conn);
}

static struct query *hold_end(struct slot *slot)
{
	struct query *q = slot->held;
	slot->held = NULL;
	q->held = NULL;
	slot->pool->n_out--;
	if (q->in_group)
		q->in_group->n_alone--;
	group_back(slot, q->in_group);
	group_let_go(q->in_group);
	q->in_group = NULL;
	class_let_go(q->class);
	q->class = NULL;
	return q;
}

void pool_release(struct pool *p, struct query *q)
{
	if (q->held)
		(void)hold_end(q->held);
	wake(p);
}

/* --- connections --- */

static bool is_idle(const struct slot *s)
{
	return conn_is_ready(s->conn) && !s->head && !s->held;
}

/* It stood when the server fell silent, and nothing has come since. */
static bool in_doubt(const struct slot *s)
{
	return s->ready_us && s->ready_us <= s->pool->doubted_us;
}

static bool any_in_doubt(const struct pool *p)
{
	bool any = false;
	for (unsigned i = 0; i < p->n_all; i++)
		any |= in_doubt(&p->slots[i]);
	return any;
}

static bool any_certain(const struct pool *p)
{
	bool any = false;
	for (unsigned i = 0; i < p->n_all; i++)
		any |= p->slots[i].ready_us && !in_doubt(&p->slots[i]);
	return any;
}

static bool any_alive(const struct pool *p)
{
	for (unsigned i = 0; i < p->n_all; i++)
		if (!conn_is_closed(p->slots[i].conn))
			return true;
	return false;
}

/* Of the usual ones: one more may be had. */
static bool any_closed(const struct pool *p)
{
	for (unsigned i = 0; i < p->n_slots; i++)
		if (conn_is_closed(p->slots[i].conn))
			return true;
	return false;
}

/* Those that would only wait for their deadline. */
static void refuse_while_open(struct pool *p)
{
	for (struct query *q = p->fast.head, *next; q; q = next) {
		next = q->next;
		if (!q->vital)
			refuse(p, q);
	}
	for (unsigned n = p->n_ring; n && p->ring; n--) {
		struct class *c = p->ring;
		p->ring = c->next;
		for (struct query *q = c->waiting.head, *next; q; q = next) {
			next = q->next;
			if (!q->vital)
				refuse(p, q);
		}
	}
}

static void refuse_all(struct pool *p)
{
	while (p->fast.head)
		refuse(p, p->fast.head);
	while (p->ring)
		refuse(p, p->ring->waiting.head);
}

/* As many as there are now: what their done() submits may be refused in its turn. */
static void finish_refused(struct pool *p)
{
	unsigned n = 0;
	for (const struct query *q = p->refused.head; q; q = q->next)
		n++;
	for (; n && p->refused.head; n--)
		finish(p, p->refused.head, p->down || is_open(p) || !any_alive(p) ? ERR_UNAVAILABLE : ERR_OVERLOADED, NULL);
}

#define ANSWERS_AGAIN "postgresql: it answers again: the circuit breaker closes"

/* Whatever it answers: it is there. */
static void heard(struct pool *p)
{
	p->answered_us = loop_now_us(p->loop);
	breaker_well(p->options.breaker);
	if (!is_open(p))
		return;
	log_info(ANSWERS_AGAIN);
	breaker_heal(p->options.breaker);
}

static void attempted(struct slot *slot, enum outcome outcome)
{
	struct pool *p = slot->pool;
	/* Others stand: it is not the server that is away. */
	if (outcome == OUTCOME_BAD && any_certain(p))
		outcome = OUTCOME_NONE;
	enum breaker_turn turn = BREAKER_STAYS;
	if (slot->attempting)
		turn = breaker_ended(&slot->attempt, p->options.breaker_terms, outcome, 0, loop_now_us(p->loop));
	slot->attempting = false;
	if (turn == BREAKER_OPENS)
		log_warn("postgresql: the circuit breaker opens: it is asked again by few, and now and then");
	else if (turn == BREAKER_CLOSES)
		log_info(ANSWERS_AGAIN);
}

static void on_ready(void *context, struct conn *c)
{
	(void)c;
	struct slot *slot = context;
	struct pool *p = slot->pool;
	slot->ready_us = loop_now_us(p->loop);
	p->n_ready++;
	attempted(slot, OUTCOME_GOOD);
	heard(p);
	p->backoff_us = p->retry_us = 0;
	if (p->why[0])
		log_info("postgresql: connected again");
	p->down = false;
	p->why[0] = '\0';
	wake(p);
}

static void on_progress(void *context, struct conn *c)
{
	(void)c;
	struct slot *slot = context;
	struct pool *p = slot->pool;
	heard(p);
	if (in_doubt(slot))
		p->doubted_us = 0; /* what it was connected to lives, and all others lead there, too */
	if (p->n_waiting)
		wake(p);
}

static uint64_t roll(struct pool *p, uint64_t below)
{
	p->dice ^= p->dice << 13;
	p->dice ^= p->dice >> 7;
	p->dice ^= p->dice << 17;
	return p->dice % below;
}

static void tell_why(struct pool *p, struct view why)
{
	char text[sizeof p->why];
	(void)snprintf(text, sizeof text, "%.*s", VIEW_ARG(why));
	if (strcmp(text, p->why) == 0)
		return; /* each attempt fails for the same reason: once is enough */
	memcpy(p->why, text, sizeof text);
	log_warn("postgresql: %s", p->why);
}

/* The others lead to the same server, which takes no writes any more; those that are at work find out by themselves. */
static void close_idle(struct pool *p)
{
	for (unsigned i = 0; i < p->n_all; i++)
		if (is_idle(&p->slots[i]))
			conn_close(p->slots[i].conn, view_of(p->why));
}

static void on_closed(void *context, struct conn *c, struct view why)
{
	struct slot *slot = context;
	struct pool *p = slot->pool;
	int64_t now = loop_now_us(p->loop);
	if (slot->ready_us && --p->n_ready == 0)
		p->lost_us = now;
	bool stood = slot->ready_us, settled = stood && now - slot->ready_us > SETTLED_US;
	slot->ready_us = 0;
	slot->dirty = false;
	tell_why(p, why);
	attempted(slot, OUTCOME_BAD);
	/* A connection that had stood is worth an attempt at once; one that could not be made backs off, with jitter. */
	if (settled) {
		p->retry_us = now;
	} else {
		int64_t wait = p->backoff_us ? p->backoff_us * 2 : BACKOFF_FIRST_US;
		p->backoff_us = wait < BACKOFF_MAX_US ? wait : BACKOFF_MAX_US;
		p->retry_us = now + p->backoff_us / 2 + (int64_t)roll(p, (uint64_t)p->backoff_us);
	}
	if (slot->held) {
		struct query *q = hold_end(slot);
		q->done(q, ERR_UNAVAILABLE, NULL);
	}
	if (conn_took_no_writes(c))
		close_idle(p);
	if (!stood && !any_alive(p)) {
		p->down = true;
		refuse_all(p);
	}
	wake(p);
}

/* All workers together make no more attempts than the breaker lets through. */
static void attempt(struct pool *p, struct slot *slot, int64_t now)
{
	int64_t again_us = p->retry_us, wait_us = 0;
	if (again_us <= now && breaker_pass(p->options.breaker, p->options.breaker_terms, now,
	                                    p->options.conn.connect_timeout_us, &slot->attempt, &wait_us)) {
		slot->attempting = true;
		conn_open(slot->conn);
		return;
	}
	if (again_us <= now) /* it may close before its time */
		again_us = now + (wait_us < LOOK_US ? wait_us : LOOK_US);
	if (!p->tick.place || p->tick.due_us > again_us)
		loop_timer_set(p->loop, &p->tick, again_us);
}

static void open_one(struct pool *p, int64_t now)
{
	struct slot *closed = NULL;
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		if (conn_is_closed(s->conn))
			closed = closed ? closed : s;
		else if (!conn_is_ready(s->conn) && !s->head && !s->held)
			return; /* one is on its way already */
	}
	if (closed)
		attempt(p, closed, now);
}

/* --- where there is room --- */

static int64_t stall_us(const struct pool *p)
{
	int64_t us = 4 * p->usual_us;
	return us < STALL_MIN_US ? STALL_MIN_US : us > STALL_MAX_US ? STALL_MAX_US : us;
}

static bool slot_is_stuck(const struct slot *s, int64_t now)
{
	const struct segment *head = conn_head(s->conn);
	return head && now - head->head_since_us >= stall_us(s->pool);
}

static bool slot_is_shared(const struct slot *s, int64_t now)
{
	return conn_is_ready(s->conn) && !s->held && !s->dirty && !(s->head && s->head->exclusive) && !slot_is_stuck(s, now);
}

static struct slot *idle_slot(struct pool *p)
{
	for (unsigned i = 0; i < p->n_slots; i++)
		if (is_idle(&p->slots[i]) && !p->slots[i].dirty)
			return &p->slots[i];
	return NULL;
}

/* The connection with the least on it that may take one more read; NULL when none may. */
static struct slot *shared_slot(struct pool *p, const struct group *g, int64_t now)
{
	struct slot *best = NULL;
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		if (s != p->reserved && s->n_out < DEPTH_MAX && slot_is_shared(s, now) && (!best || s->n_out < best->n_out) &&
		    group_fits(p, s, g))
			best = s;
	}
	return best;
}

/* Where there are always some reads out on every connection, none would ever be idle: one has to run dry. */
static void reserve(struct pool *p, struct slot *before, int64_t now)
{
	if (before && before->head && slot_is_shared(before, now)) {
		p->reserved = before;
		return;
	}
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		if (s->head && slot_is_shared(s, now) && (!p->reserved || s->n_out < p->reserved->n_out))
			p->reserved = s;
	}
}

/* --- sending --- */

static struct batch *batch_start(struct pool *p, struct slot *slot, bool write, int64_t deadline_us)
{
	struct batch *b = batch_take(p);
	if (!b)
		return NULL;
	b->slot = slot;
	b->next = NULL;
	b->n = 0;
	b->hedged = b->rescued = b->exclusive = false;
	b->write = write;
	b->give_up_us = deadline_us + GRACE_US;
	b->segment.rows = on_rows;
	b->segment.done = on_done;
	*slot->tail = b;
	slot->tail = &b->next;
	conn_begin(slot->conn, &b->segment);
	return b;
}

static struct batch *batch_begin(struct pool *p, struct slot *slot, const struct query *first, int64_t deadline_us)
{
	struct batch *b = batch_start(p, slot, first->write, deadline_us);
	if (!b)
		return NULL;
	conn_settings(slot->conn, &b->segment, &first->session, loop_left_ms(p->loop, deadline_us), !first->write);
	return b;
}

static void batch_add(struct pool *p, struct batch *b, struct query *q)
{
	struct flight *f = &b->flight[b->n++];
	*f = (struct flight){ .query = q, .next = q->flights, .class = q->class, .group = q->in_group };
	q->class->holders++;
	group_out(b->slot, q->in_group);
	if (!q->flights)
		p->n_out++;
	q->flights = f;
	q->n_sent++;
	p->n_sent++;
	b->slot->n_out++;
	/* Prepared names may be deallocated, and taken, by code of the user's. */
	bool named = !q->alone && !q->scrub && q->class->successes >= NAMED_RUNS;
	conn_statement(b->slot->conn, &b->segment, q->statement, named);
}

/* Behind what may have left something in the session, in the same trip. */
static void send_scrub(struct pool *p, struct slot *slot, const struct query *q)
{
	struct batch *b = batch_start(p, slot, false, q->deadline_us);
	if (!b) {
		slot->dirty = true;
		return;
	}
	b->exclusive = true;
	conn_scrub(slot->conn, &b->segment);
	conn_sync(slot->conn, &b->segment);
}

static bool send_alone(struct pool *p, struct slot *slot, struct query *q)
{
	p->alone_last = true;
	if (q->granted) {
		hold_begin(slot, q);
		return true;
	}
	struct batch *b = batch_begin(p, slot, q, q->deadline_us);
	if (!b)
		return false;
	b->exclusive = true;
	q->class->n_alone += !q->write;
	if (q->write && q->in_group)
		q->in_group->n_alone++;
	batch_add(p, b, q);
	conn_sync(slot->conn, &b->segment);
	if (q->scrub)
		send_scrub(p, slot, q);
	return true;
}

/* What those with a connection to themselves hold, and may hold at most. */
struct shares {
	unsigned all, slow, all_max, slow_max;
};

/* Shares of the connections that stand, and of those that are still to be opened unless that failed lately. */
static struct shares shares_now(const struct pool *p, int64_t now)
{
	struct shares s = { 0, 0, 0, 0 };
	unsigned n = 0;
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct batch *b = p->slots[i].head;
		n += p->slots[i].ready_us != 0 || p->backoff_us == 0;
		s.all += p->slots[i].held || (b && b->exclusive);
		if (b && b->exclusive && !b->write && b->n && head_for_us(p, &b->segment) > SLOW_US)
			b->flight[0].class->slow_at_us = now;
	}
	for (unsigned i = 0; i < p->n_slots; i++) {
		const struct batch *b = p->slots[i].head;
		s.slow += b && b->exclusive && !b->write && b->n && class_is_slow(b->flight[0].class, now);
	}
	s.all_max = n > 1 ? n - 1 : 1;
	s.slow_max = n > 1 ? n / 2 : 1;
	return s;
}

/* Writes, and reads that are not known to be slow, share what slow ones leave; none of it is the last connection. Of a
 * class of which nothing, or nothing good, is known there is one at a time: fifty of it may be fifty slow ones. */
static bool has_share(const struct pool *p, const struct class *c, const struct query *q, const struct shares *s, int64_t now)
{
	if (s->all >= s->all_max || !group_fits_alone(p, q))
		return false;
	if (q->write || q->granted)
		return true;
	/* They cannot be sent once more elsewhere, nor behind others: more of them at a time is all that helps. */
	if (q->scrub && class_is_fast(p, c))
		return true;
	if (class_is_slow(c, now))
		return s->slow < s->slow_max;
	return c->n_alone < (c->successes && !c->slow_runs ? s->slow_max : 1);
}

/* A class may have proven itself while these waited. */
static void promote(struct pool *p, struct class *c)
{
	for (struct query *q = c->waiting.head, *next; q; q = next) {
		next = q->next;
		if (!may_queue(p, q))
			continue;
		unwait(p, q);
		list_add(&p->fast, q);
		p->n_waiting++;
	}
}

/* What waited for a place behind others, and of whose class one hangs now, goes by itself. */
static void demote_hanging(struct pool *p, int64_t now)
{
	for (struct query *q = p->fast.head, *next; q; q = next) {
		next = q->next;
		if (class_hangs(q->class, now)) {
			unwait(p, q);
			wait_alone(p, q);
		}
	}
}

static void promote_proven(struct pool *p)
{
	for (unsigned n = p->n_ring; n && p->ring; n--) {
		struct class *c = p->ring;
		p->ring = c->next;
		if (class_is_fast(p, c))
			promote(p, c);
	}
}

/* Each class in its turn; over when each had one in vain. */
static void flush_alone(struct pool *p, int64_t now)
{
	struct slot *reserved_before = p->reserved;
	p->reserved = NULL;
	struct shares s = shares_now(p, now);
	if (s.all_max == 1 && p->alone_last && p->fast.head)
		return;
	for (unsigned in_vain = 0; p->ring && in_vain < p->n_ring;) {
		struct class *c = p->ring;
		struct query *q = c->waiting.head;
		if (!has_share(p, c, q, &s, now)) {
			p->ring = c->next;
			in_vain++;
			continue;
		}
		struct slot *slot = idle_slot(p);
		if (!slot) {
			reserve(p, reserved_before, now);
			return;
		}
		bool slow = !q->write && !q->granted && class_is_slow(c, now);
		p->ring = c->next;
		in_vain = 0;
		unwait(p, q);
		if (!send_alone(p, slot, q)) {
			refuse(p, q);
			continue;
		}
		s.all++;
		s.slow += slow;
	}
}

static bool same_session(const struct session *a, const struct session *b)
{
	return view_eq(a->role, b->role) && view_eq(a->key_id, b->key_id) && view_eq(a->tenant, b->tenant) &&
	       view_eq(a->search_path, b->search_path);
}

static bool may_merge(const struct pool *p, const struct query *q, int64_t now)
{
	return p->options.share_segments && q->n_sent == 0 && class_lost_us(q->class, now) < LOST_LIMIT_US;
}

/* Takes the first waiting read and, of those behind it, the ones that may share its segment. */
static bool flush_fast_one(struct pool *p, int64_t now)
{
	struct query *first = p->fast.head, *group[SEGMENT_STATEMENTS_MAX];
	struct slot *slot = shared_slot(p, NULL, now);
	if (!slot)
		return false;
	/* One whose group has to wait does not hold up those behind it. */
	while (first && !(slot = shared_slot(p, first->in_group, now)))
		first = first->next;
	if (!first)
		return false;
	unsigned n = 0, room = DEPTH_MAX - slot->n_out;
	bool merge = may_merge(p, first, now);
	int64_t deadline = first->deadline_us;
	for (struct query *q = first, *next; q && n < room && n < ARRAY_LEN(group); q = next) {
		next = q->next;
		if (q != first && !(merge && may_merge(p, q, now) && same_session(&q->session, &first->session) &&
		                    group_fits(p, slot, q->in_group)))
			continue;
		unwait(p, q);
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
			refuse(p, group[i]);
	}
	if (b)
		conn_sync(slot->conn, &b->segment);
	p->alone_last = false;
	return true;
}

/* --- stalls --- */

static bool may_hedge(const struct query *q, unsigned sent_max)
{
	return q && !q->write && !q->link && q->n_sent < sent_max;
}

static void send_once_more(struct pool *p, struct query *q)
{
	p->n_hedged++;
	list_push(&p->fast, q);
	p->n_waiting++;
}

/* False when there is no credit left. */
static bool hedge_batch(struct pool *p, struct batch *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct query *q = b->flight[i].query;
		if (!may_hedge(q, SENT_MAX))
			continue;
		if (p->hedge_credit < HEDGE_COST)
			return false;
		p->hedge_credit -= HEDGE_COST;
		send_once_more(p, q);
	}
	b->hedged = true;
	return true;
}

/* Behind one that hangs, for as long as that does. So they ask for no credit, may go wherever they have not been, and leave
 * their own group the connection. */
static void rescue_batch(struct pool *p, struct batch *b, int64_t now)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct flight *f = &b->flight[i];
		if (class_hangs(f->class, now))
			continue;
		group_back(b->slot, f->group);
		f->group = NULL;
		if (may_hedge(f->query, p->n_slots))
			send_once_more(p, f->query);
	}
	b->hedged = b->rescued = true;
}

/* The oldest segment is late. Who is at fault inside a shared one cannot be told, since the server may still hold the
 * answers of the statements before: all of it goes once more. Of the segments behind it, everything. Credit keeps a machine
 * that is slow as a whole from doing its work twice. */
static void slot_stalled(struct pool *p, struct slot *slot, int64_t now)
{
	struct batch *head = slot->head;
	if (head->exclusive || p->n_slots == 1)
		return; /* there is nowhere else */
	if (head->n == 1 && is_erratic(p, head_for_us(p, &head->segment))) {
		head->flight[0].class->hangs_us = now;
		for (struct batch *b = head->next; b; b = b->next)
			if (!b->rescued)
				rescue_batch(p, b, now);
		return;
	}
	for (struct batch *b = head; b; b = b->next)
		if (!b->hedged && !(b == head && b->n == 1) && !hedge_batch(p, b))
			return;
}

static void look_for_stalls(struct pool *p, int64_t now)
{
	for (unsigned i = 0; i < p->n_all; i++) {
		struct slot *s = &p->slots[i];
		if ((s->head && now > s->head->give_up_us) || (s->held && now > s->give_up_us && conn_head(s->conn)))
			conn_close(s->conn, VIEW("no answer for a second past the deadline"));
		else if (s->head && slot_is_stuck(s, now))
			slot_stalled(p, s, now);
	}
}

/* When the next connection may turn out to be stuck; those that are, are looked at again and again. */
static void set_tick(struct pool *p, int64_t now)
{
	int64_t stall = stall_us(p), due = INT64_MAX;
	for (unsigned i = 0; i < p->n_all; i++) {
		const struct segment *head = conn_head(p->slots[i].conn);
		if (!head)
			continue;
		int64_t at = head->head_since_us + stall;
		if (at <= now)
			at = now + stall;
		if (at < due)
			due = at;
	}
	if (due != INT64_MAX && (!p->tick.place || p->tick.due_us > due))
		loop_timer_set(p->loop, &p->tick, due);
}

static void tick(struct timer *t)
{
	struct pool *p = CONTAINER_OF(t, struct pool, tick);
	int64_t now = loop_now_us(p->loop);
	look_for_stalls(p, now);
	if (p->n_waiting)
		wake(p);
	set_tick(p, now);
}

static void close_dirty(struct pool *p)
{
	for (unsigned i = 0; i < p->n_all; i++)
		if (p->slots[i].dirty && !p->slots[i].head)
			conn_close(p->slots[i].conn, VIEW("its session could not be cleaned"));
}

static struct query *waiting_vital(struct pool *p)
{
	for (struct query *q = p->fast.head; q; q = q->next)
		if (q->vital)
			return q;
	struct class *c = p->ring;
	for (unsigned n = p->n_ring; n; n--, c = c->next)
		if (c->waiting.head->vital)
			return c->waiting.head;
	return NULL;
}

/* The look at the change feed has to get through when everything that is asked for hangs in a lock: else PostgreSQL would count as
 * silent, and be so for all. */
static void flush_vital(struct pool *p, int64_t now)
{
	struct query *q = p->n_waiting ? waiting_vital(p) : NULL;
	struct slot *spare = &p->slots[p->n_slots];
	if (!q || now - q->since_us < VITAL_US || any_closed(p))
		return;
	if (conn_is_closed(spare->conn)) {
		attempt(p, spare, now);
	} else if (is_idle(spare) && !spare->dirty) {
		unwait(p, q);
		if (!send_alone(p, spare, q))
			refuse(p, q);
	}
}

/* --- silence of the server ---
 *
 * It may be slow or frozen, and then whatever stands will go on; or it is gone without a word and another one has taken its place,
 * and then nobody will ever answer there. Which of the two shows when it is heard of again, by any worker: who lives has answered
 * soon after that. */

/* A Sync alone. Nothing else is sent there before it is answered, however long that takes. */
static void knock(struct pool *p, struct slot *slot)
{
	struct batch *b = batch_start(p, slot, false, INT64_MAX - GRACE_US);
	if (!b)
		return;
	b->exclusive = true;
	conn_sync(slot->conn, &b->segment);
}

static void doubt(struct pool *p, int64_t now)
{
	struct slot *spare = &p->slots[p->n_slots];
	p->doubted_us = now;
	p->well_us = 0;
	for (unsigned i = 0; i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		conn_mistrust(s->conn);
		if (is_idle(s))
			knock(p, s);
	}
	if (in_doubt(spare) && !spare->held && !(spare->head && spare->head->write))
		conn_close(spare->conn, VIEW("silent: who is there is found out anew"));
}

/* A connection of its own finds out who is there: the others may all be out. */
static void scout(struct pool *p, int64_t now, int64_t wait_us)
{
	struct slot *spare = &p->slots[p->n_slots];
	if (conn_is_closed(spare->conn) && wait_us == 0 && p->retry_us <= now)
		attempt(p, spare, now);
}

/* Writes whose commit was out end as unknown, reads are asked once more. */
static void close_dead(struct pool *p)
{
	for (unsigned i = 0; i < p->n_all; i++)
		if (in_doubt(&p->slots[i]) && conn_head(p->slots[i].conn))
			conn_close(p->slots[i].conn, VIEW("no answer, while the server has answered others"));
	p->doubted_us = 0;
}

void pool_round(struct pool *p)
{
	int64_t now = loop_now_us(p->loop), wait_us;
	uint64_t openings = breaker_openings(p->options.breaker);
	if (openings != p->openings) {
		p->openings = openings;
		doubt(p, now);
	}
	if (!any_in_doubt(p))
		return;
	if (breaker_state(p->options.breaker, now, &wait_us) != BREAKER_CLOSED) {
		p->well_us = 0;
		scout(p, now, wait_us);
	} else if (!p->well_us) {
		p->well_us = now;
	} else if (now - p->well_us > DEAD_US) {
		close_dead(p);
	}
}

static void flush(struct task *t)
{
	struct pool *p = CONTAINER_OF(t, struct pool, flush);
	int64_t now = loop_now_us(p->loop);
	close_dirty(p);
	if (p->n_waiting && is_open(p))
		refuse_while_open(p);
	promote_proven(p);
	demote_hanging(p, now);
	flush_alone(p, now);
	while (p->fast.head && flush_fast_one(p, now))
		;
	flush_vital(p, now);
	finish_refused(p);
	if (p->n_waiting)
		open_one(p, now);
	set_tick(p, now);
}

/* --- the pool --- */

struct pool *pool_create(struct loop *loop, const struct pool_options *options)
{
	struct pool *p = calloc(1, sizeof *p);
	struct slot *slots = calloc(options->connections + 1, sizeof *slots);
	if (!p || !slots) {
		free(p);
		free(slots);
		return NULL;
	}
	p->loop = loop;
	p->options = *options;
	p->options.conn.first = &p->first_host;
	p->slots = slots;
	p->flush.run = flush;
	p->tick.fire = tick;
	list_init(&p->fast);
	list_init(&p->refused);
	list_init(&p->nameless.waiting);
	p->hedge_credit = HEDGE_FIRST;
	p->light_us = 1000;
	p->dice = (uint64_t)clock_us() * (uint64_t)getpid() | 1;
	p->n_slots = options->connections;
	p->openings = breaker_openings(options->breaker);
	for (unsigned i = 0; i < options->connections + 1; i++) {
		struct slot *s = &slots[i];
		struct conn_owner owner = { on_ready, on_progress, on_closed, s };
		s->pool = p;
		s->tail = &s->head;
		s->conn = conn_create(loop, &p->options.conn, &owner);
		if (!s->conn) {
			pool_destroy(p);
			return NULL;
		}
		p->n_all++;
	}
	return p;
}

static void free_batches(struct batch *b)
{
	for (struct batch *next; b; b = next) {
		next = b->next;
		free(b);
	}
}

void pool_destroy(struct pool *p)
{
	if (!p)
		return;
	log_debug("postgresql: %llu statements, %llu of them sent once more", (unsigned long long)p->n_sent,
	          (unsigned long long)p->n_hedged);
	loop_undefer(p->loop, &p->flush);
	loop_timer_stop(p->loop, &p->tick);
	for (unsigned i = 0; i < p->n_all; i++) {
		conn_destroy(p->slots[i].conn);
		if (p->slots[i].held) {
			struct query *q = hold_end(&p->slots[i]);
			q->done(q, ERR_UNAVAILABLE, NULL);
		}
		free_batches(p->slots[i].head);
	}
	free_batches(p->free_batches);
	for (unsigned i = 0; i < CLASS_SLOTS; i++) {
		for (struct class *c = p->classes[i], *next; c; c = next) {
			next = c->chain;
			free(c);
		}
	}
	free(p->slots);
	free(p);
}

void pool_submit(struct pool *p, struct query *q)
{
	q->flights = NULL;
	q->link = NULL;
	q->held = NULL;
	q->n_sent = 0;
	q->since_us = loop_now_us(p->loop);
	q->lsn = 0;
	q->alone = q->retried = false;
	q->class = class_hold(p, q->statement ? q->statement->hash : q->group); /* those that take a connection have no text */
	q->in_group = group_hold(p, q->group);
	bool open = is_open(p) && !q->vital;
	if (open || (p->down && p->n_waiting >= DOWN_WAITING))
		refuse(p, q);
	else
		wait_again(p, q);
}

void pool_abandon(struct pool *p, struct query *q)
{
	forget(p, q);
}

bool pool_reachable(const struct pool *p, struct view *why)
{
	if (why)
		*why = view_of(p->why);
	return !p->down && !is_open(p);
}

void pool_not_run(struct pool *p)
{
	p->answered_us = loop_now_us(p->loop);
	p->well_us = 0;
}

bool pool_stands(const struct pool *p)
{
	return p->n_ready > 0 || !p->lost_us || p->n_waiting == 0;
}

int64_t pool_lost_us(const struct pool *p)
{
	return p->lost_us;
}

int64_t pool_silent_us(const struct pool *p)
{
	int64_t since = INT64_MAX, now = loop_now_us(p->loop);
	for (unsigned i = 0; i < p->n_all; i++) {
		const struct segment *head = conn_head(p->slots[i].conn);
		if (head && head->head_since_us < since)
			since = head->head_since_us;
	}
	if (since == INT64_MAX && p->n_waiting && p->lost_us && p->n_ready == 0)
		since = p->lost_us; /* there is nothing left to ask on */
	if (since == INT64_MAX || loop_gap_us(p->loop) > NOT_RUN_US)
		return 0;
	/* Another worker has heard of it since: what stands here has its time to answer (DEAD_US), and is closed. */
	if (any_in_doubt(p) && !p->well_us && !is_open(p))
		return 0;
	int64_t heard_us = p->answered_us > p->well_us ? p->answered_us : p->well_us;
	return now - (since > heard_us ? since : heard_us);
}

void pool_give_up(struct pool *p, struct view why)
{
	for (unsigned i = 0; i < p->n_all; i++)
		conn_close(p->slots[i].conn, why);
	refuse_all(p);
}

unsigned pool_in_use(const struct pool *p)
{
	return p->n_waiting + p->n_out;
}
