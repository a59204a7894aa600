#include "config.h"

#include "folder.h"

#include "answers.h"

enum { MIB = 1 << 20, NOW = 1000000 };

static struct region_options options = { .folder = folder, .instance = "0123456789abcdef" };
static struct region *region;
static struct store *store;

static void open_it(void)
{
	region = region_open(&options);
	store = region ? store_open(region) : NULL;
	if (!store)
		_exit(1);
	region_ready(region);
}

static void close_it(void)
{
	store_close(store);
	region_close(region);
}

/* Memory of our own, of one shard, is quicker to come by. */
static int setup(void **state)
{
	(void)state;
	options.folder = "/nowhere/at/all";
	options.store_bytes = MIB;
	open_it();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close_it();
	return 0;
}

static void reopen(size_t store_bytes)
{
	close_it();
	options.store_bytes = store_bytes;
	open_it();
}

static uint64_t hash_of(unsigned n)
{
	char key[16];
	return store_hash(store, view_make(key, (size_t)snprintf(key, sizeof key, "%u", n)));
}

static bool put(unsigned n, int64_t asked_us)
{
	return answer_put(store, hash_of(n), n, asked_us, 0);
}

/* When it was asked for, or 0. */
static int64_t found_by(uint64_t hash, unsigned n)
{
	struct store_entry e;
	struct store_ref ref;
	enum answer_found what = answer_find(store, hash, n, &e, &ref);
	assert_int_not_equal(what, ANSWER_WRONG);
	if (what == ANSWER_WHOLE)
		store_used(store, &ref, 0);
	return what == ANSWER_WHOLE ? e.asked_us : 0;
}

static int64_t found(unsigned n)
{
	return found_by(hash_of(n), n);
}

/* What store_describe() says of entries, KiB in use, KiB there are and locks held. */
static void described(unsigned long long n[5])
{
	char *text;
	size_t length;
	FILE *f = open_memstream(&text, &length);
	store_describe(store, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(sscanf(text, "store %llu shards, %llu entries, %llu of %llu KiB in use, locks held: %llu", &n[0], &n[1],
	                        &n[2], &n[3], &n[4]), 5);
	free(text);
}

static _Atomic uint64_t *lock_word(void)
{
	size_t bytes;
	return (_Atomic uint64_t *)(void *)((char *)region_area(region, AREA_STORE, &bytes) + ANSWERS_FIRST_SHARD);
}

static uint64_t somebody_dead(void)
{
	return (uint64_t)12345 << 16 | 7;
}

/* --- what is put is found --- */

static void comes_back(size_t n_key, size_t n_head, size_t n_body, uint64_t hash)
{
	size_t room = n_body + 8;
	struct store_entry e = { .asked_us = NOW, .n_tags = (uint8_t)(n_body % (STORE_TAGS_MAX + 1)), .n_etag = 5 }, got;
	struct store_ref ref;
	char *key = malloc(n_key + 8), *head = malloc(n_head + 8), *body = malloc(room), *out = malloc(room);
	char *head_out = malloc(n_head + 7);
	assert_true(key && head && body && out && head_out);
	answers_fill(key, n_key, n_key);
	answers_fill(head, n_head, n_body + 1);
	answers_fill(body, n_body, n_body + 2);
	answers_fill((char *)e.tags, sizeof *e.tags * e.n_tags, 9);
	memcpy(e.etag, "etag!", 5);
	assert_true(store_put(store, hash, view_make(key, n_key), &e, view_make(head, n_head), view_make(body, n_body)));
	assert_true(store_find(store, hash, view_make(key, n_key), &got, &ref));
	assert_int_equal(got.n_key, n_key);
	assert_int_equal(got.n_head, n_head);
	assert_int_equal(got.n_body, n_body);
	assert_int_equal(got.n_tags, e.n_tags);
	assert_memory_equal(got.tags, e.tags, e.n_tags * sizeof *e.tags);
	assert_memory_equal(got.etag, "etag!", 5);
	assert_true(store_copy(store, &ref, &got, head_out, out));
	assert_memory_equal(head_out, head, n_head);
	assert_memory_equal(out, body, n_body);
	assert_true(store_copy(store, &ref, &got, NULL, NULL));
	free(key), free(head), free(body), free(out), free(head_out);
}

static void what_is_put_is_found_byte_for_byte_whatever_its_size(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 7, 8, 9, 500, 511, 512, 513, 800, 1023, 1024, 1025, 2047, 2048, 2049, 5000, 65536 };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t j = 0; j < 13; j++)
			comes_back(sizes[j], sizes[(i * 7 + j) % 13], sizes[i], i * 1000 + j + 1);
	for (size_t n = 880; n < 1060; n++)
		comes_back(11, 3, n, n);
	comes_back(STORE_KEY_MAX, 10, 10, 5);
	comes_back(0, 0, store_bytes_max(store), 6);
	comes_back(100, 100, store_bytes_max(store) - 200, 7);
}

