#include "config.h"

#include "folder.h"

#include "shm/lock.h"
#include "shm/published.h"

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };

struct board {
	_Atomic uint64_t current;
	struct lock lock;
};

static struct region *region;
static struct published *published;

static void open_it(void)
{
	region = region_open(&options);
	published = region ? published_open(region, AREA_CATALOG) : NULL;
	if (!published)
		_exit(1);
	region_ready(region);
}

static void close_it(void)
{
	published_close(published);
	region_close(region);
}

static struct lock *lock_of(struct region *r)
{
	size_t bytes;
	return &((struct board *)region_area(r, AREA_CATALOG, &bytes))->lock;
}

static void expect(const char *text, const char *tag, uint64_t serial, uint64_t stamp)
{
	struct buf out = BUF(1 << 23), t = BUF(1024);
	struct publication pub;
	assert_true(published_read(published, &out, &t, &pub));
	assert_same_view(buf_view(&out), view_of(text));
	assert_same_view(buf_view(&t), view_of(tag));
	assert_int_equal(pub.serial, serial);
	assert_int_equal(pub.stamp, stamp);
	assert_int_equal(published_serial(published), serial);
	buf_free(&out);
	buf_free(&t);
}

static void what_is_published_is_read_whole(void **state)
{
	(void)state;
	struct buf out = BUF(1024);
	struct publication pub;
	open_it();
	assert_int_equal(published_serial(published), 0);
	assert_false(published_read(published, &out, &out, &pub));
	assert_int_equal(published_write(published, region, VIEW("one"), VIEW("tag"), 7), PUBLISHED);
	expect("one", "tag", 1, 7);
	assert_int_equal(published_write(published, region, VIEW("12345678"), VIEW(""), 8), PUBLISHED);
	expect("12345678", "", 2, 8);
	assert_int_equal(published_write(published, region, VIEW("123456789"), VIEW("12345678"), 9), PUBLISHED);
	expect("123456789", "12345678", 3, 9);
	close_it();
	open_it();
	expect("123456789", "12345678", 3, 9); /* also after everyone has left */
	close_it();
	buf_free(&out);
}

static void a_stamp_is_of_one_text_alone(void **state)
{
	(void)state;
	uint64_t stamp = 0;
	open_it();
	assert_int_equal(published_write(published, region, VIEW("one"), VIEW("t"), 7), PUBLISHED);
	assert_true(published_stamp(published, 1, &stamp));
	assert_int_equal(stamp, 7);
	published_restamp(published, region, 1, 9);
	expect("one", "t", 1, 9);
	published_restamp(published, region, 2, 11);
	expect("one", "t", 1, 9);
	assert_int_equal(published_write(published, region, VIEW("two"), VIEW("t"), 12), PUBLISHED);
	assert_false(published_stamp(published, 1, &stamp));
	close_it();
}

static void a_text_larger_than_the_room_is_refused_and_leaves_the_old_one(void **state)
{
	(void)state;
	open_it();
	assert_int_equal(published_write(published, region, VIEW("one"), VIEW(""), 1), PUBLISHED);
	size_t n = (size_t)4 << 20;
	char *large = calloc(1, n + 4096);
	memset(large, 'x', n + 4096);
	assert_int_equal(published_write(published, region, view_make(large, n + 4096), VIEW(""), 2), PUBLISH_TOO_LARGE);
	assert_int_equal(published_write(published, region, VIEW("x"), view_make(large, 513), 2), PUBLISH_TOO_LARGE);
	expect("one", "", 1, 1);
	assert_int_equal(published_write(published, region, view_make(large, n - 64), view_make(large, 512), 2), PUBLISHED);
	struct buf out = BUF(1 << 23), tag = BUF(1024);
	struct publication pub;
	assert_true(published_read(published, &out, &tag, &pub));
	assert_same_view(buf_view(&out), view_make(large, n - 64));
	buf_free(&out);
	buf_free(&tag);
	free(large);
	close_it();
}

static void other_holds_the_lock(void)
{
	open_it();
	if (!lock_try(lock_of(region), region_me(region)))
		_exit(1);
}

static void the_lock_of_the_dead_is_freed_and_that_of_the_living_is_not(void **state)
{
	(void)state;
	pid_t pid = other(other_holds_the_lock);
	open_it();
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(published_write(published, region, VIEW("one"), VIEW(""), 1), PUBLISH_BUSY);
	assert_false(published_repair(published, region));
	end_other(pid);
	assert_int_equal(published_write(published, region, VIEW("one"), VIEW(""), 1), PUBLISH_BUSY);
	assert_true(published_repair(published, region));
	assert_int_equal(published_write(published, region, VIEW("one"), VIEW(""), 1), PUBLISHED);
	close_it();
	pid = other(other_holds_the_lock);
	end_other(pid);
	open_it(); /* alone: at once */
	assert_int_equal(published_write(published, region, VIEW("two"), VIEW(""), 2), PUBLISHED);
	expect("two", "", 2, 2);
	close_it();
}

static void a_text_that_somebody_wrote_into_is_not_read(void **state)
{
	(void)state;
	size_t bytes;
	struct buf out = BUF(1024), tag = BUF(1024);
	struct publication pub;
	open_it();
	assert_int_equal(published_write(published, region, VIEW("one text"), VIEW(""), 1), PUBLISHED);
	char *area = region_area(region, AREA_CATALOG, &bytes);
	char *at = memmem(area, bytes, "one text", 8);
	assert_non_null(at);
	at[4] = 'T';
	assert_false(published_read(published, &out, &tag, &pub));
	close_it();
	buf_free(&out);
	buf_free(&tag);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		folder_test(what_is_published_is_read_whole),
		folder_test(a_stamp_is_of_one_text_alone),
		folder_test(a_text_larger_than_the_room_is_refused_and_leaves_the_old_one),
		folder_test(the_lock_of_the_dead_is_freed_and_that_of_the_living_is_not),
		folder_test(a_text_that_somebody_wrote_into_is_not_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
