/* Each copy carries the serial it was published under, 0 while it is being written. A reader that finds the same serial
 * before and after has read a whole copy; the checksum guards against a file that somebody else wrote into. */
#include "config.h"

#include "shm/published.h"

#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "shm/point.h"
#include "shm/words.h"

enum { TAG_MAX = 512, WORD = 8 };

struct copy {
	_Atomic uint64_t serial; /* 0: being written, or never was */
	_Atomic uint64_t stamp;
	_Atomic uint64_t length, tag_length, crc;
	_Atomic uint64_t tag[TAG_MAX / WORD];
};

/* In the region. */
struct board {
	_Atomic uint64_t current; /* which copy */
	struct lock lock;         /* guards the copy that is not current, and who becomes so */
	struct copy copy[2];
	_Atomic uint64_t text[];
};

/* This process's own. */
struct published {
	struct board *board;
	size_t room; /* bytes of each copy's text: whole words */
};

static _Atomic uint64_t *text_of(const struct published *p, unsigned which)
{
	return p->board->text + which * (p->room / WORD);
}

static const struct copy *current_of(const struct published *p)
{
	return &p->board->copy[atomic_load_explicit(&p->board->current, memory_order_acquire) & 1];
}

struct published *published_open(struct region *r, enum region_area area)
{
	struct published *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	size_t bytes;
	p->board = region_area(r, area, &bytes);
	p->room = (bytes - sizeof *p->board) / 2 & ~(size_t)63;
	if (region_repairing(r))
		(void)published_repair(p, r);
	return p;
}

void published_close(struct published *p)
{
	free(p);
}

uint64_t published_serial(const struct published *p)
{
	return atomic_load_explicit(&current_of(p)->serial, memory_order_acquire);
}

bool published_stamp(const struct published *p, uint64_t serial, uint64_t *stamp)
{
	const struct copy *c = current_of(p);
	uint64_t s = atomic_load_explicit(&c->stamp, memory_order_acquire);
	if (atomic_load_explicit(&c->serial, memory_order_relaxed) != serial)
		return false;
	*stamp = s;
	return true;
}

/* --- writing --- */

/* The last word is filled up with zeros. */
static void store_text(_Atomic uint64_t *to, struct view v)
{
	size_t whole = v.n / WORD * WORD;
	char last[WORD] = { 0 };
	if (whole)
		words_store(to, v.p, whole);
	if (v.n == whole)
		return;
	memcpy(last, v.p + whole, v.n - whole);
	words_store(to + whole / WORD, last, WORD);
}

static void write_copy(struct published *p, struct view text, struct view tag, uint64_t stamp)
{
	const struct copy *old = current_of(p);
	unsigned which = old == &p->board->copy[0];
	struct copy *c = &p->board->copy[which];
	atomic_store_explicit(&c->serial, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	shm_point("publish-begun");
	store_text(text_of(p, which), text);
	store_text(c->tag, tag);
	atomic_store_explicit(&c->length, text.n, memory_order_relaxed);
	atomic_store_explicit(&c->tag_length, tag.n, memory_order_relaxed);
	atomic_store_explicit(&c->crc, crc32_of(text), memory_order_relaxed);
	atomic_store_explicit(&c->stamp, stamp, memory_order_relaxed);
	shm_point("publish-copied");
	uint64_t serial = atomic_load_explicit(&old->serial, memory_order_relaxed) + 1;
	atomic_store_explicit(&c->serial, serial, memory_order_release);
	shm_point("publish-complete");
	atomic_store_explicit(&p->board->current, which, memory_order_release);
	shm_point("publish-current");
}

enum published_result published_write(struct published *p, struct region *r, struct view text, struct view tag,
                                      uint64_t stamp)
{
	if (text.n > p->room || tag.n > TAG_MAX)
		return PUBLISH_TOO_LARGE;
	if (!lock_try(&p->board->lock, region_me(r)))
		return PUBLISH_BUSY;
	shm_point("publish-locked");
	write_copy(p, text, tag, stamp);
	lock_release(&p->board->lock);
	return PUBLISHED;
}

void published_restamp(struct published *p, struct region *r, uint64_t serial, uint64_t stamp)
{
	if (!lock_try(&p->board->lock, region_me(r)))
		return;
	struct copy *c = &p->board->copy[current_of(p) == &p->board->copy[1]];
	if (atomic_load_explicit(&c->serial, memory_order_relaxed) == serial)
		atomic_store_explicit(&c->stamp, stamp, memory_order_release);
	lock_release(&p->board->lock);
}

/* --- reading --- */

/* Room is made in whole words; what is beyond the text is not counted. */
static void load_text(struct buf *out, const _Atomic uint64_t *from, size_t n)
{
	size_t words = (n + WORD - 1) / WORD * WORD;
	char *room = words ? buf_reserve(out, words) : NULL;
	if (!room)
		return;
	words_load(room, from, words);
	buf_advance(out, n);
}

bool published_read(const struct published *p, struct buf *out, struct buf *tag, struct publication *which)
{
	const struct copy *c = current_of(p);
	uint64_t serial = atomic_load_explicit(&c->serial, memory_order_acquire);
	uint64_t length = atomic_load_explicit(&c->length, memory_order_relaxed);
	uint64_t tag_length = atomic_load_explicit(&c->tag_length, memory_order_relaxed);
	uint64_t crc = atomic_load_explicit(&c->crc, memory_order_relaxed);
	uint64_t stamp = atomic_load_explicit(&c->stamp, memory_order_relaxed);
	if (serial == 0 || length > p->room || tag_length > TAG_MAX)
		return false;
	size_t before = out->n;
	load_text(out, text_of(p, c == &p->board->copy[1]), length);
	load_text(tag, c->tag, tag_length);
	atomic_thread_fence(memory_order_acquire);
	if (buf_failed(out) || buf_failed(tag) || atomic_load_explicit(&c->serial, memory_order_relaxed) != serial ||
	    crc32_of(view_skip(buf_view(out), before)) != crc)
		return false;
	*which = (struct publication){ serial, stamp };
	return true;
}

/* --- repair --- */

bool published_repair(struct published *p, struct region *r)
{
	if (!lock_take_over(&p->board->lock, r))
		return false;
	/* The copy that was being written is whole and current, or it is nobody's and the next one to be written. */
	lock_release(&p->board->lock);
	return true;
}

void published_describe(const struct published *p, FILE *f)
{
	const struct copy *c = current_of(p);
	(void)fprintf(f, "catalog     serial %llu, %llu bytes of %zu, lock %s\n",
	              (unsigned long long)atomic_load(&c->serial), (unsigned long long)atomic_load(&c->length),
	              p->room, atomic_load(&p->board->lock.holder) ? "held" : "free");
}
