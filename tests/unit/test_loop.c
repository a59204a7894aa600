#include "config.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/loop.h"

/* One loop, some sockets, and what happened to them. */
struct bench {
	struct loop *loop;
	int pair[8][2];
	struct seat {
		struct io io;
		struct bench *bench;
		int index;
		unsigned seen;
		int times;
	} seat[8];
	int order[64];
	int n_order;
};

static int set_up(void **state)
{
	struct bench *b = calloc(1, sizeof *b);
	b->loop = loop_create();
	for (int i = 0; i < 8; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b->pair[i]), 0);
		b->seat[i].bench = b;
		b->seat[i].index = i;
	}
	*state = b;
	return b->loop ? 0 : -1;
}

static int tear_down(void **state)
{
	struct bench *b = *state;
	loop_destroy(b->loop);
	for (int i = 0; i < 8; i++) {
		close(b->pair[i][0]);
		close(b->pair[i][1]);
	}
	free(b);
	return 0;
}

static void watch(struct bench *b, int i, unsigned events, void (*ready)(struct io *, unsigned))
{
	b->seat[i].io.ready = ready;
	assert_int_equal(loop_io_start(b->loop, &b->seat[i].io, b->pair[i][0], events, false), 0);
}

static void note_and_stop_loop(struct io *io, unsigned events)
{
	struct seat *s = CONTAINER_OF(io, struct seat, io);
	s->seen = events;
	s->times++;
	loop_stop(s->bench->loop);
}

static void a_byte_wakes_its_reader(void **state)
{
	struct bench *b = *state;
	watch(b, 0, LOOP_READ, note_and_stop_loop);
	watch(b, 1, LOOP_READ, note_and_stop_loop);
	assert_int_equal(write(b->pair[1][1], "x", 1), 1);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->seat[0].times, 0);
	assert_int_equal(b->seat[1].times, 1);
	assert_int_equal(b->seat[1].seen, LOOP_READ);
}

static void a_closed_peer_wakes_reader_and_writer(void **state)
{
	struct bench *b = *state;
	watch(b, 0, LOOP_READ, note_and_stop_loop);
	close(b->pair[0][1]);
	b->pair[0][1] = dup(0);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->seat[0].seen, LOOP_READ | LOOP_WRITE);
}

static void changed_interest_is_what_counts(void **state)
{
	struct bench *b = *state;
	watch(b, 0, LOOP_READ, note_and_stop_loop);
	assert_int_equal(loop_io_change(b->loop, &b->seat[0].io, LOOP_WRITE), 0);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->seat[0].seen, LOOP_WRITE);
}

static void a_regular_file_is_refused_with_eperm(void **state)
{
	struct bench *b = *state;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	b->seat[0].io.ready = note_and_stop_loop;
	assert_int_equal(loop_io_start(b->loop, &b->seat[0].io, fd, LOOP_READ, false), -1);
	assert_int_equal(errno, EPERM);
	assert_false(b->seat[0].io.active);
	close(fd);
	watch(b, 0, LOOP_WRITE, note_and_stop_loop); /* the place that the refused one took is free again */
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->seat[0].times, 1);
}

/* Whoever is called first stops all others and starts them anew on sockets that are silent. */
static void stop_all_others(struct io *io, unsigned events)
{
	(void)events;
	struct seat *s = CONTAINER_OF(io, struct seat, io);
	struct bench *b = s->bench;
	s->times++;
	for (int i = 0; i < 8; i++)
		if (i != s->index)
			loop_io_stop(b->loop, &b->seat[i].io);
	loop_io_stop(b->loop, io);
	loop_stop(b->loop);
}

static void an_io_stopped_in_the_same_batch_is_not_called(void **state)
{
	struct bench *b = *state;
	for (int i = 0; i < 8; i++)
		watch(b, i, LOOP_WRITE, stop_all_others);
	assert_int_equal(loop_run(b->loop), 0);
	int called = 0;
	for (int i = 0; i < 8; i++)
		called += b->seat[i].times;
	assert_int_equal(called, 1);
}

