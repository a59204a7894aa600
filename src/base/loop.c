/* The one hard fact: a callback may stop an io whose event is still in this wake-up's batch. So the batch carries the
 * index of a slot, not a pointer, and a stopped io's slot is empty until the batch is over. */
#include "config.h"

#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 256 };

struct slot {
	struct io *io;
	unsigned next_free;
};

struct loop {
	int epoll;
	bool stopped;
	int64_t now_us, before_us; /* this wake-up, and the one before */

	struct slot *slots;
	unsigned n_slots;
	unsigned free_slot;    /* first of the free list, n_slots: none */
	unsigned retired_slot; /* emptied during this batch; free after it */

	struct timer **heap; /* min-heap by due_us */
	size_t n_timers, cap_timers;

	struct task *tasks;
	struct task **tasks_end;
	size_t n_tasks;
};

static const unsigned NO_SLOT = (unsigned)-1;

int64_t clock_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t loop_now_us(const struct loop *l)
{
	return l->now_us;
}

int64_t loop_left_ms(const struct loop *l, int64_t deadline_us)
{
	int64_t left = deadline_us - loop_now_us(l);
	return left > 0 ? (left + 999) / 1000 : 1;
}

int64_t loop_gap_us(const struct loop *l)
{
	return l->now_us - l->before_us;
}

struct loop *loop_create(void)
{
	struct loop *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll < 0) {
		free(l);
		return NULL;
	}
	l->now_us = l->before_us = clock_us();
	l->free_slot = l->retired_slot = NO_SLOT;
	l->tasks_end = &l->tasks;
	return l;
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	close(l->epoll);
	free(l->slots);
	free(l->heap);
	free(l);
}

/* --- sockets --- */

static unsigned slot_take(struct loop *l)
{
	if (l->free_slot == NO_SLOT) {
		unsigned n = l->n_slots ? l->n_slots * 2 : 32;
		struct slot *grown = realloc(l->slots, n * sizeof *grown);
		if (!grown)
			return NO_SLOT;
		for (unsigned i = l->n_slots; i < n; i++)
			grown[i] = (struct slot){ .next_free = i + 1 < n ? i + 1 : NO_SLOT };
		l->free_slot = l->n_slots;
		l->slots = grown;
		l->n_slots = n;
	}
	unsigned s = l->free_slot;
	l->free_slot = l->slots[s].next_free;
	return s;
}

static struct epoll_event epoll_form(const struct io *io, bool exclusive)
{
	uint32_t e = ((io->events & LOOP_READ) ? EPOLLIN : 0) | ((io->events & LOOP_WRITE) ? EPOLLOUT : 0);
	return (struct epoll_event){ .events = e | (exclusive ? EPOLLEXCLUSIVE : 0), .data.u32 = io->slot };
}

int loop_io_start(struct loop *l, struct io *io, int fd, unsigned events, bool exclusive)
{
	assert(!io->active && io->ready);
	unsigned s = slot_take(l);
	if (s == NO_SLOT)
		return errno = ENOMEM, -1;
	io->fd = fd;
	io->events = events;
	io->slot = s;
	struct epoll_event ev = epoll_form(io, exclusive);
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
		l->slots[s].next_free = l->free_slot;
		l->free_slot = s;
		return -1;
	}
	l->slots[s].io = io;
	io->active = true;
	return 0;
}

int loop_io_change(struct loop *l, struct io *io, unsigned events)
{
	assert(io->active);
	if (io->events == events)
		return 0;
	io->events = events;
	struct epoll_event ev = epoll_form(io, false);
	return epoll_ctl(l->epoll, EPOLL_CTL_MOD, io->fd, &ev);
}

void loop_io_stop(struct loop *l, struct io *io)
{
	if (!io->active)
		return;
	(void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, io->fd, NULL);
	l->slots[io->slot] = (struct slot){ .next_free = l->retired_slot };
	l->retired_slot = io->slot;
	io->active = false;
}

static void slots_free_retired(struct loop *l)
{
	while (l->retired_slot != NO_SLOT) {
		unsigned s = l->retired_slot;
		l->retired_slot = l->slots[s].next_free;
		l->slots[s].next_free = l->free_slot;
		l->free_slot = s;
	}
}

/* --- timers --- */

static void heap_put(struct loop *l, size_t at, struct timer *t)
{
	l->heap[at] = t;
	t->place = at + 1;
}

