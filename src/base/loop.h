/* loop: one thread, many sockets and timers (epoll).
 *
 * Everything is intrusive: the caller owns each struct io, timer and task, embeds it where it belongs and finds its
 * own struct with CONTAINER_OF. The loop allocates nothing after loop_create() but the timer heap. A callback may
 * start, change and stop any io, timer or task, also its own, and may free the struct that held it once stopped.
 * Times are microseconds of CLOCK_MONOTONIC, absolute.
 */
#ifndef COMPOSURE_LOOP_H
#define COMPOSURE_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attributes.h"

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

struct loop;

struct io {
	void (*ready)(struct io *, unsigned events); /* LOOP_READ | LOOP_WRITE; errors and hang-ups set both */
	int fd;
	unsigned events;
	bool active;
	unsigned slot; /* the loop's own */
};

struct timer {
	void (*fire)(struct timer *);
	int64_t due_us;
	size_t place; /* the loop's own: index in the heap + 1, 0 while not set */
};

/* Runs once, at the end of the wake-up that deferred it, after sockets and timers. Deferred by a task that runs: at the
 * end of the next wake-up, which then does not sleep. */
struct task {
	void (*run)(struct task *);
	struct task *next;
	struct task **link; /* NULL while not deferred */
};

/* NULL and errno when the kernel refuses. */
struct loop *loop_create(void);
void loop_destroy(struct loop *);

/* Watches fd; io->ready must be set. `exclusive`: of several processes that watch one listening socket, wake one
 * (EPOLLEXCLUSIVE). 0, or -1 and errno (EPERM: a regular file, which is always ready). */
int loop_io_start(struct loop *, struct io *, int fd, unsigned events, bool exclusive) MUST_CHECK;
int loop_io_change(struct loop *, struct io *, unsigned events);
void loop_io_stop(struct loop *, struct io *);

/* Sets or moves; timer->fire must be set. A due time in the past fires in this wake-up or the next. */
void loop_timer_set(struct loop *, struct timer *, int64_t due_us);
void loop_timer_stop(struct loop *, struct timer *);

void loop_defer(struct loop *, struct task *);
void loop_undefer(struct loop *, struct task *);

/* Until loop_stop(). 0, or -1 and errno when epoll fails. */
int loop_run(struct loop *);
void loop_stop(struct loop *);

/* The time at which this wake-up began: one clock read a wake-up. */
int64_t loop_now_us(const struct loop *);

/* Until the deadline: milliseconds as PostgreSQL's settings want them, rounded up and never 0, which would be no limit. */
int64_t loop_left_ms(const struct loop *, int64_t deadline_us);

/* How long ago the wake-up before began. Far more than any timer's time: the process did not run (it was stopped, or the machine
 * is busy), and what came meanwhile is still to be read. */
int64_t loop_gap_us(const struct loop *);

/* The clock itself. */
int64_t clock_us(void);

/* The time of day: microseconds since 1970. */
int64_t epoch_us(void);

#endif