static void replace_next(struct io *io, unsigned events)
{
	(void)events;
	struct seat *s = CONTAINER_OF(io, struct seat, io);
	struct bench *b = s->bench;
	s->times++;
	loop_io_stop(b->loop, io);
	for (int i = 0; i < 4; i++)
		if (b->seat[i].io.active && i != s->index) {
			loop_io_stop(b->loop, &b->seat[i].io);
			watch(b, i + 4, LOOP_READ, note_and_stop_loop); /* silent: must not get the other's event */
		}
	loop_stop(b->loop);
}

static void an_io_started_in_a_batch_does_not_get_a_stopped_ones_event(void **state)
{
	struct bench *b = *state;
	for (int i = 0; i < 4; i++)
		watch(b, i, LOOP_WRITE, replace_next);
	assert_int_equal(loop_run(b->loop), 0);
	for (int i = 4; i < 8; i++)
		assert_int_equal(b->seat[i].times, 0);
}

struct alarm {
	struct timer timer;
	struct bench *bench;
	int index;
};

static void note_alarm(struct timer *t)
{
	struct alarm *a = CONTAINER_OF(t, struct alarm, timer);
	struct bench *b = a->bench;
	assert_true(clock_us() >= t->due_us);
	b->order[b->n_order++] = a->index;
}

static void stop_by_alarm(struct timer *t)
{
	struct alarm *a = CONTAINER_OF(t, struct alarm, timer);
	loop_stop(a->bench->loop);
}

static void timers_fire_in_order_and_never_early(void **state)
{
	struct bench *b = *state;
	struct alarm a[50];
	uint64_t seed = 7;
	int64_t now = clock_us();
	for (int i = 0; i < 50; i++) {
		a[i] = (struct alarm){ .timer.fire = note_alarm, .bench = b, .index = i };
		loop_timer_set(b->loop, &a[i].timer, now + (int64_t)(draw(&seed) % 5000));
	}
	for (int i = 0; i < 50; i += 2) /* moved, to either side */
		loop_timer_set(b->loop, &a[i].timer, now + (int64_t)(draw(&seed) % 5000));
	for (int i = 0; i < 50; i += 5)
		loop_timer_stop(b->loop, &a[i].timer);
	struct alarm last = { .timer.fire = stop_by_alarm, .bench = b };
	loop_timer_set(b->loop, &last.timer, now + 6000);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->n_order, 40);
	for (int i = 1; i < b->n_order; i++) {
		assert_true(a[b->order[i - 1]].timer.due_us <= a[b->order[i]].timer.due_us);
		assert_int_not_equal(b->order[i] % 5, 0);
	}
}

static void set_again_in_the_past(struct timer *t)
{
	struct alarm *a = CONTAINER_OF(t, struct alarm, timer);
	a->index++;
	loop_timer_set(a->bench->loop, t, 0);
}

static void a_timer_that_is_always_due_leaves_the_sockets_their_turn(void **state)
{
	struct bench *b = *state;
	struct alarm a = { .timer.fire = set_again_in_the_past, .bench = b };
	loop_timer_set(b->loop, &a.timer, 0);
	watch(b, 0, LOOP_READ, note_and_stop_loop);
	assert_int_equal(write(b->pair[0][1], "x", 1), 1);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->seat[0].times, 1);
	loop_timer_stop(b->loop, &a.timer);
}

struct chore {
	struct task task;
	struct bench *bench;
	struct chore *other;
	int index;
};

static void run_note(struct task *t)
{
	struct chore *c = CONTAINER_OF(t, struct chore, task);
	c->bench->order[c->bench->n_order++] = c->index;
}

static void run_stop(struct task *t)
{
	struct chore *c = CONTAINER_OF(t, struct chore, task);
	loop_stop(c->bench->loop);
}

static void run_note_and_undefer_other(struct task *t)
{
	run_note(t);
	struct chore *c = CONTAINER_OF(t, struct chore, task);
	loop_undefer(c->bench->loop, &c->other->task);
}

