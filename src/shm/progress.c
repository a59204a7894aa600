/* The one hard fact: what a replica has is not told in time, only in positions. So the primary's positions are kept with the
 * time at which each was heard of, and a replica is as old as the newest of them that it has replayed. */
#include "config.h"

#include "shm/progress.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/loop.h"

enum {
	PLACES = 512,
	FINE_US = 20000,       /* between two positions of the fine track: the last ten seconds, */
	COARSE_US = 10000000,  /* and of the coarse one: the last hour and a half */
	IDENTITIES = 16384,
	UNKNOWN_US = 10000000, /* a write whose position is not known is replayed by then, or its replica lags anyway */
	PAGE = 8192,           /* of the log, */
	PAGE_HEAD = 40,        /* which begins with so many bytes at most */
};

struct place {
	_Atomic uint64_t lsn;
	_Atomic int64_t when_us;
};

struct track {
	_Atomic uint64_t n; /* places that were taken; the last one is place[(n - 1) % PLACES] */
	struct place place[PLACES];
};

struct follower {
	_Atomic uint64_t lsn;
	_Atomic int64_t asked_us, as_of_us;
	_Atomic int64_t answered_us;  /* the last to be written, and 0 meanwhile: what goes with it is one answer's */
	_Atomic uint64_t foreign_lsn; /* a position that the primary had not reached afterwards; PROGRESS_NEVER: whichever it is in */
};

struct identity {
	_Atomic uint64_t lsn;
	_Atomic int64_t unknown_until_us;
};

struct progress {
	_Atomic uint64_t told, heard;
	_Atomic int64_t heard_us, seen_us, unknown_until_us;
	struct follower follower[PROGRESS_REPLICAS];
	struct track fine, coarse;
	struct identity identity[IDENTITIES];
};

struct progress *progress_open(struct region *r)
{
	size_t bytes;
	struct progress *p = region_area(r, AREA_PROGRESS, &bytes);
	assert(bytes >= sizeof *p);
	return p;
}

static void raise_lsn(_Atomic uint64_t *at, uint64_t lsn)
{
	uint64_t was = atomic_load(at);
	while (was < lsn && !atomic_compare_exchange_weak(at, &was, lsn))
		;
}

static void raise_us(_Atomic int64_t *at, int64_t us)
{
	int64_t was = atomic_load(at);
	while (was < us && !atomic_compare_exchange_weak(at, &was, us))
		;
}

/* --- the primary --- */

/* A position that is being written fits no replica. */
static void place_set(struct place *at, uint64_t lsn, int64_t when_us)
{
	atomic_store(&at->lsn, PROGRESS_NEVER);
	atomic_store(&at->when_us, when_us);
	atomic_store(&at->lsn, lsn);
}

/* The last place moves until it is far enough from the one before. */
static void track_add(struct track *t, uint64_t lsn, int64_t when_us, int64_t apart_us)
{
	uint64_t n = atomic_load(&t->n);
	struct place *last = &t->place[(n - 1) % PLACES], *before = &t->place[(n - 2) % PLACES];
	bool moves = n > 0 && (atomic_load(&last->lsn) == lsn ||
	                       (n > 1 && atomic_load(&last->when_us) - atomic_load(&before->when_us) < apart_us));
	if (moves) {
		place_set(last, lsn, when_us);
		return;
	}
	place_set(&t->place[n % PLACES], lsn, when_us);
	atomic_store(&t->n, n + 1);
}

/* pg_current_wal_insert_lsn() counts the head of a page as soon as it comes next, and replaying only with what follows. */
static uint64_t without_head(uint64_t lsn)
{
	return lsn % PAGE <= PAGE_HEAD ? lsn - lsn % PAGE : lsn;
}

/* When the primary was last seen to have no more than `lsn`; 0: longer ago than is known. */
static int64_t track_find(const struct track *t, uint64_t lsn)
{
	uint64_t n = atomic_load(&t->n);
	for (uint64_t i = 0; i < n && i < PLACES; i++) {
		const struct place *at = &t->place[(n - 1 - i) % PLACES];
		uint64_t theirs = atomic_load(&at->lsn);
		int64_t when_us = atomic_load(&at->when_us);
		if (theirs != PROGRESS_NEVER && without_head(theirs) <= lsn && atomic_load(&at->lsn) == theirs)
			return when_us;
	}
	return 0;
}

static void forget(struct progress *p)
{
	atomic_store(&p->heard, 0);
	atomic_store(&p->fine.n, 0);
	atomic_store(&p->coarse.n, 0);
	for (unsigned i = 0; i < PROGRESS_REPLICAS; i++) {
		atomic_store(&p->follower[i].foreign_lsn, PROGRESS_NEVER);
		atomic_store(&p->follower[i].as_of_us, 0);
	}
	for (unsigned i = 0; i < IDENTITIES; i++)
		atomic_store(&p->identity[i].lsn, 0);
}

void progress_tell(struct progress *p, uint64_t lsn, int64_t asked_us)
{
	if (lsn < atomic_load(&p->heard) && asked_us > atomic_load(&p->heard_us)) {
		forget(p);
		atomic_store(&p->told, lsn);
	}
	raise_lsn(&p->told, lsn);
}

/* Nobody has replayed what the primary has not written: who had more before it was asked has it of another history, of a primary
 * that was lost with it. Positions are all that is known here: reading timelines takes rights. */