static void heap_up(struct loop *l, size_t at, struct timer *t)
{
	for (; at && l->heap[(at - 1) / 2]->due_us > t->due_us; at = (at - 1) / 2)
		heap_put(l, at, l->heap[(at - 1) / 2]);
	heap_put(l, at, t);
}

static void heap_down(struct loop *l, size_t at, struct timer *t)
{
	for (size_t child; (child = 2 * at + 1) < l->n_timers; at = child) {
		if (child + 1 < l->n_timers && l->heap[child + 1]->due_us < l->heap[child]->due_us)
			child++;
		if (l->heap[child]->due_us >= t->due_us)
			break;
		heap_put(l, at, l->heap[child]);
	}
	heap_put(l, at, t);
}

void loop_timer_set(struct loop *l, struct timer *t, int64_t due_us)
{
	assert(t->fire);
	if (!t->place) {
		if (l->n_timers == l->cap_timers) {
			size_t cap = l->cap_timers ? l->cap_timers * 2 : 64;
			struct timer **grown = realloc(l->heap, cap * sizeof(struct timer *));
			if (!grown)
				abort(); /* a request without its deadline would be worse than none */
			l->heap = grown;
			l->cap_timers = cap;
		}
		t->due_us = due_us;
		heap_up(l, l->n_timers++, t);
		return;
	}
	int64_t before = t->due_us;
	t->due_us = due_us;
	if (due_us < before)
		heap_up(l, t->place - 1, t);
	else
		heap_down(l, t->place - 1, t);
}

void loop_timer_stop(struct loop *l, struct timer *t)
{
	if (!t->place)
		return;
	size_t at = t->place - 1;
	t->place = 0;
	struct timer *last = l->heap[--l->n_timers];
	if (last == t)
		return;
	if (at && l->heap[(at - 1) / 2]->due_us > last->due_us)
		heap_up(l, at, last);
	else
		heap_down(l, at, last);
}

/* As many as are set now at most: one that sets itself again in the past waits for the sockets' turn. */
static void timers_fire(struct loop *l)
{
	for (size_t round = l->n_timers; round && l->n_timers && !l->stopped; round--) {
		struct timer *t = l->heap[0];
		if (t->due_us > l->now_us)
			return;
		loop_timer_stop(l, t);
		t->fire(t);
	}
}

/* --- tasks --- */

void loop_defer(struct loop *l, struct task *t)
{
	assert(t->run);
	if (t->link)
		return;
	t->next = NULL;
	t->link = l->tasks_end;
	*l->tasks_end = t;
	l->tasks_end = &t->next;
	l->n_tasks++;
}

void loop_undefer(struct loop *l, struct task *t)
{
	if (!t->link)
		return;
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	else
		l->tasks_end = t->link;
	t->link = NULL;
	l->n_tasks--;
}

/* One round: what a task defers, itself included, runs after the sockets had their turn. */
static void tasks_run(struct loop *l)
{
	for (size_t round = l->n_tasks; round && l->tasks && !l->stopped; round--) {
		struct task *t = l->tasks;
		loop_undefer(l, t);
		t->run(t);
	}
}

/* --- the loop --- */

/* Rounded up: a timer never fires early, and the loop never spins on the last fraction of a millisecond. */
static int sleep_ms(const struct loop *l)
{
	if (l->tasks)
		return 0;
	if (!l->n_timers)
		return -1;
	int64_t left = l->heap[0]->due_us - clock_us();
	if (left <= 0)
		return 0;
	int64_t ms = (left + 999) / 1000;
	return ms > 60000 ? 60000 : (int)ms;
}

int loop_run(struct loop *l)
{
	struct epoll_event batch[BATCH];
	l->stopped = false;
	while (!l->stopped) {
		int n = epoll_wait(l->epoll, batch, BATCH, sleep_ms(l));
		if (n < 0 && errno != EINTR)
			return -1;
		l->before_us = l->now_us;
		l->now_us = clock_us();
		for (int i = 0; i < n && !l->stopped; i++) {
			struct io *io = l->slots[batch[i].data.u32].io;
			if (!io)
				continue;
			uint32_t e = batch[i].events;
			unsigned events = ((e & EPOLLIN) ? LOOP_READ : 0) | ((e & EPOLLOUT) ? LOOP_WRITE : 0);
			if (e & (EPOLLERR | EPOLLHUP))
				events = LOOP_READ | LOOP_WRITE;
			io->ready(io, events);
		}
		slots_free_retired(l);
		timers_fire(l);
		tasks_run(l);
	}
	return 0;
}

void loop_stop(struct loop *l)
{
	l->stopped = true;
}

int64_t epoch_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
