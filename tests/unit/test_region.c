#include "config.h"

#include "folder.h"

#include "shm/region.h"

static const struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };

static struct region *open_ready(void)
{
	struct region *r = region_open(&options);
	if (r)
		region_ready(r);
	return r;
}

static void other_opens(void)
{
	if (!open_ready())
		_exit(1);
}

static void workers_see_one_memory_and_each_has_a_slot(void **state)
{
	(void)state;
	size_t bytes;
	struct region *a = open_ready(), *b = open_ready();
	assert_true(region_is_shared(a) && region_alone(a) && region_fresh(a));
	assert_true(region_is_shared(b) && !region_alone(b) && !region_fresh(b));
	assert_int_not_equal(region_me(a), region_me(b));
	((char *)region_area(a, AREA_KEYS, &bytes))[bytes - 1] = 'x';
	assert_int_equal(((char *)region_area(b, AREA_KEYS, &bytes))[bytes - 1], 'x');
	region_slot(a)->connections = 7;
	assert_int_equal(region_slot_at(b, (unsigned)(region_me(a) & 0xffff) - 1)->connections, 7);
	region_close(a);
	region_close(b);
}

static void a_holder_is_dead_once_his_process_is_and_when_the_slot_is_another_ones(void **state)
{
	(void)state;
	pid_t pid = other(other_opens);
	struct region *r = open_ready();
	uint64_t dead = (uint64_t)region_slot_at(r, 0)->epoch << 16 | 1;
	assert_true(region_holder_alive(r, dead));
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_true(region_holder_alive(r, dead));
	end_other(pid);
	assert_false(region_holder_alive(r, dead));
	pid = other(other_opens);
	assert_true(region_slot_alive(r, 0));
	assert_false(region_holder_alive(r, dead));
	assert_true(region_holder_alive(r, (uint64_t)region_slot_at(r, 0)->epoch << 16 | 1));
	end_other(pid);
	region_close(r);
}

static void no_word_names_a_holder_by_accident(void **state)
{
	(void)state;
	struct region *r = open_ready();
	static const uint64_t words[] = { UINT64_MAX, 0x10000, 0xffff, REGION_SLOTS + 1, 1 };
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		assert_false(region_holder_alive(r, words[i]));
	assert_true(region_holder_alive(r, region_me(r)));
	region_close(r);
}

static void an_epoch_that_wraps_is_no_zero_word(void **state)
{
	(void)state;
	struct region *a = open_ready(), *b;
	region_slot_at(a, 1)->epoch = UINT32_MAX;
	b = open_ready();
	assert_int_equal(region_slot(b)->epoch, 0);
	assert_int_not_equal(region_me(b), 0);
	assert_true(region_holder_alive(a, region_me(b)));
	region_close(b);
	region_close(a);
}

static void more_workers_than_slots_have_private_memory_and_say_so(void **state)
{
	(void)state;
	static struct region *all[REGION_SLOTS];
	for (int i = 0; i < REGION_SLOTS; i++) {
		all[i] = open_ready();
		assert_true(region_is_shared(all[i]));
	}
	struct region *one_more = open_ready();
	assert_false(region_is_shared(one_more));
	assert_non_null(strstr(region_note(one_more).p, "slots are taken"));
	region_close(one_more);
	for (int i = 0; i < REGION_SLOTS; i++)
		region_close(all[i]);
}

static void a_region_that_cannot_be_had_is_private_memory_of_the_same_form(void **state)
{
	(void)state;
	assert_int_equal(chmod(folder, 0755), 0);
	size_t bytes;
	struct region *r = open_ready();
	assert_false(region_is_shared(r));
	assert_true(region_alone(r) && region_fresh(r) && region_intact(r));
	char *area = region_area(r, AREA_CATALOG, &bytes);
	memset(area, 1, bytes);
	region_close(r);
}

static void a_head_that_was_overwritten_is_noticed(void **state)
{
	(void)state;
	struct region *r = open_ready();
	size_t bytes;
	assert_true(region_intact(r));
	char *head = (char *)region_slot_at(r, 0) - 4096;
	memset(head, 0, 64);
	assert_false(region_intact(r));
	(void)region_area(r, AREA_KEYS, &bytes);
	region_close(r);
}

static void a_view_takes_no_slot_and_is_readable_by_people(void **state)
{
	(void)state;
	char why[256], *text;
	size_t n;
	assert_null(region_view(&options, why, sizeof why));
	struct region *r = open_ready(), *v = region_view(&options, why, sizeof why);
	assert_non_null(v);
	FILE *f = open_memstream(&text, &n);
	region_describe(v, f);
	(void)fclose(f);
	assert_non_null(strstr(text, "layout"));
	assert_non_null(strstr(text, "worker      slot 0, pid"));
	assert_null(strstr(text, "slot 1"));
	free(text);
	region_close(v);
	assert_true(region_slot_alive(r, 0));
	assert_int_not_equal(region_slot(r)->pid, 0);
	region_close(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		folder_test(workers_see_one_memory_and_each_has_a_slot),
		folder_test(a_holder_is_dead_once_his_process_is_and_when_the_slot_is_another_ones),
		folder_test(no_word_names_a_holder_by_accident),
		folder_test(an_epoch_that_wraps_is_no_zero_word),
		folder_test(more_workers_than_slots_have_private_memory_and_say_so),
		folder_test(a_region_that_cannot_be_had_is_private_memory_of_the_same_form),
		folder_test(a_head_that_was_overwritten_is_noticed),
		folder_test(a_view_takes_no_slot_and_is_readable_by_people),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