static void what_is_too_large_is_refused(void **state)
{
	(void)state;
	size_t most = store_bytes_max(store);
	char *text = calloc(1, most + 1);
	struct store_entry e = { .asked_us = NOW };
	struct store_ref ref;
	assert_true(text && most > 100000);
	assert_false(store_put(store, 5, VIEW(""), &e, VIEW_NONE, view_make(text, most + 1)));
	assert_false(store_put(store, 5, VIEW("k"), &e, VIEW_NONE, view_make(text, most)));
	assert_false(store_put(store, 5, VIEW(""), &e, VIEW("h"), view_make(text, most)));
	assert_false(store_put(store, 5, view_make(text, STORE_KEY_MAX + 1), &e, VIEW_NONE, VIEW_NONE));
	e.n_tags = STORE_TAGS_MAX + 1;
	assert_false(store_put(store, 5, VIEW("key"), &e, VIEW_NONE, VIEW_NONE));
	assert_int_equal(store_counted(store, STORE_REFUSED), 5);
	assert_false(store_find(store, 5, VIEW("key"), &e, &ref));
	free(text);
}

static void keys_of_one_hash_are_told_apart_by_all_their_bytes(void **state)
{
	(void)state;
	struct store_entry e = { .asked_us = NOW }, got;
	struct store_ref ref;
	char one[2000], two[2000], body[16];
	/* The difference in each place, also behind the first piece and the first block. */
	for (size_t at = 0; at < sizeof one; at += at < 10 ? 1 : 97) {
		memset(one, 'a', sizeof one);
		memcpy(two, one, sizeof two);
		two[at] = 'b';
		struct view key = view_make(one, sizeof one), other = view_make(two, sizeof two);
		uint64_t hash = at + 1;
		assert_true(store_put(store, hash, key, &e, VIEW_NONE, VIEW("one")));
		assert_false(store_find(store, hash, other, &got, &ref));
		assert_false(store_find(store, hash, view_make(one, sizeof one - 1), &got, &ref));
		assert_true(store_put(store, hash, other, &e, VIEW_NONE, VIEW("two")));
		assert_true(store_find(store, hash, key, &got, &ref) && store_copy(store, &ref, &got, NULL, body));
		assert_memory_equal(body, "one", 3);
		assert_true(store_find(store, hash, other, &got, &ref) && store_copy(store, &ref, &got, NULL, body));
		assert_memory_equal(body, "two", 3);
	}
}

static void hundreds_of_keys_of_one_hash_never_give_each_others_answer(void **state)
{
	(void)state;
	unsigned known = 0;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned n = 0; n < 300; n++) {
			assert_true(answer_put(store, 1, n, NOW + round, 0));
			known += found_by(1, n) != 0;
		}
		for (unsigned n = 0; n < 300; n++)
			(void)found_by(1, n);
	}
	assert_true(known > 300);
}