static void judge(struct follower *f, uint64_t lsn, int64_t asked_us)
{
	int64_t answered_us = atomic_load(&f->answered_us);
	uint64_t theirs = atomic_load(&f->lsn);
	if (!answered_us || answered_us >= asked_us || atomic_load(&f->answered_us) != answered_us)
		return;
	if (theirs > lsn) {
		atomic_store(&f->foreign_lsn, theirs);
		atomic_store(&f->as_of_us, 0);
	} else if (atomic_load(&f->foreign_lsn) == PROGRESS_NEVER) {
		atomic_store(&f->foreign_lsn, 0);
	}
}

void progress_hear(struct progress *p, uint64_t lsn, int64_t asked_us)
{
	if (asked_us <= atomic_load(&p->heard_us))
		return; /* of one who had the watch before */
	raise_lsn(&p->heard, lsn);
	track_add(&p->fine, lsn, asked_us, FINE_US);
	track_add(&p->coarse, lsn, asked_us, COARSE_US);
	atomic_store(&p->heard_us, asked_us);
	for (unsigned i = 0; i < PROGRESS_REPLICAS; i++)
		judge(&p->follower[i], lsn, asked_us);
}

/* Equal is not enough: a commit is in the log before others can see it, and the poll may have looked in between. */
bool progress_heard(const struct progress *p, uint64_t lsn)
{
	return atomic_load(&p->heard) > lsn;
}

int64_t progress_heard_us(const struct progress *p)
{
	return atomic_load(&p->heard_us);
}

void progress_saw(struct progress *p, int64_t now_us)
{
	raise_us(&p->seen_us, now_us);
}

int64_t progress_seen_us(const struct progress *p)
{
	return atomic_load(&p->seen_us);
}

/* --- writes --- */

void progress_wrote(struct progress *p, uint64_t identity, uint64_t lsn, int64_t now_us)
{
	struct identity *who = &p->identity[identity % IDENTITIES];
	if (lsn) {
		raise_lsn(&who->lsn, lsn);
		raise_lsn(&p->told, lsn);
	} else {
		raise_us(&who->unknown_until_us, now_us + UNKNOWN_US);
		raise_us(&p->unknown_until_us, now_us + UNKNOWN_US);
	}
}

uint64_t progress_told(const struct progress *p, int64_t now_us)
{
	return atomic_load(&p->unknown_until_us) > now_us ? PROGRESS_NEVER : atomic_load(&p->told);
}

uint64_t progress_written(const struct progress *p, uint64_t identity, int64_t now_us)
{
	const struct identity *who = &p->identity[identity % IDENTITIES];
	return atomic_load(&who->unknown_until_us) > now_us ? PROGRESS_NEVER : atomic_load(&who->lsn);
}

/* --- replicas --- */

/* It stays where another history left it, however far the primary comes. */
static bool is_foreign(const struct follower *f, uint64_t lsn)
{
	uint64_t foreign = atomic_load(&f->foreign_lsn);
	return foreign == PROGRESS_NEVER || (foreign && foreign == lsn);
}

void progress_replayed(struct progress *p, unsigned n, uint64_t lsn, int64_t asked_us, int64_t now_us)
{
	assert(n < PROGRESS_REPLICAS);
	struct follower *f = &p->follower[n];
	int64_t as_of_us = track_find(&p->fine, lsn);
	if (!as_of_us)
		as_of_us = track_find(&p->coarse, lsn);
	atomic_store(&f->answered_us, 0);
	atomic_store(&f->lsn, lsn);
	atomic_store(&f->as_of_us, is_foreign(f, lsn) ? 0 : as_of_us);
	atomic_store(&f->asked_us, asked_us);
	atomic_store(&f->answered_us, now_us);
}

struct progress_replica progress_replica(const struct progress *p, unsigned n)
{
	const struct follower *f = &p->follower[n];
	uint64_t lsn = atomic_load(&f->lsn), foreign = atomic_load(&f->foreign_lsn);
	return (struct progress_replica){ lsn, atomic_load(&f->asked_us), atomic_load(&f->as_of_us), foreign && foreign == lsn };
}

static void put_lsn(FILE *f, const char *what, uint64_t lsn)
{
	(void)fprintf(f, "%s %X/%X", what, (unsigned)(lsn >> 32), (unsigned)lsn);
}

void progress_describe(const struct progress *p, FILE *f)
{
	int64_t now = clock_us();
	put_lsn(f, "progress    told", atomic_load(&p->told));
	put_lsn(f, ", heard", atomic_load(&p->heard));
	(void)fprintf(f, "\n");
	for (unsigned n = 0; n < PROGRESS_REPLICAS; n++) {
		struct progress_replica r = progress_replica(p, n);
		if (!r.asked_us)
			continue;
		(void)fprintf(f, "replica     %u:", n + 1);
		put_lsn(f, "", r.lsn);
		(void)fprintf(f, ", asked %lld ms ago", (long long)(now - r.asked_us) / 1000);
		if (r.foreign)
			(void)fprintf(f, ", it has what the primary has not\n");
		else if (r.as_of_us)
			(void)fprintf(f, ", as the primary was %lld ms ago\n", (long long)(now - r.as_of_us) / 1000);
		else
			(void)fprintf(f, ", how far behind is not known\n");
	}
}
