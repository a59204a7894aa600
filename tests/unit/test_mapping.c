#include "config.h"

#include "folder.h"

#include "shm/mapping.h"

enum { BYTES = 1 << 16 };

static char why[256];
static struct mapping theirs;

static bool good(const void *memory, size_t bytes)
{
	return bytes == BYTES && memcmp(memory, "good", 4) == 0;
}

static bool attach(struct mapping *m, const char *name)
{
	why[0] = '\0';
	int dir = mapping_folder(folder, true, why, sizeof why);
	if (dir < 0)
		return false;
	bool ok = mapping_attach(m, dir, name, BYTES, good, why, sizeof why);
	close(dir);
	if (ok && m->fresh)
		memcpy(m->memory, "good", 4);
	if (ok)
		mapping_ready(m);
	return ok;
}

static void attach_theirs(void)
{
	(void)attach(&theirs, "file");
}

static const char *path(const char *name)
{
	static char text[128];
	(void)snprintf(text, sizeof text, "%s/%s", folder, name);
	return text;
}

static void write_file(const char *name, size_t n, mode_t mode)
{
	FILE *f = fopen(path(name), "w");
	uint64_t seed = 88172645463325252u;
	assert_non_null(f);
	for (size_t i = 0; i < n; i++)
		(void)fputc((int)(draw(&seed) & 0xff), f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path(name), mode), 0);
}

static void the_first_finds_zeros_and_the_second_what_the_first_wrote(void **state)
{
	(void)state;
	struct mapping a, b;
	assert_true(attach(&a, "file"));
	assert_true(a.alone && a.fresh);
	((char *)a.memory)[BYTES - 1] = 'x';
	assert_true(attach(&b, "file"));
	assert_false(b.alone || b.fresh);
	assert_int_equal(((char *)b.memory)[BYTES - 1], 'x');
	mapping_detach(&a);
	mapping_detach(&b);
	assert_true(attach(&a, "file"));
	assert_true(a.alone);
	assert_false(a.fresh);
	assert_int_equal(((char *)a.memory)[BYTES - 1], 'x');
	mapping_detach(&a);
}

static void the_dead_leave_bytes_free(void **state)
{
	(void)state;
	struct mapping m;
	pid_t pid = other(attach_theirs);
	assert_true(attach(&m, "file"));
	assert_false(m.alone);
	end_other(pid);
	assert_true(mapping_byte_take(&m, 70));
	assert_false(mapping_byte_held(&m, 70)); /* ours */
	mapping_detach(&m);
}

static void take_70(void)
{
	if (!attach(&theirs, "file") || !mapping_byte_take(&theirs, 70))
		_exit(1);
}

static void a_stopped_holder_holds(void **state)
{
	(void)state;
	struct mapping m;
	pid_t pid = other(take_70);
	assert_true(attach(&m, "file"));
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_true(mapping_byte_held(&m, 70));
	assert_false(mapping_byte_take(&m, 70));
	end_other(pid);
	assert_false(mapping_byte_held(&m, 70));
	mapping_detach(&m);
}

static void hold_start(void)
{
	int dir = mapping_folder(folder, true, why, sizeof why);
	if (dir < 0 || !mapping_attach(&theirs, dir, "file", BYTES, good, why, sizeof why))
		_exit(1);
}

static void who_stops_while_he_attaches_keeps_others_for_a_second(void **state)
{
	(void)state;
	struct mapping m;
	pid_t pid = other(hold_start);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_false(attach(&m, "file"));
	assert_non_null(strstr(why, "somebody has been attaching"));
	end_other(pid);
	assert_true(attach(&m, "file"));
	assert_true(m.fresh); /* he did not come to writing */
	mapping_detach(&m);
}

static void random_bytes_become_zeros(void **state)
{
	(void)state;
	struct mapping m;
	write_file("file", BYTES, 0600);
	assert_true(attach(&m, "file"));
	assert_true(m.fresh);
	for (size_t i = 4; i < BYTES; i++)
		assert_int_equal(((char *)m.memory)[i], 0);
	mapping_detach(&m);
}

static void a_short_a_long_and_a_sparse_file_are_made_whole(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 100, BYTES + 1 };
	struct mapping m;
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		write_file("file", sizes[i], 0600);
		assert_true(attach(&m, "file"));
		assert_true(m.fresh);
		mapping_detach(&m);
	}
	write_file("file", 4, 0600);
	assert_int_equal(truncate(path("file"), BYTES), 0);
	assert_true(attach(&m, "file"));
	struct stat st;
	assert_int_equal(stat(path("file"), &st), 0);
	assert_true(st.st_blocks * 512 >= BYTES);
	mapping_detach(&m);
}