static void an_answer_is_replaced_by_a_larger_and_by_a_smaller_one(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 40; n++)
		assert_true(put(n, NOW));
	for (int64_t later = 1; later < 300; later++) { /* each of another size */
		unsigned n = (unsigned)(later * 7 % 40);
		assert_true(put(n, NOW + later));
		assert_int_equal(found(n), NOW + later);
	}
	unsigned long long said[5];
	described(said);
	assert_int_equal(said[1], 40);
	/* As large as it gets, in a full store, and small again. */
	for (unsigned n = 1000; n < 2500; n++)
		(void)put(n, NOW);
	comes_back(20, 100, 10, 77);
	comes_back(20, 100, store_bytes_max(store) - 120, 77);
	comes_back(20, 100, 10, 77);
	described(said);
	assert_true(said[2] >= said[3] * 70 / 100);
}

static void an_older_answer_does_not_replace_a_newer_one(void **state)
{
	(void)state;
	assert_true(put(1, NOW + 2));
	(void)put(1, NOW + 1);
	assert_int_equal(found(1), NOW + 2);
	assert_true(put(1, NOW + 3));
	assert_int_equal(found(1), NOW + 3);
}

static void what_was_found_is_worth_nothing_once_it_is_replaced(void **state)
{
	(void)state;
	struct answer a;
	struct store_entry e, later;
	struct store_ref ref, other;
	assert_true(put(1, NOW));
	assert_int_equal(answer_find(store, hash_of(1), 1, &e, &ref), ANSWER_WHOLE);
	assert_true(put(1, NOW + 1));
	assert_false(store_copy(store, &ref, &e, a.head, a.body));
	assert_int_equal(answer_find(store, hash_of(1), 1, &later, &other), ANSWER_WHOLE);
	store_used(store, &ref, NOW + 50000000); /* of the old one: it says nothing of the new one */
	assert_int_equal(answer_find(store, hash_of(1), 1, &later, &other), ANSWER_WHOLE);
	assert_int_equal(other.confirmed_us, NOW + 1);
	store_used(store, &other, NOW + 50000000);
	assert_int_equal(answer_find(store, hash_of(1), 1, &later, &other), ANSWER_WHOLE);
	assert_int_equal(other.confirmed_us, NOW + 50000000);
}

static void what_is_over_is_dropped_unless_it_is_newer(void **state)
{
	(void)state;
	struct answer a;
	struct view key = answer_key(&a, 1);
	assert_true(put(1, NOW));
	assert_true(put(2, NOW));
	store_drop(store, hash_of(1), key, NOW - 1);
	assert_int_equal(found(1), NOW);
	store_drop(store, hash_of(1), key, NOW);
	assert_int_equal(found(1), 0);
	store_drop(store, hash_of(1), key, NOW);
	assert_int_equal(found(2), NOW);
	assert_true(put(1, NOW + 1));
	assert_int_equal(found(1), NOW + 1);
}

/* --- a full one --- */

static void a_full_store_gives_up_entries_and_is_well_filled(void **state)
{
	(void)state;
	static const size_t sizes[] = { MIB, 3 * MIB, 20 * MIB };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		unsigned long long said[5];
		reopen(sizes[i]);
		unsigned many = (unsigned)(sizes[i] / 1024), late = 0;
		for (unsigned n = 0; n < many; n++) {
			assert_true(put(n, NOW));
			assert_int_equal(found(n), NOW);
		}
		described(said);
		assert_true(said[2] >= said[3] * 90 / 100);
		assert_true(said[3] * 1024 >= sizes[i] * 85 / 100);
		assert_int_equal(store_counted(store, STORE_STORED), many);
		assert_int_equal(store_counted(store, STORE_EVICTED), many - said[1]);
		for (unsigned n = many - 100; n < many; n++)
			late += found(n) != 0;
		assert_true(late > 70);
	}
}

