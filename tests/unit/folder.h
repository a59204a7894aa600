/* folder: a test's own folder for shared files, and other processes that use them. */
#ifndef COMPOSURE_FOLDER_H
#define COMPOSURE_FOLDER_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

static char folder[64];

static inline int new_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/cmps-unit-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
	(void)state;
	char command[128];
	(void)snprintf(command, sizeof command, "rm -rf %s", folder);
	return system(command);
}

#define folder_test(f) cmocka_unit_test_setup_teardown(f, new_folder, remove_folder)

/* Another process that calls f and then lives until it is killed. Returns when f has returned. */
static inline pid_t other(void (*f)(void))
{
	int done[2];
	assert_int_equal(pipe(done), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(done[0]);
		f();
		close(done[1]);
		for (;;)
			pause();
	}
	char c;
	close(done[1]);
	assert_int_equal(read(done[0], &c, 1), 0);
	close(done[0]);
	return pid;
}

static inline void end_other(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

#endif