static void what_is_not_ours_alone_is_left_alone(void **state)
{
	(void)state;
	struct mapping m;
	write_file("other", 5, 0600);
	assert_int_equal(symlink("other", path("file")), 0);
	assert_false(attach(&m, "file"));
	assert_int_equal(unlink(path("file")), 0);

	char other_path[128];
	(void)snprintf(other_path, sizeof other_path, "%s", path("other"));
	assert_int_equal(link(other_path, path("file")), 0);
	assert_false(attach(&m, "file"));
	assert_non_null(strstr(why, "more than one name"));
	assert_int_equal(unlink(path("file")), 0);

	write_file("file", 5, 0644);
	assert_false(attach(&m, "file"));
	assert_non_null(strstr(why, "0600"));
	assert_int_equal(unlink(path("file")), 0);

	assert_int_equal(mkfifo(path("file"), 0600), 0);
	assert_false(attach(&m, "file"));
	assert_non_null(strstr(why, "plain file"));
	assert_int_equal(unlink(path("file")), 0);

	assert_int_equal(mkdir(path("file"), 0700), 0);
	assert_false(attach(&m, "file"));
	assert_int_equal(rmdir(path("file")), 0);

	struct stat st;
	assert_int_equal(stat(path("other"), &st), 0);
	assert_int_equal(st.st_size, 5);
	if (geteuid() != 0)
		return;
	write_file("file", 5, 0600);
	assert_int_equal(chown(path("file"), 1, 1), 0);
	assert_false(attach(&m, "file"));
	assert_non_null(strstr(why, "another user"));
}

static void a_folder_that_others_may_enter_is_refused(void **state)
{
	(void)state;
	assert_int_equal(chmod(folder, 0750), 0);
	assert_int_equal(mapping_folder(folder, true, why, sizeof why), -1);
	assert_non_null(strstr(why, "0700"));
	assert_int_equal(chmod(folder, 0700), 0);
	char sub[128];
	(void)snprintf(sub, sizeof sub, "%s", path("link"));
	assert_int_equal(symlink(folder, sub), 0);
	assert_int_equal(mapping_folder(sub, true, why, sizeof why), -1);
	(void)snprintf(sub, sizeof sub, "%s", path("none"));
	assert_int_equal(mapping_folder(sub, false, why, sizeof why), -1);
	assert_int_not_equal(access(sub, F_OK), 0);
}

static void a_file_cut_short_reads_as_zeros_and_is_noticed(void **state)
{
	(void)state;
	struct mapping m;
	assert_true(attach(&m, "file"));
	memset((char *)m.memory + 4096, 'x', 4096);
	assert_true(mapping_intact(&m));
	assert_int_equal(truncate(path("file"), 0), 0);
	assert_int_equal(((volatile char *)m.memory)[5000], 0);
	((volatile char *)m.memory)[5000] = 1;
	assert_false(mapping_intact(&m));
	assert_int_equal(truncate(path("file"), BYTES), 0);
	assert_false(mapping_intact(&m)); /* it was cut: what we see is ours alone */
	mapping_detach(&m);
}

static void a_file_unlinked_or_replaced_is_noticed(void **state)
{
	(void)state;
	struct mapping m;
	char other_path[128];
	assert_true(attach(&m, "file"));
	assert_int_equal(unlink(path("file")), 0);
	assert_false(mapping_intact(&m));
	write_file("other", BYTES, 0600);
	(void)snprintf(other_path, sizeof other_path, "%s", path("other"));
	assert_int_equal(rename(other_path, path("file")), 0);
	assert_false(mapping_intact(&m));
	mapping_detach(&m);
}

static void a_file_spoilt_while_others_use_it_loses_its_name_to_a_new_one(void **state)
{
	(void)state;
	struct mapping old, new, third;
	assert_true(attach(&old, "file"));
	assert_int_equal(truncate(path("file"), 100), 0);
	assert_true(attach(&new, "file"));
	assert_true(new.alone && new.fresh);
	assert_true(attach(&third, "file"));
	assert_false(third.alone);
	assert_false(mapping_intact(&old));
	assert_true(mapping_intact(&new) && mapping_intact(&third));
	mapping_detach(&old);
	mapping_detach(&new);
	mapping_detach(&third);
}

static void a_view_sees_and_changes_nothing(void **state)
{
	(void)state;
	struct mapping m, v;
	int dir = mapping_folder(folder, true, why, sizeof why);
	assert_false(mapping_view(&v, dir, "file", BYTES, why, sizeof why));
	assert_int_not_equal(access(path("file"), F_OK), 0);
	assert_true(attach(&m, "file"));
	assert_true(mapping_byte_take(&m, 80));
	assert_true(mapping_view(&v, dir, "file", BYTES, why, sizeof why));
	assert_memory_equal(v.memory, "good", 4);
	assert_true(mapping_byte_held(&v, 80));
	mapping_detach(&m);
	assert_false(mapping_byte_held(&v, 80));
	assert_true(attach(&m, "file"));
	assert_true(m.alone); /* the view does not count */
	mapping_detach(&m);
	mapping_detach(&v);
	close(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		folder_test(the_first_finds_zeros_and_the_second_what_the_first_wrote),
		folder_test(the_dead_leave_bytes_free),
		folder_test(a_stopped_holder_holds),
		folder_test(who_stops_while_he_attaches_keeps_others_for_a_second),
		folder_test(random_bytes_become_zeros),
		folder_test(a_short_a_long_and_a_sparse_file_are_made_whole),
		folder_test(what_is_not_ours_alone_is_left_alone),
		folder_test(a_folder_that_others_may_enter_is_refused),
		folder_test(a_file_cut_short_reads_as_zeros_and_is_noticed),
		folder_test(a_file_unlinked_or_replaced_is_noticed),
		folder_test(a_file_spoilt_while_others_use_it_loses_its_name_to_a_new_one),
		folder_test(a_view_sees_and_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