static void many_small_answers_fill_the_slots(void **state)
{
	(void)state;
	struct store_entry e = { .asked_us = NOW };
	unsigned long long said[5];
	for (unsigned n = 0; n < 3000; n++) {
		char key[16];
		assert_true(store_put(store, hash_of(n), view_make(key, (size_t)snprintf(key, sizeof key, "%u", n)), &e, VIEW_NONE,
		                      VIEW("small")));
	}
	described(said);
	assert_true(said[1] >= said[3] * 70 / 100);
}

static void what_is_read_often_stays_through_a_scan(void **state)
{
	(void)state;
	enum { OFTEN = 60, SCAN = 6000 };
	unsigned left = 0, scanned = 0;
	for (unsigned n = 0; n < OFTEN; n++)
		assert_true(put(n, NOW));
	for (unsigned n = 0; n < OFTEN * 3; n++)
		assert_int_equal(found(n % OFTEN), NOW);
	for (unsigned n = 0; n < SCAN; n++) {
		assert_true(put(10000 + n, NOW));
		if (n % 5 == 0)
			(void)found(n / 5 % OFTEN);
	}
	for (unsigned n = 0; n < OFTEN; n++)
		left += found(n) != 0;
	for (unsigned n = 0; n < SCAN; n++)
		scanned += found(10000 + n) != 0;
	assert_int_equal(left, OFTEN);
	assert_true(scanned < SCAN / 10);
}

/* What was given up unread and comes again is no passer-by. */
static void what_comes_again_soon_outlives_what_comes_once(void **state)
{
	(void)state;
	unsigned again = 0, once = 0;
	for (unsigned n = 0; n < 1500; n++)
		assert_true(put(n, NOW));
	for (unsigned n = 1300; n-- > 1200;) /* given up lately: most of them still are remembered */
		if (!found(n))
			(void)put(n, NOW + 1);
	for (unsigned n = 2000; n < 2100; n++)
		(void)put(n, NOW);
	for (unsigned n = 3000; n < 3200; n++)
		(void)put(n, NOW);
	for (unsigned n = 0; n < 100; n++) {
		again += found(1200 + n) == NOW + 1;
		once += found(2000 + n) != 0;
	}
	assert_true(again > once + 20);
}

/* --- locks --- */

static void a_lock_that_is_held_refuses_and_readers_go_on(void **state)
{
	(void)state;
	unsigned long long said[5];
	assert_true(put(1, NOW));
	*lock_word() = region_me(region); /* somebody alive: for want of another, ourselves */
	described(said);
	assert_int_equal(said[4], 1);
	assert_false(put(1, NOW + 1));
	assert_false(put(2, NOW));
	assert_int_equal(found(1), NOW);
	assert_int_equal(found(2), 0);
	assert_int_equal(store_repair(store), 0);
	assert_false(put(2, NOW));
	assert_int_equal(store_counted(store, STORE_REFUSED), 3);
	*lock_word() = 0;
	assert_true(put(2, NOW));
	assert_int_equal(found(2), NOW);
}

static void a_shard_whose_writer_is_dead_is_emptied_and_works_again(void **state)
{
	(void)state;
	unsigned long long said[5];
	for (unsigned n = 0; n < 50; n++)
		assert_true(put(n, NOW));
	*lock_word() = somebody_dead();
	assert_false(put(50, NOW));
	assert_int_equal(store_repair(store), 1);
	assert_int_equal(store_repair(store), 0);
	described(said);
	assert_int_equal(said[1], 0);
	assert_int_equal(said[2], 0);
	assert_int_equal(said[4], 0);
	for (unsigned n = 0; n < 1500; n++) {
		assert_true(put(n, NOW + 1));
		assert_int_equal(found(n), NOW + 1);
	}
}

#ifdef TEST_POINTS
static const char *point;

static void dies_while_writing(void)
{
	(void)setenv("COMPOSURE_POINT", point, 1);
	close_it(); /* what was inherited */
	open_it();
	for (unsigned n = 0; n < 5000; n++)
		(void)put(n % 1200, NOW + 1 + n);
	_exit(0);
}

