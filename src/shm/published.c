/* The serial is odd-even free: each copy carries the serial it was published under, 0 while it is being written. A
 * reader that finds the same serial before and after has read a whole copy; the checksum guards against a file that
 * somebody else wrote into. */
#include "config.h"

#include "shm/published.h"

#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "shm/point.h"

enum { TAG_MAX = 512 };

struct copy {
	_Atomic uint64_t serial; /* 0: being written, or never was */
	uint64_t length;
	uint32_t tag_length, crc;
	char tag[TAG_MAX];
};

/* In the region. */
struct board {
	_Atomic uint64_t serial;  /* of the current copy; 0: nothing yet */
	_Atomic uint32_t current; /* which copy */
	struct lock lock;         /* guards the copy that is not current */
	struct copy copy[2];
	char text[];
};

/* This process's own. */
struct published {
	struct board *board;
	size_t room; /* bytes of each copy's text */
};

static char *text_of(const struct published *p, unsigned which)
{
	return p->board->text + which * p->room;
}

struct published *published_open(struct region *r, enum region_area area)
{
	struct published *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	size_t bytes;
	p->board = region_area(r, area, &bytes);
	p->room = (bytes - sizeof *p->board) / 2 & ~(size_t)63;
	if (region_alone(r))
		lock_release(&p->board->lock);
	return p;
}

void published_close(struct published *p)
{
	free(p);
}

uint64_t published_serial(const struct published *p)
{
	return atomic_load_explicit(&p->board->serial, memory_order_acquire);
}

static void write_copy(struct published *p, unsigned which, struct view text, struct view tag)
{
	struct copy *c = &p->board->copy[which];
	atomic_store_explicit(&c->serial, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	shm_point("publish-begun");
	memcpy(text_of(p, which), text.p, text.n);
	if (tag.n)
		memcpy(c->tag, tag.p, tag.n);
	c->length = text.n;
	c->tag_length = (uint32_t)tag.n;
	c->crc = crc32_of(text);
	shm_point("publish-copied");
	uint64_t serial = atomic_load_explicit(&p->board->serial, memory_order_relaxed) + 1;
	atomic_store_explicit(&c->serial, serial, memory_order_release);
	atomic_store_explicit(&p->board->current, which, memory_order_release);
	shm_point("publish-current");
	atomic_store_explicit(&p->board->serial, serial, memory_order_release);
}

bool published_write(struct published *p, struct region *r, struct view text, struct view tag)
{
	if (text.n > p->room || tag.n > TAG_MAX || !lock_try(&p->board->lock, region_me(r)))
		return false;
	shm_point("publish-locked");
	write_copy(p, !(atomic_load_explicit(&p->board->current, memory_order_relaxed) & 1), text, tag);
	lock_release(&p->board->lock);
	return true;
}

bool published_read(const struct published *p, struct buf *out, struct buf *tag, uint64_t *serial)
{
	unsigned which = atomic_load_explicit(&p->board->current, memory_order_acquire) & 1;
	const struct copy *c = &p->board->copy[which];
	uint64_t before = atomic_load_explicit(&c->serial, memory_order_acquire);
	uint64_t length = c->length;
	uint32_t tag_length = c->tag_length, crc = c->crc;
	if (before == 0 || length > p->room || tag_length > TAG_MAX)
		return false;
	size_t at = out->n;
	buf_put(out, text_of(p, which), length);
	buf_put(tag, c->tag, tag_length);
	atomic_thread_fence(memory_order_acquire);
	if (buf_failed(out) || buf_failed(tag) || atomic_load_explicit(&c->serial, memory_order_relaxed) != before ||
	    crc32_of(view_make(out->p + at, length)) != crc)
		return false;
	*serial = before;
	return true;
}

bool published_repair(struct published *p, struct region *r)
{
	if (!lock_take_over(&p->board->lock, r))
		return false;
	/* The copy that was being written has serial 0 and is nobody's; should it have become current already, its serial
	 * is set, and only the announcement is missing. */
	unsigned which = atomic_load(&p->board->current) & 1;
	uint64_t serial = atomic_load(&p->board->copy[which].serial);
	if (serial > atomic_load(&p->board->serial))
		atomic_store(&p->board->serial, serial);
	lock_release(&p->board->lock);
	return true;
}

void published_describe(const struct published *p, FILE *f)
{
	unsigned which = atomic_load(&p->board->current) & 1;
	(void)fprintf(f, "catalog     serial %llu, %llu bytes, lock %s\n", (unsigned long long)atomic_load(&p->board->serial),
	              (unsigned long long)p->board->copy[which].length, atomic_load(&p->board->lock.holder) ? "held" : "free");
}