static void run_again_until_woken(struct task *t)
{
	struct chore *c = CONTAINER_OF(t, struct chore, task);
	c->index++;
	loop_defer(c->bench->loop, t);
}

static void tasks_run_once_in_the_order_deferred(void **state)
{
	struct bench *b = *state;
	struct chore c[4];
	for (int i = 0; i < 4; i++) {
		c[i] = (struct chore){ .task.run = run_note, .bench = b, .index = i };
		loop_defer(b->loop, &c[i].task);
		loop_defer(b->loop, &c[i].task);
	}
	loop_undefer(b->loop, &c[1].task);
	loop_undefer(b->loop, &c[3].task); /* the last one: the list's end moves */
	loop_defer(b->loop, &c[1].task);
	struct chore last = { .task.run = run_stop, .bench = b };
	loop_defer(b->loop, &last.task);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->n_order, 3);
	assert_int_equal(b->order[0], 0);
	assert_int_equal(b->order[1], 2);
	assert_int_equal(b->order[2], 1);
}

static void a_task_may_undefer_the_next(void **state)
{
	struct bench *b = *state;
	struct chore second = { .task.run = run_note, .bench = b, .index = 2 };
	struct chore first = { .task.run = run_note_and_undefer_other, .bench = b, .index = 1, .other = &second };
	loop_defer(b->loop, &first.task);
	loop_defer(b->loop, &second.task);
	struct chore last = { .task.run = run_stop, .bench = b };
	loop_defer(b->loop, &last.task);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->n_order, 1);
}

static void a_task_that_defers_itself_leaves_the_sockets_their_turn(void **state)
{
	struct bench *b = *state;
	struct chore c = { .task.run = run_again_until_woken, .bench = b };
	loop_defer(b->loop, &c.task);
	watch(b, 0, LOOP_READ, note_and_stop_loop);
	assert_int_equal(write(b->pair[0][1], "x", 1), 1);
	assert_int_equal(loop_run(b->loop), 0);
	assert_int_equal(b->seat[0].times, 1);
	loop_undefer(b->loop, &c.task);
}

static void more_sockets_than_the_first_slots_are_watched(void **state)
{
	struct bench *b = *state;
	enum { MANY = 200 };
	static struct seat seats[MANY];
	int fd[MANY];
	memset(seats, 0, sizeof seats);
	for (int i = 0; i < MANY; i++) {
		fd[i] = dup(b->pair[0][0]);
		seats[i] = (struct seat){ .io.ready = note_and_stop_loop, .bench = b, .index = i };
		assert_int_equal(loop_io_start(b->loop, &seats[i].io, fd[i], LOOP_READ, false), 0);
	}
	assert_int_equal(write(b->pair[0][1], "x", 1), 1);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(loop_run(b->loop), 0);
	for (int i = 0; i < MANY; i++) {
		loop_io_stop(b->loop, &seats[i].io);
		close(fd[i]);
	}
}

int main(void)
{
#define LOOP_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		LOOP_TEST(a_byte_wakes_its_reader),
		LOOP_TEST(a_closed_peer_wakes_reader_and_writer),
		LOOP_TEST(changed_interest_is_what_counts),
		LOOP_TEST(a_regular_file_is_refused_with_eperm),
		LOOP_TEST(an_io_stopped_in_the_same_batch_is_not_called),
		LOOP_TEST(an_io_started_in_a_batch_does_not_get_a_stopped_ones_event),
		LOOP_TEST(timers_fire_in_order_and_never_early),
		LOOP_TEST(a_timer_that_is_always_due_leaves_the_sockets_their_turn),
		LOOP_TEST(tasks_run_once_in_the_order_deferred),
		LOOP_TEST(a_task_may_undefer_the_next),
		LOOP_TEST(a_task_that_defers_itself_leaves_the_sockets_their_turn),
		LOOP_TEST(more_sockets_than_the_first_slots_are_watched),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