static void whoever_dies_while_writing_costs_a_shard_and_no_wrong_answer(void **state)
{
	(void)state;
	static const char *const points[] = { "store-locked:kill:40",  "store-writing:kill",    "store-writing:kill:700",
					      "store-writing:kill:1900", "store-evicting:kill",   "store-evicting:kill:500",
					      "store-written:kill",    "store-written:kill:900" };
	assert_int_equal(new_folder(NULL), 0);
	close_it();
	options.folder = folder;
	open_it();
	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		int status;
		for (unsigned n = 0; n < 300; n++)
			(void)put(n, NOW);
		point = points[i];
		pid_t pid = other(dies_while_writing);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		for (unsigned n = 0; n < 1200; n++)
			(void)found(n);
		assert_false(put(7, NOW + 9999));
		assert_int_equal(store_repair(store), 1);
		for (unsigned n = 0; n < 1200; n++)
			assert_int_equal(found(n), 0);
		for (unsigned n = 0; n < 1200; n++) {
			assert_true(put(n, NOW));
			assert_int_equal(found(n), NOW);
		}
	}
	assert_int_equal(remove_folder(NULL), 0);
}
#endif

/* --- whatever is in it --- */

static void find_anything(unsigned n)
{
	static struct answer a;
	struct store_entry e;
	struct store_ref ref;
	if (!store_find(store, hash_of(n), answer_key(&a, n), &e, &ref))
		return;
	/* Room for exactly what is said: the sanitizer is the judge. */
	assert_true(e.n_head <= MIB && e.n_body <= MIB);
	char *head = malloc(e.n_head + (size_t)7), *body = malloc(e.n_body + (size_t)7);
	assert_true(head && body);
	if (store_copy(store, &ref, &e, head, body))
		store_used(store, &ref, NOW + 5000000);
	free(head);
	free(body);
}

static uint32_t any_word(uint64_t *rng, uint32_t was)
{
	switch (draw(rng) % 6) {
	case 0: return (uint32_t)draw(rng);
	case 1: return 0;
	case 2: return UINT32_MAX - (uint32_t)(draw(rng) % 3);
	case 3: return was + (uint32_t)(draw(rng) % 3) - 1;
	default: return (uint32_t)(draw(rng) % 1100); /* a slot, a block, or just not */
	}
}

/* Words of what is not data most of all. */
static void spoil(uint64_t *rng)
{
	size_t bytes;
	uint32_t *word = region_area(region, AREA_STORE, &bytes);
	size_t front = 70000 / sizeof *word, from = ANSWERS_FIRST_SHARD / sizeof *word, at;
	switch (draw(rng) % 10) {
	case 0: at = draw(rng) % (bytes / sizeof *word); break;
	case 1: at = from + 2 + draw(rng) % 14; break; /* the shard's head, but for its lock */
	default: at = from + 2 + draw(rng) % front; break;
	}
	word[at] = any_word(rng, word[at]);
}

static void random_words_in_it_harm_nobody(void **state)
{
	(void)state;
	uint64_t rng = 20261124;
	unsigned kept = 0;
	(void)alarm(120);
	for (unsigned round = 0; round < 2500; round++) {
		for (unsigned i = 0; i < draw(&rng) % 6; i++)
			spoil(&rng);
		for (unsigned i = 0; i < 30; i++)
			find_anything((unsigned)(draw(&rng) % 900));
		for (unsigned i = 0; i < 3; i++)
			kept += put((unsigned)(draw(&rng) % 900), NOW + round);
		(void)store_repair(store);
	}
	(void)alarm(0);
	assert_true(kept > 3500);
	/* And once more in order, it is as good as new. */
	*lock_word() = somebody_dead();
	assert_int_equal(store_repair(store), 1);
	for (unsigned n = 0; n < 2000; n++) {
		assert_true(put(n, NOW));
		assert_int_equal(found(n), NOW);
	}
}

static void an_area_of_random_bytes_harms_nobody(void **state)
{
	(void)state;
	uint64_t rng = 99;
	size_t bytes;
	uint64_t *word = region_area(region, AREA_STORE, &bytes);
	(void)alarm(120);
	for (unsigned round = 0; round < 10; round++) {
		for (size_t i = 0; i < bytes / sizeof *word; i++)
			word[i] = round % 2 ? draw(&rng) : draw(&rng) % 1000 | (draw(&rng) % 1000) << 32;
		for (unsigned n = 0; n < 300; n++) {
			(void)put(n, NOW);
			find_anything(n);
		}
		(void)store_repair(store);
		for (unsigned n = 0; n < 300; n++) {
			(void)put(n, NOW);
			find_anything(n);
		}
	}
	(void)alarm(0);
}

/* --- its size --- */

static void without_room_nothing_is_kept_or_counted(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 4096, 20480, 200000 };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		reopen(sizes[i]);
		assert_int_equal(store_bytes_max(store), 0);
		assert_false(put(1, NOW));
		assert_int_equal(found(1), 0);
		store_count(store, STORE_HIT);
		assert_int_equal(store_counted(store, STORE_HIT), 0);
		assert_int_equal(store_repair(store), 0);
	}
}

/* store_open() asserts that the parts of each shard fit; here they are used up to their ends. */
static void every_size_is_used_and_never_left(void **state)
{
	(void)state;
	for (size_t size = 250000; size < (size_t)310 * MIB; size += size < 5 * MIB ? 100000 : size / 2 + 4096) {
		reopen(size);
		size_t most = store_bytes_max(store);
		if (size < 290000 && most == 0)
			continue;
		assert_true(most >= 40000 && most <= (size < 8u * MIB ? size : 8u * MIB) / 4);
		unsigned long long said[5];
		described(said);
		size_t shards = (size - ANSWERS_FIRST_SHARD) / (4 * MIB);
		assert_in_range(said[0], shards ? shards : 1, shards + 1);
		assert_true(said[3] * 1024 >= size * 80 / 100 && said[3] * 1024 < size);
		for (unsigned n = 0; n < 300; n++) {
			assert_true(put(n, NOW));
			assert_int_equal(found(n), NOW);
		}
		comes_back(0, 0, most, 1);
		comes_back(0, 0, most, UINT64_MAX);
	}
}

static void what_is_counted_is_the_sum_of_all(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5; i++)
		store_count(store, STORE_HIT);
	store_count(store, STORE_INVALIDATED);
	assert_int_equal(store_counted(store, STORE_HIT), 5);
	assert_int_equal(store_counted(store, STORE_INVALIDATED), 1);
	assert_int_equal(store_counted(store, STORE_MISS), 0);
}

#define store_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(what_is_put_is_found_byte_for_byte_whatever_its_size),
		store_test(what_is_too_large_is_refused),
		store_test(keys_of_one_hash_are_told_apart_by_all_their_bytes),
		store_test(hundreds_of_keys_of_one_hash_never_give_each_others_answer),
		store_test(an_answer_is_replaced_by_a_larger_and_by_a_smaller_one),
		store_test(an_older_answer_does_not_replace_a_newer_one),
		store_test(what_was_found_is_worth_nothing_once_it_is_replaced),
		store_test(what_is_over_is_dropped_unless_it_is_newer),
		store_test(a_full_store_gives_up_entries_and_is_well_filled),
		store_test(many_small_answers_fill_the_slots),
		store_test(what_is_read_often_stays_through_a_scan),
		store_test(what_comes_again_soon_outlives_what_comes_once),
		store_test(a_lock_that_is_held_refuses_and_readers_go_on),
		store_test(a_shard_whose_writer_is_dead_is_emptied_and_works_again),
#ifdef TEST_POINTS
		store_test(whoever_dies_while_writing_costs_a_shard_and_no_wrong_answer),
#endif
		store_test(random_words_in_it_harm_nobody),
		store_test(an_area_of_random_bytes_harms_nobody),
		store_test(without_room_nothing_is_kept_or_counted),
		store_test(every_size_is_used_and_never_left),
		store_test(what_is_counted_is_the_sum_of_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
